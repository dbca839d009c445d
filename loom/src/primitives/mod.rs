//! Stand-ins, under the names that the engine's files use, over loom's atomics.

mod array_queue;
mod notify;

pub use array_queue::ArrayQueue;
pub use loom::sync::Arc;
pub use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
pub use notify::Notify;
