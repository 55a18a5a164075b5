//! Requests as they come from the network, and the edits that are made in them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_mux::fuzzing::envelope(bytes));
