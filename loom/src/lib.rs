//! What crosses threads in the engine, run by loom through every order of its steps (with a bounded number of
//! preemptions), also those that no machine at hand would take.
//!
//! The modules under test are the engine's own files. What they stand on, `crossbeam`'s queue and `tokio`'s `Notify`,
//! is replaced by stand-ins over loom's atomics that promise what the real ones document, and no more: [`primitives`].
//! So what is proven is the engine's use of them, not they themselves; they have loom tests of their own.
//!
//! ```sh
//! .ci/run loom
//! RUSTFLAGS="--cfg loom" cargo test --lib --manifest-path loom/Cargo.toml     # the same
//! ```
#![cfg(loom)]

#[path = "../../engine/src/memory/hoard.rs"]
pub mod hoard;
pub mod primitives;
#[path = "../../engine/src/queue.rs"]
pub mod queue;
#[path = "../../engine/src/source/stop.rs"]
pub mod stop;

#[cfg(test)]
mod tests;
