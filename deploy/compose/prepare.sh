#!/usr/bin/env bash
# Makes the secrets of docker-compose.yml, in deploy/compose/secrets: the key that seals credentials, the passwords of PostgreSQL's roles,
# and the URLs with them. What is there stays as it is. Keep a copy of mcp-mux-key elsewhere: without it nothing stored opens again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The folder keeps others of this machine out; containers, whose users are not ours, read what is mounted into them.
mkdir -p secrets
chmod 0700 secrets

# Writes the output of a command into a secret, whole or not at all.
secret() {
    local name=$1
    shift
    if [[ -e secrets/$name ]]; then
        echo "secrets/$name is there already"
        return
    fi
    "$@" >"secrets/.$name"
    chmod 0444 "secrets/.$name"
    mv "secrets/.$name" "secrets/$name"
    echo "secrets/$name is new"
}

random() { head -c "$1" /dev/urandom; }
key() { random 32 | base64 | tr -d '\n'; }
# Of letters and digits, so that it stands in a URL as it is.
password() { random 24 | od -An -tx1 | tr -d ' \n'; }
url() { printf 'postgres://%s:%s@postgres/mux?sslmode=disable' "$1" "$(cat "secrets/$2")"; }

secret mcp-mux-key key
secret postgres-password password
secret mux-owner-password password
secret mux-password password
# Between two containers of one machine, over a network of their own: without TLS.
secret database-owner-url url mux_owner mux-owner-password
secret database-url url mux mux-password
