//! By what a stranger resembles an input: what it begins with, and its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::known::{Known, State};
use crate::source::file::identity::Fingerprint;

/// The inputs a stranger can be compared with, by what they begin with.
pub(super) struct Alike {
    lens: BTreeSet<u16>,
    ids: HashMap<Fingerprint, Vec<u64>>,
    /// By the stem of their names: those that are being read, the one with the shortest name of each stem.
    stems: HashMap<Vec<u8>, u64>,
    /// Those that are new in this look.
    new: HashMap<Fingerprint, Vec<u64>>,
}

/// How many new inputs that begin alike are compared with a stranger: a copy's original has a shorter name, and so is
/// among the first.
const NEW_MAX: usize = 16;

impl Alike {
    pub(super) fn none() -> Self {
        Self { lens: BTreeSet::new(), ids: HashMap::new(), stems: HashMap::new(), new: HashMap::new() }
    }

    /// Of all inputs but those that are compressed files themselves, and those of which nothing is known yet.
    pub(super) fn of(known: &BTreeMap<u64, Known>) -> Self {
        let mut alike = Self::none();
        let mut shortest: HashMap<&[u8], &Known> = HashMap::new();
        for known in known.values().filter(|known| known.content.is_none()) {
            if known.reading {
                let kept = shortest.entry(stem_of(&known.path)).or_insert(known);
                if name_of(&known.path).len() < name_of(&kept.path).len() {
                    *kept = known;
                }
            }
            alike.add(known.identity.fingerprint, known.id);
            if matches!(known.state, State::Live(_)) && known.observed != known.identity.fingerprint {
                alike.add(known.observed, known.id);
            }
        }
        alike.stems = shortest.into_iter().map(|(stem, known)| (stem.to_vec(), known.id)).collect();
        alike
    }

    fn add(&mut self, fingerprint: Fingerprint, id: u64) {
        if !fingerprint.is_empty() {
            self.lens.insert(fingerprint.len);
            self.ids.entry(fingerprint).or_default().push(id);
        }
    }

    /// An input that is new in this look.
    pub(super) fn add_new(&mut self, fingerprint: Fingerprint, id: u64) {
        let ids = self.new.entry(fingerprint).or_default();
        if !fingerprint.is_empty() && ids.len() < NEW_MAX {
            ids.push(id);
        }
    }

    /// Those new in this look that begin with the same first KiB, or with the same bytes if they have no more.
    pub(super) fn new_ones(&self, head: &[u8]) -> impl Iterator<Item = u64> {
        self.new.get(&Fingerprint::of(head)).into_iter().flatten().copied()
    }

    /// Those whose stem a name begins with.
    pub(super) fn stems_of(&self, path: &Path) -> impl Iterator<Item = u64> {
        let name = name_of(path);
        (1..=name.len()).filter_map(|len| self.stems.get(&name[..len]).copied())
    }

    /// Those that content which begins with `head` could be of.
    pub(super) fn begins(&self, head: &[u8]) -> impl Iterator<Item = u64> {
        let fitting = self.lens.iter().map(|len| usize::from(*len)).take_while(|len| *len <= head.len());
        fitting.flat_map(|len| self.ids.get(&Fingerprint::of(&head[..len])).into_iter().flatten().copied())
    }
}

/// Whether a file with next to nothing in it is one that a compressor has just made: what is in it cannot be told yet.
pub(super) fn will_be_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zst")
}

pub(super) fn name_of(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_encoded_bytes())
}

/// A name up to its first dot, a leading one aside.
pub(super) fn stem_of(path: &Path) -> &[u8] {
    let name = name_of(path);
    let dot = name.iter().skip(1).position(|&byte| byte == b'.').map_or(name.len(), |at| at + 1);
    &name[..dot]
}

/// Whether two names belong to one series of rotated files: the second begins with the stem of the first.
pub(super) fn is_related(of: &Path, to: &Path) -> bool {
    let stem = stem_of(of);
    !stem.is_empty() && name_of(to).starts_with(stem)
}

/// Whether the second name is one that a rotation makes of the first: something is put behind it or into it.
pub(super) fn is_rotated(from: &Path, to: &Path) -> bool {
    is_related(from, to) && name_of(to).len() > name_of(from).len()
}
