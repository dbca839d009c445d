//! Feeds [`fuzz::checks::syslog::check_rfc5424`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::syslog::check_rfc5424(data));
