//! See `fuzz_model::virtio_blk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::virtio_blk::run(data));
