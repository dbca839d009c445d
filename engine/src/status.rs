//! What the engine tells of itself at one moment: plain numbers, for progress, summary, status and metrics.
//!
//! Owns no counter; it is a copy taken on request. All counts begin with the engine's start and never go back.
//! It formats nothing: that is the printer's work.

use std::time::Duration;

use crate::memory::USES;
use crate::pool::ARENA_BYTES;
use crate::process::Usage;
use crate::rescue::Forgotten;

/// The whole engine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Time since the engine started.
    pub elapsed: Duration,
    /// Memory and CPU time of the process.
    pub usage: Usage,
    /// One entry a source, in the configuration's order.
    pub sources: Vec<SourceStatus>,
    /// One entry a sink, in the configuration's order.
    pub sinks: Vec<SinkStatus>,
    /// Sinks that a reload has taken out and that are not closed yet.
    pub leaving: Vec<SinkStatus>,
    /// Rescued records of sinks that are not configured, as of the start or the last reload.
    pub forgotten: Vec<Forgotten>,
    /// The checkpoint, in an engine that keeps one.
    pub checkpoint: Option<CheckpointStatus>,
    /// What the engine buffers.
    pub memory: MemoryStatus,
    /// The alerts that are asked for.
    pub alerts: Vec<AlertStatus>,
}

/// An alert at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertStatus {
    /// The source's key.
    pub source: String,
    /// `error` or `lag`.
    pub alert: &'static str,
    /// For how long it has been active; `None` when it is not.
    pub active_for: Option<Duration>,
    /// What there is to say of it now.
    pub message: String,
}

/// The checkpoint at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointStatus {
    /// Checkpoints written.
    pub written: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Time since what is on disk was up to date.
    pub age: Duration,
    /// What the last attempt failed with; `None` when it went well.
    pub trouble: Option<String>,
}

/// What the engine buffers, and may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStatus {
    /// In buffers, batches and unfinished records, what is set aside for sources included.
    pub used_bytes: u64,
    /// `memory_limit`.
    pub limit_bytes: u64,
    /// What of `used_bytes` is used for what, in the order of [`crate::memory::USES`].
    pub used_by: [u64; USES.len()],
    /// What of it unfinished records take.
    pub carried_bytes: u64,
}

/// One source at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStatus {
    /// The source's key in the configuration.
    pub key: String,
    /// Records received and framed, the rejected and dropped ones included.
    pub records_in: u64,
    /// Bytes received, terminators included, before any decoding.
    pub bytes_in: u64,
    /// Records that every sink which takes them has called durable.
    pub delivered: u64,
    /// Records that are no record by the source's own rules: a line that is not base64, a malformed message.
    pub rejected: u64,
    /// Records left out on purpose, by reason; a reason without any is not listed.
    pub dropped: Vec<(String, u64)>,
    /// Records that are no messages by their source's rules, dropped or passed on as they came.
    pub malformed: u64,
    /// Frames that did not begin as their framing demands; they were taken as lines.
    pub misframed: u64,
    /// Records that lost their end to a limit.
    pub truncated: u64,
    /// Cuts that made one long record two.
    pub split: u64,
    /// Datagrams that the kernel dropped before they were received; they are not among `records_in`.
    pub kernel_drops: u64,
    /// Whether the kernel may have dropped more than it counted (`gro`).
    pub kernel_drops_are_a_lower_bound: bool,
    /// Failures that are not of one record: a file that cannot be read, a connection that broke.
    pub errors: u64,
    /// Bytes that are known to wait: of files, what lies behind the read position.
    pub lag_bytes: u64,
    /// Bytes of the whole job, where it has an end (`mode = "once"`); none for sources that go on.
    pub total_bytes: Option<u64>,
    /// Whether the source has finished. Only sources with an end ever do.
    pub done: bool,
    /// Whether it ended, on some shard at least, though it has no end.
    pub failed: bool,
    /// Whether it receives datagrams, which the kernel may drop.
    pub has_datagrams: bool,
    /// Whether a restart can read again what was not delivered.
    pub repeats: bool,
    /// Bytes that peers were told have arrived and that were not read, once the source is being stopped.
    pub unread_bytes: u64,
    /// What its tasks waited for.
    pub waits: Waits,
    /// Partitions that it reads now, in order.
    pub partitions: Vec<PartitionLag>,
    /// What keeps it from receiving, though it tries again.
    pub trouble: Option<String>,
}

/// A partition that is read, and how much of it waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// Messages that are there and that not every sink has; none while the broker has not told.
    pub messages: Option<u64>,
}

impl SourceStatus {
    /// Messages that wait in all its partitions, as far as that is known.
    pub fn lag_messages(&self) -> u64 {
        self.partitions.iter().filter_map(|partition| partition.messages).sum()
    }

    /// Records received, and not yet delivered, rejected or dropped.
    pub fn in_flight(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().map(|(_, n)| n).sum();
        // Too large to be true where the law is broken, rather than 0.
        self.records_in.wrapping_sub(self.delivered).wrapping_sub(self.rejected).wrapping_sub(dropped)
    }
}

