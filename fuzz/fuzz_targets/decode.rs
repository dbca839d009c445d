//! Feeds [`fuzz::checks::decode::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::decode::check(data));
