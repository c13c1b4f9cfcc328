//! See `fuzz_model::pci`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_model::pci::run(data));
