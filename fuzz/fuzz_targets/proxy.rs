//! Feeds [`fuzz::checks::proxy::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::proxy::check(data));
