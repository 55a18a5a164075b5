//! Streams of server-sent events, as upstreams send them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_mux::fuzzing::events(bytes));
