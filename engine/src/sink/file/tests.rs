//! The owner against real files, on both backends.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use jiff::tz::TimeZone;

use super::settings::{Fsync, Packing, Rotate, Settings};
use super::*;
use crate::assemble::Rest;
use crate::batch::Ticket;
use crate::io::Backend;
use crate::io::runtime::Runtime;
use crate::lane::CREDIT_BATCHES;
use crate::pool::Arena;
use crate::sink::template::Template;

thread_local! {
    static SYNCS_TO_FAIL: Cell<u32> = const { Cell::new(0) };
}

/// Whether the next sync on this thread is to fail.
pub(super) fn next_sync_fails() -> bool {
    SYNCS_TO_FAIL.with(|left| left.replace(left.get().saturating_sub(1)) > 0)
}

/// Pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

fn settings(template: &str) -> Settings {
    Settings {
        template: Template::parse(template).unwrap(),
        zone: TimeZone::UTC,
        format: Format::Raw,
        existing: Existing::Append,
        rotate: None,
        packing: None,
        fsync: Fsync::Interval(Duration::from_millis(20)),
        mode: None,
        unsynced_batches_max: 4,
    }
}

/// A batch of numbered lines, at least `bytes` long.
fn batch(dice: &mut Dice, number: &mut u64, bytes: usize, received_ns: i64) -> Box<Batch> {
    let mut batch = Box::new(Batch::new(Arena::new(bytes)));
    batch.arena.clear_with_head(dice.below(4096));
    while batch.arena.len() < bytes || batch.records == 0 {
        let line = format!("{number} {}\n", "x".repeat(dice.below(300)));
        batch.arena.extend(line.as_bytes());
        batch.records += 1;
        *number += 1;
    }
    batch.tickets.push(Ticket {
        slot: 0,
        seq: 0,
        input: 7,
        upto: *number,
        records: batch.records,
        rejected: 0,
    });
    batch.oldest_ns = received_ns;
    batch
}

/// A sink with its only owner, and what came home.
struct Rig {
    sink: Arc<FileSink>,
    intake: Rc<Intake>,
    home: Rc<RefCell<Vec<Box<Batch>>>>,
    task: tokio::task::JoinHandle<()>,
    number: u64,
    sent: Vec<u8>,
    sent_batches: usize,
}

fn past(groups: Vec<Group>) -> Past {
    Past { groups, rest: Rest::AsWritten }
}

impl Rig {
    fn new(settings: Settings, backend: Backend) -> Self {
        Self::after(settings, backend, Vec::new())
    }

    fn after(settings: Settings, backend: Backend, before: Vec<Group>) -> Self {
        let persist: Persist = Arc::new(|| Box::pin(async { Ok(()) }));
        let sink = FileSink::open(3, "sink", settings, past(before), persist).unwrap();
        Self::of(sink, backend)
    }

    fn of(sink: Arc<FileSink>, backend: Backend) -> Self {
        let origin = Origin::new("s", "h");
        let ledger = sink.ledger(sink.outlet(&origin));
        let home: Rc<RefCell<Vec<Box<Batch>>>> = Rc::default();
        let (intake, homeward) = (Rc::new(Intake::default()), Rc::clone(&home));
        let go_home = move |mut batch: Box<Batch>, verdict| {
            batch.verdict = verdict;
            homeward.borrow_mut().push(batch);
        };
        let around = Around {
            ledger,
            settings: Arc::clone(&sink.settings),
            persist: Arc::clone(&sink.persist),
            backend,
            intake: Rc::clone(&intake),
            home: Rc::new(go_home),
        };
        let task = tokio::task::spawn_local(Owner::new(around).run());
        Self { sink, intake, home, task, number: 0, sent: Vec::new(), sent_batches: 0 }
    }

    fn send(&mut self, dice: &mut Dice, bytes: usize) {
        self.send_at(dice, bytes, 0);
    }

    fn send_at(&mut self, dice: &mut Dice, bytes: usize, received_ns: i64) {
        let batch = batch(dice, &mut self.number, bytes, received_ns);
        self.put(batch);
    }

    fn put(&mut self, batch: Box<Batch>) {
        self.sent.extend_from_slice(batch.bytes());
        self.sent_batches += 1;
        self.sink.sealed(0, batch.arena.len());
        self.intake.put(batch);
    }

