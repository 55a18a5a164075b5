# What one types every day. `just` alone lists it.

_list:
    @just --list --unsorted

# install the tools at pinned versions, and switch on the pre-commit hook
setup:
    git config core.hooksPath .githooks
    tests/run.sh --install

# lint everything: on every save
check:
    cargo clippy --workspace --all-targets -- -D warnings

# run all tests: before a push
test:
    cargo nextest run --workspace
    cargo test --doc --workspace

# look at output that changed on purpose (needs cargo-insta)
snap:
    cargo insta review

# run mcp-mux from source, with everything it needs inside
dev *arguments:
    cargo run --package mcp-mux -- dev {{ arguments }}

# see two tenants behind one endpoint
demo:
    cargo run --example demo

# what mcp-mux costs beside a minimal gateway, as a table or with `--json`; `--scale` grows tenants and views, `--streams` opens 10,000 streams; see docs/benchmarks.md
bench *arguments:
    cargo bench --package mcp-mux --bench end_to_end -- {{ arguments }}

# what the parts of a request cost, in microseconds: identity, policy, lists, secrets
bench-parts:
    cargo bench --package mcp-mux --bench identity --bench parts

# what 10,000 tenants cost in memory, at the start and at a change; on PostgreSQL within tests/with-postgres.sh; see docs/capacity.md
capacity *sizes:
    cargo bench --package mcp-mux --bench capacity -- {{ sizes }}

# invent bytes for what reads bytes from outside, so many seconds for each target (needs a nightly compiler and cargo-fuzz)
fuzz *arguments:
    fuzz/run.sh {{ arguments }}

# what continuous integration runs, exactly: before a review
ci:
    .ci/run

# format the code
fmt:
    cargo fmt --all
