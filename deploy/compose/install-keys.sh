#!/bin/sh
# Usage: install-keys.sh SECRETS KEYS
# Installs certificates, keys and logins from SECRETS for Mosquitto and PostgreSQL, each readable by its server alone.
# MOSQUITTO_OWNER and POSTGRES_OWNER are their users, as UID:GID. Passwords of the broker's logins are hashed here.
set -eu
secrets=$1 keys=$2
acl=${ACL:-/acl} fleet_acl=${FLEET_ACL:-/fleet.acl}

install_file() { # FROM TO OWNER
  cp "$1" "$2.new"
  chmod 400 "$2.new"
  chown "$3" "$2.new"
  mv -f "$2.new" "$2"
}

mkdir -p "$keys/mosquitto/certs" "$keys/mosquitto-data" "$keys/postgres"

for server in mosquitto/certs postgres; do
  case $server in mosquitto*) owner=$MOSQUITTO_OWNER ;; *) owner=$POSTGRES_OWNER ;; esac
  install_file "$secrets/${server%/certs}.crt" "$keys/$server/server.crt" "$owner"
  install_file "$secrets/${server%/certs}.key" "$keys/$server/server.key" "$owner"
done

work=$keys/mosquitto/.work
rm -rf "$work"
mkdir -m 700 "$work"
cat "$acl" "$fleet_acl" >"$work/acl"
cp "$secrets/mosquitto.logins" "$work/passwords"
chmod 600 "$work/passwords"
mosquitto_passwd -U "$work/passwords"
install_file "$work/acl" "$keys/mosquitto/rollwave.acl" "$MOSQUITTO_OWNER"
install_file "$work/passwords" "$keys/mosquitto/rollwave.passwords" "$MOSQUITTO_OWNER"
rm -rf "$work"

chmod 700 "$keys/mosquitto" "$keys/mosquitto/certs" "$keys/mosquitto-data" "$keys/postgres"
chown "$MOSQUITTO_OWNER" "$keys/mosquitto" "$keys/mosquitto/certs" "$keys/mosquitto-data"
chown "$POSTGRES_OWNER" "$keys/postgres"
