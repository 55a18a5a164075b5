#!/usr/bin/env bash
# A PostgreSQL server in a folder of its own, for tests: `tests/postgres.sh new|start|stop FOLDER`. It listens at a socket in the folder;
# `postgres` may do anything there, `mux_owner` makes databases, `mux` serves.
set -euo pipefail

if (($# != 2)) || [[ ! -d $2 ]]; then
    echo "Usage: tests/postgres.sh new|start|stop FOLDER" >&2
    exit 2
fi
cd "$2"

# Debian keeps the server's programs off the PATH.
for programs in /usr/lib/postgresql/*/bin; do
    if [[ -x $programs/initdb ]]; then PATH=$programs:$PATH; fi
done
if ! command -v initdb >/dev/null; then
    echo "tests/postgres.sh: missing: PostgreSQL's server; on Debian 'apt-get install postgresql'" >&2
    exit 2
fi

# The server does not run as root.
as_server() {
    if ((EUID == 0)); then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi
}

start() {
    as_server pg_ctl --pgdata=data --log="$PWD/log" --wait start >/dev/null
}

case $1 in
    new)
        if ((EUID == 0)); then chown postgres .; fi
        as_server initdb --pgdata=data --username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null
        # Nothing of it has to outlive a crash of the machine, and nobody from elsewhere signs in.
        cat >>data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$PWD'
max_connections = 500
fsync = off
synchronous_commit = off
full_page_writes = off
END
        start
        psql --quiet --host="$PWD" --username=postgres <<END
CREATE ROLE mux_owner LOGIN CREATEDB;
CREATE ROLE mux LOGIN;
END
        ;;
    start) start ;;
    stop) as_server pg_ctl --pgdata=data --mode=fast --wait stop >/dev/null 2>&1 ;;
    *)
        echo "tests/postgres.sh: '$1' is none of new, start and stop" >&2
        exit 2
        ;;
esac
