//! Between threads: a bounded lock-free queue with a wake, one a shard.
//!
//! Any shard puts mail in; only the owner takes it out. It never blocks: credit and memory_limit bound the batches that
//! can be under way, far below its capacity, so that one always finds room. A wake is one atomic when the owner is awake and an
//! eventfd write (tokio's) when it sleeps. `loom/` runs this file through every order of its threads' steps.

#[cfg(loom)]
use crate::primitives::{ArrayQueue, Notify};
#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
#[cfg(not(loom))]
use tokio::sync::Notify;

/// A shard's letter box.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: ArrayQueue<T>,
    wake: Notify,
}

impl<T> Mailbox<T> {
    /// A box with room for `capacity` letters.
    pub fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity.max(1)), wake: Notify::new() }
    }

    /// Puts a letter in and wakes the owner.
    ///
    /// # Errors
    /// The letter, when there is no room: whoever sends without a credit must keep it.
    pub fn put(&self, letter: T) -> Result<(), T> {
        self.queue.push(letter)?;
        self.wake.notify_one();
        Ok(())
    }

    /// A letter that is there now.
    pub fn try_take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// The next letter. Only the owner waits here: a wake that comes before the wait is kept.
    pub async fn take(&self) -> T {
        loop {
            if let Some(letter) = self.queue.pop() {
                return letter;
            }
            self.wake.notified().await;
        }
    }

    /// Letters in the box.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the box is empty.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_letter_of_every_sender_arrives_once_and_in_the_senders_order() {
        const EACH: u32 = if cfg!(miri) { 50 } else { 20_000 };
        let mailbox = Arc::new(Mailbox::new(64));
        let senders: Vec<_> = (0..3u32)
            .map(|who| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        let mut letter = (who, n);
                        while let Err(back) = mailbox.put(letter) {
                            letter = back;
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut next = [0u32; 3];
        runtime.block_on(async {
            for _ in 0..3 * EACH {
                let (who, n) = mailbox.take().await;
                assert_eq!(n, next[who as usize]);
                next[who as usize] += 1;
            }
        });
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(next, [EACH; 3]);
        assert!(mailbox.is_empty());
    }
}
