//! Sealed values, as somebody could have changed them in the database.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mcp_mux::fuzzing::sealed(bytes));
