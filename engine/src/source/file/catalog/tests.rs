//! Rotations of every kind, played on a file system of maps: first by hand, then at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::identity::Packed;
use super::*;

/// A record is a number, eight bytes long, written once.
const RECORD: usize = 8;

#[derive(Clone, Default)]
struct Inode {
    content: Vec<u8>,
    packed: bool,
    born: u64,
    changed_ms: u64,
}

/// A file system, a writer, a reader and the catalog between them.
struct World {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    /// Input to inode and position.
    readers: BTreeMap<u64, (u64, usize)>,
    catalog: Catalog,
    ids: AtomicU64,
    now_ms: u64,
    tells_birth: bool,
    written: u64,
    births: u64,
    /// Closed, and not settled yet.
    retiring: Vec<u64>,
    got: Vec<u64>,
    lost: BTreeSet<u64>,
}

fn records(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(RECORD).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight")))
}

impl World {
    fn new(tells_birth: bool) -> Self {
        Self {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            readers: BTreeMap::new(),
            catalog: Catalog::new("s", Start::Beginning, true),
            ids: AtomicU64::new(1),
            now_ms: 1_000_000,
            tells_birth,
            written: 0,
            births: 0,
            retiring: Vec::new(),
            got: Vec::new(),
            lost: BTreeSet::new(),
        }
    }

    fn create(&mut self, name: &str) -> u64 {
        // The lowest number that nothing holds, as small file systems do.
        let held = |ino: &u64| {
            self.names.values().any(|linked| linked == ino)
                || self.readers.values().any(|(open, _)| open == ino)
        };
        let ino = (1..).find(|ino| !held(ino)).expect("there are many numbers");
        self.births += 1;
        let inode = Inode { born: self.births, changed_ms: self.now_ms, ..Inode::default() };
        self.inodes.insert(ino, inode);
        self.names.insert(name.into(), ino);
        ino
    }

    fn append(&mut self, name: &str, count: usize) {
        let ino = self.names.get(name).copied().unwrap_or_else(|| self.create(name));
        let inode = self.inodes.get_mut(&ino).expect("linked");
        if inode.packed {
            return;
        }
        inode.changed_ms = self.now_ms;
        for _ in 0..count {
            self.written += 1;
            inode.content.extend(self.written.to_le_bytes());
        }
    }

    fn delete(&mut self, name: &str) {
        let Some(ino) = self.names.remove(name) else { return };
        if !self.readers.values().any(|(open, _)| *open == ino) {
            self.lose(ino);
        }
    }

    /// What is in the inode and nowhere else is lost, as far as it was not read.
    fn lose(&mut self, ino: u64) {
        let elsewhere: BTreeSet<u64> = self
            .names
            .values()
            .filter(|other| **other != ino)
            .flat_map(|other| records(&self.inodes[other].content).collect::<Vec<_>>())
            .collect();
        self.lost.extend(records(&self.inodes[&ino].content).filter(|number| !elsewhere.contains(number)));
    }

    fn rename(&mut self, from: &str, to: &str) {
        if self.names.contains_key(from) {
            self.delete(to);
            let ino = self.names.remove(from).expect("checked");
            self.names.insert(to.into(), ino);
        }
    }

    fn shift(&mut self, name: &str) {
        for n in (1..3).rev() {
            self.rename(&format!("{name}.{n}"), &format!("{name}.{}", n + 1));
            self.rename(&format!("{name}.{n}.gz"), &format!("{name}.{}.gz", n + 1));
        }
    }

    fn rotate(&mut self, name: &str) {
        self.shift(name);
        self.rename(name, &format!("{name}.1"));
        self.create(name);
    }

    fn copy(&mut self, name: &str) {
        let Some(&from) = self.names.get(name) else { return };
        self.shift(name);
        let content = self.inodes[&from].content.clone();
        let to = self.create(&format!("{name}.1"));
        self.inodes.get_mut(&to).expect("made").content = content;
    }

