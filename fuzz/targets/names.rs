//! Names of tools as upstreams list them, and what clients are shown.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_mux::fuzzing::names(bytes));
