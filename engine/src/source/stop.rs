//! A flag that asks a source to stop, seen by its tasks on every shard.

use std::pin::pin;
#[cfg(not(loom))]
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
    /// In milliseconds, and one more; 0 when none was said.
    at_most: AtomicU64,
    wake: Notify,
}

impl Stop {
    /// Asks to stop and wakes whoever waits.
    pub fn raise(&self) {
        self.inner.raised.store(true, Ordering::Release);
        self.inner.wake.notify_waiters();
    }

    /// The same, and says how long whoever asks waits at most.
    pub fn raise_within(&self, at_most: Duration) {
        let ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        self.inner.at_most.store(ms.saturating_add(1), Ordering::Relaxed);
        self.raise();
    }

    /// How long whoever asked last waits at most; none where nobody said.
    pub fn at_most(&self) -> Option<Duration> {
        self.inner.at_most.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
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
