//! A sender's thread: sends at a rate until it is told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a sender rests between two bursts.
const REST: Duration = Duration::from_millis(2);

/// What a sender's thread and its owner share.
#[derive(Default)]
pub(super) struct Shared {
    /// The thread is to send its last words and end.
    pub(super) ending: AtomicBool,
    /// Messages so far.
    pub(super) written: AtomicU64,
}

/// A thread that sends, and what comes of it.
pub(super) struct Sender<T> {
    pub(super) shared: Arc<Shared>,
    thread: Option<JoinHandle<T>>,
    result: Option<T>,
}

impl<T: Send + 'static> Sender<T> {
    /// No thread yet.
    pub(super) fn new() -> Self {
        Self { shared: Arc::default(), thread: None, result: None }
    }

    /// Starts it.
    pub(super) fn begin(&mut self, work: impl FnOnce(&Shared) -> T + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.thread = Some(std::thread::spawn(move || work(&shared)));
    }

    /// Ends it.
    pub(super) fn finish(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            self.result = Some(thread.join().unwrap());
        }
    }

    /// What it came to.
    pub(super) fn result(&self) -> Option<&T> {
        self.result.as_ref()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of it is already told.
            let _ = thread.join();
        }
    }
}

/// How many messages are due at a rate.
pub(super) struct Pace {
    begun: Instant,
    /// Messages a second.
    rate: u32,
    sent: u64,
}

impl Pace {
    pub(super) fn new(rate: u32) -> Self {
        Self { begun: Instant::now(), rate, sent: 0 }
    }

    /// Rests, then says how many messages to send now. What a stall held up is not made good.
    pub(super) fn next(&mut self) -> u32 {
        std::thread::sleep(REST); // the sender's pace, not a wait for the engine
        let due = self.begun.elapsed().as_micros() as u64 * u64::from(self.rate) / 1_000_000;
        let burst = due.saturating_sub(self.sent).min(u64::from(self.rate) / 50 + 1);
        self.sent = due;
        burst as u32
    }
}
