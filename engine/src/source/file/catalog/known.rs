//! What is known of one input.

use std::path::PathBuf;

use super::Decision;
use super::alike::{is_related, is_rotated};
use crate::checkpoint::Input;
use crate::source::file::identity::{Fingerprint, Identity, Seen, Verdict};

/// An input and the file that it is.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) content: Option<Fingerprint>,
    /// Up to where it was read.
    pub(super) position: u64,
    /// Up to where every sink has it.
    pub(super) settled: u64,
    /// A reader has it.
    pub(super) reading: bool,
    /// A reader has it, or what a reader gave is not settled yet.
    pub(super) in_flight: bool,
    /// What it began with in the last look: a hint, for a look may be older than what the reader knows.
    pub(super) observed: Fingerprint,
    /// A look found it other than it was; its reader has not said yet.
    pub(super) suspect: bool,
    /// It was read to its end and closed.
    pub(super) done: bool,
    /// It was said that its file is not there any more.
    pub(super) lost: bool,
    /// What has become of it.
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Seen in the look of this number.
    Live(u64),
    /// Not seen any more.
    Gone,
    /// Its inode began anew, as looks behind this number can see: only a copy can hold this content.
    Truncated(u64),
}

impl Known {
    pub(super) fn new(id: u64, seen: &Seen, look: u64) -> Self {
        let fingerprint = Fingerprint::of(&seen.head);
        Self {
            id,
            path: seen.path.clone(),
            identity: Identity { dev: seen.dev, ino: seen.ino, born_ns: seen.born_ns, fingerprint },
            content: seen.packed.as_ref().map(|packed| Fingerprint::of(&packed.head)),
            position: 0,
            settled: 0,
            reading: false,
            in_flight: false,
            observed: fingerprint,
            suspect: false,
            done: false,
            lost: false,
            state: State::Live(look),
        }
    }

    pub(super) fn resumed(input: &Input) -> Self {
        let fingerprint = input.fingerprint;
        Self {
            id: input.id,
            path: input.path.clone(),
            identity: Identity { dev: input.dev, ino: input.ino, born_ns: input.born_ns, fingerprint },
            content: input.content,
            position: input.position,
            settled: input.position,
            reading: false,
            in_flight: false,
            observed: fingerprint,
            suspect: false,
            done: input.done,
            lost: input.lost,
            // It may have been truncated just before, with its copy not yet found.
            state: if input.superseded { State::Truncated(0) } else { State::Gone },
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.position == 0 && self.identity.fingerprint.is_empty() && !self.reading
    }

    pub(super) fn is_busy(&self) -> bool {
        self.reading || self.in_flight
    }

    pub(super) fn judge(&self, seen: &Seen) -> Verdict {
        if self.content.is_some() != seen.packed.is_some() {
            return Verdict::Anew;
        }
        // The position in a compressed file counts its content.
        let position = if self.content.is_some() { 0 } else { self.position };
        self.identity.judge(seen, position)
    }

    pub(super) fn open(&mut self, seen: &Seen, after: Option<u64>, out: &mut Vec<Decision>) {
        self.reading = true;
        self.in_flight = true;
        self.done = false;
        let packed = seen.packed.is_some();
        out.push(Decision::Open {
            id: self.id,
            path: seen.path.clone(),
            position: self.position,
            packed,
            after,
        });
    }

    /// Whether a compressed file that begins alike holds what this input has read, as far as that can be told.
    pub(super) fn is_packed_in(&self, seen: &Seen) -> bool {
        let Some(packed) = &seen.packed else { return false };
        let fingerprint = self.identity.fingerprint;
        let same_len = packed.len.is_some_and(|len| len == self.position as u32);
        let covered = self.position <= u64::from(fingerprint.len);
        same_len || covered || (fingerprint.is_full() && is_related(&self.path, &seen.path))
    }

    /// Whether a file that begins alike can be the copy that copytruncate makes of this input before it truncates it:
    /// then it was there before the truncation, and has a longer name.
    pub(super) fn is_copied_to(&self, seen: &Seen, look: u64) -> bool {
        is_rotated(&self.path, &seen.path)
            && match self.state {
                State::Live(_) => true,
                State::Gone => false,
                // A look that had begun may not have seen the copy; the one after it has. More may have been read than
                // was copied.
                State::Truncated(at) => look <= at + 2 && self.identity.fingerprint.proves(self.position),
            }
    }

    /// Whether it was truncated after this look had begun, which then says nothing certain of a copy's size.
    pub(super) fn is_truncated_since(&self, look: u64) -> bool {
        matches!(self.state, State::Truncated(at) if at >= look)
    }

    /// Of several inputs that a file could be: one that lost its inode rather than one that has it, and the latest.
    pub(super) fn rank(&self, seen: &Seen) -> (bool, bool, bool, u64) {
        let truncated = matches!(self.state, State::Truncated(_));
        let lost = truncated || self.state == State::Gone;
        (truncated, lost, is_related(&self.path, &seen.path), self.id)
    }

    pub(super) fn input(&self, source: &str, owns_inode: bool) -> Input {
        Input {
            id: self.id,
            source: source.to_owned(),
            path: self.path.clone(),
            dev: self.identity.dev,
            ino: self.identity.ino,
            born_ns: self.identity.born_ns,
            superseded: !owns_inode,
            fingerprint: self.identity.fingerprint,
            position: self.settled,
            ranges: Vec::new(),
            done: self.done && self.settled == self.position,
            lost: self.lost,
            content: self.content,
        }
    }
}

/// One input of a file that was read in ranges, each an input of its own: as far as it was read without a gap.
pub(super) fn joined(parts: &[&Input]) -> Option<Input> {
    let mut parts: Vec<&Input> = parts.to_vec();
    parts.sort_by_key(|part| part.ranges.first().map(|range| range.start));
    let mut whole = Input { ranges: Vec::new(), position: 0, done: false, ..(*parts.first()?).clone() };
    for range in parts.iter().filter_map(|part| part.ranges.first()) {
        if range.start > whole.position {
            break;
        }
        whole.position = whole.position.max(range.position);
    }
    Some(whole)
}
