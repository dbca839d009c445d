//! Feeds [`fuzz::checks::syslog::check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::syslog::check(data));
