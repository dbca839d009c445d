//! Feeds [`fuzz::checks::octet::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::octet::check(data));
