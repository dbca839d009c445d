//! Feeds [`fuzz::checks::multiline::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::multiline::check(data));
