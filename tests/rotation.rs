//! Rotation of every kind under a writer that never stops: no line is missing and none is there twice.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Random, Site, Writer, all_there_once, numbers, status, until};

/// Rotations of one test.
const ROTATIONS: usize = 12;
/// A pause between two of them, at most.
const PAUSE_MS: usize = 250;

const SINK: &str = "path = \"out\"\nformat = \"raw\"";
const NONE: &BTreeSet<u64> = &BTreeSet::new();

fn site(io: &str, path: &str) -> Site {
    Site::new(io, &format!("path = \"{path}\""), SINK)
}

fn log(site: &Site) -> PathBuf {
    site.path("in/app.log")
}

fn lines_out(site: &Site) -> u64 {
    site.read("out").iter().filter(|b| **b == b'\n').count() as u64
}

/// Makes room for a new `app.log.1`, as logrotate does.
fn shift(site: &Site, ending: &str) {
    for n in (1..=ROTATIONS).rev() {
        let name = |n| site.path(&format!("in/app.log.{n}{ending}"));
        if name(n).exists() {
            fs::rename(name(n), name(n + 1)).unwrap();
        }
    }
}

/// Renames the log; the writer goes on in it for a moment before it opens a new one.
fn rename_and_create(site: &Site, writer: &Writer, random: &mut Random) {
    shift(site, "");
    fs::rename(log(site), site.path("in/app.log.1")).unwrap();
    random.pause_ms(40);
    writer.hold().reopen(&log(site));
}

fn renamed_and_created_anew(io: &str, path: &str, seen_first: bool) {
    let site = site(io, path);
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    let mut random = Random::new(11);
    for _ in 0..ROTATIONS {
        random.pause_ms(PAUSE_MS);
        if seen_first {
            until_followed(&site, &writer);
        }
        rename_and_create(&site, &writer, &mut random);
    }
    all_there_once(&site, "out", writer.end(), NONE);
    engine.stop();
}

/// A file that nobody has seen when it goes is lost to anyone.
fn until_followed(site: &Site, writer: &Writer) {
    let n = writer.hold().next;
    until("it is followed", || lines_out(site) > n);
}

fn renamed_where_old_files_are_read_too(io: &str) {
    renamed_and_created_anew(io, "in/app.log*", false);
}

fn renamed_out_of_sight(io: &str) {
    renamed_and_created_anew(io, "in/app.log", true);
}

fn copied_and_truncated(io: &str) {
    let site = site(io, "in/app.log*");
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    let mut random = Random::new(12);
    // Lines that are not whole in the copy: those that copytruncate itself loses, or cuts. What was read of them in time
    // is there all the same.
    let mut lost = BTreeSet::new();
    for _ in 0..ROTATIONS {
        random.pause_ms(PAUSE_MS);
        shift(&site, "");
        let copied = Command::new("cp").arg(log(&site)).arg(site.path("in/app.log.1")).status().unwrap();
        assert!(copied.success());
        let pen = writer.hold();
        let (original, copy) = (site.read("in/app.log"), site.read("in/app.log.1"));
        assert!(original.starts_with(&copy), "a copy is the original's beginning");
        let copied: BTreeSet<u64> = numbers(&copy).into_iter().collect();
        lost.extend(numbers(&original).into_iter().filter(|n| !copied.contains(n)));
        File::options().write(true).open(log(&site)).unwrap().set_len(0).unwrap();
        drop(pen);
    }
    all_there_once(&site, "out", writer.end(), &lost);
    engine.stop();
}

/// Half of a line was read when the log is truncated: it is whole where a copy has it, and else all there is of it.
fn truncated_inside_a_line(io: &str) {
    // Longer than what a fingerprint covers: of a shorter copy less can be told.
    let first = "1".repeat(1100);
    let expected = |others: &[&str]| -> Vec<String> {
        std::iter::once(first.as_str()).chain(others.iter().copied()).map(String::from).collect()
    };
    let copied = [
        (format!("{first}\nsecond\nthird\n"), expected(&["fourth", "second", "third"])),
        (format!("{first}\n"), expected(&["fourth", "sec"])),
        (String::new(), expected(&["fourth", "sec"])),
    ];
    for (copy, expected) in copied {
        let site = Site::new(io, "path = \"in/app.log*\"\nflush_partial = \"1h\"", SINK);
        fs::write(log(&site), format!("{first}\nsec")).unwrap();
        let engine = site.start();
        until("its beginning is read", || lines_out(&site) == 1);
        engine.signal(libc::SIGSTOP);
        if !copy.is_empty() {
            fs::write(site.path("in/app.log.1"), &copy).unwrap();
        }
        fs::write(log(&site), "fourth\n").unwrap();
        engine.signal(libc::SIGCONT);
        until("the rest is read", || lines_out(&site) >= expected.len() as u64);
        engine.stop();
        let out = String::from_utf8(site.read("out")).unwrap();
        let mut records: Vec<&str> = out.lines().collect();
        records.sort_unstable();
        assert_eq!(records, expected, "with the copy {copy:?}");
    }
}

