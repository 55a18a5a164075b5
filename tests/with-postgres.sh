#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is gone afterwards: `tests/with-postgres.sh cargo nextest run`.
# The tests find it by MCP_MUX_TEST_POSTGRES and make a database each.
set -euo pipefail

if (($# == 0)); then
    echo "Usage: tests/with-postgres.sh COMMAND [ARGUMENT]..." >&2
    exit 2
fi

# Debian keeps the server's programs off the PATH.
for folder in /usr/lib/postgresql/*/bin; do
    if [[ -x $folder/initdb ]]; then PATH=$folder:$PATH; fi
done
if ! command -v initdb >/dev/null; then
    echo "tests/with-postgres.sh: missing: PostgreSQL's server; on Debian 'apt-get install postgresql'" >&2
    exit 2
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/mux-pg.XXXXXX")
# The server does not run as root.
as_server=()
if ((EUID == 0)); then
    chown postgres "$folder"
    as_server=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi

stop() {
    "${as_server[@]}" pg_ctl --pgdata="$folder/data" --mode=immediate stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap stop EXIT

(
    cd "$folder"
    "${as_server[@]}" initdb --pgdata=data --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null
    # Nothing of it has to outlive a crash, and nobody from elsewhere signs in.
    cat >>data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$folder'
max_connections = 500
fsync = off
synchronous_commit = off
full_page_writes = off
END
    "${as_server[@]}" pg_ctl --pgdata=data --log="$folder/log" --wait start >/dev/null
    psql --quiet --host="$folder" --username=postgres <<END
CREATE ROLE mux_owner LOGIN CREATEDB;
CREATE ROLE mux LOGIN;
END
)

MCP_MUX_TEST_POSTGRES=$folder "$@"
