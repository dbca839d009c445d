//! Feeds [`fuzz::checks::framing::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::framing::check(data));
