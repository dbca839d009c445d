//! Backlogs on real files: what is kept, what is read back after a crash at any byte, and what is said.

use std::fs;

use proptest::prelude::*;

use super::backlog::Backlog;
use super::format::Content;
use super::segment::ENDING;
use super::watch::Attempt;
use super::*;
use crate::batch::Ticket;

const MOST: u64 = 64 << 20;

fn content(bytes: &[u8]) -> Content<'_> {
    Content { records: 1, ends: &[], bytes, oldest_ns: 7, tickets: &[] }
}

fn append(backlog: &mut Backlog, batches: &[Vec<u8>]) -> usize {
    let (kept, appended) = backlog.append(batches.iter().map(|bytes| content(bytes)));
    appended.unwrap();
    kept
}

fn rescue(dir: &Path, most: u64) -> Arc<Rescue> {
    Rescue::open(dir, "sink", Kind::Connection, most, None).unwrap()
}

fn read_all(backlog: &mut Backlog) -> Vec<Vec<u8>> {
    let next = || backlog.read().unwrap().map(|batch| batch.bytes().to_vec());
    std::iter::from_fn(next).collect()
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    numbers.map(|n| format!("batch {n}\n").into_bytes()).collect()
}

/// The sink's rescue after a start, and all of its one backlog.
fn open(dir: &Path) -> (Arc<Rescue>, Backlog) {
    let rescue = rescue(dir, MOST);
    let backlog = rescue.backlog("", 0, |_| true);
    (rescue, backlog)
}

fn files(rescue: &Rescue) -> Vec<PathBuf> {
    let all = fs::read_dir(&rescue.shared.folder.path).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.collect();
    all.sort_unstable();
    all
}

#[test]
fn what_was_kept_is_sent_in_order_and_gone_when_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    assert_eq!(append(&mut backlog, &numbered(0..3)), 3);
    assert_eq!(append(&mut backlog, &numbered(3..5)), 2);
    assert_eq!(read_all(&mut backlog), numbered(0..5));
    for left in (0..5).rev() {
        assert!(!backlog.is_empty() && !backlog.has_unread(), "{left} left and the last one");
        backlog.delivered();
    }
    assert!(backlog.is_empty() && backlog.has_delivered() && files(&rescue).len() == 1);
    backlog.forget_delivered().unwrap();
    assert!(files(&rescue).is_empty());
    assert_eq!((rescue.status().bytes, rescue.status().records), (0, 0));
    assert_eq!(append(&mut backlog, &numbered(5..6)), 1);
    assert_eq!(read_all(&mut backlog), numbered(5..6));
}

#[test]
fn a_batch_from_disk_tells_up_to_where_it_has_its_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut backlog) = open(dir.path());
    let ticket = |(input, upto)| Ticket { input, upto, records: 1, ..Ticket::default() };
    let tickets = [(7, 30), (0, 99), (8, 5), (7, 20)].map(ticket);
    let (kept, appended) = backlog.append([Content { tickets: &tickets, ..content(b"x\n") }].into_iter());
    assert!(kept == 1 && appended.is_ok());
    let batch = backlog.read().unwrap().unwrap();
    let told: Vec<_> =
        batch.tickets.iter().map(|ticket| (ticket.input, ticket.upto, ticket.records)).collect();
    assert_eq!(told, [(7, 30, 0), (8, 5, 0)]);
}

#[test]
fn after_a_crash_everything_undelivered_is_sent_first_and_new_batches_come_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..4));
    backlog.read().unwrap();
    drop(backlog);
    let (rescue, mut backlog) = open(dir.path());
    assert!(rescue.status().bytes > 0);
    assert_eq!(rescue.status().records, 4);
    append(&mut backlog, &numbered(4..6));
    assert_eq!(read_all(&mut backlog), numbered(0..6));
    assert_eq!(files(&rescue).len(), 2, "an earlier run's file is not written to");
}

#[test]
fn after_an_orderly_end_what_was_delivered_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..5));
    for left in [3, 2] {
        assert!(!backlog.is_begun(), "nothing of it is delivered yet");
        backlog.read().unwrap();
        backlog.delivered();
        backlog.read().unwrap();
        assert!(backlog.is_begun());
        backlog.note_sent().unwrap();
        drop(backlog);
        let rescue;
        (rescue, backlog) = open(dir.path());
        assert_eq!(rescue.status().records, left + 1);
    }
    assert_eq!(read_all(&mut backlog), numbered(2..5));
    (0..3).for_each(|_| backlog.delivered());
    backlog.forget_delivered().unwrap();
    let rescue = open(dir.path()).0;
    assert!(files(&rescue).is_empty(), "nothing is left that could be about another segment of that name");
}

