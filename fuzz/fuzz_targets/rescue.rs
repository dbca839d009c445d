//! Feeds [`fuzz::checks::rescue::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::rescue::check(data));
