//! What the fuzz targets check; each target in `fuzz_targets` is one line that feeds one of these.
//!
//! The same checks are part of `cargo test`: `tests/corpus.rs` replays the seeds and a few thousand mutations of them.

pub mod checks;
