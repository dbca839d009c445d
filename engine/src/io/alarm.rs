//! A bell within one shard: whoever gives something back rings, the task that waits for it wakes.
//!
//! Rings are not counted: many before the next wait are one. Nothing here crosses threads.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// One waiting task and whether it was called.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    rung: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Alarm {
    /// Calls the waiting task, or the next one that waits.
    pub(super) fn ring(&self) {
        if !self.rung.replace(true)
            && let Some(waker) = self.waiting.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Forgets a ring: whoever would be called is at it already.
    pub(super) fn hush(&self) {
        self.rung.set(false);
    }

    /// Ready, once, after a ring.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.rung.replace(false) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
