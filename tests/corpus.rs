//! The fuzzers' checks under `cargo test`: every seed as it is, and a few thousand inputs made of the seeds.
//!
//! The mutations are the same on each run. They do not take the place of fuzzing; they hold the invariants against every
//! change, and the canary shows that they are strong enough to find something.

#[path = "../fuzz/src/checks/mod.rs"]
mod checks;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use checks::Check;

/// Mutations of a target's seeds; fewer where each takes a file.
const MUTATIONS: usize = 3000;
const MUTATIONS_OF_FILES: usize = 250;
/// Inputs do not grow beyond this.
const INPUT_BYTES_MAX: usize = 2048;
/// A slow machine stops here; what was checked until then is checked.
const TARGET_TIME_MAX: Duration = Duration::from_secs(3);

fn fuzz_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz_folder().join("seeds").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder is listed").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seed", folder.display());
    paths.iter().map(|path| fs::read(path).expect("a seed is read")).collect()
}

/// The dictionary's words.
fn words() -> Vec<Vec<u8>> {
    let text = fs::read_to_string(fuzz_folder().join("wpgen.dict")).expect("there is a dictionary");
    let quoted = |line: &str| line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).map(unescaped);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| quoted(line).expect("a quoted word"))
        .collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (escape, len) = match &rest.as_bytes()[at + 1..] {
            [b'x', ..] => (u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two hex digits"), 4),
            [byte, ..] => (*byte, 2),
            [] => panic!("{text} ends in an escape"),
        };
        out.push(escape);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Inputs made of seeds and words; xorshift, so that a failure comes again.
struct Mutations {
    state: u64,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Mutations {
    fn of(name: &str) -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, seeds: seeds(name), words: words() }
    }

    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % n.max(1)
    }

    fn any(&mut self) -> Vec<u8> {
        let seed = self.below(self.seeds.len());
        self.seeds[seed].clone()
    }

    fn next(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _ in 0..=self.below(5) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let len = self.below(1 + (input.len() - at).min(16));
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.below(256) as u8,
            // Settings stand in front: they are turned more often than their share of the bytes.
            2 if !input.is_empty() => {
                let at = self.below(input.len().min(8));
                input[at] = self.below(256) as u8;
            }
            3 => drop(input.drain(at..at + len)),
            4 => {
                let again = input[at..at + len].repeat(1 + self.below(4));
                input.splice(at..at, again);
            }
            5 => {
                let other = self.any();
                let from = self.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            6 => input.truncate(at.max(input.len() / 2)),
            _ => {
                let word = self.below(self.words.len());
                input.splice(at..at, self.words[word].clone());
            }
        }
    }
}

fn run(name: &str, check: Check, mutations: usize) {
    let mut made = Mutations::of(name);
    let begun = Instant::now();
    for _ in 0..mutations {
        if begun.elapsed() > TARGET_TIME_MAX {
            return;
        }
        holds(name, check, &made.next());
    }
}

fn holds(name: &str, check: Check, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| check(input))).is_err() {
        panic!("{name}: the check above fails for b\"{}\"", input.escape_ascii());
    }
}

fn target(name: &str) -> Check {
    checks::ALL.iter().find(|(known, _)| *known == name).expect("a check of that name").1
}

#[test]
fn every_seed() {
    for (name, check) in checks::ALL {
        seeds(name).iter().for_each(|seed| holds(name, check, seed));
    }
}

#[test]
fn bytes() {
    for name in ["newline", "framing", "octet", "proxy", "decode", "multiline", "lines"] {
        run(name, target(name), MUTATIONS);
    }
}

#[test]
fn headers() {
    for name in ["syslog", "rfc5424"] {
        run(name, target(name), 4 * MUTATIONS);
    }
}

#[test]
fn files() {
    for name in ["config", "connectors", "checkpoint", "rescue"] {
        run(name, target(name), MUTATIONS_OF_FILES);
    }
}

#[test]
fn the_canary_is_found() {
    let mut made = Mutations::of("octet");
    let found = (0..20 * MUTATIONS).any(|_| {
        let input = made.next();
        catch_unwind(|| checks::octet::canary(&input)).is_err()
    });
    assert!(found, "mutations that do not find a planted flaw find nothing");
}

#[test]
fn every_check_has_its_target() {
    for (name, _) in checks::ALL {
        let path = fuzz_folder().join("fuzz_targets").join(format!("{name}.rs"));
        assert!(path.is_file(), "{} is missing", path.display());
        assert!(!seeds(name).is_empty());
    }
}