    /// Waits until `n` batches are home.
    async fn home(&self, n: usize) {
        while self.home.borrow().len() < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Closes the intake and waits for the owner. Every batch came home once, delivered, with what it had.
    async fn end(self) -> Vec<u8> {
        self.intake.close();
        self.task.await.unwrap();
        let home = self.home.borrow();
        assert_eq!(home.len(), self.sent_batches);
        assert!(home.iter().all(|batch| batch.verdict == Verdict::Delivered));
        let bytes: Vec<u8> = home.iter().flat_map(|batch| batch.bytes().to_vec()).collect();
        assert!(bytes == self.sent, "batches come home in order and whole");
        self.sent
    }
}

fn on_both(test: impl AsyncFn(Backend)) {
    for backend in [Backend::Epoll, Backend::Uring] {
        // Where io_uring is refused there is nothing to test.
        if let Ok(runtime) = Runtime::new(backend) {
            runtime.block_on(test(backend));
        }
    }
}

#[test]
fn random_batches_make_the_same_bytes_whatever_the_sync() {
    for fsync in [Fsync::Interval(Duration::from_millis(5)), Fsync::Batch, Fsync::Never] {
        on_both(async |backend| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.log");
            let mut rig = Rig::new(Settings { fsync, ..settings(path.to_str().unwrap()) }, backend);
            let mut dice = Dice(7);
            for round in 0..40 {
                let size = [1, 200, 4095, 4096, 60_000, 300_000, 1 << 20][dice.below(7)];
                rig.send(&mut dice, size);
                if round % 7 == 0 {
                    rig.home(rig.sent_batches).await;
                    assert!(fs::read(&path).unwrap() == rig.sent, "delivered is in the file");
                }
            }
            let group = &rig.sink.groups()[0];
            assert!(group.files[0].committed_len <= rig.sent.len() as u64);
            let (sink, number) = (Arc::clone(&rig.sink), rig.number);
            let sent = rig.end().await;
            assert!(fs::read(&path).unwrap() == sent);
            assert_eq!(sink.groups()[0].positions, [(7, number)]);
            let on_disk = fs::metadata(&path).unwrap().blocks() * 512;
            assert!(on_disk < sent.len() as u64 + (1 << 20), "blocks reserved ahead are given back");
        });
    }
}

#[test]
fn the_next_head_is_known_before_the_batches_are_written() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "from before\n").unwrap();
        let rotate = Some(Rotate { size: Some(3_000_000), every: None, keep: 0 });
        let mut rig = Rig::new(Settings { rotate, ..settings(path.to_str().unwrap()) }, backend);
        let mut dice = Dice(9);
        assert_eq!(rig.sink.head_for_next(0), 12);
        for _ in 0..5 {
            for _ in 0..3 {
                let size = dice.below(500_000);
                rig.send(&mut dice, size);
            }
            rig.home(rig.sent_batches).await;
            let len = fs::metadata(&path).unwrap().len();
            assert_eq!(rig.sink.head_for_next(0) as u64, len % 4096);
        }
        assert!(dir.path().join("out.log.1").exists());
        rig.end().await;
    });
}

#[test]
fn the_next_head_is_known_again_after_bytes_went_another_way() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let mut rig = Rig::new(settings(path.to_str().unwrap()), backend);
        let mut dice = Dice(11);
        let is_known = |rig: &Rig| {
            rig.sink.head_for_next(0) as u64 == fs::metadata(&path).map_or(0, |about| about.len()) % 4096
        };
        let mut send = async |rig: &mut Rig| {
            let head = rig.sink.head_for_next(0);
            let mut batch = batch(&mut dice, &mut rig.number, 5000, 0);
            batch.arena.shift_to_head(head);
            rig.put(batch);
            rig.home(rig.sent_batches).await;
        };
        send(&mut rig).await;
        fs::remove_file(&path).unwrap();
        for _ in 0..3 {
            // The first of these is written into the file that is gone, and into the new one then.
            send(&mut rig).await;
            assert!(is_known(&rig));
        }
        // What goes to a rescue was sealed for this file, and never comes.
        rig.sink.sealed(0, 777);
        assert!(!is_known(&rig));
        for _ in 0..=CREDIT_BATCHES {
            send(&mut rig).await;
        }
        assert!(is_known(&rig));
        send(&mut rig).await;
        assert!(is_known(&rig));
        // In the next file as well.
        fs::rename(&path, dir.path().join("aside.log")).unwrap();
        rig.sink.reopen();
        while !is_known(&rig) || !path.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        send(&mut rig).await;
        assert!(is_known(&rig));
        rig.end().await;
    });
}

