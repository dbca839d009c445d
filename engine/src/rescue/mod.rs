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
//! a hole is said, sent as far as it can be read, and put aside; one of a newer version refuses the start.

mod backlog;
mod format;
mod guard;
mod recover;
mod sink;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::ShardId;
use crate::keeper::Persist;
use crate::status::RescueStatus;
use backlog::{Backlog, Folder, Quota, Segment};
use format::Owner;

pub use recover::{OpenError, forgotten, is_used};
pub use sink::Rescued;

/// The rescue of one sink, over all shards.
pub struct Rescue {
    key: String,
    /// Writes a checkpoint, for a sink whose files a start cuts to what that has of them.
    persist: Option<Persist>,
    folder: Arc<Folder>,
    quota: Arc<Quota>,
    /// What earlier runs left, until the owners it is for begin.
    left: Mutex<Vec<Left>>,
    /// The number of the next segment, above all that were there.
    next: AtomicU64,
    /// Failures to write or read.
    errors: AtomicU64,
    /// What the last attempt to write met.
    trouble: Mutex<Option<String>>,
    /// Whether batches wait because the files are full.
    full: AtomicBool,
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
    /// What it holds, for people.
    fn status(&self) -> RescueStatus {
        RescueStatus {
            bytes: self.quota.used.load(Ordering::Relaxed),
            limit_bytes: self.quota.most,
            full: self.full.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// The outlets for which something was left, and on which shard.
    fn left(&self) -> Vec<(String, ShardId)> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().map(|left| (left.outlet.clone(), left.shard)).collect()
    }

    /// The backlog of an owner, with what was left that `is_mine` of it.
    fn backlog(&self, outlet: &str, shard: ShardId, is_mine: impl Fn(ShardId) -> bool) -> Backlog {
        let mut segments = VecDeque::new();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |left: &mut Left| left.outlet == outlet && is_mine(left.shard);
        left.extract_if(.., mine).for_each(|left| segments.extend(left.segments));
        drop(left);
        let name = format!("{shard:03}-{:08x}", crc32fast::hash(outlet.as_bytes()));
        let owner = Owner { sink: self.key.clone(), outlet: outlet.to_owned() };
        // Each backlog has numbers of its own, behind those of earlier runs.
        let next = self.next.load(Ordering::Relaxed);
        Backlog::new(Arc::clone(&self.folder), name, owner, segments, next, Arc::clone(&self.quota))
    }

    fn cannot_find(&self, outlet: &str) {
        log::warn!(
            target: "wpgen::rescue",
            "rescue of sink '{}': what was left for {outlet} is sent when a record for it comes", self.key
        );
    }

    fn failed(&self, what: &str, error: &std::io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let words = format!("{what}: {error}");
        let before = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).replace(words.clone());
        if before.is_none() {
            log::error!(
                target: "wpgen::rescue",
                "rescue of sink '{}': {words}; its records wait, and their sources", self.key
            );
        }
    }

    fn worked(&self) {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if trouble.is_some() {
            log::info!(target: "wpgen::rescue", "rescue of sink '{}' works again", self.key);
        }
    }
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
