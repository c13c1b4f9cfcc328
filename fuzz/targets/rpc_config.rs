//! See `fuzz_model::rpc_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::rpc_config::run(data));
