//! Two hundred broken configurations, made of good ones by one mistake each: every one is told on its line, and none
//! ends in a panic.

use std::fs;

use engine::config::{self, Environment};
use engine::diagnosis::Diagnostics;

use crate::harness::{Random, Site};

/// Good as it stands; each line can be spoiled.
const GOOD: &str = "\
[engine]
workers = 2
memory_limit = \"1GiB\"
checkpoint_interval = \"200ms\"
io = \"auto\"
[log]
level = \"info\"
[admin]
listen = \"127.0.0.1:18080\"
[[sources]]
key = \"app\"
connect = \"file_src\"
enable = true
tags = [\"env:production\", \"type:access\"]
[sources.params_override]
path = \"in/app.log\"
mode = \"tail\"
max_line_bytes = \"1MiB\"
encode = \"text\"
[[sources]]
key = \"net\"
connect = \"syslog_tcp_src\"
[sources.params_override]
addr = \"127.0.0.1\"
port = 15514
header_mode = \"keep\"
framing = \"auto\"
max_connections = 100
idle_timeout = \"5s\"
[[sinks]]
key = \"archive\"
connect = \"file_sink\"
sources = [\"app\", \"net\"]
[sinks.params_override]
path = \"out/{source}.ndjson\"
format = \"ndjson\"
fsync = \"interval\"
";
const BROKEN: usize = 200;

/// A mistake in a line; nothing where the line cannot be spoiled so.
type Mistake = fn(&str, &mut Random) -> Option<String>;

const MISTAKES: [Mistake; 9] = [
    // A letter of the key is missing.
    |line, random| {
        let (key, value) = line.split_once(" = ")?;
        let at = random.below(key.len());
        Some(format!("{}{} = {value}", &key[..at], &key[at + 1..]))
    },
    // A letter too many, which makes it no key that there is.
    |line, _| line.split_once(" = ").map(|(key, value)| format!("{key}x = {value}")),
    // A string without its quotes.
    |line, _| {
        let (key, value) = line.split_once(" = ")?;
        value.starts_with('"').then(|| format!("{key} = {}", value.trim_matches('"')))
    },
    // A string that is not closed.
    |line, _| line.ends_with('"').then(|| line[..line.len() - 1].to_owned()),
    // A bracket that is not closed.
    |line, _| line.ends_with(']').then(|| line[..line.len() - 1].to_owned()),
    // No value at all.
    |line, _| line.split_once(" = ").map(|(key, _)| format!("{key} =")),
    // A value of another type.
    |line, _| {
        let (key, _) = line.split_once(" = ")?;
        Some(format!("{key} = {{ a = 1 }}"))
    },
    // A colon in place of the sign.
    |line, _| line.contains(" = ").then(|| line.replace(" = ", ": ")),
    // The line twice.
    |line, _| line.contains(" = ").then(|| format!("{line}\n{line}")),
];

fn load(site: &Site, text: &str) -> Result<Diagnostics, Diagnostics> {
    fs::write(site.path("wpsrc.toml"), text).unwrap();
    let environment = Environment { var: &|_| None, cpus: 2 };
    config::load(&site.path("wpsrc.toml"), &environment).map(|loaded| loaded.warnings)
}

/// Whether some finding, or a place it names beside its own, is on one of these lines.
fn tells(found: &Diagnostics, lines: std::ops::RangeInclusive<usize>) -> bool {
    let places = found
        .all
        .iter()
        .flat_map(|finding| finding.place.iter().chain(finding.others.iter().map(|(_, place)| place)));
    places.into_iter().any(|place| lines.contains(&(place.line as usize)))
}

#[test]
fn two_hundred_broken_configurations_are_told_on_the_right_line() {
    let site = Site::empty();
    assert!(load(&site, GOOD).is_ok(), "{:?}", load(&site, GOOD));
    let lines: Vec<&str> = GOOD.lines().collect();
    let mut random = Random::new(6);
    let mut broken = std::collections::BTreeSet::new();
    let mut untold = Vec::new();
    while broken.len() < BROKEN {
        let at = random.below(lines.len());
        let mistake = MISTAKES[random.below(MISTAKES.len())];
        let Some(spoiled) = mistake(lines[at], &mut random) else { continue };
        let mut all = lines.clone();
        all[at] = &spoiled;
        let text = all.join("\n") + "\n";
        if !broken.insert(text.clone()) {
            continue;
        }
        match load(&site, &text) {
            Ok(_) => untold.push(format!("line {}: {spoiled:?} loads", at + 1)),
            Err(found) if !tells(&found, at + 1..=at + spoiled.lines().count()) => {
                untold.push(format!("line {}: {spoiled:?} is told as:\n{found}", at + 1));
            }
            Err(_) => {}
        }
    }
    assert!(untold.is_empty(), "{} of {BROKEN}:\n{}", untold.len(), untold.join("\n"));
}
