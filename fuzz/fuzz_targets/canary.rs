//! Feeds [`fuzz::checks::octet::canary`], which must be found: a fuzzer that lives past it finds nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checks::octet::canary(data));
