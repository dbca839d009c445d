//! Counters: one set a shard and a source or sink, written by that shard alone, read by anyone.
//!
//! A counter has one writer, so adding is a plain load and store (no locked instruction); reading sums over shards.
//! They are added to once a run or a batch, never once a record.
//!
//! The law for every source, at every moment its shard is between turns:
//! `received = delivered + rejected + dropped + in flight`. A record is counted as received before it is counted as
//! anything else, and the writes are seen in that order; so whoever reads `received` last reads none too few, and what
//! is in flight is the difference.
//!
//! What the kernel drops of datagrams was never received: it stands beside that law, in one of its own:
//! `sent = received + dropped by the kernel`, whenever the socket is empty. With `gro` it is `sent >= ...`, since the kernel
//! counts a merged packet once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning shard calls it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// Sets; only the owning shard calls it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a record that was received is not delivered, by the program's own choice and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A line that does not decode, with `on_bad_line = "skip"`.
    BadLine,
    /// A line longer than its limit, with `long_lines = "drop"`.
    TooLong,
    /// A malformed message, with `on_bad_message = "drop"`.
    Malformed,
    /// Beyond `rate_limit` on a transport that cannot slow its sender.
    RateLimit,
    /// From a peer outside `allow`.
    NotAllowed,
    /// Of a partition that went to another member, which reads them again.
    GivenUp,
    /// Of a source, or with tags, that no sink takes.
    NoSink,
    /// Received by a source that was stopped while a sink of it did not run, from a sender that cannot send it once more.
    SinkNotOpen,
}

/// Every reason, in the order of the counters.
pub const REASONS: [(Reason, &str); 8] = [
    (Reason::BadLine, "bad_line"),
    (Reason::TooLong, "too_long"),
    (Reason::Malformed, "malformed"),
    (Reason::RateLimit, "rate_limit"),
    (Reason::NotAllowed, "not_allowed"),
    (Reason::GivenUp, "given_up"),
    (Reason::NoSink, "no_sink"),
    (Reason::SinkNotOpen, "sink_not_open"),
];

/// One source on one shard.
#[derive(Debug, Default)]
pub struct SourceCounters {
    /// Records framed.
    pub records: Counter,
    /// Bytes received, terminators included.
    pub bytes: Counter,
    /// Records that every sink has.
    pub delivered: Counter,
    /// Records that a sink refused for good.
    pub rejected: Counter,
    /// Records dropped, by reason.
    pub dropped: [Counter; REASONS.len()],
    /// Datagrams that the kernel dropped before they were received: beside `records`, and errors.
    pub kernel_drops: Counter,
    /// Errors: whatever a person should look at.
    pub errors: Counter,
    /// Bytes of known inputs that are not read yet.
    pub lag_bytes: Counter,
    /// Bytes of all inputs, where that is known (`mode = "once"`).
    pub total_bytes: Counter,
    /// Nanoseconds its tasks waited for reads.
    pub read_wait_ns: Counter,
    /// Nanoseconds its tasks waited for a sink's credit.
    pub sink_wait_ns: Counter,
    /// Long lines that were split.
    pub split: Counter,
    /// Records that lost their end to a limit.
    pub truncated: Counter,
    /// Records that are no messages by their source's rules, passed on or dropped.
    pub malformed: Counter,
    /// Frames that did not begin as their framing demands, taken as lines.
    pub misframed: Counter,
    /// Bytes that the kernel had taken from peers of a source that is being stopped, and that are not read yet.
    pub unread_bytes: Counter,
}

impl SourceCounters {
    /// Counts records that are dropped.
    pub fn drop_records(&self, reason: Reason, n: u64) {
        self.dropped[reason as usize].add(n);
    }
}

/// One sink on one shard.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Records delivered.
    pub records: Counter,
    /// Encoded bytes delivered.
    pub bytes: Counter,
    /// Batches out.
    pub in_flight: Counter,
    /// Failed attempts.
    pub errors: Counter,
}
