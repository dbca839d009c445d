//! What a receiver knows of the messages so far: the account, the latencies, when the first and the last one came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bench::account::Ledger;
use crate::bench::latency::Latencies;
use crate::bench::scan::{Found, scan};

/// What the receiving thread and its watcher share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Messages so far.
    pub messages: AtomicU64,
    /// Bytes so far.
    pub bytes: AtomicU64,
    /// Somebody asks for the end.
    pub stop: AtomicBool,
}

/// Everything that was learnt.
#[derive(Debug)]
pub struct Tally {
    /// What became of each message.
    pub ledger: Ledger,
    /// How long they took.
    pub latencies: Latencies,
    /// When the first and the last message came.
    pub span: Option<(Instant, Instant)>,
    /// The only run whose messages are counted.
    only: Option<u32>,
    shared: Arc<Shared>,
}

impl Tally {
    /// Nothing yet; of all runs, or of one only.
    pub fn new(shared: Arc<Shared>, only: Option<u32>) -> Self {
        Self { ledger: Ledger::default(), latencies: Latencies::new(), span: None, only, shared }
    }

    /// Reads bytes that were seen at `now_ns`, of which the first `old` were counted before; returns how many are done with.
    pub fn take(&mut self, bytes: &[u8], old: usize, ended: bool, now_ns: u64) -> usize {
        let mut messages = 0;
        let done = scan(bytes, ended, |found| {
            if self.is_of_another_run(found) {
                return;
            }
            messages += 1;
            if let Some(marker) = self.ledger.take(found) {
                self.latencies.add(marker.due_ns, now_ns);
            }
        });
        if messages > 0 {
            let now = Instant::now();
            self.span = Some((self.span.map_or(now, |(first, _)| first), now));
        }
        self.shared.messages.fetch_add(messages, Ordering::Relaxed);
        self.shared.bytes.fetch_add((bytes.len() - old) as u64, Ordering::Relaxed);
        done
    }

    fn is_of_another_run(&self, found: Found) -> bool {
        match (self.only, found) {
            (Some(only), Found::Whole(marker) | Found::Damaged(marker)) => marker.run != only,
            _ => false,
        }
    }

    /// From the first message to the last.
    pub fn took(&self) -> Duration {
        self.span.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// When a receiver has seen enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After so many messages.
    pub count: Option<u64>,
    /// After so long.
    pub duration: Option<Duration>,
    /// When nothing has come for so long, once something has.
    pub idle: Duration,
}

/// How long a message may lag behind the last one of its connection.
const GRACE: Duration = Duration::from_millis(500);

impl Limits {
    /// Whether it is enough.
    pub fn reached(&self, tally: &Tally, began: Instant) -> bool {
        let silent = |long: Duration| tally.span.is_some_and(|(_, last)| last.elapsed() >= long);
        tally.shared.stop.load(Ordering::Relaxed)
            || self.count.is_some_and(|count| tally.shared.messages.load(Ordering::Relaxed) >= count)
            || self.duration.is_some_and(|duration| began.elapsed() >= duration)
            || silent(self.idle)
            || (silent(GRACE) && tally.ledger.all_ended())
    }
}
