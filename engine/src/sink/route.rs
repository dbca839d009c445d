//! What a lane needs to know of the sink at its end, and what a sink takes.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::batch::{Columns, Origin, Run, ShardId, SinkId};
use crate::checkpoint::Group;
use crate::pool::ARENA_BYTES;
use crate::shard::{Intake, LINGER, Shard};
use crate::sink::format::Format;
use crate::status::SinkStatus;

/// A sink, shared by all shards. Its owners (one an outlet) run as tasks on the shard that [`Sink::owner`] names.
pub trait Sink: Send + Sync {
    /// Its index in the plan.
    fn id(&self) -> SinkId;

    /// How it writes records, or `None` for a sink that only counts.
    fn format(&self) -> Option<Format>;

    /// Which outlet (file group, topic, address) takes the records of an origin.
    fn outlet(&self, _origin: &Origin) -> u32 {
        0
    }

    /// Which shard owns an outlet; `home` is the shard the batch was made on.
    fn owner(&self, _outlet: u32, home: ShardId) -> ShardId {
        home
    }

    /// The outlet's name, by which [`Sink::outlet_named`] finds it after a restart.
    fn outlet_name(&self, _outlet: u32) -> String {
        String::new()
    }

    /// The outlet that has this name, if there can be one.
    fn outlet_named(&self, _name: &str) -> Option<u32> {
        Some(0)
    }

    /// The sink is known on this shard: what it has to do before the first batch comes.
    fn started(&self, _shard: &Rc<Shard>) {}

    /// Starts the owner of an outlet on this shard. It takes batches until its intake is closed and empty. An owner whose
    /// intake is guarded gives back what it cannot write.
    fn start_owner(&self, shard: &Rc<Shard>, outlet: u32, intake: Rc<Intake>);

    /// Counts records and bytes that a counting sink took.
    fn counted(&self, _records: u64, _bytes: u64) {}

    /// Bytes to leave free in front of the next batch of an outlet, so that it can be written where it lies.
    fn head_for_next(&self, _outlet: u32) -> usize {
        0
    }

    /// A batch of this many bytes is on its way to the owner of an outlet.
    fn sealed(&self, _outlet: u32, _bytes: usize) {}

    /// Whether a batch must not span two seconds of receipt (its path has a date).
    fn seals_each_second(&self) -> bool {
        false
    }

    /// Whether the owner needs to know where each record ends.
    fn wants_ends(&self) -> bool {
        false
    }

    /// Input positions that the sink holds from before a restart: records up to there are not sent again.
    fn positions_before(&self) -> HashMap<u64, u64> {
        HashMap::new()
    }

    /// What it has committed, for the checkpoint.
    fn groups(&self) -> Vec<Group> {
        Vec::new()
    }

    /// How it is.
    fn status(&self) -> SinkStatus;

    /// Its path may name another file now (logrotate): look again.
    fn reopen(&self) {}

    /// One line for each thing it opened, for people.
    fn opened(&self) -> Vec<String> {
        Vec::new()
    }

    /// The sink's own type, for the engine's checkpoint and reload.
    fn as_any(&self) -> &dyn Any;
}

/// The severity of a message that says none.
const NOTICE: u8 = 5;

/// What a sink takes of a source: tags that must have a value, and the least severe message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Where {
    /// Tags and the value each must have.
    pub tags: Vec<(String, String)>,
    /// Severity at most (0 emergency to 7 debug): messages of syslog that say less are not taken. One without a priority
    /// is a notice (RFC 3164, 4.3.3), and what is no syslog is taken.
    pub severity_max: Option<u8>,
    /// In what batches.
    pub batches: Batches,
}

/// When a batch for a sink is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    /// When it has this many bytes: a record that would make it longer comes into the next one.
    pub bytes: usize,
    /// Or when its first record has waited for so long.
    pub linger: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        Self { bytes: ARENA_BYTES, linger: LINGER }
    }
}

impl Where {
    /// Whether records of this origin are taken, as far as tags say.
    pub fn origin(&self, origin: &Origin) -> bool {
        self.tags.iter().all(|(name, value)| origin.tag(name) == Some(value))
    }

    /// Whether each record must be looked at.
    pub fn each_record(&self) -> bool {
        self.severity_max.is_some()
    }

    /// Whether record `i` is taken.
    pub fn record(&self, run: &Run<'_>, i: usize) -> bool {
        match (self.severity_max, run.columns) {
            (Some(max), Columns::Syslog(headers)) => headers[i].severity().unwrap_or(NOTICE) <= max,
            _ => true,
        }
    }

    /// Records taken from `from` on.
    pub fn count(&self, run: &Run<'_>, from: usize) -> u64 {
        if self.each_record() {
            return (from..run.records.len()).filter(|i| self.record(run, *i)).count() as u64;
        }
        run.records.len().saturating_sub(from) as u64
    }
}
