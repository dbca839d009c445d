//! The texts that messages carry: made up, or lines of a sample with their digits varied.
//!
//! All texts are made before the first message is sent, so that sending one is a copy. There are so many, and so
//! different, that no cache and no branch predictor of a receiver knows them by heart.
//!
//! Invariants: a text is one line, and ends in no blank, because programs cut those off.

use std::ops::Range;

use super::marker::{TEXT_BYTES_MAX, check, text_part};

/// Texts that are made.
const TEXTS: usize = 4096;
/// Bytes that all texts together may take, beyond which only the first lines of a sample are used.
const BYTES_MAX: usize = 64 << 20;

/// One text, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The end of its markers ([`text_part`]), a space, and its bytes as they are sent.
    pub wire: &'a [u8],
    /// Its length before it was escaped.
    pub bytes: u32,
    /// The check of what it was before it was escaped.
    pub check: u32,
    /// A priority for it, three digits.
    pub priority: [u8; 3],
}

/// All texts of a run.
#[derive(Debug)]
pub struct Texts {
    wires: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    wire: Range<usize>,
    bytes: u32,
    check: u32,
    priority: [u8; 3],
}

impl Texts {
    /// Made-up texts of a given length.
    pub fn made_up(bytes: usize, seed: u64) -> Self {
        let mut texts = Self::empty();
        let mut random = Random(seed | 1);
        for _ in 0..TEXTS.min(BYTES_MAX / (bytes + 1)).max(1) {
            texts.add(&prose(bytes, &mut random), false, &mut random);
        }
        texts
    }

    /// The lines of a sample, then the same lines with other digits. `as_json` escapes them for a JSON string.
    pub fn varied(sample: &[u8], as_json: bool, seed: u64) -> Result<Self, String> {
        let lines: Vec<&[u8]> =
            sample.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end).filter(|l| !l.is_empty()).collect();
        if lines.is_empty() {
            return Err("it holds no line".to_owned());
        }
        if let Some(at) = lines.iter().position(|line| line.len() > TEXT_BYTES_MAX) {
            return Err(format!("line {} is longer than {TEXT_BYTES_MAX} bytes", at + 1));
        }
        if as_json && let Some(at) = lines.iter().position(|line| std::str::from_utf8(line).is_err()) {
            return Err(format!("line {} is not UTF-8, which JSON cannot carry", at + 1));
        }
        let mut texts = Self::empty();
        let mut random = Random(seed | 1);
        for turn in 0.. {
            for line in &lines {
                let varied: Vec<u8> =
                    line.iter().map(|b| if turn == 0 { *b } else { random.digit(*b) }).collect();
                texts.add(&varied, as_json, &mut random);
                if texts.wires.len() > BYTES_MAX {
                    return Ok(texts);
                }
            }
            if texts.entries.len() >= TEXTS {
                break;
            }
        }
        Ok(texts)
    }

    /// Text `n`; there are as many as one asks for, in a circle.
    pub fn get(&self, n: usize) -> Text<'_> {
        let Entry { wire, bytes, check, priority } = &self.entries[n % self.entries.len()];
        Text { wire: &self.wires[wire.clone()], bytes: *bytes, check: *check, priority: *priority }
    }

    /// Bytes of a text on average, as sent.
    pub fn bytes_mean(&self) -> usize {
        self.wires.len() / self.entries.len() - text_part(0, 0).len()
    }

    fn empty() -> Self {
        Self { wires: Vec::new(), entries: Vec::new() }
    }

    fn add(&mut self, text: &[u8], as_json: bool, random: &mut Random) {
        let (start, check) = (self.wires.len(), check(text));
        self.wires.extend_from_slice(&text_part(text.len() as u32, check));
        if !text.is_empty() {
            self.wires.push(b' ');
        }
        match std::str::from_utf8(text) {
            Ok(text) if as_json => {
                let quoted = serde_json::Value::from(text).to_string();
                self.wires.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
            }
            _ => self.wires.extend_from_slice(text),
        }
        let priority = (100 + random.below(92)).to_string();
        self.entries.push(Entry {
            wire: start..self.wires.len(),
            bytes: text.len() as u32,
            check,
            priority: priority.as_bytes().try_into().unwrap_or(*b"134"),
        });
    }
}

const WORDS: [&str; 24] = [
    "accepted",
    "session",
    "for",
    "user",
    "from",
    "GET",
    "POST",
    "/api/v1/items",
    "status=200",
    "status=404",
    "bytes",
    "in",
    "ms",
    "connection",
    "closed",
    "by",
    "peer",
    "cache",
    "miss",
    "key",
    "retry",
    "worker",
    "started",
    "timeout",
];

/// Words and numbers, exactly so many bytes.
fn prose(bytes: usize, random: &mut Random) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        match random.below(4) {
            0 => text.extend_from_slice(random.below(1_000_000).to_string().as_bytes()),
            _ => text.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes()),
        }
        text.push(b' ');
    }
    text.truncate(bytes);
    if let Some(last) = text.last_mut().filter(|last| **last == b' ') {
        *last = b'.';
    }
    text
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn digit(&mut self, byte: u8) -> u8 {
        if byte.is_ascii_digit() { b'0' + self.below(10) as u8 } else { byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a text as they are sent, without what markers share.
    fn sent(texts: &Texts, n: usize) -> &[u8] {
        let part = text_part(0, 0).len();
        let wire = texts.get(n).wire;
        wire[part..].strip_prefix(b" ").unwrap_or_default()
    }

    #[test]
    fn made_up_texts_have_their_length_and_no_blank_at_the_end() {
        for bytes in [0, 1, 7, 200] {
            let texts = Texts::made_up(bytes, 1);
            for n in 0..100 {
                let (text, sent) = (texts.get(n), sent(&texts, n));
                assert_eq!((sent.len(), text.bytes as usize, text.check), (bytes, bytes, check(sent)));
                assert!(sent.last() != Some(&b' ') && !sent.contains(&b'\n'));
            }
        }
    }

    #[test]
    fn a_sample_comes_first_as_it_is_and_then_with_other_digits() {
        let texts = Texts::varied(b"user 1234567890\n\nplain \r\n", false, 1).unwrap();
        assert_eq!(sent(&texts, 0), b"user 1234567890");
        assert_eq!(sent(&texts, 1), b"plain");
        let varied = sent(&texts, 2);
        assert!(varied.starts_with(b"user ") && varied.len() == 15 && varied != sent(&texts, 0));
        assert!(varied[5..].iter().all(u8::is_ascii_digit));
        assert!(texts.entries.len() >= TEXTS);
    }

    #[test]
    fn a_sample_without_lines_is_refused() {
        assert!(Texts::varied(b"\n \n", false, 1).is_err());
        assert!(Texts::varied(b"\xff\n", true, 1).unwrap_err().contains("line 1"));
        assert!(Texts::varied(b"\xff\n", false, 1).is_ok());
    }

    #[test]
    fn json_is_escaped_and_checked_as_it_was() {
        let texts = Texts::varied(b"say \"hi\"", true, 1).unwrap();
        let text = texts.get(0);
        assert_eq!((sent(&texts, 0), text.bytes), (&b"say \\\"hi\\\""[..], 8));
        assert_eq!(text.check, check(b"say \"hi\""));
    }
}
