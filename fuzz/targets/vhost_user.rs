//! See `fuzz_model::vhost_user`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::vhost_user::run(data));
