#!/bin/sh
# Users of the broker: `permissions.sh engine`, or `permissions.sh device TENANT DEVICE`. The password is asked for.
# In a routing key, a topic's / is a dot: an id with a dot in it could pass for another, and is refused.
set -eu

mqtt() { # user, what it publishes, what it subscribes to
  rabbitmqctl add_user "$1"
  rabbitmqctl set_permissions "$1" '^mqtt-subscription-' '^(amq\.topic|mqtt-subscription-.*)$' \
    '^(amq\.topic|mqtt-subscription-.*)$'
  rabbitmqctl set_topic_permissions "$1" amq.topic "$2" "$3"
}

case "$*" in
engine)
  mqtt rollwave '^tenant\.[^.]+\.device\.[^.]+\.ota$' '^tenant\.[^.]+\.device\.[^.]+\.ota\.(status|get)$'
  rabbitmqctl set_policy reports '^mqtt-subscription-' '{"max-length": 100000}' --apply-to queues
  ;;
device\ *)
  case "$2$3" in *[!A-Za-z0-9:_-]*) echo "no such ids on RabbitMQ: $2 $3" >&2; exit 2 ;; esac
  own="^tenant\.$2\.device\.$3\.ota"
  mqtt "$2/device/$3" "$own\.(status|get)\$" "$own\$"
  ;;
*)
  sed -n 2p "$0" >&2
  exit 2
  ;;
esac
