//! What is known of one outlet beyond its owner's shard: what is committed, where the next batch goes, what is wrong.
//!
//! Invariants: committed lengths and input positions move together, under one lock, and only for bytes that are durable
//! by the sink's own definition; so a snapshot says at any moment "these files, cut to these lengths, hold these inputs
//! up to these positions"; and whether they are cut, it says before anything is written that a cut would take. A file is
//! in the ledger before its first byte is written, and a snapshot that has it is on disk by then: only so can a start
//! tell an engine's unfinished bytes from what was in the file before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::place::Opened;
use crate::batch::{Batch, ShardId};
use crate::checkpoint::{Group, Output};
use crate::sink::template::Outlet;

/// An outlet that does not get its bytes out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The outlet's path, dates as they are configured.
    pub outlet: String,
    /// What was tried and what the system said.
    pub words: String,
    /// Since when, nanoseconds since the Unix epoch.
    pub since_ns: i64,
}

/// One outlet.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) outlet: Outlet,
    pub(super) name: String,
    /// The file that was opened before the first batch, so that a second engine is refused at start.
    pub(super) claimed: Mutex<Option<Opened>>,
    /// Told when the path may name another file.
    pub(super) reopen: Notify,
    /// Batches that the owner has.
    pub(super) held: AtomicU64,
    /// Attempts that failed.
    pub(super) failures: AtomicU64,
    /// Records and bytes delivered.
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    state: Mutex<State>,
    /// Bytes of all batches that were sealed, in all files.
    sealed: AtomicU64,
    /// What to add to that for the file's end when they are in it; wraps around.
    offset: AtomicU64,
    owner: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Output>,
    positions: HashMap<u64, u64>,
    /// Whether a start is to leave what is behind the committed lengths.
    only_copy: bool,
    /// Whether a checkpoint on disk says so.
    is_told: bool,
    trouble: Option<Trouble>,
}

/// No shard owns the outlet yet.
const NOBODY: u32 = u32::MAX;

impl Ledger {
    /// A ledger that goes on with `before`; `is_told` is whether the checkpoint on disk has it.
    pub(super) fn new(outlet: Outlet, before: Group, is_told: bool) -> Self {
        let state = State {
            files: before.files,
            positions: before.positions.into_iter().collect(),
            only_copy: before.only_copy,
            is_told,
            trouble: None,
        };
        Self {
            name: outlet.name(),
            outlet,
            claimed: Mutex::default(),
            reopen: Notify::new(),
            held: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            state: Mutex::new(state),
            sealed: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            owner: AtomicU32::new(NOBODY),
        }
    }

    /// The shard that owns the outlet: the one that asked first.
    pub(super) fn owner(&self, home: ShardId) -> ShardId {
        let asked = self
            .owner
            .compare_exchange(NOBODY, home.into(), Ordering::AcqRel, Ordering::Acquire)
            .unwrap_or_else(|owner| owner);
        if asked == NOBODY { home } else { asked as ShardId }
    }

    /// A batch of this length is on its way to the owner.
    pub(super) fn sealed(&self, len: u64) {
        self.sealed.fetch_add(len, Ordering::Relaxed);
    }

    /// Where the file will end when everything sealed is in it. A guess where several shards seal: then batches are
    /// moved in memory before they are written.
    pub(super) fn end(&self) -> u64 {
        self.offset.load(Ordering::Relaxed).wrapping_add(self.sealed.load(Ordering::Relaxed))
    }

    /// A file of `len` bytes goes on where `taken` bytes of all that was sealed are in files before it.
    pub(super) fn goes_on(&self, len: u64, taken: u64) {
        self.offset.store(len.wrapping_sub(taken), Ordering::Relaxed);
    }

    /// The file's end is `off` bytes, modulo a block, behind where [`Ledger::end`] has it.
    pub(super) fn put_right(&self, off: u64) {
        self.offset.fetch_add(off, Ordering::Relaxed);
    }

    /// The length of a file that the ledger knows, by its identity.
    pub(super) fn committed_len(&self, dev: u64, ino: u64) -> Option<u64> {
        let state = self.state();
        state.files.iter().find(|file| (file.dev, file.ino) == (dev, ino)).map(|file| file.committed_len)
    }

