//! See `fuzz_model::rpc_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::rpc_server::run(data));
