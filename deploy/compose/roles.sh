#!/bin/sh
# Run by PostgreSQL's container once, when its data is new: the role that owns the tables, the one that serves, and their database.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set owner="$(cat /run/secrets/mux-owner-password)" --set serving="$(cat /run/secrets/mux-password)" <<'END'
CREATE ROLE mux_owner LOGIN PASSWORD :'owner';
CREATE ROLE mux LOGIN PASSWORD :'serving';
CREATE DATABASE mux OWNER mux_owner;
END