/// Where a source's time went beside its own work: of each kind of waiting, on the shard where that was longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Nanoseconds its tasks waited for reads.
    pub read_ns: u64,
    /// Nanoseconds its tasks waited for a sink's credit.
    pub sink_ns: u64,
}

impl Waits {
    /// The longer of two shards' waits, each kind by itself: what is made of counters so never goes back.
    #[must_use]
    pub fn or_longer(self, other: Self) -> Self {
        Self { read_ns: self.read_ns.max(other.read_ns), sink_ns: self.sink_ns.max(other.sink_ns) }
    }

    fn sum(self) -> u64 {
        self.read_ns.saturating_add(self.sink_ns)
    }

    /// Percent of `elapsed` waited for reads and for sinks: the row WP105. Several tasks may wait at once; then the two
    /// are shares of all that was waited.
    pub fn percents(self, elapsed: Duration) -> (u64, u64) {
        let all = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(self.sum()).max(1);
        let percent = |ns: u64| (u128::from(ns) * 100 / u128::from(all)) as u64;
        (percent(self.read_ns), percent(self.sink_ns))
    }
}

/// One sink at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SinkStatus {
    /// The sink's key in the configuration.
    pub key: String,
    /// Records that are durable here.
    pub records: u64,
    /// Bytes that are durable here, as encoded.
    pub bytes: u64,
    /// Records that were written again after a connection broke; the peer may have them twice.
    pub repeated: u64,
    /// Batches that wait for a verdict.
    pub batches_in_flight: u64,
    /// Failures of the sink, each retry that failed included.
    pub errors: u64,
    /// How the sink is.
    pub state: SinkState,
    /// What waits for it on disk; `None` for a sink without rescue.
    pub rescue: Option<RescueStatus>,
}

/// What waits on disk for a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RescueStatus {
    /// Bytes of its files.
    pub bytes: u64,
    /// `rescue_bytes`; 0 where the rescue is switched off and only sends what is left.
    pub limit_bytes: u64,
    /// Records that wait there.
    pub records: u64,
    /// For how long the oldest of them has been waiting, since its receipt.
    pub oldest: Option<Duration>,
    /// Records that were written there since the start.
    pub kept_records: u64,
    /// Bytes of those, as encoded.
    pub kept_bytes: u64,
    /// Records that the sink had from there since the start.
    pub sent_records: u64,
    /// Attempts to write of which not everything could be kept: the files were full, or the disk said no.
    pub refusals: u64,
    /// Whether batches wait because the files are full.
    pub full: bool,
    /// Failures to write or read them, and broken ones that were found.
    pub errors: u64,
    /// Files that a sink of another kind has left under this key.
    pub stranded_files: u64,
    /// What the last attempt met, while it fails.
    pub trouble: Option<String>,
}

impl RescueStatus {
    /// What is wrong with the rescue of sink `key`, if anything is.
    fn words(&self, key: &str) -> Option<String> {
        match &self.trouble {
            Some(why) => Some(format!("the rescue of sink '{key}' does not work: {why}")),
            None if self.full => Some(format!("the rescue of sink '{key}' is full")),
            None if self.stranded_files > 0 => {
                Some(format!("the rescue of sink '{key}' has files of another kind of sink"))
            }
            None => None,
        }
    }
}

/// How a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SinkState {
    /// It takes what comes.
    #[default]
    Ready,
    /// It cannot write and tries again; the text says what the last attempt met.
    Waiting(String),
    /// Its reader has left, or it failed for good: it takes no more.
    Closed,
}

impl SinkStatus {
    /// The batches that wait for it, and why, in words; nothing where none does.
    pub fn owed(&self) -> Option<String> {
        let batches = match self.batches_in_flight {
            0 => return None,
            1 => "1 batch".to_owned(),
            n => format!("{n} batches"),
        };
        Some(match &self.state {
            SinkState::Waiting(why) => format!("{batches}: {why}"),
            SinkState::Ready | SinkState::Closed => batches,
        })
    }
}

impl Status {
    /// Records received by all sources.
    pub fn records_in(&self) -> u64 {
        self.sources.iter().map(|s| s.records_in).sum()
    }

    /// Bytes received by all sources.
    pub fn bytes_in(&self) -> u64 {
        self.sources.iter().map(|s| s.bytes_in).sum()
    }

    /// Batches that wait for a verdict at all sinks, and the memory they take when no record is longer than a batch.
    pub fn in_flight(&self) -> (u64, u64) {
        let batches: u64 = self.sinks.iter().chain(&self.leaving).map(|s| s.batches_in_flight).sum();
        (batches, batches.saturating_mul(ARENA_BYTES as u64))
    }

    /// The source that waited longest.
    pub fn slowest(&self) -> Option<&SourceStatus> {
        self.sources.iter().max_by_key(|s| s.waits.sum())
    }

    /// Cores that the process kept busy, on average.
    pub fn cores_busy(&self) -> f64 {
        self.usage.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(0.001)
    }

    /// Records that were taken and left behind: received, and neither delivered, rejected nor dropped on purpose.
    pub fn left_behind(&self) -> u64 {
        self.sources.iter().map(SourceStatus::in_flight).fold(0, u64::wrapping_add)
    }

