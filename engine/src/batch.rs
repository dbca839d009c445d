//! The currency of the engine: a run of records on the shard that received it, and the batch that leaves the shard.
//!
//! A [`Run`] borrows: the bytes of a receive buffer, where its records are, and what is the same for all of them.
//! It lives for one turn of a source. A [`Batch`] owns: the encoded bytes (its arena) and the tickets that say
//! which stretch of which input the bytes stand for. A batch goes out once and comes home once; coming home is the
//! acknowledgement, the release of memory and the end of backpressure.
//!
//! Nothing here knows a socket, a file, a thread or a clock.

pub mod messages;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use self::messages::Messages;
use crate::memory::Charge;
use crate::pool::{Arena, BATCH_BYTES};
use crate::syslog::Header;

/// Where one record lies in the bytes of its run: `bytes[start..end]`, without its terminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// The record's bytes.
    #[inline]
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the record is empty. An empty record is a record.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// What is the same for every record of an input: one for a file or a connection, shared by all its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source's key in the configuration.
    pub source: Arc<str>,
    /// This machine's name, or what the source knows better.
    pub host: Arc<str>,
    /// The source's tags and those its kind adds (source_type, source_path, source_name, ...), in that order.
    pub tags: Vec<(String, String)>,
    /// The other side of a connection, when all records of the input share it.
    pub peer: Option<SocketAddr>,
    /// Whom the other side's certificate names, where it was verified.
    pub tls_subject: Option<Arc<str>>,
    /// How the records came to a network source: udp, tcp, tls or unix.
    pub protocol: Option<&'static str>,
    /// What a source and a sink of one kind know of the input between them.
    pub assignment: Option<Assignment>,
    /// What it is known by.
    pub mark: Mark,
}

impl Origin {
    /// An input of which nothing else is known.
    pub fn new(source: impl Into<Arc<str>>, host: impl Into<Arc<str>>) -> Self {
        Self {
            source: source.into(),
            host: host.into(),
            tags: Vec::new(),
            peer: None,
            tls_subject: None,
            protocol: None,
            assignment: None,
            mark: Mark::default(),
        }
    }
}

/// What an origin is known by: no two that were made have the same, and a clone has one of its own, for it may be changed. An
/// address would not do: another origin may come to lie where one lay that is gone.
#[derive(Debug)]
pub struct Mark(u64);

impl Mark {
    /// The number that no other one has.
    pub fn number(&self) -> u64 {
        self.0
    }
}

