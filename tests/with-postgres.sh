#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is gone afterwards: `tests/with-postgres.sh cargo nextest run`.
# The tests find it by MCP_MUX_TEST_POSTGRES and make a database each.
set -euo pipefail

if (($# == 0)); then
    echo "Usage: tests/with-postgres.sh COMMAND [ARGUMENT]..." >&2
    exit 2
fi

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/mux-pg.XXXXXX")

stop() {
    "$here/postgres.sh" stop "$folder" || true
    rm -rf "$folder"
}
trap stop EXIT

"$here/postgres.sh" new "$folder"
MCP_MUX_TEST_POSTGRES=$folder "$@"
