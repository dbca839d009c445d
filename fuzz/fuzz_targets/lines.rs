//! Feeds [`fuzz::checks::lines::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::lines::check(data));
