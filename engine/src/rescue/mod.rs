//! `rescue = true`: what a sink cannot take waits on disk, and its sources go on.
//!
//! A [`Rescued`] sink stands between the lanes and the sink itself. As long as the sink takes what comes, batches pass
//! through untouched. When its owner gives one back ([`crate::shard::Intake::give_back`]), that batch and all that come
//! after it are written to `data_dir/rescue/<sink>` ([`backlog`]), and count as delivered when they are synced: from then
//! on the promise is the file's. What is there is sent first and in order when the sink takes batches again, after a
//! restart too; as long as some of it is left, new batches go to its end.
//!
//! The files of a sink take at most `rescue_bytes`. When they are full, or the disk is, the oldest are kept and the newest
//! batches wait in memory, and with them their sources, as they would without rescue. Nothing is dropped.
//!
//! Segments of an earlier run are read when the sink is made. A torn end, which was never acknowledged, is cut. A segment with
//! a hole is said, sent as far as it can be read, and put aside; one of a newer version refuses the start; what a sink of
//! another kind has left waits until the sink is of that kind again.
//!
//! - `format` is how batches lie in a file, and what is made of one that is not whole
//! - `segment` and `backlog` write, read and delete files; `recover` finds those of earlier runs
//! - `guard` decides where a batch goes, `sink` puts one in front of each owner
//! - `watch` is what people are told

mod backlog;
mod format;
mod guard;
mod recover;
mod segment;
mod sink;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, ShardId};
use crate::keeper::Persist;
use backlog::{Backlog, Shared};
use format::Owner;
use segment::{Folder, Quota, Segment};
use watch::{Said, Watch};

pub use recover::{Forgotten, OpenError, forgotten, is_used};
pub use sink::Rescued;

/// What kind of sink a rescue is for: what one kind leaves the other cannot send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Files, one outlet each.
    File,
    /// Connections, one outlet in all.
    Connection,
    /// A cluster of Kafka, an outlet for each topic and key.
    Kafka,
}

impl Kind {
    /// As segments say it.
    fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Connection => "connection",
            Self::Kafka => "kafka",
        }
    }
}

/// The rescue of one sink, over all shards.
pub struct Rescue {
    key: String,
    kind: Kind,
    /// Writes a checkpoint, for a sink whose files a start cuts to what that has of them.
    persist: Option<Persist>,
    shared: Shared,
    /// What earlier runs left, until the owners it is for begin.
    left: Mutex<Vec<Left>>,
    /// Segments that a sink of another kind has left.
    stranded: AtomicU64,
    figures: Figures,
    /// How each guard is doing.
    watches: Mutex<Vec<Arc<Watch>>>,
    /// What the log knows of, and since when.
    told: Mutex<Told>,
}

/// What was done since the engine started.
#[derive(Debug, Default)]
struct Figures {
    kept_records: AtomicU64,
    kept_bytes: AtomicU64,
    sent_records: AtomicU64,
    /// Attempts to keep batches of which some could not be kept.
    refusals: AtomicU64,
    /// Failures to write or read, and segments that were found broken.
    errors: AtomicU64,
}

/// What the log was told and not yet told the end of.
#[derive(Debug, Default)]
struct Told {
    trouble: Said,
    full: Said,
    removing: Said,
}

/// The segments of one owner of an earlier run.
#[derive(Debug)]
struct Left {
    outlet: String,
    /// The shard of that run.
    shard: ShardId,
    segments: VecDeque<Segment>,
}

impl Rescue {
    fn new(key: &str, kind: Kind, folder: Folder, most: u64, persist: Option<Persist>) -> Self {
        let next = Arc::new(AtomicU64::new(1));
        let shared = Shared { folder: Arc::new(folder), quota: Arc::new(Quota::new(most)), next };
        Self {
            key: key.to_owned(),
            kind,
            persist,
            shared,
            left: Mutex::default(),
            stranded: AtomicU64::new(0),
            figures: Figures::default(),
            watches: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The outlets for which something was left, and on which shard.
    fn left(&self) -> Vec<(String, ShardId)> {
        lock(&self.left).iter().map(|left| (left.outlet.clone(), left.shard)).collect()
    }

    /// The backlog of an owner, with what was left that `is_mine` of it.
    fn backlog(&self, outlet: &str, shard: ShardId, is_mine: impl Fn(ShardId) -> bool) -> Backlog {
        let mut segments = VecDeque::new();
        let mine = |left: &mut Left| left.outlet == outlet && is_mine(left.shard);
        lock(&self.left).extract_if(.., mine).for_each(|left| segments.extend(left.segments));
        let name = format!("{shard:03}-{:08x}", crc32fast::hash(outlet.as_bytes()));
        let (sink, kind, outlet) = (self.key.clone(), self.kind.name().to_owned(), outlet.to_owned());
        let owner = Owner { sink, kind, outlet, salt: dice() };
        Backlog::new(self.shared.clone(), name, owner, segments)
    }

    fn kept(&self, batch: &Batch) {
        self.figures.kept_records.fetch_add(batch.records.into(), Ordering::Relaxed);
        self.figures.kept_bytes.fetch_add(batch.bytes().len() as u64, Ordering::Relaxed);
    }

    fn sent(&self, batch: &Batch) {
        self.figures.sent_records.fetch_add(batch.records.into(), Ordering::Relaxed);
    }

    fn refused(&self) {
        self.figures.refusals.fetch_add(1, Ordering::Relaxed);
    }

    fn repeats(&self, error: &std::io::Error) {
        log::warn!(
            target: "wpgen::rescue",
            "rescue of sink '{}': saying how far its oldest file in {} is sent: {error}; the next start sends that file again \
             from its beginning", self.key, self.shared.folder.path.display()
        );
    }

    fn cannot_find(&self, outlet: &str) {
        log::warn!(
            target: "wpgen::rescue",
            "rescue of sink '{}': what was left for {outlet} is sent when a record for it comes", self.key
        );
    }
}

/// A number that nobody can guess: the standard library seeds its hashers from the system.
fn dice() -> u32 {
    (RandomState::new().hash_one(0) >> 32) as u32
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder of a sink's files: its key, with what cannot stand in a name as `%` and two digits.
fn folder(data_dir: &Path, key: &str) -> PathBuf {
    let mut name = String::new();
    for (i, byte) in key.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && i > 0) {
            name.push(byte.into());
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    data_dir.join("rescue").join(name)
}

/// The key of the sink whose folder this is.
fn key_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut parts = name.split('%');
    let mut key = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                key.push(byte);
                key.extend(&part.as_bytes()[2..]);
            }
            // No folder of ours.
            None => key.extend([b"%", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&key).into_owned()
}