    fn truncate(&mut self, name: &str) {
        if let Some(&ino) = self.names.get(name) {
            self.lose(ino);
            self.inodes.get_mut(&ino).expect("linked").content.clear();
        }
    }

    fn gzip(&mut self, name: &str) {
        let Some(&from) = self.names.get(name) else { return };
        let content = self.inodes[&from].content.clone();
        let to = self.create(&format!("{name}.gz"));
        let inode = self.inodes.get_mut(&to).expect("made");
        (inode.content, inode.packed) = (content, true);
        self.delete(name);
    }

    fn seen(&self, path: &Path, ino: u64) -> Seen {
        let inode = &self.inodes[&ino];
        let head = inode.content[..inode.content.len().min(1024)].to_vec();
        let mut seen = Seen {
            path: path.into(),
            dev: 1,
            ino,
            born_ns: if self.tells_birth { inode.born } else { 0 },
            changed_ms: inode.changed_ms,
            size: inode.content.len() as u64,
            head,
            packed: None,
        };
        if inode.packed {
            let len = Some(inode.content.len() as u32);
            let head = std::mem::replace(&mut seen.head, format!("gzip {}", inode.born).into_bytes());
            seen.packed = Some(Packed { head, len });
            seen.size = 20;
        }
        seen
    }

    fn observe(&self) -> Vec<Seen> {
        self.names.iter().map(|(name, ino)| self.seen(Path::new(name), *ino)).collect()
    }

    fn look(&mut self) -> Vec<Decision> {
        self.catalog.begin_look();
        let all = self.observe();
        self.judge(&all)
    }

    fn judge(&mut self, all: &[Seen]) -> Vec<Decision> {
        let outcome = self.catalog.look(self.now_ms, all, &self.ids);
        for decision in &outcome.decisions {
            self.obey(decision);
        }
        outcome.decisions
    }

    fn obey(&mut self, decision: &Decision) {
        match decision {
            Decision::Open { id, path, position, packed, .. } => {
                let ino = self.names[path.to_str().expect("ours")];
                assert_eq!(self.inodes[&ino].packed, *packed);
                assert!(self.readers.insert(*id, (ino, *position as usize)).is_none(), "{id} is open");
            }
            Decision::Truncated { id, new } => {
                let (ino, _) = self.readers.remove(id).expect("open");
                self.readers.insert(*new, (ino, 0));
                self.close(*id, true, false);
            }
            Decision::Gone { id } => {
                let id = self.make_sure(*id).expect("it can be judged");
                self.read(id);
                let (ino, _) = self.readers.remove(&id).expect("open");
                let deleted = !self.names.values().any(|linked| *linked == ino);
                self.close(id, true, deleted);
            }
            Decision::Grew { id } => {
                let id = self.make_sure(*id).expect("it can be judged");
                self.read(id);
            }
            Decision::Renamed { id, .. } => assert!(self.readers.contains_key(id)),
        }
    }

    fn close(&mut self, id: u64, end: bool, deleted: bool) {
        self.catalog.closed(id, end, deleted);
        self.retiring.push(id);
    }

    fn retire(&mut self) {
        for id in std::mem::take(&mut self.retiring) {
            self.catalog.retire(id, 0);
        }
    }

    fn read(&mut self, id: u64) {
        let (ino, position) = self.readers[&id];
        let inode = &self.inodes[&ino];
        if inode.content.len() > position {
            self.got.extend(records(&inode.content[position..]));
            let end = inode.content.len();
            self.readers.insert(id, (ino, end));
            if self.catalog.progress(id, end as u64) {
                let head = self.seen(Path::new(""), ino).head;
                self.catalog.head(id, &head);
            }
            self.catalog.settle(id, end as u64);
        }
    }

    /// Every reader reads what there is, after it has made sure that it still has the same file.
    fn drain(&mut self) {
        self.retire();
        let open: Vec<(u64, u64)> = self.readers.iter().map(|(id, (ino, _))| (*id, *ino)).collect();
        for (id, ino) in open {
            if self.inodes[&ino].packed {
                self.read(id);
                self.readers.remove(&id);
                self.close(id, true, false);
                continue;
            }
            if let Some(id) = self.make_sure(id) {
                self.read(id);
            }
        }
    }

