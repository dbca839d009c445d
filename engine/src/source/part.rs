//! What the engine needs to know of a source: how to run its part on a shard, and what it must remember.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::checkpoint::{Input, Partition, Snapshot};
use crate::lane::Lanes;
use crate::metrics::SourceCounters;
use crate::shard::Shard;
use crate::source::stop::Stop;
use crate::status::PartitionLag;

/// A part of a source, running on its shard.
pub type Part = Pin<Box<dyn Future<Output = ()>>>;

/// What a source's part is given on a shard; shared by all its tasks there.
#[derive(Clone)]
pub struct Surroundings {
    /// The shard.
    pub shard: Rc<Shard>,
    /// Where records go.
    pub lanes: Lanes,
    /// Raised when the source must stop.
    pub stop: Stop,
    /// The source's counters on this shard.
    pub counters: Arc<SourceCounters>,
}

/// A source, shared by all shards. It knows lanes, and no sink.
pub trait Source: Send + Sync {
    /// Its key in the configuration.
    fn key(&self) -> &str;

    /// One line for each thing it opened, with real addresses, for people.
    fn opened(&self) -> Vec<String>;

    /// The most that it holds on a worker of what it has read; 0 where that is not its own to say.
    fn buffer_bytes(&self) -> u64 {
        0
    }

    /// Runs its part on a shard. The future ends when nothing is left to read, or soon after `stop` was raised; what it
    /// handed to lanes may still be out.
    fn run(self: Arc<Self>, around: Surroundings) -> Part;

    /// What a restart must know. `low` has, for inputs with an open window, the position that every sink has.
    fn inputs(&self, _low: &HashMap<u64, u64>) -> Vec<Input> {
        Vec::new()
    }

    /// The same for a source that reads partitions.
    fn places(&self, _low: &HashMap<u64, u64>) -> Vec<Partition> {
        Vec::new()
    }

    /// This checkpoint is on disk.
    fn kept(&self, _snapshot: &Snapshot) {}

    /// Changes when [`Source::inputs`] or [`Source::places`] may have changed for another reason than records.
    fn revision(&self) -> u64 {
        0
    }

    /// Errors that no shard counts.
    fn errors(&self) -> u64 {
        0
    }

    /// The partitions that it reads now, and their lag.
    fn partitions(&self) -> Vec<PartitionLag> {
        Vec::new()
    }

    /// What keeps it from receiving, though it tries again.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Whether it receives datagrams: the kernel drops those that nobody takes in time.
    fn has_datagrams(&self) -> bool {
        false
    }

    /// Whether the kernel merges its datagrams, so that it drops several and counts one.
    fn merges_datagrams(&self) -> bool {
        false
    }

    /// Whether a restart can read again what was not delivered; of a sender that sends once, it is lost.
    fn repeats(&self) -> bool {
        true
    }

    /// Bytes that are there and not read yet, when `read` are.
    fn lag_bytes(&self, _read: u64) -> u64 {
        0
    }

    /// Bytes there are in all, for a source that ends by itself.
    fn total_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether it ends by itself.
    fn is_finite(&self) -> bool {
        false
    }
}
