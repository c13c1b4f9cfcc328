//! See `fuzz_model::vfio_user`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::vfio_user::run(data));
