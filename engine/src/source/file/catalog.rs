//! What a source knows of its files, and what to do about what it sees.
//!
//! Pure: it takes observations ([`Seen`]) and the time, and returns [`Decision`]s; it opens and reads nothing. The driver looks
//! at all files ([`Catalog::look`]) at the start and whenever names came or went, and at one file
//! ([`Catalog::touch`]) when that one was written to.
//!
//! Invariants:
//! - an input is one content: its positions only rise, but for what a reader read and did not give out. A file that is truncated goes on under a new id, and a rotated
//!   file that comes back compressed, or as the copy that copytruncate made, keeps its id and position.
//! - an inode is read by one input at a time, and an id is opened again only after its reader has closed it and every
//!   sink has what that one read.
//! - only the reader of an open file can tell that it was truncated, for only it sees file and position at one time; a look
//!   may be older than what was read since.
//! - what has gone is remembered (up to [`GONE_MAX`]): a look is not atomic, so a file can be missed once while it is
//!   being renamed, and a compressed twin often comes after its original has gone.
//!
//! It refuses to take two files for one by content alone when that could lose a line: content decides only for compressed
//! files, and for a copy of a file that was truncated. Else a new inode is a new file. So a copy of less than a KiB, of
//! whose original more was read than it holds, is read as a file of its own.

mod alike;
mod known;
mod rests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use self::alike::{Alike, is_rotated, name_of, will_be_packed};
use self::known::{Known, State, joined};
pub use self::rests::Missing;
use super::identity::{Fingerprint, Seen, Verdict};
use super::unpack::Packing;
use crate::checkpoint::Input;

/// How many inputs without a file are remembered; the longest gone is forgotten first.
pub const GONE_MAX: usize = 16_384;

/// How long a compressed file must rest before it is taken for whole.
const REST_MS: u64 = 1_000;

/// How long a look waits for an input to settle, where nobody tells that it has.
const IN_FLIGHT_MS: u64 = 5_000;

/// How long a file that could be copytruncate's copy waits for the truncation after its last growth, and at most.
const COPY_MS: u64 = 1_500;
const COPY_MAX_MS: u64 = 60_000;

/// What to do. An `id` is that of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Begin reading.
    Open {
        /// The input.
        id: u64,
        /// The file.
        path: PathBuf,
        /// From where on; for a compressed file, of its content.
        position: u64,
        /// Whether it is compressed.
        packed: bool,
        /// The input that had this path before and is still being read: its rest comes first.
        after: Option<u64>,
    },
    /// There is more to read.
    Grew {
        /// The input.
        id: u64,
    },
    /// The open file was truncated: `id` is finished, and the file is read from its beginning as `new`.
    Truncated {
        /// The input that ends.
        id: u64,
        /// The input that begins.
        new: u64,
    },
    /// The open file has another path now, or one again after it had none.
    Renamed {
        /// The input.
        id: u64,
        /// Its path.
        to: PathBuf,
    },
    /// No path leads to the open file any more: read it to its end, wait a little for a writer that still has it, close it.
    Gone {
        /// The input.
        id: u64,
    },
}

/// What a look came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What to do, in this order.
    pub decisions: Vec<Decision>,
    /// Something could not be decided yet: look again after so many milliseconds.
    pub again_ms: Option<u64>,
}

impl Outcome {
    fn again_in(&mut self, ms: u64) {
        self.again_ms = Some(self.again_ms.map_or(ms, |other| other.min(ms)));
    }
}

/// Where the reading of a file nobody knows begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its beginning.
    Beginning,
    /// At its end, if it was there at the first look; else at its beginning. What a checkpoint says does not count then,
    /// so such a catalog is not to be resumed.
    End,
}

/// The files of one source.
#[derive(Debug)]
pub struct Catalog {
    source: String,
    start: Start,
    /// Whether files wait for a decision; a source that reads once does not wait.
    patient: bool,
    /// Looks that have begun, and the last one that was judged.
    looks: u64,
    judged: u64,
    known: BTreeMap<u64, Known>,
    by_inode: HashMap<(u64, u64), u64>,
    /// Strangers that wait, by inode.
    waiting: HashMap<(u64, u64), Waiting>,
    /// What is to be read before what the next look finds at a path.
    first: HashMap<PathBuf, u64>,
}

/// A file that may be a copy of an input, made before that one is truncated.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since_ms: u64,
    size: u64,
    /// The input, where one was found to begin alike.
    twin: Option<u64>,
    /// What the file began with when that was found.
    fingerprint: Fingerprint,
}