    /// The reader looks at its open file before it reads on: under which id?
    fn make_sure(&mut self, id: u64) -> Option<u64> {
        let (ino, _) = self.readers[&id];
        let path = self.catalog.path(id).expect("known").to_owned();
        match self.catalog.touch(&self.seen(&path, ino), &self.ids)? {
            Decision::Grew { id: same } => {
                assert_eq!(same, id);
                Some(id)
            }
            truncated @ Decision::Truncated { new, .. } => {
                self.obey(&truncated);
                Some(new)
            }
            other => panic!("{other:?}"),
        }
    }

    fn restart(&mut self) {
        let inputs = self.catalog.inputs();
        for (ino, _) in std::mem::take(&mut self.readers).into_values() {
            if !self.names.values().any(|linked| *linked == ino) {
                self.lose(ino);
            }
        }
        self.retiring.clear();
        self.catalog = Catalog::new("s", Start::Beginning, true);
        self.catalog.resume(&inputs);
    }

    fn finish(&mut self) {
        for _ in 0..6 {
            self.now_ms += 70_000;
            self.look();
            self.drain();
        }
        let mut once = BTreeSet::new();
        for number in &self.got {
            assert!(once.insert(*number), "{number} came twice");
        }
        for number in 1..=self.written {
            assert!(once.contains(&number) || self.lost.contains(&number), "{number} is missing");
        }
    }

    #[track_caller]
    fn expect(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        self.finish();
        self.got.sort_unstable();
        assert_eq!(self.got, numbers.collect::<Vec<_>>());
    }
}

/// A world with `a.log` of three records, read.
fn begun() -> World {
    let mut world = World::new(false);
    world.append("a.log", 3);
    world.look();
    world.drain();
    assert_eq!(world.got, [1, 2, 3]);
    world
}

#[test]
fn rename_and_create_reads_the_rest_first() {
    let mut world = begun();
    world.append("a.log", 2);
    world.rotate("a.log");
    world.append("a.log", 1);
    let decisions = world.look();
    let renamed = Decision::Renamed { id: 1, to: "a.log.1".into() };
    let open = Decision::Open { id: 2, path: "a.log".into(), position: 0, packed: false, after: Some(1) };
    assert_eq!(decisions, [renamed, Decision::Grew { id: 1 }, open]);
    world.expect(1..=6);
}

#[test]
fn a_rename_out_of_sight_is_read_to_the_end() {
    let mut world = begun();
    world.append("a.log", 2);
    let held = world.names.remove("a.log").expect("there");
    world.append("a.log", 1);
    assert_ne!(world.names["a.log"], held);
    let decisions = world.look();
    assert_eq!(decisions[0], Decision::Gone { id: 1 });
    assert!(
        matches!(decisions[1], Decision::Open { id: 2, position: 0, after: Some(1), .. }),
        "{decisions:?}"
    );
    world.expect(1..=6);
}

#[test]
fn truncated_in_place_goes_on_under_another_id() {
    let mut world = begun();
    world.truncate("a.log");
    world.append("a.log", 1);
    assert_eq!(world.look(), [Decision::Grew { id: 1 }], "what it is now its reader finds out");
    assert_eq!(world.readers, BTreeMap::from([(2, (1, 8))]));
    world.truncate("a.log");
    world.append("a.log", 5);
    world.drain();
    assert_eq!(world.readers, BTreeMap::from([(3, (1, 40))]), "longer than before, and not the same");
    world.expect(1..=9);
}

