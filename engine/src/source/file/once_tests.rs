//! A file source of `mode = "once"` in a small engine, against real files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::identity::Fingerprint;
use super::lines::LongLines;
use super::params::Compression;
use super::rig::{logged, read, read_on_both, settings};
use super::settings::Settings;
use crate::checkpoint::{Input, Range};
use crate::decode::{Encode, OnBad};
use crate::frame::multiline::{Begins, Multiline};

/// Groups of one to four lines, more of them than one read holds.
fn groups() -> Vec<String> {
    (0..60_000u32)
        .map(|n| format!("{n} begins{}", format!("\n  goes on with {n}").repeat(n as usize % 4)))
        .collect()
}

fn joining() -> Settings {
    let begins = Begins::pattern("^[0-9]").unwrap();
    let rules = Multiline { begins, lines_max: 100, bytes_max: 1 << 20, timeout_ns: 1_000_000_000 };
    Settings { multiline: Some(rules), ..settings(&[]) }
}

#[test]
fn a_record_bears_the_machines_name_unless_the_configuration_says_better() {
    let of = |tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings { tags, ..settings(&[]) }.origin(Path::new("/var/log/app.log"))
    };
    let tagged = |origin: &crate::batch::Origin, name: &str| origin.tag(name).map(str::to_owned);
    let plain = of(&[("env", "prod")]);
    let expected = [("host", "host"), ("env", "prod"), ("source_type", "file"), ("source_name", "app.log")];
    for (name, value) in expected {
        assert_eq!(tagged(&plain, name).as_deref(), Some(value));
    }
    assert_eq!(tagged(&of(&[("host", "web7")]), "host").as_deref(), Some("web7"));
}

#[test]
fn groups_are_records_across_reads_and_the_last_one_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let groups = groups();
    fs::write(&path, groups.join("\n")).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!(size > 2 << 20, "several reads");
    let outcome = read_on_both(joining, &[&path]);
    assert!(outcome.text == groups.join("\n") + "\n");
    let source = &outcome.status.sources[0];
    assert_eq!((source.records_in, source.delivered), (groups.len() as u64, groups.len() as u64));
    assert_eq!(source.bytes_in, size);
    assert_eq!((outcome.inputs[0].position, outcome.inputs[0].done), (size, true));
}

fn hex(on_bad: OnBad) -> Settings {
    Settings { encode: Encode::Hex, on_bad, ..settings(&[]) }
}

#[test]
fn a_bad_line_is_told_with_its_place_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.hex");
    fs::write(&path, "41\n42\n4\x1b\nzz\n43\n").unwrap();
    let outcome = read(hex(OnBad::Skip), &[&path]);
    assert_eq!(outcome.text, "A\nB\nC\n");
    let source = &outcome.status.sources[0];
    assert_eq!((source.records_in, source.delivered, source.errors), (5, 3, 2));
    assert_eq!(source.dropped, [("bad_line".to_owned(), 2)]);
    assert_eq!(
        logged(&path),
        [format!(
            "WARN source 'source': [WP103] Invalid hex encoding: {}:3:7: '\\x1b' is byte 2 of the line; \
             the line is left out (1 more since the last message)",
            path.display()
        )]
    );
}

#[test]
fn a_bad_line_can_stop_the_source_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stop.hex");
    fs::write(&path, "41\r\n4\n42\n").unwrap();
    let outcome = read(hex(OnBad::Stop), &[&path]);
    assert_eq!(outcome.text, "A\n");
    assert_eq!((outcome.inputs[0].position, outcome.inputs[0].done), (4, false));
    let again =
        read(Settings { encode: Encode::Hex, on_bad: OnBad::Stop, ..settings(&outcome.inputs) }, &[&path]);
    assert_eq!((again.text.as_str(), again.inputs[0].position), ("", 4));
    let told = logged(&path);
    assert_eq!(told.len(), 2);
    let place = format!("ERROR source 'source': [WP103] Invalid hex encoding: {}:2:5: ", path.display());
    assert!(
        told.iter().all(|line| line.starts_with(&place) && line.ends_with("; the source stops")),
        "{told:?}"
    );
}

