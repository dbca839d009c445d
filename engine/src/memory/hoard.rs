//! What lies unused against who waits: a batch that is kept for later must go as soon as somebody needs its memory.
//!
//! Both sides write first and look then, with a fence in between. So of one who keeps and one who waits at the same
//! time at least one sees the other: either the batch is not kept, or whoever waits knows that there is one to ask for.

#[cfg(loom)]
use crate::primitives::{AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// Both counts, for all shards.
#[derive(Debug, Default)]
pub struct Hoard {
    /// Who waits for a batch now.
    waiting: AtomicUsize,
    /// Batches that are charged and lie unused in the pools of shards.
    kept: AtomicUsize,
}

impl Hoard {
    /// One more batch lies unused, unless somebody waits for one: then it must not.
    pub fn keep(&self) -> bool {
        self.kept.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let wanted = self.waiting.load(Ordering::Relaxed) > 0;
        if wanted {
            self.take();
        }
        !wanted
    }

    /// One that lay unused does no more.
    pub fn take(&self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
    }

    /// Somebody waits, until [`Hoard::done`]; whether some lie unused.
    pub fn want(&self) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.kept.load(Ordering::Relaxed) > 0
    }

    /// One who waited does no more.
    pub fn done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