#[test]
fn a_follower_sees_ordered_bytes_and_never_a_hole() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let mut rig = Rig::new(settings(path.to_str().unwrap()), backend);
        let done = Arc::new(AtomicBool::new(false));
        let (ends, follow) = (Arc::clone(&done), path.clone());
        let follower = std::thread::spawn(move || {
            let (mut file, mut seen) = (fs::File::open(follow).unwrap(), Vec::new());
            loop {
                let last = ends.load(Ordering::Acquire);
                file.read_to_end(&mut seen).unwrap();
                assert!(!seen.contains(&0), "a hole");
                if last {
                    return seen;
                }
            }
        });
        let mut dice = Dice(3);
        for _ in 0..60 {
            let size = [100, 5000, 300_000, 700_000][dice.below(4)];
            rig.send(&mut dice, size);
            if dice.below(3) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let sent = rig.end().await;
        done.store(true, Ordering::Release);
        assert!(follower.join().unwrap() == sent);
    });
}

#[test]
fn a_restart_cuts_what_was_not_committed_and_goes_on() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "from before\n").unwrap();
        let template = path.to_str().unwrap();
        let mut dice = Dice(1);
        let mut rig = Rig::new(settings(template), backend);
        rig.send(&mut dice, 400_000);
        rig.send(&mut dice, 10);
        rig.home(2).await;
        let before = rig.sink.groups();
        assert_eq!(before[0].files[0].committed_len, 12 + rig.sent.len() as u64);
        // As after kill -9: the sink is gone without a word, and there is more in the file.
        rig.task.abort();
        let (sent, number) = (rig.sent.clone(), rig.number);
        drop(rig);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut uncommitted = fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut uncommitted, b"uncommitted").unwrap();
        let truncating = Settings { existing: Existing::Truncate, ..settings(template) };
        let mut rig = Rig::after(truncating, backend, before);
        assert_eq!(rig.sink.positions_before(), HashMap::from([(7, number)]));
        rig.send(&mut dice, 300_000);
        let more = rig.end().await;
        assert!(fs::read(&path).unwrap() == [b"from before\n", &sent[..], &more[..]].concat());
    });
}

#[test]
fn what_no_input_brings_again_is_delivered_without_a_checkpoint_and_stays() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let disk: Arc<Mutex<Vec<Vec<Group>>>> = Arc::default();
        let start = |rest| {
            let running: Arc<OnceLock<Weak<FileSink>>> = Arc::default();
            let (written, snapshot) = (Arc::clone(&disk), Arc::clone(&running));
            let persist: Persist = Arc::new(move || {
                let sink = snapshot.get().and_then(Weak::upgrade).expect("it runs");
                written.lock().unwrap().push(sink.groups());
                Box::pin(async { Ok(()) })
            });
            let groups = disk.lock().unwrap().last().cloned().unwrap_or_default();
            let settings = settings(path.to_str().unwrap());
            let sink = FileSink::open(3, "sink", settings, Past { groups, rest }, persist).unwrap();
            running.set(Arc::downgrade(&sink)).unwrap();
            Rig::of(sink, backend)
        };
        let mut dice = Dice(21);
        let mut send = async |rig: &mut Rig, input: u64, bytes: usize| {
            let mut batch = batch(&mut dice, &mut rig.number, bytes, 0);
            batch.tickets[0].input = input;
            rig.put(batch);
            rig.home(rig.sent_batches).await;
        };
        // As kill -9 leaves it, with more in the file than was delivered.
        let die = async |rig: Rig, more: &[u8]| {
            rig.task.abort();
            let sent = rig.sent.clone();
            drop(rig);
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(&path).unwrap(), more)
                .unwrap();
            sent
        };
        let last = || disk.lock().unwrap().last().unwrap()[0].clone();

        let mut rig = start(Rest::AsWritten);
        for bytes in [100, 400_000, 1000] {
            send(&mut rig, 0, bytes).await;
        }
        assert_eq!(disk.lock().unwrap().len(), 1, "the one before its first byte");
        assert!(last().only_copy);
        let mut all = die(rig, b"torn").await;

        // Now somebody sends what comes again: from then on what is behind the checkpoint's length goes.
        let mut rig = start(Rest::AsWritten);
        assert!(fs::read(&path).unwrap() == all);
        send(&mut rig, 0, 5000).await;
        let (before, len) = (disk.lock().unwrap().len(), fs::metadata(&path).unwrap().len());
        send(&mut rig, 7, 5000).await;
        assert_eq!(disk.lock().unwrap().len(), before + 1);
        assert_eq!((last().only_copy, last().files[0].committed_len), (false, len));
        send(&mut rig, 0, 5000).await;
        assert_eq!(last().files[0].committed_len, fs::metadata(&path).unwrap().len());
        all.extend(die(rig, b"comes again\n").await);

        let rig = start(Rest::AsWritten);
        assert!(fs::read(&path).unwrap() == all);
        rig.end().await;
    });
}