#[test]
fn a_long_line_is_one_however_many_reads_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.log");
    let long = "x".repeat(5 << 20);
    fs::write(&path, format!("{long}\nshort\n{}\n", &long[..150])).unwrap();
    for (long_lines, records, split, what) in
        [(LongLines::Split, (5 << 20) / 100 + 1 + 1 + 2, 2, "split"), (LongLines::Drop, 1, 0, "left out")]
    {
        let outcome = read(Settings { max_line_bytes: 100, long_lines, ..settings(&[]) }, &[&path]);
        assert_eq!(outcome.text.lines().count(), records);
        assert_eq!(outcome.status.sources[0].dropped.iter().map(|(_, n)| n).sum::<u64>(), 2 - split);
        let told = logged(&path);
        let last = told.last().unwrap();
        assert!(last.contains("longer than max_line_bytes (100 bytes)") && last.ends_with(what), "{last}");
    }
    assert_eq!(logged(&path).len(), 2, "once a minute for each file");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

fn text(lines: std::ops::Range<u32>) -> String {
    lines.map(|n| format!("line {n} of some text\n")).collect()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn compressed_files_are_read_and_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(0..200_000);
    let (one, two) = text.split_at(text.len() / 2);
    let joined = [gzip(one.as_bytes()), gzip(two.as_bytes())].concat();
    let zstd = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
    for (name, bytes) in [("a.gz", joined), ("a.zst", zstd)] {
        let path = write(dir.path(), name, &bytes);
        let outcome = read_on_both(|| settings(&[]), &[&path]);
        assert!(outcome.text == text, "{name}");
        assert_eq!(outcome.status.sources[0].bytes_in, text.len() as u64);
        let input = &outcome.inputs[0];
        assert_eq!((input.position, input.done), (text.len() as u64, true));
        assert_eq!(input.content, Some(Fingerprint::of(text.as_bytes())));
        assert_eq!(read(settings(&outcome.inputs), &[&path]).text, "", "it is known");
        let behind = text.find("line 150000").unwrap();
        let before = [Input { position: behind as u64, done: false, ..input.clone() }];
        let rest = read(settings(&before), &[&path]);
        assert!(rest.text == text[behind..], "{name}");
    }
}

#[test]
fn compressed_content_goes_on_behind_a_line_that_was_given_out_without_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.gz", &gzip(b"one\n\ntwo\n"));
    let outcome = read(settings(&[]), &[&path]);
    for (position, rest) in [(3, "\ntwo\n"), (4, "\ntwo\n"), (5, "two\n"), (7, "o\n")] {
        let before = [Input { position, ..outcome.inputs[0].clone() }];
        assert_eq!(read(settings(&before), &[&path]).text, rest, "{position}");
    }
}

#[test]
fn what_comes_before_a_cut_is_kept_and_the_cut_told() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(0..50_000);
    let whole = gzip(text.as_bytes());
    let path = write(dir.path(), "cut.gz", &whole[..whole.len() / 2]);
    let outcome = read(settings(&[]), &[&path]);
    assert!(outcome.text.len() > text.len() / 4 && text.starts_with(outcome.text.trim_end()));
    assert_eq!((outcome.status.sources[0].errors, outcome.inputs[0].done), (1, false));
    let told = logged(&path);
    assert!(
        told.len() == 1 && told[0].contains(&format!("cut off at byte {} (", whole.len() / 2)),
        "{told:?}"
    );
    assert!(
        outcome.text.ends_with('\n') && text.starts_with(&outcome.text),
        "the torn line is not given out"
    );
    fs::write(&path, &whole).unwrap();
    let rest = read(settings(&outcome.inputs), &[&path]);
    assert!(outcome.text + &rest.text == text && rest.inputs[0].done, "the next run begins at it");
    let named = read(Settings { compression: Compression::Zstd, ..settings(&[]) }, &[&path]);
    assert_eq!((named.text.as_str(), named.status.sources[0].errors), ("", 1), "it is not zstd");
    assert!(logged(&path)[1].contains("compression = \"zstd\""));
}

