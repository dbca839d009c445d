//! Octet counting against a model of RFC 6587 and of what the engine says beyond it, written apart from the engine.
//!
//! The model has all of the input and walks it frame by frame. [`canary`] is the same check with a flaw planted in the model.

use engine::frame::{Counts, Framing, Oversize, Rules};

use super::dial::Dial;
use super::framing::{Read, read_however_cut, rules};

/// Reads a count in front of a frame: the bytes of its digits, and their value.
type Count = fn(&[u8]) -> Option<(usize, u64)>;

/// Records and counts are exactly the model's.
pub fn check(data: &[u8]) {
    check_with(data, count);
}

/// The check with a model that takes leading zeros, as one syslog server did (CVE-2022-24903). It must fail soon, or
/// fuzzing finds nothing.
pub fn canary(data: &[u8]) {
    check_with(data, |bytes| match bytes {
        [b'0', rest @ ..] => count(rest).map(|(digits, body)| (digits + 1, body)),
        _ => count(bytes),
    });
}

fn check_with(data: &[u8], count: Count) {
    let mut dial = Dial::new(data);
    let framing = dial.one_of(&[Framing::Octet, Framing::Auto]);
    let rules = rules(framing, &mut dial);
    let places = dial.places();
    let input = dial.rest();
    let got = read_however_cut(rules, input, &places);
    assert_eq!(got, Model::read(rules, input, count), "{rules:?}");
}

/// One to ten digits, the first not 0, and a space.
fn count(bytes: &[u8]) -> Option<(usize, u64)> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 10 || bytes[0] == b'0' || bytes.get(digits) != Some(&b' ') {
        return None;
    }
    let text = std::str::from_utf8(&bytes[..digits]).expect("digits are text");
    Some((digits, text.parse().expect("ten digits are a number of 64 bits")))
}

struct Model {
    rules: Rules,
    read: Read,
}

impl Model {
    fn read(rules: Rules, input: &[u8], count: Count) -> Read {
        let read = Read { records: Vec::new(), counts: Counts::default() };
        let (mut model, mut rest) = (Self { rules, read }, input);
        while !rest.is_empty() {
            rest = match count(rest).filter(|&(digits, body)| model.believes(&rest[digits + 1..], body)) {
                Some((digits, body)) => model.frame(&rest[digits + 1..], body),
                None => model.line(rest),
            };
        }
        model.read
    }

    /// Whether what follows the count's space shows that it is one.
    fn believes(&self, behind: &[u8], body: u64) -> bool {
        match (self.rules.framing, self.rules.prefer_newline) {
            (Framing::Octet, _) => true,
            (_, false) => behind.first() == Some(&b'<'),
            (_, true) => {
                let pri = behind.iter().position(|&byte| byte == b'>').unwrap_or(0);
                behind[..pri].first() == Some(&b'<')
                    && (2..=4).contains(&pri)
                    && behind[1..pri].iter().all(u8::is_ascii_digit)
                    && body > pri as u64
            }
        }
    }

    /// A counted frame; returns what is behind it and its padding.
    fn frame<'a>(&mut self, behind: &'a [u8], body: u64) -> &'a [u8] {
        let come = behind.len().min(usize::try_from(body).unwrap_or(usize::MAX));
        let (content, rest) = behind.split_at(come);
        let (whole, max) = (come as u64 == body, self.rules.record_bytes_max);
        let counts = &mut self.read.counts;
        if body <= max as u64 {
            self.piece(content, whole);
        } else {
            match self.rules.oversize {
                Oversize::Drop => {
                    counts.dropped += 1;
                    counts.dropped_bytes += come as u64;
                }
                Oversize::Truncate if come < max => self.piece(content, false),
                Oversize::Truncate => {
                    counts.truncated += 1;
                    counts.truncated_bytes += (come - max) as u64;
                    self.read.records.push(content[..max].to_vec());
                }
                Oversize::Split => self.pieces(content, whole),
            }
        }
        if whole { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest }
    }

    /// A long frame in pieces: a full one is given out as soon as more is known to follow.
    fn pieces(&mut self, content: &[u8], whole: bool) {
        let max = self.rules.record_bytes_max;
        let cuts = if whole { (content.len() - 1) / max } else { content.len() / max };
        let (full, last) = content.split_at(cuts * max);
        self.read.records.extend(full.chunks(max).map(<[u8]>::to_vec));
        self.read.counts.cuts += cuts as u64;
        self.piece(last, whole);
    }

    fn piece(&mut self, content: &[u8], whole: bool) {
        self.read.counts.unfinished += u64::from(!whole);
        if whole || !content.is_empty() {
            self.read.records.push(content.to_vec());
        }
    }

    /// A line where a frame was expected; returns what is behind it.
    fn line<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let newline = rest.iter().position(|&byte| byte == b'\n');
        let raw = &rest[..newline.unwrap_or(rest.len())];
        let content = if newline.is_some() { raw.strip_suffix(b"\r").unwrap_or(raw) } else { raw };
        let (max, counts) = (self.rules.record_bytes_max, &mut self.read.counts);
        counts.malformed += u64::from(self.rules.framing == Framing::Octet);
        match self.rules.oversize {
            _ if content.len() <= max => self.read.records.push(content.to_vec()),
            Oversize::Drop => {
                counts.dropped += 1;
                counts.dropped_bytes += raw.len() as u64;
            }
            Oversize::Truncate => {
                counts.truncated += 1;
                counts.truncated_bytes += (raw.len() - max) as u64;
                self.read.records.push(content[..max].to_vec());
            }
            Oversize::Split => {
                counts.cuts += (content.len() - 1) as u64 / max as u64;
                self.read.records.extend(content.chunks(max).map(<[u8]>::to_vec));
            }
        }
        newline.map_or(&[], |at| &rest[at + 1..])
    }
}
