//! A file source of `mode = "once"` in a small engine, against real files.

use std::fs;

use super::rig::{read, settings};
use super::settings::Settings;
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
fn groups_are_records_across_reads_and_the_last_one_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.log");
    let groups = groups();
    fs::write(&path, groups.join("\n")).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!(size > 2 << 20, "several reads");
    let outcome = read(joining, &[path]);
    assert!(outcome.text == groups.join("\n") + "\n");
    let source = &outcome.status.sources[0];
    assert_eq!((source.records_in, source.delivered), (groups.len() as u64, groups.len() as u64));
    assert_eq!(source.bytes_in, size);
    assert_eq!((outcome.inputs[0].position, outcome.inputs[0].done), (size, true));
}