    /// Takes a file in, at the length it has before the first byte of ours.
    pub(super) fn announce(&self, path: &Path, dev: u64, ino: u64, len: u64) {
        let mut state = self.state();
        state.files.retain(|file| (file.dev, file.ino) != (dev, ino));
        state.files.push(Output { path: path.to_owned(), dev, ino, committed_len: len });
    }

    /// A file is finished and all of it committed: it will never be cut.
    pub(super) fn forget(&self, dev: u64, ino: u64) {
        self.state().files.retain(|file| (file.dev, file.ino) != (dev, ino));
    }

    /// Says whether what is behind the committed lengths is the only copy; returns whether the checkpoint does not say so
    /// yet, which the caller then sees to.
    pub(super) fn set_only_copy(&self, only_copy: bool) -> bool {
        let mut state = self.state();
        let was_told = std::mem::replace(&mut state.is_told, true);
        std::mem::replace(&mut state.only_copy, only_copy) != only_copy || !was_told
    }

    /// Whether a start leaves what is behind the committed lengths.
    pub(super) fn is_only_copy(&self) -> bool {
        self.state().only_copy
    }

    /// These batches are durable, and with them the file up to `len`.
    pub(super) fn commit(&self, dev: u64, ino: u64, len: u64, batches: &[Box<Batch>]) {
        let mut state = self.state();
        if let Some(file) = state.files.iter_mut().find(|file| (file.dev, file.ino) == (dev, ino)) {
            file.committed_len = len;
        }
        for ticket in batches.iter().flat_map(|batch| &batch.tickets).filter(|ticket| ticket.input != 0) {
            let position = state.positions.entry(ticket.input).or_default();
            *position = (*position).max(ticket.upto);
        }
    }

    /// A batch is on its way home.
    pub(super) fn delivered(&self, batch: &Batch) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.records.fetch_add(batch.records.into(), Ordering::Relaxed);
        self.bytes.fetch_add(batch.arena.len() as u64, Ordering::Relaxed);
    }

    /// What a checkpoint keeps.
    pub(super) fn snapshot(&self, sink: &str) -> Group {
        let state = self.state();
        let mut positions: Vec<_> = state.positions.iter().map(|(input, upto)| (*input, *upto)).collect();
        positions.sort_unstable();
        let files = state.files.clone();
        // Of no file it says nothing, and an engine of before can go on with it.
        let only_copy = state.only_copy && !files.is_empty();
        Group { sink: sink.to_owned(), key: self.name.clone(), files, positions, only_copy }
    }

    /// Adds the positions of the inputs to `all`.
    pub(super) fn positions_into(&self, all: &mut HashMap<u64, u64>) {
        all.extend(self.state().positions.iter());
    }

    /// Forgets inputs that will not come again.
    pub(super) fn retain_inputs(&self, keep: &dyn Fn(u64) -> bool) {
        self.state().positions.retain(|input, _| keep(*input));
    }

    /// What is wrong, if anything is.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    /// Something went wrong. The time of the first failure stays.
    pub(super) fn failed(&self, words: String, now_ns: i64) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        let since_ns = state.trouble.as_ref().map_or(now_ns, |trouble| trouble.since_ns);
        state.trouble = Some(Trouble { outlet: self.name.clone(), words, since_ns });
    }

    /// It works again. Returns whether it did not before.
    pub(super) fn well(&self) -> bool {
        self.state().trouble.take().is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;
    use crate::sink::template::Template;

    #[test]
    fn what_a_checkpoint_may_be_without_is_told_once_more() {
        let outlet = || Template::parse("out.log").unwrap().outlet(&Origin::new("", ""));
        let ledger = Ledger::new(outlet(), Group::default(), true);
        let asked = [false, true, true, false, false].map(|only_copy| ledger.set_only_copy(only_copy));
        assert_eq!(asked, [false, true, false, true, false]);
        let ledger = Ledger::new(outlet(), Group::default(), false);
        assert_eq!(
            [false, false, true].map(|only_copy| ledger.set_only_copy(only_copy)),
            [true, false, true]
        );
    }
}
