//! What a source knows of each partition that it has read, from run to run: the checkpoint holds it.
//!
//! Invariants: a position is behind what every sink has, and is committed to the group only when a checkpoint with it is
//! on disk ([`Book::kept`]): a start cuts files to what the checkpoint says, so that what the group has done with must not be
//! beyond it. An id stands for one continuous reading of a partition: sinks leave out what they have of an id, so that a
//! partition whose offsets begin anew, or that somebody puts back, gets another one. Of one id there is at most one window.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::group::Place;
use super::partition::Partition;
use crate::checkpoint::{self, Snapshot};
use crate::keeper::Persist;

/// What is known of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    id: u64,
    /// Behind the last message that every sink has; none before the first message, unless the group has an offset.
    position: Option<u64>,
    /// The position that a checkpoint on disk has.
    kept: Option<u64>,
    /// What was last known to be committed to the group.
    committed: Option<u64>,
    /// Whether it has a window.
    is_open: bool,
    /// What the group had committed when offsets went back: nobody else has gone on where it has that still. Nor is it our word
    /// that is gone or put back where it has another one.
    stale: Option<u64>,
}

/// See above.
pub struct Book {
    source: Arc<str>,
    group: String,
    /// The engine's next free identity.
    next: Arc<AtomicU64>,
    /// Asks for a checkpoint; none where nobody keeps one, and then nothing waits for it.
    persist: Option<Persist>,
    entries: Mutex<HashMap<Place, Entry>>,
    revision: AtomicU64,
}

/// Where an assigned partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Its id from now on.
    pub id: u64,
    /// The offset it begins at, where that is known.
    pub offset: Option<u64>,
    /// Why it does not go on where it was, if it was here before.
    pub elsewhere: Option<Elsewhere>,
}

/// Why the broker's word counts and not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elsewhere {
    /// The group has gone on without us.
    Ahead,
    /// The group's offset was put back.
    PutBack,
    /// The group's offset is gone.
    Gone,
    /// The partition ends before our position.
    Short,
    /// The broker did not say.
    Unknown,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ahead => "the group has gone on meanwhile",
            Self::PutBack => "the group's offset was put back",
            Self::Gone => "the group's offset was deleted, or has expired",
            Self::Short => {
                "the partition ends before the position of the checkpoint: the topic was made anew, or cut"
            }
            Self::Unknown => "the broker did not say where the group and the partition are",
        })
    }
}

/// What the broker says of a partition when it is assigned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// What the group has committed.
    pub committed: Option<u64>,
    /// Behind the last message there is; none when that was not said, and then neither was the other.
    pub end: Option<u64>,
}

impl Book {
    /// What the checkpoint says of the source in its group.
    pub fn new(
        source: Arc<str>,
        group: String,
        before: &Snapshot,
        next: Arc<AtomicU64>,
        persist: Option<Persist>,
    ) -> Self {
        let mut entries: HashMap<Place, Entry> = HashMap::new();
        for known in &before.partitions {
            if *known.source != *source || known.group != group {
                continue;
            }
            let entry = Entry {
                id: known.id,
                position: Some(known.position),
                kept: Some(known.position),
                committed: known.committed,
                is_open: false,
                stale: known.stale,
            };
            let place = (Arc::from(&*known.topic), known.number);
            // While a source takes the place of another one, both are in a checkpoint.
            let newest = entries
                .get(&place)
                .is_none_or(|other| (other.id, other.position) < (entry.id, entry.position));
            if newest {
                entries.insert(place, entry);
            }
        }
        Self { source, group, next, persist, entries: Mutex::new(entries), revision: AtomicU64::new(0) }
    }