#[test]
fn copytruncate_is_read_once_and_what_truncation_took_comes_from_the_copy() {
    let mut world = begun();
    world.append("a.log", 2);
    world.copy("a.log");
    assert_eq!(world.look(), [Decision::Grew { id: 1 }], "the copy waits");
    world.append("a.log", 1);
    world.drain();
    world.truncate("a.log");
    world.append("a.log", 1);
    // The sixth was written between copy and truncation, and had been read by then.
    world.expect(1..=7);

    let mut world = begun();
    world.append("a.log", 2);
    world.copy("a.log");
    world.truncate("a.log");
    world.append("a.log", 1);
    let open = Decision::Open { id: 1, path: "a.log.1".into(), position: 24, packed: false, after: None };
    assert_eq!(world.look(), [Decision::Grew { id: 1 }], "it is truncated, which its reader finds");
    assert_eq!(world.look(), [], "not all of it is settled");
    world.drain();
    assert_eq!(world.look(), [open]);
    world.expect(1..=6);
}

#[test]
fn copytruncate_between_two_looks_of_which_more_was_read_than_was_copied() {
    let mut world = World::new(false);
    world.append("a.log", 200);
    world.look();
    world.drain();
    world.copy("a.log");
    world.append("a.log", 10);
    world.drain();
    world.truncate("a.log");
    world.append("a.log", 1);
    world.drain();
    world.expect(1..=211);
}

#[test]
fn copytruncate_while_a_look_is_under_way() {
    for sees_copy in [false, true] {
        let mut world = begun();
        world.catalog.begin_look();
        let before = world.observe();
        world.append("a.log", 2);
        world.copy("a.log");
        let mut copying = world.observe();
        copying.iter_mut().for_each(|seen| seen.size = seen.size.min(24));
        world.drain();
        world.truncate("a.log");
        world.append("a.log", 1);
        world.drain();
        world.retire();
        let decisions = world.judge(if sees_copy { &copying } else { &before });
        let opened = decisions.iter().any(|decision| matches!(decision, Decision::Open { .. }));
        assert!(!opened, "it is too old to tell: {decisions:?}");
        world.expect(1..=6);
    }
}

#[test]
fn an_unfinished_line_is_read_again_from_the_copy() {
    let mut world = begun();
    world.append("a.log", 2);
    world.drain();
    world.copy("a.log");
    world.truncate("a.log");
    let Some(Decision::Truncated { id, new }) =
        world.catalog.touch(&world.seen(Path::new("a.log"), 1), &world.ids)
    else {
        panic!("it is truncated")
    };
    let looks = world.catalog.looks_begun();
    assert!(!world.catalog.is_copied_beyond(id, 24), "nobody has seen the copy");
    assert_eq!(world.look(), []);
    assert!(world.catalog.looks_judged() > looks);
    assert!(world.catalog.is_copied_beyond(id, 24) && !world.catalog.is_copied_beyond(id, 40));
    // Its reader gives out no more than the first three.
    world.catalog.hand_back(id, 24);
    world.readers = BTreeMap::from([(new, (1, 0))]);
    world.close(id, true, false);
    world.retire();
    let open = Decision::Open { id, path: "a.log.1".into(), position: 24, packed: false, after: None };
    assert_eq!(world.look(), [open]);
}

#[test]
fn what_is_read_while_the_file_begins_anew_is_not_of_it() {
    let mut world = begun();
    let look = |world: &World| world.seen(Path::new("a.log"), 1);
    world.append("a.log", 2);
    assert!(world.catalog.holds(1, &look(&world), 40));
    assert!(!world.catalog.holds(1, &look(&world), 48), "it has become shorter");
    world.truncate("a.log");
    world.append("a.log", 9);
    assert!(!world.catalog.holds(1, &look(&world), 40), "it is another content");
}

#[test]
fn a_first_start_between_copy_and_truncation() {
    for count in [5, 500] {
        let mut world = World::new(false);
        world.append("a.log", count);
        world.copy("a.log");
        if count > 128 {
            world.append("a.log", 1);
        }
        assert!(matches!(world.look()[..], [Decision::Open { id: 1, position: 0, .. }]), "the copy waits");
        world.drain();
        world.truncate("a.log");
        world.append("a.log", 1);
        let written = world.written;
        world.expect(1..=written);
    }
}