impl Default for Mark {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clone for Mark {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Origins are equal that say the same.
impl PartialEq for Mark {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Mark {}

/// An input as its source and a sink of the same kind know it, and nobody else: an assignment of a Kafka partition.
#[derive(Clone)]
pub struct Assignment(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assignment")
    }
}

impl PartialEq for Assignment {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Assignment {}

impl Origin {
    /// The value of a tag; the last one of a name wins.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// What a source knows of each record beside its bytes, one entry a record; ranges are over the run's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub enum Columns<'a> {
    /// Nothing.
    #[default]
    None,
    /// A parsed syslog header for each record.
    Syslog(&'a [Header]),
    /// The message of each record; ranges are over its own bytes.
    Kafka(Messages<'a>),
}

/// Up to which position of its input the records of a run reach.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Record `i` reaches to `base + records[i + 1].start`, the last one to `upto`: the run's bytes are the input's.
    Linear {
        /// The input position of the run's first byte.
        base: u64,
        /// The input position behind the run.
        upto: u64,
    },
    /// One position a record: the run's bytes are not the input's (decoded, decompressed, joined).
    Each(&'a [u64]),
}

/// A run of records of one input, framed, still hot in the cache of the shard that received it.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What the spans point into.
    pub bytes: &'a [u8],
    /// The records, in order of the input.
    pub records: &'a [Span],
    /// Whether `bytes[records[i].end] == b'\n'` and `records[i + 1].start == records[i].end + 1` for every record, the
    /// last one's newline included: then a raw sink takes the run with one copy.
    pub verbatim: bool,
    /// What is known of each record.
    pub columns: Columns<'a>,
    /// Who sent each record, where that differs within the run (datagrams); else empty.
    pub peers: &'a [SocketAddr],
    /// What is the same for all.
    pub origin: &'a Origin,
    /// When the bytes were received: nanoseconds since the Unix epoch.
    pub received_ns: i64,
    /// Where the records end in their input.
    pub positions: Positions<'a>,
}

impl Run<'_> {
    /// The input position behind record `i`.
    #[inline]
    pub fn position_after(&self, i: usize) -> u64 {
        match self.positions {
            Positions::Linear { base, upto } => {
                self.records.get(i + 1).map_or(upto, |next| base + u64::from(next.start))
            }
            Positions::Each(each) => each[i],
        }
    }
}

/// Index of a shard; shards are numbered from 0 without a gap.
pub type ShardId = u16;
/// Index of a sink in the plan.
pub type SinkId = u16;
/// Index of a lane on its home shard. A lane is the way of one source's records to one sink.
pub type LaneId = u32;

/// Which input, up to which position, and how many records a batch carries of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// The input's slot in the settle table of the home shard.
    pub slot: u32,
    /// The number of the stretch within the input's window.
    pub seq: u64,
    /// The input's durable identity, the same after a restart; 0 for inputs that cannot repeat.
    pub input: u64,
    /// The input position behind the last record that the batch carries for this ticket.
    pub upto: u64,
    /// Records in the batch for this ticket.
    pub records: u32,
    /// How many of them the sink will never take, though it took the batch.
    pub rejected: u32,
}

/// What a sink says of a batch when it sends it home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet decided.
    #[default]
    Open,
    /// The sink has it, durably by its own definition.
    Delivered,
    /// The sink will never take it (malformed for it, too large). Counted; the input goes on.
    Rejected,
    /// The engine stops and the sink could not take it in time: the input must not move past it.
    Abandoned,
}

/// A pooled buffer of encoded records and the tickets they stand for.
#[derive(Debug)]
pub struct Batch {
    /// The encoded bytes; `arena.head` bytes in front belong to the sink's alignment and are not records.
    pub arena: Arena,
    /// Where each record ends in the arena; filled only for sinks that ask for it.
    pub ends: Vec<u32>,
    /// Which stretches of which inputs the batch stands for.
    pub tickets: Vec<Ticket>,
    /// Number of records.
    pub records: u32,
    /// The shard that made it and to which it comes home.
    pub home: ShardId,
    /// The lane on the home shard that made it.
    pub lane: LaneId,
    /// The sink it goes to.
    pub sink: SinkId,
    /// The outlet of the sink it goes to: an index the sink gave out for a file path, topic or address.
    pub outlet: u32,
    /// Receipt of the oldest record in it, nanoseconds since the Unix epoch.
    pub oldest_ns: i64,
    /// The sink's word, when it comes home.
    pub verdict: Verdict,
    /// Who has it back instead of its lane: a rescue that sends it from disk.
    pub returns: Option<UnboundedSender<Box<Batch>>>,
    /// What its memory is charged with; none in tests.
    pub charge: Option<Charge>,
    /// What of its memory is charged: an arena grows for a record that is longer than itself.
    charged_bytes: usize,
}

impl Batch {
    /// An empty batch around an arena.
    pub fn new(arena: Arena) -> Self {
        Self {
            arena,
            ends: Vec::new(),
            tickets: Vec::with_capacity(16),
            records: 0,
            home: 0,
            lane: 0,
            sink: 0,
            outlet: 0,
            oldest_ns: i64::MAX,
            verdict: Verdict::Open,
            returns: None,
            charge: None,
            charged_bytes: BATCH_BYTES,
        }
    }

    /// Charges what the arena has grown by.
    #[inline]
    pub fn charge_growth(&mut self) {
        let bytes = self.arena.capacity();
        if let Some(charge) = self.charge.as_mut().filter(|_| bytes > self.charged_bytes) {
            charge.grow(bytes - self.charged_bytes);
            self.charged_bytes = bytes;
        }
    }

    /// Makes it empty again; memory is kept.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.ends.clear();
        self.tickets.clear();
        self.records = 0;
        self.outlet = 0;
        self.oldest_ns = i64::MAX;
        self.verdict = Verdict::Open;
    }

    /// The records' bytes.
    pub fn bytes(&self) -> &[u8] {
        self.arena.filled()
    }
}