    /// A book of a source whose positions nobody keeps.
    #[cfg(test)]
    pub fn unkept(source: &str) -> Self {
        let next = Arc::new(AtomicU64::new(1));
        Self::new(source.into(), "group".into(), &Snapshot::default(), next, None)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Place, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the partition was read before, up to some position.
    pub fn knows(&self, place: &Place) -> bool {
        self.entries().get(place).is_some_and(|entry| entry.position.is_some())
    }

    /// The partition is assigned.
    pub fn begin(&self, place: &Place, told: Told) -> Beginning {
        let mut entries = self.entries();
        let before = entries.get(place).copied().filter(|entry| entry.position.is_some());
        let elsewhere = before.and_then(|entry| entry.elsewhere(told));
        let entry = match before.filter(|entry| elsewhere.is_none() && !entry.is_open) {
            Some(entry) => {
                let Entry { committed, stale, .. } = Entry::told(entry.position, told);
                Entry { committed, stale, is_open: true, ..entry }
            }
            None => {
                // What was read under the other id and is not settled yet comes again.
                let position = match before {
                    Some(entry) if elsewhere.is_none() => entry.position,
                    _ => told.committed,
                };
                Entry { id: self.new_id(), position, is_open: true, ..Entry::told(position, told) }
            }
        };
        entries.insert(place.clone(), entry);
        self.revision.fetch_add(1, Ordering::Relaxed);
        Beginning { id: entry.id, offset: entry.position, elsewhere }
    }

    fn with(&self, partition: &Partition, change: impl FnOnce(&mut Entry)) {
        let place = (Arc::clone(&partition.topic), partition.number);
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&place).filter(|entry| entry.id == partition.id()) {
            change(entry);
        }
    }

    /// The first message is at this offset.
    pub fn found(&self, partition: &Partition, first: u64) {
        self.with(partition, |entry| {
            entry.position.get_or_insert(first);
        });
    }

    /// Offsets went back: what comes is another reading. Returns its id.
    pub fn begin_anew(&self, partition: &Partition) -> u64 {
        let id = self.new_id();
        self.with(partition, |entry| {
            let stale = entry.committed.or(entry.stale);
            *entry = Entry { id, is_open: true, stale, ..Entry::default() };
        });
        id
    }

