//! See `fuzz_model::virtqueue`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::virtqueue::run(data));