#[test]
fn a_file_that_was_read_and_comes_back_compressed_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (text(0..1000), text(1000..1100));
    let plain = write(dir.path(), "app.log", old.as_bytes());
    let first = read(settings(&[]), &[&plain]);
    let packed = write(dir.path(), "app.log.1.gz", &gzip(old.as_bytes()));
    let other = write(dir.path(), "other.gz", &gzip((old.clone() + &new).as_bytes()));
    let both = [&plain, &packed];
    assert_eq!(read(settings(&first.inputs), &both).text, "", "both are there");
    assert!(read(settings(&[]), &both).text == old, "both are new");
    let more = read(settings(&first.inputs), &[&plain, &other]);
    assert!(more.text == old.clone() + &new, "content that only begins alike is not the same");
    fs::remove_file(&plain).unwrap();
    let second = read(settings(&first.inputs), &[&packed]);
    assert_eq!((second.text.as_str(), second.inputs.len()), ("", 1));
    assert_eq!((second.inputs[0].id, &second.inputs[0].path), (first.inputs[0].id, &packed));
    assert_eq!(read(settings(&second.inputs), &[&packed]).text, "");
    assert!(read(settings(&first.inputs), &[&other]).text == new, "what was not read of it is");
}

#[test]
fn ranges_of_a_file_that_comes_back_compressed_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(0..3000);
    let path = write(dir.path(), "big.log.gz", &gzip(text.as_bytes()));
    let range = |id, start, end, position, done| Input {
        id,
        source: "source".into(),
        path: dir.path().join("big.log"),
        ino: 1,
        fingerprint: Fingerprint::of(text.as_bytes()),
        position,
        ranges: vec![Range { start, end, position }],
        done,
        ..Input::default()
    };
    // Borders lie inside lines; the first range was read to the end of its last line, the second in part.
    let line = |at: usize| at + text[at..].find('\n').unwrap() + 1;
    let at = [line(10_000), line(15_000), line(20_000)];
    let before = [range(1, 0, 10_000, at[0] as u64, true), range(2, 10_000, 20_000, at[1] as u64, false)];
    let outcome = read(settings(&before), &[&path]);
    let mut lines: Vec<&str> = outcome.text.lines().collect();
    lines.sort_by_key(|line| line.split(' ').nth(1).and_then(|n| n.parse::<u32>().ok()));
    assert_eq!(lines, text[at[1]..].lines().collect::<Vec<_>>());
    assert!(outcome.inputs.iter().all(|input| input.done) && outcome.inputs.len() == 3);
    assert_eq!(read(settings(&outcome.inputs), &[&path]).text, "");
}

#[test]
fn a_last_line_without_an_end_that_goes_on_over_a_border_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("first\n{}", "x".repeat(19_950));
    let path = write(dir.path(), "big.log", text.as_bytes());
    let seen = fs::metadata(&path).unwrap();
    let range = |id, start, end| Input {
        id,
        source: "source".into(),
        path: path.clone(),
        dev: seen.dev(),
        ino: seen.ino(),
        fingerprint: Fingerprint::of(text.as_bytes()),
        position: start,
        ranges: vec![Range { start, end, position: start }],
        ..Input::default()
    };
    let known = [range(1, 0, 10_000), range(2, 10_000, text.len() as u64)];
    let outcome = read(Settings { max_line_bytes: 100, ..settings(&known) }, &[&path]);
    assert_eq!(outcome.text.lines().count(), 1 + 200);
    assert_eq!(outcome.text.replace('\n', "").len(), text.len() - 1, "every byte of it, once");
}
