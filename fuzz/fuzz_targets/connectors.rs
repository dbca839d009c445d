//! Feeds [`fuzz::checks::connectors::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::connectors::check(data));
