//! A flag that asks a source to stop, seen by its tasks on every shard.

use std::pin::pin;
#[cfg(not(loom))]
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(loom)]
use crate::primitives::{Arc, AtomicBool, Notify, Ordering};
#[cfg(not(loom))]
use tokio::sync::Notify;

/// Raised once, never lowered.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    raised: AtomicBool,
    wake: Notify,
}

impl Stop {
    /// Asks to stop and wakes whoever waits.
    pub fn raise(&self) {
        self.inner.raised.store(true, Ordering::Release);
        self.inner.wake.notify_waiters();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.inner.raised.load(Ordering::Acquire)
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        loop {
            let mut woken = pin!(self.inner.wake.notified());
            woken.as_mut().enable();
            if self.is_raised() {
                return;
            }
            woken.await;
        }
    }
}