#[test]
fn a_file_is_in_a_checkpoint_before_its_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.log");
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (told, watched) = (Arc::clone(&seen), path.clone());
    let persist: Persist = Arc::new(move || {
        told.lock().unwrap().push(fs::metadata(&watched).unwrap().len());
        Box::pin(async { Ok(()) })
    });
    let settings = settings(path.to_str().unwrap());
    Runtime::new(Backend::Epoll).unwrap().block_on(async {
        let mut rig =
            Rig::of(FileSink::open(0, "sink", settings, Past::default(), persist).unwrap(), Backend::Epoll);
        rig.send(&mut Dice(1), 100);
        rig.end().await;
    });
    assert_eq!(*seen.lock().unwrap(), [0]);
}

#[test]
fn a_file_from_before_is_emptied_once_when_that_is_wanted() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "from before\n").unwrap();
        let truncating = Settings { existing: Existing::Truncate, ..settings(path.to_str().unwrap()) };
        let mut rig = Rig::new(truncating, backend);
        rig.send(&mut Dice(1), 100);
        rig.home(1).await;
        // Somebody moves the file and puts another one there: that one is not ours to empty.
        fs::rename(&path, dir.path().join("moved")).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        let first = rig.sent.len();
        rig.sink.reopen();
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.send(&mut Dice(2), 100);
        let sent = rig.end().await;
        assert_eq!(fs::read(dir.path().join("moved")).unwrap(), sent[..first]);
        assert_eq!(fs::read(&path).unwrap(), [b"theirs\n", &sent[first..]].concat());
    });
}

#[test]
fn rotated_files_together_are_all_that_was_sent() {
    for packing in [None, Some(Packing::Gzip)] {
        on_both(async |backend| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.log");
            let rotate = Some(Rotate { size: Some(600_000), every: None, keep: 0 });
            let mut rig = Rig::new(Settings { rotate, packing, ..settings(path.to_str().unwrap()) }, backend);
            let mut dice = Dice(5);
            for i in 0..12 {
                rig.send(&mut dice, [1000, 290_000][i % 2]);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let sent = rig.end().await;
            let mut all = Vec::new();
            for number in (1..20).rev() {
                let name = format!("{}.{number}", path.display());
                if let Ok(bytes) = fs::read(&name) {
                    assert!(packing.is_none() && bytes.len() <= 600_000, "{name}: {} bytes", bytes.len());
                    all.extend_from_slice(&bytes);
                } else if let Ok(file) = fs::File::open(name + ".gz") {
                    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut all).unwrap();
                }
            }
            // While a file is packed the next one may grow, so on a busy machine one rotation is all there is.
            assert!(
                !all.is_empty(),
                "it did rotate: {:?}",
                fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>()
            );
            all.extend_from_slice(&fs::read(&path).unwrap());
            assert!(all == sent);
        });
    }
}

#[test]
fn each_date_has_its_file_and_late_records_find_theirs() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let template = format!("{}/{{date:%S}}.log", dir.path().display());
        let packed = Settings { packing: Some(Packing::Zstd), ..settings(&template) };
        let mut rig = Rig::new(packed, backend);
        assert!(rig.sink.seals_each_second());
        let mut dice = Dice(2);
        let mut expected = [Vec::new(), Vec::new()];
        for second in [0, 0, 1, 0, 1] {
            let before = rig.sent.len();
            rig.send_at(&mut dice, 5000, second * 1_000_000_000);
            expected[second as usize].extend_from_slice(&rig.sent[before..]);
        }
        rig.end().await;
        for (second, expected) in expected.iter().enumerate() {
            let mut all = Vec::new();
            let name = dir.path().join(format!("{second:02}.log"));
            if let Ok(file) = fs::File::open(format!("{}.zst", name.display())) {
                zstd::stream::Decoder::new(file).unwrap().read_to_end(&mut all).unwrap();
            }
            all.extend(fs::read(&name).unwrap_or_default());
            assert!(all == *expected, "second {second}");
        }
    });
}

