//! Feeds [`fuzz::checks::checkpoint::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::checkpoint::check(data));
