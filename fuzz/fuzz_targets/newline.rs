//! Feeds [`fuzz::checks::newline::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::newline::check(data));
