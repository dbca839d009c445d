//! A bounded queue for many senders and receivers, as `crossbeam_queue::ArrayQueue` is built.
//!
//! Each slot has a stamp: it says in which round it may be written or read. A stamp is stored with Release and loaded
//! with Acquire, and this is all that orders a letter before whoever takes it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread;

/// The queue.
#[derive(Debug)]
pub struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Vec<Slot<T>>,
    /// What a stamp grows by in a round: a power of two above the capacity.
    lap: usize,
}

#[derive(Debug)]
struct Slot<T> {
    stamp: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: a slot's value is touched by one thread at a time, as its stamp says; loom's cell checks it.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for ArrayQueue<T> {}

impl<T> ArrayQueue<T> {
    /// A queue with room for `capacity`.
    pub fn new(capacity: usize) -> Self {
        let slot = |at| Slot { stamp: AtomicUsize::new(at), value: UnsafeCell::new(None) };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: (0..capacity).map(slot).collect(),
            lap: (capacity + 1).next_power_of_two(),
        }
    }

    /// The place behind `at`: the next slot, or the first one in the next round.
    fn behind(&self, at: usize) -> usize {
        let index = at & (self.lap - 1);
        if index + 1 < self.slots.len() { at + 1 } else { (at & !(self.lap - 1)).wrapping_add(self.lap) }
    }

    /// Puts a value in, or gives it back when there is no room.
    pub fn push(&self, value: T) -> Result<(), T> {
        loop {
            let tail = self.tail.load(Ordering::Relaxed);
            let slot = &self.slots[tail & (self.lap - 1)];
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == tail {
                let won =
                    self.tail.compare_exchange(tail, self.behind(tail), Ordering::SeqCst, Ordering::Relaxed);
                if won.is_ok() {
                    // SAFETY: the place was won, and its stamp says that nobody reads it.
                    slot.value.with_mut(|there| unsafe { *there = Some(value) });
                    slot.stamp.store(tail + 1, Ordering::Release);
                    return Ok(());
                }
            } else if stamp.wrapping_add(self.lap) == tail + 1 {
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed).wrapping_add(self.lap) == tail {
                    return Err(value);
                }
            }
            thread::yield_now();
        }
    }

    /// Takes the oldest value.
    pub fn pop(&self) -> Option<T> {
        loop {
            let head = self.head.load(Ordering::Relaxed);
            let slot = &self.slots[head & (self.lap - 1)];
            let stamp = slot.stamp.load(Ordering::Acquire);
            if stamp == head + 1 {
                let won =
                    self.head.compare_exchange(head, self.behind(head), Ordering::SeqCst, Ordering::Relaxed);
                if won.is_ok() {
                    // SAFETY: the place was won, and its stamp says that it is written.
                    let value = slot.value.with_mut(|there| unsafe { (*there).take() });
                    slot.stamp.store(head.wrapping_add(self.lap), Ordering::Release);
                    return value;
                }
            } else if stamp == head {
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
            }
            thread::yield_now();
        }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        let place = |at: usize| at / self.lap * self.slots.len() + at % self.lap;
        place(self.tail.load(Ordering::SeqCst)) - place(self.head.load(Ordering::SeqCst))
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
