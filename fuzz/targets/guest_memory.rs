//! See `fuzz_model::guest_memory`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::guest_memory::run(data));
