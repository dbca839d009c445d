//! How a snapshot lies in its file: one line of head, then one line of JSON for each thing in it.
//!
//! `wpgen-checkpoint VERSION CRC32 BYTES` and a newline; the checksum and the length are those of all that follows.
//! JSON, because at three in the morning somebody reads it with `less`; a line each, because 10 000 of them must be
//! written in a few milliseconds and a diff should show the one that moved. An older engine must refuse what it does
//! not know, so VERSION rises with every change of meaning; unknown keys are ignored. A snapshot is written in the oldest
//! version that can say it: 2 is 1 with lines for partitions, 4 has groups of files whose ends are the only copy.

use std::io::{self, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Group, Input, Partition, Snapshot};

const MAGIC: &str = "wpgen-checkpoint";
/// The version without partitions.
const VERSION_FIRST: u32 = 1;
/// The first version with partitions.
const VERSION_PARTITIONS: u32 = 2;
/// The first version with only copies, which an engine of before would cut. It is not 3, of which one flipped bit makes a 2.
const VERSION: u32 = 4;

/// Why bytes are no snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// They are of a later version.
    Newer(u32),
    /// They are cut, changed or something else.
    Broken(String),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineOut<'a> {
    Engine { version: &'static str, next_input: u64 },
    Input(&'a Input),
    Group(&'a Group),
    Partition(&'a Partition),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineIn {
    Engine { next_input: u64 },
    Input(Input),
    Group(Group),
    Partition(Partition),
}

/// Encodes one snapshot after another. The line of an input that is as it was is taken from the encoding before: of ten
/// thousand files few move between two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The last encoding, whole, and where each input's line stands in it.
    text: Vec<u8>,
    lines: Vec<Range<usize>>,
    /// The encoding before that: memory for the next one.
    spare: Vec<u8>,
}

/// How far an input may have moved up in the list and still be found among those before.
const GONE_BETWEEN_MAX: usize = 16;

impl Encoder {
    /// The snapshot as it lies in its file. `before` are the inputs of the last one that was encoded, or none.
    pub(super) fn encode(&mut self, snapshot: &Snapshot, before: &[Input]) -> io::Result<&[u8]> {
        debug_assert!(before.is_empty() || before.len() == self.lines.len());
        let mut out = std::mem::take(&mut self.spare);
        out.clear();
        // The head has a fixed length, so that it can be filled in at the end without moving the rest.
        let version = match () {
            () if snapshot.groups.iter().any(|group| group.only_copy) => VERSION,
            () if !snapshot.partitions.is_empty() => VERSION_PARTITIONS,
            () => VERSION_FIRST,
        };
        writeln!(out, "{}", head(version, 0, 0))?;
        let body = out.len();
        let engine = LineOut::Engine { version: env!("CARGO_PKG_VERSION"), next_input: snapshot.next_input };
        put(&mut out, &engine)?;
        let mut lines = Vec::with_capacity(snapshot.inputs.len());
        let mut next = 0;
        for input in &snapshot.inputs {
            let start = out.len();
            let near = before[next.min(before.len())..].iter().take(GONE_BETWEEN_MAX);
            match near.clone().position(|old| old.id == input.id).map(|gone| next + gone) {
                Some(same) => {
                    next = same + 1;
                    if before[same] == *input {
                        out.extend_from_slice(&self.text[self.lines[same].clone()]);
                    } else {
                        put(&mut out, &LineOut::Input(input))?;
                    }
                }
                None => put(&mut out, &LineOut::Input(input))?,
            }
            lines.push(start..out.len());
        }
        for group in &snapshot.groups {
            put(&mut out, &LineOut::Group(group))?;
        }
        for partition in &snapshot.partitions {
            put(&mut out, &LineOut::Partition(partition))?;
        }
        let filled = head(version, crc32fast::hash(&out[body..]), out.len() - body);
        out[..body - 1].copy_from_slice(filled.as_bytes());
        self.lines = lines;
        self.spare = std::mem::replace(&mut self.text, out);
        Ok(&self.text)
    }
}

fn head(version: u32, crc: u32, bytes: usize) -> String {
    format!("{MAGIC} {version} {crc:08x} {bytes:012}")
}

fn put(out: &mut Vec<u8>, line: &LineOut<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}

/// Reads a snapshot, whole or not at all.
pub(super) fn decode(bytes: &[u8]) -> Result<Snapshot, Wrong> {
    let body = body(bytes)?;
    let mut snapshot = Snapshot::default();
    for (index, line) in body.split(|&byte| byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let wrong = |error| Wrong::Broken(format!("line {}: {error}", index + 2));
        match serde_json::from_slice(line).map_err(wrong)? {
            LineIn::Engine { next_input } => snapshot.next_input = next_input,
            LineIn::Input(input) => snapshot.inputs.push(input),
            LineIn::Group(group) => snapshot.groups.push(group),
            LineIn::Partition(partition) => snapshot.partitions.push(partition),
        }
    }
    check(snapshot)
}

fn body(bytes: &[u8]) -> Result<&[u8], Wrong> {
    let broken = |words: &str| Wrong::Broken(words.into());
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| broken("it has no first line"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let words: Vec<&str> = std::str::from_utf8(head).unwrap_or_default().split(' ').collect();
    let [MAGIC, version, rest @ ..] = words.as_slice() else {
        return Err(broken("it does not begin as a checkpoint"));
    };
    match version.parse::<u32>() {
        Ok(version) if version > VERSION => return Err(Wrong::Newer(version)),
        Ok(VERSION_FIRST | VERSION_PARTITIONS | VERSION) => {}
        _ => return Err(broken("its version is not a known one")),
    }
    let [crc, length] = rest else { return Err(broken("its first line is not whole")) };
    if length.parse() != Ok(body.len()) {
        return Err(Wrong::Broken(format!("it has {} bytes where {length} were written", body.len())));
    }
    if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(body)) {
        return Err(broken("its checksum is wrong"));
    }
    Ok(body)
}

/// What the checksum cannot know: that the ids given so far are below the next one.
fn check(snapshot: Snapshot) -> Result<Snapshot, Wrong> {
    let inputs = snapshot.inputs.iter().map(|input| input.id);
    let mut ids = inputs.chain(snapshot.partitions.iter().map(|partition| partition.id));
    match ids.find(|id| *id >= snapshot.next_input) {
        Some(id) => Err(Wrong::Broken(format!("input {id} was never given out"))),
        None => Ok(snapshot),
    }
}
