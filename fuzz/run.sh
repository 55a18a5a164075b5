#!/usr/bin/env bash
# Invents bytes for the fuzz targets, one target after the other, and stops at the first that finds something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly ALL=(envelope names sealed manifests events)
readonly INPUT_TIMEOUT_SECONDS=10 INPUT_BYTES_MAX=4096

help() {
    cat <<'END'
Usage: fuzz/run.sh [SECONDS [TARGET...]]

Runs each target (envelope, names, sealed, manifests, events) for that many seconds, by default 300. It needs
a nightly compiler (rustup toolchain install nightly), cargo-fuzz (cargo install cargo-fuzz --locked) and a
C++ compiler. What it learns stays in fuzz/corpus for the next run; what it finds is in fuzz/artifacts.
END
}

if [[ ${1:-} == --help ]]; then
    help
    exit
fi
seconds=${1:-300}
shift || true
targets=("$@")
if ((${#targets[@]} == 0)); then targets=("${ALL[@]}"); fi

# No code of ours is unsafe, so no sanitizer is needed: it would only make the runs slower.
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n=== %s\n' "$target"
    cargo +nightly fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout="$INPUT_TIMEOUT_SECONDS" -max_len="$INPUT_BYTES_MAX" -print_final_stats=1
done
