# The image of `mcp-mux serve`: the binary, the C library, certificates, and nothing else; not even a shell.
# Build: docker build --tag mcp-mux .

# The same compiler as rust-toolchain.toml names.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# The root package has examples and tests only; cargo wants to see one of them before it builds anything.
COPY Cargo.toml Cargo.lock ./
COPY examples examples
COPY crates crates
# `--no-default-features` leaves out `mcp-mux dev`: no development sign-in can be reached in production.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package mcp-mux --no-default-features \
    && install -D target/release/mcp-mux /image/usr/local/bin/mcp-mux \
    && install -d -m 0700 /image/var/lib/mcp-mux

# Distroless has no version tags: the Debian release and the user are what can be pinned by name.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/local/bin/mcp-mux /usr/local/bin/mcp-mux
# A new named volume takes over the owner of the folder that it is mounted on.
COPY --from=build --chown=65532:65532 /image/var/lib/mcp-mux /var/lib/mcp-mux
USER 65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/mcp-mux"]
CMD ["serve", "-c", "/etc/mcp-mux/mcp-mux.toml"]
