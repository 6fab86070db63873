#!/bin/sh
# At the first start: the schema's owner, the engine's login, and their database. Passwords come from the environment.
set -eu
psql --set=ON_ERROR_STOP=1 --no-psqlrc --username=postgres --dbname=postgres <<'SQL'
\getenv owner_password ROLLWAVE_OWNER_PASSWORD
\getenv engine_password ROLLWAVE_ENGINE_PASSWORD
CREATE ROLE rollwave_owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE rollwave_engine LOGIN NOINHERIT PASSWORD :'engine_password';
CREATE DATABASE rollwave OWNER rollwave_owner;
REVOKE ALL ON DATABASE rollwave FROM PUBLIC;
GRANT CONNECT ON DATABASE rollwave TO rollwave_engine;
SQL