#[test]
fn what_is_said_of_another_segment_or_is_torn_costs_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..2));
    backlog.read().unwrap();
    backlog.delivered();
    backlog.note_sent().unwrap();
    drop(backlog);
    let [segment, sent] = files(&rescue).try_into().unwrap();
    let text = fs::read(&sent).unwrap();
    for wrong in [&text[..text.len() - 1], &text[..text.len() - 2], b"", b"wpgen-rescue-sent 1\n"] {
        fs::write(&sent, wrong).unwrap();
        assert_eq!(read_all(&mut open(dir.path()).1), numbered(0..2));
    }
    // A later engine's segment has the same name when none was left in between.
    fs::remove_file(&segment).unwrap();
    let (rescue, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(7..9));
    drop(backlog);
    assert!(files(&rescue).contains(&segment));
    fs::write(&sent, &text).unwrap();
    assert_eq!(read_all(&mut open(dir.path()).1), numbered(7..9));
}

#[test]
fn what_is_beyond_the_bound_is_not_kept_and_fits_when_the_oldest_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let rescue = rescue(dir.path(), 20 << 20);
    let mut backlog = rescue.backlog("", 0, |_| true);
    let big: Vec<Vec<u8>> = (0..30).map(|n| vec![n; 1 << 20]).collect();
    assert_eq!(append(&mut backlog, &big), 19);
    assert_eq!(append(&mut backlog, &big), 0);
    assert!(rescue.status().bytes <= 20 << 20);
    assert!(files(&rescue).len() > 1, "more than a segment");
    for _ in 0..8 {
        backlog.read().unwrap();
        backlog.delivered();
    }
    backlog.forget_delivered().unwrap();
    assert_eq!(append(&mut backlog, &big[19..]), 8, "a segment's worth is free again");
    let rest = read_all(&mut backlog);
    assert!(rest.iter().map(|batch| batch[0]).eq(8..27), "in order, none missing");
}

#[test]
fn owners_find_what_was_left_for_them_and_other_sinks_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let rescue = Rescue::open(dir.path(), "a/../b", Kind::File, MOST, None).unwrap();
    append(&mut rescue.backlog("one", 3, |_| true), &numbered(0..1));
    append(&mut rescue.backlog("two", 1, |_| true), &numbered(1..2));
    let again = Rescue::open(dir.path(), "a/../b", Kind::File, MOST, None).unwrap();
    let mut left = again.left();
    left.sort_unstable();
    assert_eq!(left, [("one".to_owned(), 3), ("two".to_owned(), 1)]);
    assert!(read_all(&mut again.backlog("one", 0, |shard| shard == 2)).is_empty());
    assert_eq!(read_all(&mut again.backlog("one", 0, |shard| shard == 3)), numbered(0..1));
    assert_eq!(again.left().len(), 1);
    let left = forgotten(dir.path(), &["c"]);
    let bytes = files(&again).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let path = again.shared.folder.path.clone();
    assert_eq!(left, [Forgotten { key: "a/../b".into(), path, bytes }]);
    assert!(bytes > 0 && left[0].to_string().contains("the sink key 'a/../b' takes it up again"), "{left:?}");
    assert!(forgotten(dir.path(), &["a/../b"]).is_empty());
    assert!(forgotten(&dir.path().join("none"), &[]).is_empty());
}

#[test]
fn a_hole_is_told_what_can_be_read_is_sent_and_the_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    for n in 0..4 {
        append(&mut backlog, &numbered(n..n + 1));
    }
    drop(backlog);
    let path = files(&rescue).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"batch 1").unwrap();
    bytes[at] = b'B';
    fs::write(&path, &bytes).unwrap();
    let (rescue, mut backlog) = open(dir.path());
    assert_eq!(rescue.status().errors, 1);
    assert_eq!(read_all(&mut backlog), [numbered(0..1), numbered(2..4)].concat());
    (0..3).for_each(|_| backlog.delivered());
    backlog.forget_delivered().unwrap();
    let aside = files(&rescue);
    assert!(aside.len() == 1 && aside[0].to_string_lossy().contains(".rescue.broken-"), "{aside:?}");
    assert_eq!(fs::read(&aside[0]).unwrap(), bytes);
    assert!(!is_used(dir.path(), "sink"), "it is not sent again");
}

#[test]
fn a_newer_engines_segment_refuses_the_start_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..1));
    let path = files(&rescue).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes["wpgen-rescue ".len()] = b'2';
    fs::write(&path, &bytes).unwrap();
    let opened = Rescue::open(dir.path(), "sink", Kind::Connection, MOST, None);
    assert!(matches!(opened, Err(OpenError::Newer { version: 2, .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_a_sink_of_another_kind_has_left_waits_for_one_of_its_kind_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path()).1, &numbered(0..2));
    let other = Rescue::open(dir.path(), "sink", Kind::File, MOST, None).unwrap();
    assert!(other.left().is_empty());
    assert_eq!((other.status().stranded_files, other.status().records), (1, 0));
    assert!(other.status().bytes > 0, "they take room");
    let mut new = other.backlog("out.log", 0, |_| true);
    append(&mut new, &numbered(2..3));
    assert_eq!(read_all(&mut new), numbered(2..3));
    let (rescue, mut backlog) = open(dir.path());
    assert_eq!(read_all(&mut backlog), numbered(0..2));
    assert_eq!(rescue.status().stranded_files, 1, "the other one's");
}

#[test]
fn outlets_whose_names_have_the_same_checksum_keep_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = ("plumless", "buckeroo");
    assert_eq!(crc32fast::hash(one.as_bytes()), crc32fast::hash(other.as_bytes()));
    let rescue = rescue(dir.path(), MOST);
    append(&mut rescue.backlog(one, 0, |_| true), &numbered(0..1));
    append(&mut rescue.backlog(other, 0, |_| true), &numbered(1..2));
    let (again, _) = open(dir.path());
    assert_eq!(read_all(&mut again.backlog(other, 0, |_| true)), numbered(1..2));
    assert_eq!(read_all(&mut again.backlog(one, 0, |_| true)), numbered(0..1));
}