fn truncated_in_place(io: &str) {
    let site = site(io, "in/app.log");
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    let mut random = Random::new(13);
    for _ in 0..ROTATIONS {
        random.pause_ms(PAUSE_MS);
        let pen = writer.hold();
        until("what is there is read", || lines_out(&site) == pen.next);
        File::options().write(true).open(log(&site)).unwrap().set_len(0).unwrap();
    }
    all_there_once(&site, "out", writer.end(), NONE);
    engine.stop();
}

fn deleted_while_it_is_written(io: &str) {
    let site = site(io, "in/*.log");
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    until("it is read", || lines_out(&site) > 0);
    let mut random = Random::new(14);
    for _ in 0..ROTATIONS {
        random.pause_ms(PAUSE_MS);
        until_followed(&site, &writer);
        fs::remove_file(log(&site)).unwrap();
        random.pause_ms(40);
        writer.hold().reopen(&log(&site));
    }
    all_there_once(&site, "out", writer.end(), NONE);
    engine.stop();
}

fn inode_given_to_another_file(io: &str) {
    let site = site(io, "in/*.log");
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    let mut inodes = Vec::new();
    let mut path = log(&site);
    for n in 0..3 {
        writer.await_lines(500);
        let mut pen = writer.hold();
        until("what is there is read", || lines_out(&site) == pen.next);
        inodes.push(fs::metadata(&path).unwrap().ino());
        // The writer lets go of it and it has no name: it is gone when the engine has let go of it too.
        pen.reopen(&site.path("other"));
        fs::remove_file(&path).unwrap();
        let open = PathBuf::from(format!("/proc/{}/fd", engine.pid()));
        until("the file is let go of", || {
            let links = fs::read_dir(&open).unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            !links
                .into_iter()
                .any(|to| to.starts_with(site.path("in")) && to.to_string_lossy().ends_with("(deleted)"))
        });
        path = site.path(&format!("in/app{n}.log"));
        pen.reopen(&path);
    }
    all_there_once(&site, "out", writer.end(), NONE);
    engine.stop();
    inodes.push(fs::metadata(&path).unwrap().ino());
    let distinct: BTreeSet<u64> = inodes.iter().copied().collect();
    if distinct.len() == inodes.len() {
        eprintln!("this file system gave no inode twice: {inodes:?}");
    }
}

fn gzipped_after_it_was_renamed(io: &str) {
    let site = site(io, "in/app.log*");
    let writer = Writer::start(&log(&site));
    let engine = site.start();
    let mut random = Random::new(15);
    for _ in 0..ROTATIONS / 3 {
        random.pause_ms(2 * PAUSE_MS);
        shift(&site, ".gz");
        fs::rename(log(&site), site.path("in/app.log.1")).unwrap();
        writer.hold().reopen(&log(&site));
        let packed = Command::new("gzip").arg("-1").arg(site.path("in/app.log.1")).status().unwrap();
        assert!(packed.success());
    }
    let written = writer.end();
    all_there_once(&site, "out", written, NONE);
    // A compressed file is looked into when it has rested: a line of it would come twice then.
    let rested = std::time::Instant::now() + Duration::from_secs(4);
    until("the compressed files were looked at", || std::time::Instant::now() > rested);
    all_there_once(&site, "out", written, NONE);
    engine.stop();
}

fn stopped_during_a_rotation(io: &str) {
    let site = site(io, "in/app.log*");
    let writer = Writer::start(&log(&site));
    let mut random = Random::new(16);
    for round in 0..ROTATIONS {
        let engine = site.start();
        random.pause_ms(PAUSE_MS);
        if round % 3 == 0 {
            // While it is down.
            engine.stop();
            rename_and_create(&site, &writer, &mut random);
        } else {
            // While it stops.
            engine.signal(libc::SIGTERM);
            random.pause_ms(20);
            rename_and_create(&site, &writer, &mut random);
            assert_eq!(engine.end().code, Some(0));
        }
    }
    let engine = site.start();
    all_there_once(&site, "out", writer.end(), NONE);
    engine.stop();
}