#[test]
fn copytruncate_while_we_were_away() {
    let mut world = begun();
    world.append("a.log", 2);
    world.restart();
    world.copy("a.log");
    world.truncate("a.log");
    world.append("a.log", 1);
    let decisions = world.look();
    assert!(decisions.contains(&Decision::Open {
        id: 1,
        path: "a.log.1".into(),
        position: 24,
        packed: false,
        after: None
    }));
    world.expect(1..=6);
}

#[test]
fn a_file_that_only_looks_like_a_copy_is_read_in_the_end() {
    let mut world = begun();
    world.copy("a.log");
    world.look();
    world.now_ms += COPY_MS;
    let decisions = world.look();
    assert!(matches!(decisions[..], [Decision::Open { id: 2, position: 0, .. }]), "{decisions:?}");
}

#[test]
fn deleted_while_open_and_its_inode_used_again() {
    let mut world = begun();
    world.append("a.log", 1);
    world.delete("a.log");
    assert_eq!(world.look(), [Decision::Gone { id: 1 }]);
    let ino = world.create("b.log");
    assert_eq!(ino, 1, "the same inode");
    world.append("b.log", 3);
    let decisions = world.look();
    assert!(matches!(decisions[..], [Decision::Open { id: 2, position: 0, .. }]), "{decisions:?}");
    world.expect(1..=7);
}

#[test]
fn an_inode_used_again_while_we_were_away() {
    for tells_birth in [false, true] {
        let mut world = begun();
        world.tells_birth = tells_birth;
        world.restart();
        world.delete("a.log");
        world.append("a.log", 5);
        let decisions = world.look();
        assert!(matches!(decisions[..], [Decision::Open { id: 2, position: 0, .. }]), "{decisions:?}");
        world.expect(1..=8);
    }
}

#[test]
fn a_compressed_twin_is_known_and_not_read_again() {
    let mut world = begun();
    world.rotate("a.log");
    world.look();
    world.gzip("a.log.1");
    let decisions = world.look();
    assert_eq!(decisions, [Decision::Gone { id: 1 }], "and the twin waits until it rests");
    world.retire();
    world.now_ms += REST_MS;
    assert_eq!(world.look(), []);
    world.restart();
    assert!(!world.look().iter().any(|decision| matches!(decision, Decision::Open { packed: true, .. })));
    world.expect(1..=3);
}

#[test]
fn what_was_not_read_before_compression_is_read_from_the_twin() {
    let mut world = begun();
    world.append("a.log", 2);
    world.restart();
    world.rotate("a.log");
    world.gzip("a.log.1");
    world.now_ms += REST_MS;
    let decisions = world.look();
    let open = Decision::Open { id: 1, path: "a.log.1.gz".into(), position: 24, packed: true, after: None };
    assert!(decisions.contains(&open), "{decisions:?}");
    world.expect(1..=5);
}

#[test]
fn the_same_first_lines_again_are_new_lines() {
    let mut world = begun();
    let content = world.inodes[&1].content.clone();
    world.delete("a.log");
    world.look();
    let ino = world.create("a.log");
    world.inodes.get_mut(&ino).expect("made").content = content;
    assert!(matches!(world.look()[..], [Decision::Open { id: 2, position: 0, .. }]));
}