impl Catalog {
    /// A catalog of nothing. One that is not `patient` decides at once: it belongs to a source that reads once.
    pub fn new(source: &str, start: Start, patient: bool) -> Self {
        Self {
            source: source.to_owned(),
            start,
            patient,
            looks: 0,
            judged: 0,
            known: BTreeMap::new(),
            by_inode: HashMap::new(),
            waiting: HashMap::new(),
            first: HashMap::new(),
        }
    }

    /// Takes over what a checkpoint holds of this source.
    pub fn resume(&mut self, inputs: &[Input]) {
        let own = || inputs.iter().filter(|input| input.source == self.source);
        let mut resumed: Vec<Input> = own().filter(|input| input.ranges.is_empty()).cloned().collect();
        let mut in_ranges: BTreeMap<(u64, u64), Vec<&Input>> = BTreeMap::new();
        for input in own().filter(|input| !input.ranges.is_empty()) {
            in_ranges.entry((input.dev, input.ino)).or_default().push(input);
        }
        resumed.extend(in_ranges.into_values().filter_map(|parts| joined(&parts)));
        for input in resumed {
            let known = Known::resumed(&input);
            if !input.superseded {
                self.by_inode.insert(known.identity.inode(), known.id);
            }
            self.known.insert(known.id, known);
        }
    }

    /// What a checkpoint must hold of this source.
    pub fn inputs(&self) -> Vec<Input> {
        let owns = |known: &Known| self.by_inode.get(&known.identity.inode()) == Some(&known.id);
        self.known.values().map(|known| known.input(&self.source, owns(known))).collect()
    }

