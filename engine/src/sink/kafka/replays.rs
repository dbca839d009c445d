//! Batches that a rescue has sent from disk: they come home in the order in which they came, for the rescue counts them from
//! the front. One that is delivered before those in front of it is kept until they are. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// See above; each by its turn.
#[derive(Debug)]
pub(super) struct Replays<T> {
    /// Not delivered.
    out: BTreeSet<u64>,
    /// Delivered, behind one that is not.
    kept: BTreeMap<u64, T>,
}

impl<T> Replays<T> {
    pub(super) fn new() -> Self {
        Self { out: BTreeSet::new(), kept: BTreeMap::new() }
    }

    /// One has come.
    pub(super) fn came(&mut self, turn: u64) {
        self.out.insert(turn);
    }

    /// One is delivered.
    pub(super) fn delivered(&mut self, turn: u64, batch: T) {
        self.out.remove(&turn);
        self.kept.insert(turn, batch);
    }

    /// The next one that goes home, if it may.
    pub(super) fn next_home(&mut self) -> Option<T> {
        let is_first = |turn: &u64| self.out.first().is_none_or(|out| turn < out);
        self.kept.first_entry().filter(|first| is_first(first.key())).map(|first| first.remove())
    }

    /// Begins anew: those that were kept.
    pub(super) fn take(&mut self) -> BTreeMap<u64, T> {
        self.out.clear();
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_home_as_they_came() {
        let mut replays = Replays::new();
        (0..4).for_each(|turn| replays.came(turn));
        replays.delivered(2, 'c');
        replays.delivered(1, 'b');
        assert_eq!(replays.next_home(), None, "the first one is not delivered");
        replays.delivered(0, 'a');
        let home: String = std::iter::from_fn(|| replays.next_home()).collect();
        assert_eq!(home, "abc");
        replays.came(4);
        replays.delivered(4, 'e');
        assert_eq!(replays.next_home(), None);
        assert_eq!(replays.take().into_iter().collect::<Vec<_>>(), [(4, 'e')]);
        replays.came(5);
        replays.delivered(5, 'f');
        assert_eq!(replays.next_home(), Some('f'), "what was given back is not waited for");
    }
}