fn few_that_grow_among_many(io: &str) {
    const FILES: u64 = 2000;
    const GROWING: u64 = 10;
    let site = Site::new(io, "path = \"in/*\"", "path = \"out/{tag:source_name}\"\nformat = \"raw\"");
    let name = |n: u64| site.path(&format!("in/{n}"));
    for n in GROWING..FILES {
        fs::write(name(n), format!("only line of {n}\n")).unwrap();
    }
    let writers: Vec<Writer> = (0..GROWING).map(|n| Writer::start(&name(n))).collect();
    let engine = site.start();
    until("every file is read", || {
        status(site.folder())["sources"][0]["delivered"].as_u64() >= Some(FILES - GROWING)
            && (GROWING..FILES).all(|n| site.path(&format!("out/{n}")).exists())
    });
    writers.iter().for_each(|writer| writer.await_lines(3000));
    for (n, writer) in (0..).zip(writers) {
        all_there_once(&site, &format!("out/{n}"), writer.end(), NONE);
    }
    for n in GROWING..FILES {
        assert_eq!(site.read(&format!("out/{n}")), format!("only line of {n}\n").into_bytes());
    }
    engine.stop();
}

/// Between a rename and the new file there is none: that is no error.
fn missing_for_a_while(io: &str) {
    let site = site(io, "in/app.log");
    let engine = site.start();
    let log = || String::from_utf8(site.read("logs/wpgen.log")).unwrap();
    until("it is said", || log().contains("[WP101] file not found"));
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    until("it is read", || lines_out(&site) == 1);
    assert_eq!(status(site.folder())["sources"][0]["errors"], 0);
    engine.stop();
    let said = log().lines().find(|line| line.contains("WP101")).unwrap().to_owned();
    assert!(said.contains("WARN") && !said.contains("near names"), "{said}");
}

/// A compressed file that is still being written: nothing torn of it is a record, and its rest is read, by this run and by
/// the next one.
fn compressed_while_it_is_read(io: &str) {
    let text: String = (0..20_000).map(|n| format!("line {n} of a log that is packed\n")).collect();
    let site = site(io, "in/*.gz");
    let plain = site.path("whole");
    fs::write(&plain, &text).unwrap();
    assert!(Command::new("gzip").arg(&plain).status().unwrap().success());
    let packed = site.read("whole.gz");
    let path = site.path("in/app.gz");
    fs::write(&path, &packed[..packed.len() / 3]).unwrap();
    let log = || String::from_utf8(site.read("logs/wpgen.log")).unwrap();
    let cut = |bytes: usize| format!("app.gz is cut off at byte {bytes} (");
    let is_whole = || {
        let out = site.read("out");
        out.is_empty() || (text.as_bytes().starts_with(&out) && out.ends_with(b"\n"))
    };
    let engine = site.start();
    until("it is said", || log().contains(&cut(packed.len() / 3)));
    until("what is whole of it is there", || lines_out(&site) > 100);
    assert!(is_whole(), "nothing torn");
    let mut file = File::options().append(true).open(&path).unwrap();
    file.write_all(&packed[packed.len() / 3..packed.len() / 2]).unwrap();
    let before = lines_out(&site);
    until("more of it is there", || lines_out(&site) > before);
    engine.stop();
    assert!(is_whole(), "nothing torn");
    assert_eq!(log().matches("is cut off at").count(), 1, "said once");
    let engine = site.start();
    until("it is said again", || log().contains(&cut(packed.len() / 2)));
    fs::write(&path, &packed).unwrap();
    until("all of it is there", || lines_out(&site) == 20_000);
    assert_eq!(status(site.folder())["sources"][0]["errors"], 0);
    engine.stop();
    assert!(site.read("out") == text.as_bytes());
}

fn text(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("line {n} of a log that is rotated\n")).collect()
}

/// Every line below `upto` is there, and none twice.
fn each_once(site: &Site, upto: u32) {
    let (out, all) = (String::from_utf8(site.read("out")).unwrap(), text(0..upto));
    let (mut out, mut all): (Vec<&str>, Vec<&str>) = (out.lines().collect(), all.lines().collect());
    out.sort_unstable();
    all.sort_unstable();
    assert!(out == all, "{} of {} lines", out.len(), all.len());
}

/// Reads a beginning, and has the log grow and be renamed while no engine runs.
fn renamed_while_down(site: &Site) {
    fs::write(log(site), text(0..100)).unwrap();
    let engine = site.start();
    until("its beginning is read", || lines_out(site) == 100);
    engine.stop();
    fs::rename(log(site), site.path("in/app.log.1")).unwrap();
    let mut file = File::options().append(true).open(site.path("in/app.log.1")).unwrap();
    file.write_all(text(100..150).as_bytes()).unwrap();
    fs::write(log(site), text(150..200)).unwrap();
}

/// The rest of a log is read where only its path is configured, before what is at that path now, and once.
fn rest_of_a_log_that_was_renamed_while_down(io: &str) {
    for pattern in ["in/app.log", "in/*.log", "**/app.log"] {
        let site = site(io, pattern);
        renamed_while_down(&site);
        let engine = site.start();
        until("all of it is read", || lines_out(&site) == 200);
        engine.stop();
        let engine = site.start();
        File::options().append(true).open(log(&site)).unwrap().write_all(text(200..201).as_bytes()).unwrap();
        until("it goes on", || lines_out(&site) > 200);
        engine.stop();
        assert_eq!(String::from_utf8(site.read("out")).unwrap(), text(0..201), "{pattern}");
    }
}