    /// Every sink has `id` up to `position`.
    pub fn settle(&mut self, id: u64, position: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            let most = if known.done { known.position } else { u64::MAX };
            known.settled = known.settled.max(position.min(most));
        }
    }

    /// The reader of `id` has read up to `position`. True when the fingerprint does not cover what it could cover of that:
    /// then the reader owes a call of [`Catalog::head`], or a truncation could go unseen.
    pub fn progress(&mut self, id: u64, position: u64) -> bool {
        let Some(known) = self.known.get_mut(&id) else { return false };
        known.position = known.position.max(position);
        let fingerprint = known.identity.fingerprint;
        known.content.is_none() && !fingerprint.is_full() && u64::from(fingerprint.len) < known.position
    }

    /// The reader of `id` found that its file begins with `head`.
    pub fn head(&mut self, id: u64, head: &[u8]) {
        let plain = self.known.get_mut(&id).filter(|known| known.content.is_none());
        if let Some(known) = plain.filter(|known| known.identity.fingerprint.matches(head)) {
            known.identity.fingerprint = known.identity.fingerprint.grown(head);
        }
    }

    /// The reader of `id` read on from `position` and gave nothing more out: that is to be read again.
    pub fn hand_back(&mut self, id: u64, position: u64) {
        if let Some(known) = self.known.get_mut(&id) {
            known.position = known.position.min(position);
        }
    }

    /// The reader of `id` has closed its file, at the `end` or before it; `deleted` when the file had no name left. Until
    /// [`Catalog::retire`] the input is not opened again.
    pub fn closed(&mut self, id: u64, end: bool, deleted: bool) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.reading = false;
        // Of a truncated file there may be more in a copy.
        known.done = end && !matches!(known.state, State::Truncated(_));
        // Without a name nobody can open it again: who has that inode from now on is another file.
        if deleted && self.by_inode.get(&known.identity.inode()) == Some(&id) {
            self.by_inode.remove(&known.identity.inode());
        }
    }

    /// Every sink has all that the reader of `id` gave, up to `position`, and that reader is no more. True when a look at all
    /// files has waited for that.
    pub fn retire(&mut self, id: u64, position: u64) -> bool {
        self.settle(id, position);
        let Some(known) = self.known.get_mut(&id) else { return false };
        known.in_flight = false;
        !self.waiting.is_empty() || (matches!(known.state, State::Live(_)) && !known.done)
    }

    /// Whether the file with this inode is the one that `id` was last seen in.
    pub fn is_in(&self, id: u64, dev: u64, ino: u64) -> bool {
        self.known.get(&id).is_some_and(|known| known.identity.inode() == (dev, ino))
    }

    /// The path of an input, if it has one.
    pub fn path(&self, id: u64) -> Option<&Path> {
        self.known.get(&id).map(|known| known.path.as_path())
    }

    /// Judges one file that was written to: by its path when an event told of it, and by its reader, through the open
    /// file and with [`Catalog::path`], before it reads on. `None`: this needs a look at all of them.
    pub fn touch(&mut self, seen: &Seen, ids: &AtomicU64) -> Option<Decision> {
        let id = *self.by_inode.get(&(seen.dev, seen.ino))?;
        let known = self.known.get_mut(&id).filter(|known| known.reading && known.path == seen.path)?;
        if known.judge(seen) == Verdict::Anew {
            return Some(Decision::Truncated { id, new: self.truncate(id, seen, ids) });
        }
        known.suspect = false;
        known.identity.fingerprint = known.identity.fingerprint.grown(&seen.head);
        Some(Decision::Grew { id })
    }

    /// Whether an open file still is `id` and holds all of it up to `position`.
    pub fn holds(&self, id: u64, seen: &Seen, position: u64) -> bool {
        self.known.get(&id).is_some_and(|known| known.identity.judge(seen, position) == Verdict::Same)
    }

    /// Whether a copy of `id` waits for its reader to end, and has more than `position`.
    pub fn is_copied_beyond(&self, id: u64, position: u64) -> bool {
        self.waiting.values().any(|waiting| waiting.twin == Some(id) && waiting.size > position)
    }

    /// How many looks at all files have begun.
    pub fn looks_begun(&self) -> u64 {
        self.looks
    }

    /// Which of them was judged last.
    pub fn looks_judged(&self) -> u64 {
        self.judged
    }

    /// A look at all files begins. What happens from now on it may see or not see; [`Catalog::look`] ends it.
    pub fn begin_look(&mut self) {
        self.looks += 1;
    }

    /// The look that has begun could not see what is at `path` or below: what is known there is there still.
    pub fn unsure(&mut self, path: &Path) {
        let known = self.known.values_mut().filter(|known| known.path.starts_with(path));
        for known in known.filter(|known| matches!(known.state, State::Live(_))) {
            known.state = State::Live(self.looks);
        }
    }

    /// Judges all files there are, as the look saw them. `now_ms` is wall time, for it is compared with times of files.
    pub fn look(&mut self, now_ms: u64, seen: &[Seen], ids: &AtomicU64) -> Outcome {
        self.judged = self.looks;
        let mut outcome = Outcome::default();
        let mut moved = HashMap::new();
        let mut strangers = Vec::new();
        for seen in seen {
            if !self.recognise(seen, &mut moved, &mut outcome) {
                strangers.push(seen);
            }
        }
        self.miss(&mut moved, &mut outcome.decisions);
        moved.extend(std::mem::take(&mut self.first));
        let waited = std::mem::take(&mut self.waiting);
        let mut alike = if strangers.is_empty() { Alike::none() } else { Alike::of(&self.known) };
        // An original before its copies.
        strangers.sort_by_key(|seen| name_of(&seen.path).len());
        // Where all is read from its end nothing can come twice, and whoever waits would come from the beginning.
        let at_end = self.start == Start::End && self.looks == 1;
        for seen in strangers {
            match self.place(seen, now_ms, waited.get(&(seen.dev, seen.ino)), &alike) {
                Place::New => {
                    let after = moved.get(&seen.path).copied();
                    let id = self.admit(seen, after, ids, &mut outcome.decisions);
                    if !at_end && seen.packed.is_none() {
                        alike.add_new(Fingerprint::of(&seen.head), id);
                    }
                }
                Place::As(id) => self.adopt(id, seen, &mut outcome.decisions),
                Place::Twin => {}
                Place::Wait(waiting, ms) => {
                    self.waiting.insert((seen.dev, seen.ino), waiting);
                    outcome.again_in(ms);
                }
            }
        }
        self.forget();
        outcome
    }

    /// Handles a file whose inode is known; false when it is a stranger all the same.
    fn recognise(&mut self, seen: &Seen, moved: &mut HashMap<PathBuf, u64>, outcome: &mut Outcome) -> bool {
        let Some(&id) = self.by_inode.get(&(seen.dev, seen.ino)) else { return false };
        let Some(known) = self.known.get_mut(&id) else { return false };
        // A file that was empty when it went is known by its inode alone, and that says nothing once it was away.
        let blank = known.is_blank() && known.state == State::Gone;
        let anew = blank || known.judge(seen) == Verdict::Anew;
        if anew && !known.reading {
            known.state = State::Truncated(self.looks - 1);
            self.by_inode.remove(&(seen.dev, seen.ino));
            return false;
        }
        let was_gone = known.state == State::Gone;
        known.state = State::Live(self.looks);
        known.lost = false;
        let grew = seen.packed.is_none() && (anew || seen.size > known.position);
        let from = (known.path != seen.path).then(|| std::mem::replace(&mut known.path, seen.path.clone()));
        if known.reading {
            // What was observed may be older than what the reader knows by now: whether the file was truncated is for the
            // reader to find out, with `touch`.
            if from.is_some() || was_gone {
                outcome.decisions.push(Decision::Renamed { id, to: seen.path.clone() });
            }
            if let Some(from) = from {
                moved.insert(from, id);
            }
            known.suspect = anew;
            known.observed = Fingerprint::of(&seen.head);
            if grew {
                outcome.decisions.push(Decision::Grew { id });
            }
        } else if grew || !known.done {
            if known.in_flight {
                outcome.again_in(IN_FLIGHT_MS);
            } else {
                known.identity.fingerprint = known.identity.fingerprint.grown(&seen.head);
                known.open(seen, None, &mut outcome.decisions);
            }
        }
        true
    }

    /// The open file of `id` begins anew: as another input, whose id is returned.
    fn truncate(&mut self, id: u64, seen: &Seen, ids: &AtomicU64) -> u64 {
        let mut new = Known::new(ids.fetch_add(1, Ordering::Relaxed), seen, self.looks);
        (new.reading, new.in_flight) = (true, true);
        if let Some(known) = self.known.get_mut(&id) {
            if known.state == State::Gone {
                new.state = State::Gone;
            }
            known.state = State::Truncated(self.looks);
            known.reading = false;
        }
        let id = new.id;
        self.by_inode.insert((seen.dev, seen.ino), id);
        self.known.insert(id, new);
        id
    }

    /// Finds those that were there and are not; what is still read of them is told to come first at their paths.
    fn miss(&mut self, moved: &mut HashMap<PathBuf, u64>, out: &mut Vec<Decision>) {
        for known in self.known.values_mut() {
            let missed = matches!(known.state, State::Live(look) if look != self.looks);
            if missed {
                known.state = State::Gone;
            }
            if known.reading && known.state == State::Gone {
                moved.insert(known.path.clone(), known.id);
                if missed {
                    out.push(Decision::Gone { id: known.id });
                }
            }
        }
    }

    /// Decides what a file with an unknown inode is.
    fn place(&self, seen: &Seen, now_ms: u64, waited: Option<&Waiting>, alike: &Alike) -> Place {
        let rested_ms = now_ms.saturating_sub(seen.changed_ms);
        let mut waiting = Waiting {
            since_ms: now_ms,
            size: seen.size,
            twin: None,
            fingerprint: Fingerprint::of(&seen.head),
        };
        if let Some(waited) = waited {
            waiting.since_ms = waited.since_ms;
        }
        if will_be_packed(&seen.path) && Packing::may_follow(&seen.head) {
            return Place::Wait(waiting, IN_FLIGHT_MS);
        }
        if seen.packed.is_some() {
            // The readers must have had their chance: what they have not read yet cannot be compared.
            let early = rested_ms < REST_MS || (waited.is_none() && self.looks > 1);
            return self.place_packed(seen, self.patient && early, waiting, alike);
        }
        let recorded = waited.and_then(|waited| self.copied(seen, waited));
        let twin = recorded.or_else(|| self.copied_now(seen, alike));
        let waited_ms = now_ms.saturating_sub(waiting.since_ms);
        let lost = twin.is_some_and(|twin| !matches!(twin.state, State::Live(_)));
        match twin {
            Some(twin) if lost && !twin.is_busy() && !twin.is_truncated_since(self.looks) => {
                Place::As(twin.id)
            }
            Some(twin) if lost || twin.suspect || self.may_wait(rested_ms, waited_ms) => {
                // What was truncated before the copy was made is not what was copied.
                let sure =
                    recorded.is_some() || !twin.suspect || twin.identity.fingerprint.matches(&seen.head);
                waiting.twin = Some(twin.id).filter(|_| sure && seen.size > 0);
                Place::Wait(waiting, REST_MS / 2)
            }
            _ => Place::New,
        }
    }

    fn place_packed(&self, seen: &Seen, early: bool, waiting: Waiting, alike: &Alike) -> Place {
        let Some(packed) = seen.packed.as_ref().filter(|_| !early) else {
            return Place::Wait(waiting, REST_MS / 2);
        };
        let twins = alike.begins(&packed.head).filter_map(|id| self.known.get(&id));
        // Of several, the one of which most was read has the least to lose.
        let rank = |known: &&Known| (known.position, known.rank(seen));
        match twins.filter(|known| known.is_packed_in(seen)).max_by_key(rank) {
            Some(twin) if matches!(twin.state, State::Live(_)) => Place::Twin,
            Some(twin) if twin.is_busy() => Place::Wait(waiting, IN_FLIGHT_MS),
            Some(twin) => Place::As(twin.id),
            None => Place::New,
        }
    }

    fn may_wait(&self, rested_ms: u64, waited_ms: u64) -> bool {
        self.patient && waited_ms < COPY_MAX_MS && (waited_ms < COPY_MS || rested_ms < COPY_MS)
    }

    /// The input that a waiting file was found to be a copy of, if it still begins as it did then.
    fn copied(&self, seen: &Seen, waited: &Waiting) -> Option<&Known> {
        let twin = self.known.get(&waited.twin?)?;
        let unchanged = waited.fingerprint == Fingerprint::of(&seen.head);
        (unchanged || twin.identity.fingerprint.matches(&seen.head)).then_some(twin)
    }

    /// The input that a file could be a copy of.
    fn copied_now(&self, seen: &Seen, alike: &Alike) -> Option<&Known> {
        if seen.size == 0 {
            // A copy that has just been made and not been filled yet.
            return alike.stems_of(&seen.path).find_map(|id| {
                let twin = self.known.get(&id)?;
                (matches!(twin.state, State::Live(_)) && is_rotated(&twin.path, &seen.path)).then_some(twin)
            });
        }
        let ids = alike.begins(&seen.head).chain(alike.new_ones(&seen.head));
        let twins = ids.filter_map(|id| self.known.get(&id));
        twins.filter(|known| known.is_copied_to(seen, self.looks)).max_by_key(|known| known.rank(seen))
    }

    /// A new input, at a path where the input `after` is still being read. Returns its id.
    fn admit(&mut self, seen: &Seen, after: Option<u64>, ids: &AtomicU64, out: &mut Vec<Decision>) -> u64 {
        let mut known = Known::new(ids.fetch_add(1, Ordering::Relaxed), seen, self.looks);
        if self.start == Start::End && self.looks == 1 {
            known.position = seen.size;
            known.settled = seen.size;
            known.done = seen.packed.is_some();
        }
        if !known.done {
            known.open(seen, after, out);
        }
        let id = known.id;
        self.by_inode.insert((seen.dev, seen.ino), id);
        self.known.insert(id, known);
        id
    }

    /// An input whose content is in another file now.
    fn adopt(&mut self, id: u64, seen: &Seen, out: &mut Vec<Decision>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        if self.by_inode.get(&known.identity.inode()) == Some(&id) {
            self.by_inode.remove(&known.identity.inode());
        }
        let fresh = Known::new(id, seen, self.looks);
        known.path = fresh.path;
        known.identity = fresh.identity;
        known.content = fresh.content;
        known.state = fresh.state;
        known.lost = false;
        if seen.packed.is_none() && seen.size <= known.position {
            // More was read than the copy holds.
            known.position = seen.size;
            known.settled = known.settled.min(seen.size);
            known.done = true;
        } else if !known.done || seen.packed.is_none() {
            known.open(seen, None, out);
        }
        self.by_inode.insert((seen.dev, seen.ino), id);
    }

    /// Keeps what has gone within its bound.
    fn forget(&mut self) {
        let gone = |known: &&Known| !known.reading && !matches!(known.state, State::Live(_));
        let count = self.known.values().filter(gone).count();
        let old: Vec<u64> = self
            .known
            .values()
            .filter(gone)
            .take(count.saturating_sub(GONE_MAX))
            .map(|known| known.id)
            .collect();
        for id in old {
            if let Some(known) = self.known.remove(&id)
                && self.by_inode.get(&known.identity.inode()) == Some(&id)
            {
                self.by_inode.remove(&known.identity.inode());
            }
        }
    }
}

/// What a stranger is.
enum Place {
    /// A new input.
    New,
    /// An input that we know.
    As(u64),
    /// The same content as a file that is still there and read.
    Twin,
    /// Not to be told yet; look again after so many milliseconds.
    Wait(Waiting, u64),
}

#[cfg(test)]
mod tests;
