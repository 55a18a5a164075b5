//! Manifests, as `mcp-mux validate` reads them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_mux::fuzzing::manifests(bytes));