#[test]
fn a_file_that_somebody_removed_is_told_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..2));
    fs::remove_file(&files(&rescue)[0]).unwrap();
    let error = backlog.read().unwrap_err().to_string();
    assert!(error.contains("its 2 records are lost"), "{error}");
    backlog.forget_delivered().unwrap();
    assert!(backlog.is_empty() && backlog.read().unwrap().is_none());
    assert_eq!((rescue.status().bytes, rescue.status().records), (0, 0));
    append(&mut backlog, &numbered(2..3));
    assert_eq!(read_all(&mut backlog), numbered(2..3));
}

#[test]
fn the_log_is_told_once_and_each_guard_has_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, _) = open(dir.path());
    let (one, other) = (rescue.watch(), rescue.watch());
    let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
    rescue.failed(&one, Attempt::Writing, &full);
    rescue.failed(&one, Attempt::Writing, &full);
    rescue.failed(&other, Attempt::Writing, &full);
    assert!(!lock(&rescue.told).trouble.begins(), "it is told");
    rescue.well(&other, Attempt::Reading);
    rescue.well(&other, Attempt::Writing);
    assert!(rescue.status().trouble.is_some(), "the first one still has it");
    rescue.set_full(&one, true);
    rescue.well(&one, Attempt::Writing);
    assert_eq!((rescue.status().trouble, rescue.status().full, rescue.status().errors), (None, true, 3));
    assert!(!lock(&rescue.told).trouble.ends(), "its end was told");
    assert!(!lock(&rescue.told).trouble.begins(), "not again within a minute");
    rescue.set_full(&one, false);
    assert!(!rescue.status().full && !one.is_noted());
}

#[test]
fn a_batch_that_went_bad_while_it_waited_is_told_and_the_next_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    append(&mut backlog, &numbered(0..2));
    let path = files(&rescue).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"batch 0").unwrap();
    bytes[at] = b'B';
    fs::write(&path, &bytes).unwrap();
    assert!(backlog.read().is_err());
    assert_eq!(read_all(&mut backlog), numbered(1..2));
    backlog.delivered();
    backlog.forget_delivered().unwrap();
    assert!(backlog.is_empty());
    assert!(files(&rescue)[0].to_string_lossy().contains(".broken-"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Killed at any byte, whatever was acknowledged before is sent, in order, and nothing else.
    #[test]
    fn a_file_cut_at_any_byte_keeps_its_whole_batches(
        sizes in prop::collection::vec(0usize..300, 1..12), cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let batches: Vec<Vec<u8>> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
        let (rescue, mut backlog) = open(dir.path());
        let mut ends = Vec::new();
        for batch in &batches {
            append(&mut backlog, std::slice::from_ref(batch));
            ends.push(rescue.status().bytes);
        }
        drop(backlog);
        let path = files(&rescue).remove(0);
        let len = fs::metadata(&path).unwrap().len();
        let cut = cut.index(usize::try_from(len).unwrap() + 1) as u64;
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let kept = ends.iter().take_while(|end| **end <= cut).count();
        let (rescue, mut backlog) = open(dir.path());
        prop_assert_eq!(read_all(&mut backlog), batches[..kept].to_vec());
        prop_assert!(rescue.left().is_empty());
        prop_assert_eq!(files(&rescue).len(), usize::from(kept > 0));
    }

    /// Whatever lies in the folder, opening it ends and reads only what has its checksum.
    #[test]
    fn files_of_any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..80,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (rescue, mut backlog) = open(dir.path());
        append(&mut backlog, &numbered(0..1));
        drop(backlog);
        let path = files(&rescue).remove(0);
        let mut whole = fs::read(&path).unwrap();
        whole.truncate(keep);
        whole.extend_from_slice(&bytes);
        fs::write(&path, &whole).unwrap();
        fs::write(rescue.shared.folder.path.join(format!("x-y-z{ENDING}")), b"no segment").unwrap();
        let opened = Rescue::open(dir.path(), "sink", Kind::Connection, MOST, None);
        prop_assert!(opened.is_ok_and(|rescue| read_all(&mut rescue.backlog("", 0, |_| true)).len() <= 1));
    }
}

#[test]
fn an_empty_queue_of_segments_is_an_empty_backlog() {
    let dir = tempfile::tempdir().unwrap();
    let (rescue, mut backlog) = open(dir.path());
    assert!(backlog.is_empty() && !backlog.has_unread() && backlog.read().unwrap().is_none());
    assert_eq!(append(&mut backlog, &[]), 0);
    assert!(files(&rescue).is_empty(), "no file before there is a batch");
}