#[test]
fn a_link_that_is_switched_and_switched_back() {
    let mut world = begun();
    let first = world.names.remove("a.log").expect("there");
    world.names.insert("elsewhere".into(), first);
    // Only the link is in the pattern: the old file is out of sight, but there.
    let look = |world: &mut World| {
        let seen = world.seen(Path::new("a.log"), world.names["a.log"]);
        world.catalog.begin_look();
        let outcome = world.catalog.look(world.now_ms, &[seen], &world.ids);
        outcome.decisions.iter().for_each(|decision| world.obey(decision));
        outcome.decisions
    };
    world.append("a.log", 2);
    assert!(matches!(look(&mut world)[..], [Decision::Gone { id: 1 }, Decision::Open { id: 2, .. }]));
    world.drain();
    world.retire();
    world.append("elsewhere", 1);
    world.names.insert("a.log".into(), first);
    let decisions = look(&mut world);
    assert!(matches!(decisions[..], [Decision::Open { id: 1, position: 24, .. }, Decision::Gone { id: 2 }]));
    world.drain();
    assert_eq!(world.got, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn from_the_end_means_what_was_there_first() {
    let mut world = World::new(false);
    world.catalog = Catalog::new("s", Start::End, true);
    world.append("a.log", 3);
    assert!(matches!(world.look()[..], [Decision::Open { id: 1, position: 24, .. }]));
    world.append("b.log", 1);
    assert!(matches!(world.look()[..], [Decision::Open { id: 2, position: 0, .. }]));
    world.drain();
    assert_eq!(world.got, [4]);
}

#[test]
fn what_has_gone_is_bounded() {
    let mut world = World::new(false);
    for batch in 0..3 {
        let seen: Vec<Seen> = (0..GONE_MAX as u64)
            .map(|n| Seen {
                path: format!("{batch}-{n}").into(),
                ino: batch * 100_000 + n,
                ..Seen::default()
            })
            .collect();
        world.catalog.begin_look();
        for decision in world.catalog.look(0, &seen, &world.ids).decisions {
            match decision {
                Decision::Open { id, .. } | Decision::Gone { id } => {
                    world.catalog.closed(id, true, false);
                    world.catalog.retire(id, 0);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(world.catalog.known.len(), 2 * GONE_MAX);
    assert_eq!(world.catalog.by_inode.len(), 2 * GONE_MAX);
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize, usize),
    Rotate(usize),
    CopyTruncate(usize, bool),
    Truncate(usize),
    Delete(usize),
    Gzip(usize),
    Look,
    LateLook(usize, bool),
    Drain,
    Restart,
    Wait,
}

const FILES: [&str; 6] = ["a.log", "b.log", "a.log.1", "a.log.2", "b.log.1", "b.log.1.gz"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..2, prop_oneof![1usize..4, 100usize..200]).prop_map(|(file, count)| Op::Append(file, count)),
        2 => (0usize..2).prop_map(Op::Rotate),
        2 => (0usize..2, any::<bool>()).prop_map(|(file, look)| Op::CopyTruncate(file, look)),
        1 => (0usize..2).prop_map(Op::Truncate),
        1 => (0usize..FILES.len()).prop_map(Op::Delete),
        2 => (2usize..5).prop_map(Op::Gzip),
        5 => Just(Op::Look),
        2 => (0usize..2, any::<bool>()).prop_map(|(file, truncate)| Op::LateLook(file, truncate)),
        5 => Just(Op::Drain),
        1 => Just(Op::Restart),
        2 => Just(Op::Wait),
    ]
}

impl World {
    fn act(&mut self, op: &Op) {
        self.now_ms += 50;
        match *op {
            Op::Append(file, count) => self.append(FILES[file], count),
            Op::Rotate(file) => self.rotate(FILES[file]),
            Op::CopyTruncate(file, look) => {
                self.copy(FILES[file]);
                if look {
                    self.look();
                }
                self.truncate(FILES[file]);
                // A truncated file that is gone before anyone looks has left nothing to tell its copy by.
                self.look();
            }
            Op::Truncate(file) => self.truncate(FILES[file]),
            Op::Delete(file) => self.delete(FILES[file]),
            Op::Gzip(file) => self.gzip(FILES[file]),
            Op::Look => drop(self.look()),
            Op::LateLook(file, truncate) => {
                // What is judged was true before the readers went on.
                self.catalog.begin_look();
                let all = self.observe();
                if truncate {
                    self.truncate(FILES[file]);
                }
                self.append(FILES[file], 1);
                self.drain();
                self.judge(&all);
            }
            Op::Drain => self.drain(),
            Op::Restart => self.restart(),
            Op::Wait => self.now_ms += 700,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_is_missing_and_nothing_comes_twice(tells_birth in any::<bool>(), ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new(tells_birth);
        for op in &ops {
            world.act(op);
        }
        world.finish();
    }
}