#[test]
fn a_failed_sync_is_not_believed_the_second_time() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let mut rig = Rig::new(settings(path.to_str().unwrap()), backend);
        let mut dice = Dice(4);
        rig.send(&mut dice, 5000);
        rig.home(1).await;
        SYNCS_TO_FAIL.set(3);
        for size in [300_000, 100, 500_000] {
            rig.send(&mut dice, size);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.send(&mut dice, 100);
        rig.home(5).await;
        assert_eq!(SYNCS_TO_FAIL.get(), 0);
        assert!(rig.sink.status().errors >= 3);
        assert_eq!(rig.sink.troubles(), []);
        let sent = rig.end().await;
        assert!(fs::read(&path).unwrap() == sent);
    });
}

#[test]
fn a_fifo_that_nobody_reads_holds_its_batches() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut rig = Rig::new(settings(path.to_str().unwrap()), backend);
        let mut dice = Dice(4);
        rig.send(&mut dice, 300_000);
        rig.send(&mut dice, 1000);
        while rig.sink.troubles().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(rig.home.borrow().len(), 0);
        assert!(rig.sink.troubles()[0].words.contains("nobody reads the FIFO"), "{:?}", rig.sink.troubles());
        // A reader that goes away in the middle, and one that stays: it gets the record in the middle whole.
        let mut first = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut begun = vec![0; 10_000];
        let mut have = 0;
        while have < begun.len() || !rig.sink.troubles().is_empty() {
            have += first.read(&mut begun[have..]).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(first);
        // One that came before that is noticed would read on in the middle, or find the end.
        while rig.sink.troubles().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let reader = std::thread::spawn(move || fs::read(path).unwrap());
        let sent = rig.end().await;
        let rest = reader.join().unwrap();
        assert!(sent.starts_with(&begun) && sent.ends_with(&rest));
        let at = sent.len() - rest.len();
        assert!(at == 0 || sent[at - 1] == b'\n');
    });
}

#[test]
fn what_was_in_a_removed_file_and_not_synced_is_delivered_to_the_fifo_in_its_place() {
    for fsync in [Fsync::Interval(Duration::from_millis(20)), Fsync::Never] {
        on_both(async |backend| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.log");
            let mut rig = Rig::new(Settings { fsync, ..settings(path.to_str().unwrap()) }, backend);
            let mut dice = Dice(4);
            rig.send(&mut dice, 5000);
            rig.home(1).await;
            let first = rig.sent.len();
            // The owner sees none of this before it has written what comes then.
            fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            rig.send(&mut dice, 5000);
            rig.send(&mut dice, 300_000);
            let reader = std::thread::spawn(move || fs::read(path).unwrap());
            let sent = rig.end().await;
            assert!(reader.join().unwrap() == sent[first..]);
        });
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    on_both(async |backend| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut rig = Rig::new(settings(path.to_str().unwrap()), backend);
        rig.send(&mut Dice(4), 1000);
        while rig.sink.troubles().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(
            rig.sink.troubles()[0].words.contains("No space left on device"),
            "{:?}",
            rig.sink.troubles()
        );
        fs::remove_file(&path).unwrap();
        let sent = rig.end().await;
        assert!(fs::read(&path).unwrap() == sent);
    });
}

#[test]
fn outlets_get_numbers_owners_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let template = format!("{}/{{source}}.log", dir.path().display());
    let key = |source: &str| format!("{}/{source}.log", dir.path().display());
    let persist: Persist = Arc::new(|| Box::pin(async { Ok(()) }));
    let before = Group { sink: "k".into(), key: key("gone"), positions: vec![(1, 9)], ..Group::default() };
    let sink = FileSink::open(0, "k", settings(&template), past(vec![before.clone()]), persist).unwrap();
    let number = |source: &str| sink.outlet(&Origin::new(source, ""));
    let numbers: HashSet<u32> = ["a", "b", "a"].map(number).into();
    assert_eq!(numbers.len(), 2);
    assert_eq!(
        [sink.owner(number("a"), 1), sink.owner(number("b"), 0), sink.owner(number("a"), 0)],
        [1, 0, 1]
    );
    assert_eq!(sink.groups().len(), 3);
    assert!(sink.groups().contains(&before));
    assert_eq!(sink.positions_before(), HashMap::from([(1, 9)]));
    sink.retain_inputs(&|input| input != 1);
    assert_eq!(sink.positions_before(), HashMap::new());
}

#[test]
fn a_second_engine_on_one_output_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("out.log");
    let persist: Persist = Arc::new(|| Box::pin(async { Ok(()) }));
    let open =
        || FileSink::open(0, "k", settings(path.to_str().unwrap()), Past::default(), Arc::clone(&persist));
    let first = open().unwrap();
    assert!(matches!(open().map(|_| ()), Err(OpenError::Busy { .. })));
    drop(first);
    assert!(open().is_ok());
}