fn rest_of_a_log_that_was_packed_while_down(io: &str) {
    let site = site(io, "in/app.log");
    // Another one that begins otherwise.
    fs::write(site.path("in/app.log.2"), text(7..100)).unwrap();
    assert!(Command::new("gzip").arg(site.path("in/app.log.2")).status().unwrap().success());
    renamed_while_down(&site);
    assert!(Command::new("gzip").arg(site.path("in/app.log.1")).status().unwrap().success());
    let engine = site.start();
    until("all of it is read", || lines_out(&site) == 200);
    engine.stop();
    site.start().stop();
    each_once(&site, 200);
}

fn rest_of_a_log_that_was_renamed_between_two_runs_of_once(io: &str) {
    let site = Site::new(io, "path = \"in/app.log\"\nmode = \"once\"", SINK);
    let run = || assert_eq!(crate::cli::run(site.folder(), &["source", "start"]).code, Some(0));
    fs::write(log(&site), text(0..100)).unwrap();
    run();
    assert_eq!(lines_out(&site), 100);
    fs::rename(log(&site), site.path("in/app.log.1")).unwrap();
    let mut file = File::options().append(true).open(site.path("in/app.log.1")).unwrap();
    file.write_all(text(100..150).as_bytes()).unwrap();
    fs::write(log(&site), text(150..200)).unwrap();
    run();
    run();
    each_once(&site, 200);
}

/// What cannot be read any more is said, once.
fn log_that_went_while_down(io: &str) {
    let site = site(io, "in/app.log");
    fs::write(log(&site), text(0..100)).unwrap();
    let engine = site.start();
    until("it is read", || lines_out(&site) == 100);
    engine.stop();
    // As long as it is open, its inode cannot come again.
    let held = File::open(log(&site)).unwrap();
    fs::remove_file(log(&site)).unwrap();
    let said = |times: usize| {
        let words = format!("in/app.log (read to byte {}): not there any more", text(0..100).len());
        let log = String::from_utf8(site.read("logs/wpgen.log")).unwrap();
        log.lines().filter(|line| line.contains(&words) && line.contains("WARN")).count() == times
    };
    fs::write(log(&site), text(100..120)).unwrap();
    let engine = site.start();
    until("the new one is read", || lines_out(&site) == 120);
    engine.stop();
    assert!(said(1));
    site.start().stop();
    assert!(said(1), "once");
    drop(held);
}

/// The path has gone from file to file while the engine did not look.
fn renamed_again_and_again_between_two_looks(io: &str) {
    let site = site(io, "in/app.log");
    let (old, now) = (site.path("in/app.log.old"), site.path("now"));
    fs::write(&old, "nobody asked for this\n").unwrap();
    // What was made within the ten milliseconds before a look may have had the path since.
    until("that is long ago", || {
        fs::write(&now, "").unwrap();
        let made = |path| fs::metadata(path).unwrap().modified().unwrap();
        made(&now).duration_since(made(&old)).unwrap_or_default() > Duration::from_millis(20)
    });
    fs::write(log(&site), text(0..50)).unwrap();
    let engine = site.start();
    until("it is followed", || lines_out(&site) == 50);
    engine.signal(libc::SIGSTOP);
    for n in 1..=10 {
        fs::rename(log(&site), site.path(&format!("in/app.log.{n}"))).unwrap();
        fs::write(log(&site), text(50 * n..50 * (n + 1))).unwrap();
    }
    engine.signal(libc::SIGCONT);
    until("all of it is read", || lines_out(&site) >= 550);
    engine.stop();
    // The oldest first, as far as the file system's clock tells them apart.
    each_once(&site, 550);
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        /// Through io_uring, where it is allowed.
        mod ring { $(#[test] fn $name() { super::$name("auto"); })* }
        /// Without it.
        mod epoll { $(#[test] fn $name() { super::$name("epoll"); })* }
    };
}

on_both!(
    renamed_where_old_files_are_read_too,
    renamed_out_of_sight,
    copied_and_truncated,
    truncated_inside_a_line,
    truncated_in_place,
    deleted_while_it_is_written,
    inode_given_to_another_file,
    gzipped_after_it_was_renamed,
    stopped_during_a_rotation,
    few_that_grow_among_many,
    missing_for_a_while,
    compressed_while_it_is_read,
    rest_of_a_log_that_was_renamed_while_down,
    rest_of_a_log_that_was_packed_while_down,
    rest_of_a_log_that_was_renamed_between_two_runs_of_once,
    log_that_went_while_down,
    renamed_again_and_again_between_two_looks,
);