    /// The window is closed; every sink has what is before the position.
    pub fn left(&self, partition: &Partition, position: u64) {
        self.with(partition, |entry| {
            entry.advance(position);
            entry.is_open = false;
        });
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// What is behind the last message that may be committed.
    pub fn to_commit(&self, partition: &Partition) -> Option<i64> {
        if self.persist.is_none() {
            return partition.durable();
        }
        let mut kept = None;
        self.with(partition, |entry| kept = entry.kept);
        kept.and_then(|kept| i64::try_from(kept).ok())
    }

    /// Whether the group is known to have what may be committed.
    pub fn is_committed(&self, partition: &Partition) -> bool {
        let offset = self.to_commit(partition);
        let mut committed = None;
        self.with(partition, |entry| committed = entry.committed);
        offset.is_none() || committed.and_then(|committed| i64::try_from(committed).ok()) >= offset
    }

    /// Whether everything that every sink has may be committed.
    pub fn is_kept(&self, partition: &Partition) -> bool {
        let durable = partition.durable();
        durable.is_none() || self.to_commit(partition) >= durable
    }

    /// Asks for a checkpoint, and does not wait for it.
    pub fn ask(&self) {
        if let Some(persist) = &self.persist {
            drop(persist());
        }
    }

    /// The group has this offset.
    pub fn committed(&self, place: &Place, offset: i64) {
        let Ok(offset) = u64::try_from(offset) else { return };
        if let Some(entry) = self.entries().get_mut(place).filter(|entry| entry.committed != Some(offset)) {
            entry.committed = Some(offset);
            self.revision.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For the checkpoint; `low` has how far every sink has what has a window.
    pub fn places(&self, low: &HashMap<u64, u64>) -> Vec<checkpoint::Partition> {
        let mut entries = self.entries();
        let mut all: Vec<checkpoint::Partition> = entries
            .iter_mut()
            .filter_map(|((topic, number), entry)| {
                if let Some(low) = low.get(&entry.id) {
                    entry.advance(*low);
                }
                Some(checkpoint::Partition {
                    id: entry.id,
                    source: self.source.to_string(),
                    group: self.group.clone(),
                    topic: topic.to_string(),
                    number: *number,
                    position: entry.position?,
                    committed: entry.committed,
                    stale: entry.stale.filter(|_| entry.committed.is_none()),
                })
            })
            .collect();
        // One that did not change is the same text.
        all.sort_unstable_by_key(|partition| partition.id);
        all
    }

    /// This checkpoint is on disk.
    pub fn kept(&self, snapshot: &Snapshot) {
        let of_ours = |partition: &&checkpoint::Partition| *partition.source == *self.source;
        let positions: HashMap<u64, u64> =
            snapshot.partitions.iter().filter(of_ours).map(|kept| (kept.id, kept.position)).collect();
        for entry in self.entries().values_mut() {
            entry.kept = positions.get(&entry.id).copied().or(entry.kept);
        }
    }

    /// Changes when [`Book::places`] may have changed for another reason than records.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }
}

impl Entry {
    /// What the group has beyond our position is from before the offsets went back: ours is to be committed.
    fn told(position: Option<u64>, told: Told) -> Self {
        let is_ours = |committed: &u64| position.is_none_or(|at| at >= *committed);
        let (committed, stale) = (told.committed.filter(is_ours), told.committed.filter(|at| !is_ours(at)));
        Self { committed, stale, ..Self::default() }
    }

    fn advance(&mut self, position: u64) {
        self.position = self.position.map(|at| at.max(position));
    }

    /// Why the partition does not go on at its position, if it does not.
    fn elsewhere(&self, told: Told) -> Option<Elsewhere> {
        let position = self.position?;
        let Some(end) = told.end else { return Some(Elsewhere::Unknown) };
        match (self.committed, told.committed) {
            (Some(_), None) => Some(Elsewhere::Gone),
            (Some(before), Some(now)) if now < before => Some(Elsewhere::PutBack),
            (before, Some(now)) if now > position && before.or(self.stale) != Some(now) => {
                Some(Elsewhere::Ahead)
            }
            _ if end < position => Some(Elsewhere::Short),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::assigned::{Assigned, Membership};

    const OPEN: u64 = 1000;

    fn place() -> Place {
        ("t".into(), 3)
    }

    fn persist() -> Persist {
        Arc::new(|| Box::pin(async { Ok(()) }))
    }

    fn book(before: &[checkpoint::Partition]) -> Book {
        let snapshot = Snapshot { partitions: before.to_vec(), ..Snapshot::default() };
        Book::new("k".into(), "g".into(), &snapshot, Arc::new(AtomicU64::new(9)), Some(persist()))
    }

    fn known(position: u64, committed: Option<u64>) -> checkpoint::Partition {
        checkpoint::Partition {
            id: 5,
            source: "k".into(),
            group: "g".into(),
            topic: "t".into(),
            number: 3,
            position,
            committed,
            stale: None,
        }
    }

    fn told(committed: Option<u64>) -> Told {
        Told { committed, end: Some(OPEN) }
    }

    fn partition(beginning: Beginning) -> Partition {
        let membership = Membership::new("g".into());
        Partition::new(Assigned::new("t".into(), 3, membership), beginning, std::thread::current())
    }

    #[test]
    fn it_goes_on_where_it_was_unless_the_broker_knows_better() {
        use Elsewhere::{Ahead, Gone, PutBack, Short, Unknown};
        let cases = [
            (Some(60), told(Some(60)), None),
            (Some(60), told(Some(65)), None),
            (Some(60), told(Some(70)), None),
            (None, told(None), None),
            (None, told(Some(7)), None),
            (Some(60), told(Some(71)), Some(Ahead)),
            (Some(60), told(Some(59)), Some(PutBack)),
            (Some(60), told(None), Some(Gone)),
            (Some(60), Told { committed: Some(60), end: Some(69) }, Some(Short)),
            (Some(60), Told { committed: Some(60), end: Some(70) }, None),
            (Some(60), Told::default(), Some(Unknown)),
        ];
        for (committed, told, elsewhere) in cases {
            let beginning = book(&[known(70, committed)]).begin(&place(), told);
            let expected = match elsewhere {
                None => Beginning { id: 5, offset: Some(70), elsewhere },
                Some(_) => Beginning { id: 9, offset: told.committed, elsewhere },
            };
            assert_eq!(beginning, expected, "{committed:?}, {told:?}");
        }
        let others = [known(70, None)].map(|known| checkpoint::Partition { group: "other".into(), ..known });
        assert_eq!(
            book(&others).begin(&place(), told(None)),
            Beginning { id: 9, offset: None, elsewhere: None }
        );
    }

    #[test]
    fn nothing_is_committed_before_a_checkpoint_has_it() {
        let book = book(&[]);
        let partition = partition(book.begin(&place(), Told::default()));
        assert!(book.places(&HashMap::new()).is_empty(), "nothing is known yet");
        book.found(&partition, 40);
        partition.set_durable(50);
        let low = HashMap::from([(partition.id(), 50)]);
        let partitions = book.places(&low);
        assert_eq!((partitions[0].position, partitions[0].committed), (50, None));
        assert_eq!(book.to_commit(&partition), None);
        assert!(!book.is_kept(&partition));
        book.kept(&Snapshot { partitions, ..Snapshot::default() });
        assert_eq!(book.to_commit(&partition), Some(50));
        assert!(book.is_kept(&partition) && !book.is_committed(&partition));
        book.committed(&place(), 50);
        assert!(book.is_committed(&partition));
        assert_eq!(book.places(&low)[0].committed, Some(50));
    }

    #[test]
    fn a_reading_that_begins_anew_or_twice_has_another_id() {
        let book = book(&[known(70, None)]);
        let first = partition(book.begin(&place(), told(None)));
        // It comes back while what was read of it is still on its way.
        let second = book.begin(&place(), told(None));
        assert_eq!((second.offset, second.elsewhere), (Some(70), None));
        assert_ne!(second.id, first.id());
        let second = partition(second);
        book.left(&first, 90);
        assert_eq!(book.places(&HashMap::new())[0].position, 70, "the first one counts no more");
        book.left(&second, 80);
        let third = book.begin(&place(), told(None));
        assert_eq!(third, Beginning { id: second.id(), offset: Some(80), elsewhere: None });
        let third = partition(third);
        let id = book.begin_anew(&third);
        third.begin_anew(id);
        assert!(book.places(&HashMap::from([(second.id(), 99)])).is_empty(), "no position is known of it");
        assert_eq!(book.to_commit(&third), None);
        book.found(&third, 0);
        assert_eq!(book.places(&HashMap::from([(id, 4)]))[0].position, 4);
    }

    #[test]
    fn after_offsets_went_back_what_the_group_has_from_before_is_nobody_elses() {
        let before = book(&[known(1000, Some(1000))]);
        let partition = partition(before.begin(&place(), told(Some(1000))));
        let id = before.begin_anew(&partition);
        partition.begin_anew(id);
        before.found(&partition, 0);
        // Librdkafka still says what it has from before.
        partition.seen(600, 1000);
        partition.set_durable(600);
        assert!(partition.is_new(600) && partition.lag() == Some(0));
        assert!(!before.is_committed(&partition) || before.to_commit(&partition).is_none());
        let partitions = before.places(&HashMap::from([(id, 600)]));
        assert_eq!((partitions[0].position, partitions[0].committed), (600, None));
        // Killed before it was committed: the topic has grown past the old offset meanwhile, or the group's went with it.
        for committed in [Some(1000), None] {
            let told = Told { committed, end: Some(2000) };
            let after = book(&partitions).begin(&place(), told);
            assert_eq!((after.offset, after.elsewhere), (Some(600), None), "{committed:?}");
        }
        // Or it goes and comes back while nothing could be committed.
        before.left(&partition, 600);
        let told = Told { committed: Some(1000), end: Some(2000) };
        let again = before.begin(&place(), told);
        assert_eq!((again.offset, again.elsewhere), (Some(600), None));
        let partition = self::partition(again);
        partition.set_durable(700);
        let partitions = before.places(&HashMap::from([(partition.id(), 700)]));
        before.kept(&Snapshot { partitions, ..Snapshot::default() });
        assert_eq!(before.to_commit(&partition), Some(700));
        assert!(!before.is_committed(&partition), "the group still has the old one");
        // It comes back while what was read of it is still on its way.
        let partition = self::partition(before.begin(&place(), told));
        partition.set_durable(710);
        let partitions = before.places(&HashMap::from([(partition.id(), 710)]));
        before.kept(&Snapshot { partitions, ..Snapshot::default() });
        assert!(!before.is_committed(&partition), "nor then");
        before.committed(&place(), 710);
        assert!(before.is_committed(&partition));
    }
}
