//! Inputs that no path which is followed leads to, while files beside may hold the rest of them.
//!
//! At the start: files that were renamed or packed since the last run. Later: files that had the path of another one
//! between two looks. All of them are read to their end and no further, and before what is at their path now.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use super::alike::is_rotated;
use super::known::State;
use super::{Catalog, Decision};
use crate::source::file::identity::{Fingerprint, Seen, Verdict};

/// An input of an earlier run that a look did not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The inputs; several where one file was read in ranges.
    pub ids: Vec<u64>,
    /// Where its file was.
    pub path: PathBuf,
    /// On which device.
    pub dev: u64,
    /// Which inode.
    pub ino: u64,
    /// Up to where it is settled.
    pub position: u64,
    /// Whether it was read to its end: there is more of it only if it has grown since.
    pub done: bool,
    /// Whether it was said that its file is not there.
    pub told: bool,
}

impl Catalog {
    /// The inputs of an earlier run of which the look that has begun did not see the file.
    pub fn missing(&self, seen: &[Seen]) -> Vec<Missing> {
        let here: HashSet<(u64, u64)> = seen.iter().map(|seen| (seen.dev, seen.ino)).collect();
        let inputs = self.known.values().filter(|known| known.state == State::Gone && !known.is_busy());
        let missing = inputs.filter(|known| !here.contains(&known.identity.inode()));
        let missing = missing.map(|known| Missing {
            ids: vec![known.id],
            path: known.path.clone(),
            dev: known.identity.dev,
            ino: known.identity.ino,
            position: known.position,
            done: known.done,
            told: known.lost,
        });
        missing.collect()
    }

    /// Of the files beside those that the look saw, the rest is read of those that missing inputs are in. To be called
    /// before the look is judged.
    pub fn find_rests(&mut self, beside: &[Seen]) -> Vec<Decision> {
        let mut out = Vec::new();
        // A file that is there as it was, rather than one that begins alike.
        let (packed, plain): (Vec<_>, Vec<_>) = beside.iter().partition(|seen| seen.packed.is_some());
        for seen in plain.into_iter().chain(packed) {
            let found = match self.by_inode.get(&(seen.dev, seen.ino)) {
                Some(&id) => self.find_renamed(id, seen, &mut out),
                None => self.find_packed(seen, &mut out),
            };
            if let Some((id, from)) = found {
                out.push(Decision::Gone { id });
                self.first.insert(from, id);
            }
        }
        out
    }

    fn find_renamed(&mut self, id: u64, seen: &Seen, out: &mut Vec<Decision>) -> Option<(u64, PathBuf)> {
        let known = self.known.get_mut(&id)?;
        let born = known.identity.born_ns;
        // An empty file is known by its inode alone, and the number may be another file's by now.
        let sure = !known.is_blank() || (born != 0 && born == seen.born_ns);
        let same =
            sure && known.state == State::Gone && !known.is_busy() && known.judge(seen) == Verdict::Same;
        let more = !known.done || (seen.packed.is_none() && seen.size > known.position);
        if !same || !more {
            return None;
        }
        let from = std::mem::replace(&mut known.path, seen.path.clone());
        known.identity.fingerprint = known.identity.fingerprint.grown(&seen.head);
        known.open(seen, None, out);
        Some((id, from))
    }

    fn find_packed(&mut self, seen: &Seen, out: &mut Vec<Decision>) -> Option<(u64, PathBuf)> {
        let head = &seen.packed.as_ref()?.head;
        let missing = self.known.values().filter(|known| {
            let fingerprint = known.identity.fingerprint;
            known.state == State::Gone
                && !known.is_busy()
                && !known.done
                && known.content.is_none()
                && fingerprint.proves(known.position)
                && fingerprint.matches(head)
                && is_rotated(&known.path, &seen.path)
        });
        let found = missing.max_by_key(|known| (known.position, known.id))?;
        let (id, from) = (found.id, found.path.clone());
        self.adopt(id, seen, out);
        let known = self.known.get_mut(&id)?;
        known.state = State::Gone;
        known.reading.then_some((id, from))
    }

    /// It was said of an input that its file is not there.
    pub fn told_lost(&mut self, id: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.lost = true;
        }
    }

    /// Whether an input has this inode.
    pub fn knows(&self, dev: u64, ino: u64) -> bool {
        self.by_inode.contains_key(&(dev, ino))
    }

    /// Files that had `path` between two looks, the oldest first, are read behind what was there before and before what is
    /// there now. To be called before the look is judged.
    pub fn between_looks(&mut self, path: &Path, files: &[Seen], ids: &AtomicU64) -> Vec<Decision> {
        let mut out = Vec::new();
        let had_it = self.known.values().filter(|known| known.reading && known.path == path);
        let mut after = had_it.map(|known| known.id).max();
        for seen in files {
            let head = Fingerprint::of(&seen.head);
            let is_copied = |known: &super::Known| known.identity.fingerprint == head;
            // A copy begins with a whole KiB that we know.
            let copy = head.is_full() && self.known.values().any(is_copied);
            if copy || seen.packed.is_some() || self.knows(seen.dev, seen.ino) {
                continue;
            }
            let id = self.admit(seen, after, ids, &mut out);
            if let Some(known) = self.known.get_mut(&id) {
                known.state = State::Gone;
            }
            out.push(Decision::Gone { id });
            self.first.insert(path.to_owned(), id);
            after = Some(id);
        }
        out
    }
}
