//! Byte for byte: whatever is in a file, and however it is written, the raw output is its lines by the rules.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;

use crate::cli::run;
use crate::harness::{Random, Site, until};

const MIB: usize = 1 << 20;
const SINK: &str = "path = \"out/{tag:source_name}\"\nformat = \"raw\"";

/// Files by name, each with something that is easily got wrong.
fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let mut random = Random::new(5);
    let mut of = |alphabet: &[u8], len: usize| -> Vec<u8> {
        (0..len).map(|_| alphabet[random.below(alphabet.len())]).collect()
    };
    let any: Vec<u8> = (0..=255).collect();
    let mut long = of(b"abcdefgh", 8 * MIB + 1);
    long.extend_from_slice(b"\nand one more\n");
    let mut random_lines = Vec::new();
    let mut lengths = Random::new(6);
    for n in 0..20_000usize {
        random_lines.extend(std::iter::repeat_n(b'a' + (n % 26) as u8, lengths.below(5001)));
        random_lines.push(b'\n');
    }
    BTreeMap::from([
        ("empty", Vec::new()),
        ("newlines", vec![b'\n'; 100_000]),
        ("long", long),
        ("nul", of(b"\0\0a\n", 50_000)),
        ("not_utf8", of(&any, 300_000)),
        ("crlf", b"one\r\n\r\nthree\r\r\nfo\rur\r\nfive\n\n\r\n".to_vec()),
        ("no_last_newline", b"one\ntwo\nthree".to_vec()),
        ("cr_at_the_end", b"one\r\ntwo\r".to_vec()),
        ("many", random_lines),
        ("mixed_ends", of(b"ab\r\n", 70_000)),
    ])
}

/// What the rules make of a file: a line loses its newline and one CR before it, a longer one than the limit comes in
/// pieces, and what is behind the last newline is a line.
fn raw(file: &[u8], max_line_bytes: usize) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = file.split(|b| *b == b'\n').collect();
    let rest = lines.pop().filter(|rest| !rest.is_empty());
    let lines = lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).chain(rest);
    let mut out = Vec::with_capacity(file.len());
    for line in lines {
        let pieces = if line.is_empty() { vec![line] } else { line.chunks(max_line_bytes).collect() };
        for piece in pieces {
            out.extend_from_slice(piece);
            out.push(b'\n');
        }
    }
    out
}

/// The name of the first output that is not as it should be.
fn first_wrong(
    site: &Site,
    files: &BTreeMap<&'static str, Vec<u8>>,
    max_line_bytes: usize,
) -> Option<&'static str> {
    let wrong = |(name, file): &(&&'static str, &Vec<u8>)| {
        site.read(&format!("out/{name}")) != raw(file, max_line_bytes)
    };
    files.iter().find(wrong).map(|(name, _)| *name)
}

fn once(io: &str, max_line_bytes: usize) {
    let source =
        format!("path = \"in/*\"\nmode = \"once\"\nstart = \"beginning\"\nmax_line_bytes = {max_line_bytes}");
    let site = Site::new(io, &source, SINK);
    let files = files();
    for (name, file) in &files {
        std::fs::write(site.path("in").join(name), file).unwrap();
    }
    let ran = run(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(first_wrong(&site, &files, max_line_bytes), None);
}

fn tail(io: &str, max_line_bytes: usize) {
    let source = format!("path = \"in/*\"\nmax_line_bytes = {max_line_bytes}");
    let site = Site::new(io, &source, SINK);
    let files = files();
    let engine = site.start();
    let mut random = Random::new(7);
    let mut left: Vec<(&str, &[u8])> = files.iter().map(|(name, file)| (*name, file.as_slice())).collect();
    while !left.is_empty() {
        let at = random.below(left.len());
        let (name, rest) = left[at];
        // Mostly small pieces, some large; none of a tiny file at once.
        let most = if rest.len() < 100 { 4 } else { 1 << (4 + random.below(16)) };
        let (piece, rest) = rest.split_at(rest.len().min(1 + random.below(most)));
        let mut file = OpenOptions::new().create(true).append(true).open(site.path("in").join(name)).unwrap();
        file.write_all(piece).unwrap();
        left[at].1 = rest;
        if rest.is_empty() {
            left.swap_remove(at);
        }
        if random.below(8) == 0 {
            random.pause_ms(5);
        }
    }
    until("all is there", || first_wrong(&site, &files, max_line_bytes).is_none());
    engine.stop();
    assert_eq!(first_wrong(&site, &files, max_line_bytes), None, "and stays so");
}

#[test]
fn once_through_the_ring_as_it_is_set_up() {
    once("auto", MIB);
}

#[test]
fn once_through_the_ring_with_long_lines() {
    once("auto", 16 * MIB);
}

#[test]
fn once_through_epoll() {
    once("epoll", MIB);
}

#[test]
fn once_through_epoll_with_long_lines() {
    once("epoll", 16 * MIB);
}

#[test]
fn while_it_is_written_through_the_ring() {
    tail("auto", MIB);
}

#[test]
fn while_it_is_written_through_the_ring_with_long_lines() {
    tail("auto", 16 * MIB);
}

#[test]
fn while_it_is_written_through_epoll() {
    tail("epoll", MIB);
}

/// Reads a file of encoded lines, which gives back the records they were made of.
fn decoded(encode: &str, encoded: impl Fn(&[u8]) -> String) {
    let records: Vec<Vec<u8>> =
        (0..3000usize).map(|n| (0..n % 700).map(|i| (i * n) as u8).collect()).collect();
    let mut file = String::new();
    let mut expected = Vec::new();
    for record in &records {
        file.push_str(&encoded(record));
        file.push('\n');
        expected.extend_from_slice(record);
        expected.push(b'\n');
    }
    for io in ["auto", "epoll"] {
        let source = format!("path = \"in/*\"\nmode = \"once\"\nencode = \"{encode}\"");
        let site = Site::new(io, &source, "path = \"out\"\nformat = \"raw\"");
        std::fs::write(site.path("in/encoded"), &file).unwrap();
        let ran = run(site.folder(), &["source", "start"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(site.read("out") == expected, "{encode} through {io}");
    }
}

#[test]
fn hex_lines_are_decoded() {
    decoded("hex", |record| record.iter().map(|b| format!("{b:02x}")).collect());
}

#[test]
fn base64_lines_are_decoded() {
    decoded("base64", |record| {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in record.chunks(3) {
            let bits =
                three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
            for digit in 0..=three.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            }
            text.push_str(["", "==", "="][three.len() % 3]);
        }
        text
    });
}