    /// Everything that keeps the engine from doing its work, in words; nothing when it is well.
    pub fn troubles(&self) -> Vec<String> {
        let sources = self.sources.iter().filter_map(|source| match &source.trouble {
            _ if source.failed => Some(format!("source '{}' has failed", source.key)),
            trouble => trouble.as_ref().map(|why| format!("source '{}' waits: {why}", source.key)),
        });
        let sinks = self.sinks.iter().filter_map(|sink| match &sink.state {
            SinkState::Ready => None,
            SinkState::Waiting(why) => Some(format!("sink '{}' waits: {why}", sink.key)),
            SinkState::Closed => Some(format!("sink '{}' is closed", sink.key)),
        });
        let trouble = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.trouble.as_ref());
        let checkpoint = trouble.map(|why| format!("the checkpoint cannot be written: {why}"));
        let rescues = self.sinks.iter().filter_map(|sink| sink.rescue.as_ref()?.words(&sink.key));
        sources.chain(sinks).chain(rescues).chain(checkpoint).collect()
    }

    /// Each sink that leaves, and what it still has, in words.
    pub fn leaving_words(&self) -> Vec<String> {
        let words = |sink: &SinkStatus| {
            let owed = sink
                .owed()
                .map_or_else(|| "is not closed yet".to_owned(), |owed| format!("still has {owed}"));
            format!("sink '{}' was taken out and {owed}", sink.key)
        };
        self.leaving.iter().map(words).collect()
    }

    /// Whether some pipeline is dead: it does not come back by itself.
    pub fn is_dead(&self) -> bool {
        self.sources.iter().any(|source| source.failed)
            || self.sinks.iter().any(|sink| sink.state == SinkState::Closed)
    }

    /// Bytes that wait at all sources.
    pub fn lag_bytes(&self) -> u64 {
        self.sources.iter().map(|s| s.lag_bytes).sum()
    }

    /// Failures of all sources, all sinks and the checkpoint, rejected records included.
    pub fn errors(&self) -> u64 {
        let sources: u64 = self.sources.iter().map(|s| s.errors + s.rejected).sum();
        let checkpoint = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.failed);
        sources + self.sinks.iter().map(|s| s.errors).sum::<u64>() + checkpoint
    }

    /// Bytes of the whole job, when every source has an end.
    pub fn total_bytes(&self) -> Option<u64> {
        self.sources.iter().map(|s| s.total_bytes).sum::<Option<u64>>().filter(|_| !self.sources.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(total_bytes: Option<u64>) -> SourceStatus {
        SourceStatus { bytes_in: 5, errors: 1, rejected: 2, total_bytes, ..SourceStatus::default() }
    }

    #[test]
    fn a_total_needs_every_source_to_have_an_end() {
        let mut status = Status::default();
        assert_eq!(status.total_bytes(), None);
        status.sources = vec![source(Some(10)), source(Some(20))];
        assert_eq!((status.total_bytes(), status.bytes_in(), status.errors()), (Some(30), 10, 6));
        status.sources.push(source(None));
        assert_eq!(status.total_bytes(), None);
    }

    #[test]
    fn shares_of_waiting_never_pass_the_whole() {
        let waits = Waits { read_ns: 200_000_000, sink_ns: 710_000_000 };
        assert_eq!(waits.percents(Duration::from_secs(1)), (20, 71));
        assert_eq!(waits.percents(Duration::from_millis(91)), (21, 78), "ten tasks waited at once");
        assert_eq!(Waits::default().percents(Duration::ZERO), (0, 0));
        assert_eq!(Waits::default().or_longer(waits).or_longer(Waits::default()), waits);
        let elsewhere = Waits { read_ns: 1, sink_ns: 900_000_000 };
        assert_eq!(waits.or_longer(elsewhere), Waits { read_ns: 200_000_000, sink_ns: 900_000_000 });
    }

    #[test]
    fn what_a_sink_that_leaves_has_is_in_flight_and_no_trouble() {
        let state = SinkState::Waiting("refused".into());
        let leaving = SinkStatus { key: "fw".into(), batches_in_flight: 8, state, ..SinkStatus::default() };
        let mut status = Status { leaving: vec![leaving], ..Status::default() };
        assert_eq!(status.in_flight(), (8, 8 * ARENA_BYTES as u64));
        assert_eq!(status.leaving_words(), ["sink 'fw' was taken out and still has 8 batches: refused"]);
        assert!(status.troubles().is_empty(), "what is configured does its work");
        status.leaving[0].batches_in_flight = 0;
        assert_eq!(status.leaving_words(), ["sink 'fw' was taken out and is not closed yet"]);
    }

    #[test]
    fn what_is_left_behind_is_neither_delivered_nor_counted_out() {
        let mut status = Status::default();
        status.sources.push(SourceStatus {
            records_in: 10,
            delivered: 4,
            rejected: 1,
            dropped: vec![("bad_line".into(), 2)],
            ..SourceStatus::default()
        });
        assert_eq!(status.left_behind(), 3);
    }
}
