//! Who must never know whom: reads the `use` lines of the engine and holds the table of its map.

use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules of the engine that it must not name.
const STRANGERS: [(&str, &[&str]); 8] = [
    ("frame", &["io", "shard", "engine", "source", "sink", "config", "metrics", "checkpoint", "queue"]),
    ("syslog", &["io", "shard", "engine", "source", "sink", "config", "metrics", "checkpoint", "queue"]),
    ("decode", &["io", "shard", "engine", "source", "sink", "config", "metrics", "checkpoint", "queue"]),
    ("batch", &["io", "shard", "engine", "source", "sink", "config", "metrics", "checkpoint", "queue"]),
    ("settle", &["io", "shard", "engine", "source", "sink", "config", "metrics", "checkpoint", "queue"]),
    ("source", &["sink"]),
    ("sink", &["source"]),
    ("io", &["source", "sink", "engine", "config", "frame", "syslog"]),
];

/// What a pure module must not take from the standard library.
const IMPURE: [&str; 8] = [
    "std::fs",
    "std::net::T",
    "std::net::U",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "std::process",
];
const PURE: [&str; 5] = ["frame", "syslog", "decode", "batch", "settle"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src")
}

fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = vec![sources().join(format!("{module}.rs"))];
    let mut folders = vec![sources().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.retain(|file| file.is_file());
    files
}

/// The `use` lines in front of a file's tests.
fn uses(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let uses =
        code.lines().map(str::trim).filter(|line| line.starts_with("use ") || line.starts_with("pub use "));
    uses.map(str::to_owned).collect()
}

/// Tests and the rigs they stand on may know both sides.
fn is_test(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
    ["tests", "rig", "playground"].contains(&&*name) || name.ends_with("_tests") || folder == "tests"
}

#[test]
fn modules_know_only_whom_they_may() {
    let mut wrong = Vec::new();
    for (module, strangers) in STRANGERS {
        let files = files_of(module);
        assert!(!files.is_empty(), "the map names a module that is not there: {module}");
        for file in files.iter().filter(|file| !is_test(file)) {
            for line in uses(file) {
                let known = strangers.iter().filter(|stranger| {
                    line.contains(&format!("crate::{stranger}::"))
                        || line.contains(&format!("crate::{stranger};"))
                });
                wrong.extend(known.map(|stranger| format!("{}: `{line}` knows {stranger}", file.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_pure_takes_nothing_from_the_world() {
    let mut wrong = Vec::new();
    for file in PURE.iter().flat_map(|module| files_of(module)).filter(|file| !is_test(file)) {
        for line in uses(&file) {
            let taken = IMPURE.iter().filter(|impure| line.contains(**impure));
            wrong.extend(taken.map(|impure| format!("{}: `{line}` takes {impure}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_engine_prints_nothing_exits_never_and_reads_no_environment() {
    let mut folders = vec![sources()];
    let mut wrong = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if is_test(&path) {
                continue;
            }
            for (at, line) in code.lines().enumerate() {
                let line = line.trim();
                let banned = ["println!(", "eprintln!(", "process::exit(", "env::var"];
                if !line.starts_with("//") && banned.iter().any(|b| line.contains(b)) {
                    wrong.push(format!("{}:{}: {line}", path.display(), at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
