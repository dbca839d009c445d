//! Messages as they go on the wire: a format's head, the marker, a text, and the framing around it.
//!
//! Owns the bytes of one connection's messages and their sequence numbers. Invariants: a connection's numbers go up by
//! one; with texts of one length all messages of a run are equally long. It knows no clock: time is passed in.

use std::io::Write as _;
use std::sync::Arc;

use clap::ValueEnum;
use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::marker::{MARKER_BYTES, Marker, TEXT_PART};
use super::texts::Texts;

/// How a message looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Syslog as it is found in the field
    Rfc3164,
    /// Syslog as it is standardised
    Rfc5424,
    /// The marker and the text
    Raw,
    /// One JSON object
    Ndjson,
}

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Framing {
    /// A newline behind each
    Newline,
    /// Its length in digits and a space in front of each (RFC 6587)
    Octet,
}

/// What all messages of a run have in common.
#[derive(Clone, Debug)]
pub struct Kind {
    /// How a message looks.
    pub format: Format,
    /// How they are kept apart; datagrams need nothing.
    pub framing: Option<Framing>,
    /// The run.
    pub run: u32,
    /// What they say.
    pub texts: Arc<Texts>,
}

/// Bytes of a message where nothing else is asked for.
pub const TYPICAL_BYTES: usize = 256;

impl Kind {
    /// Messages of [`TYPICAL_BYTES`] with made-up texts, in lines.
    pub fn typical(format: Format, run: u32) -> Self {
        let text = text_bytes(format, TYPICAL_BYTES).unwrap_or(0);
        Self {
            format,
            framing: Some(Framing::Newline),
            run,
            texts: Arc::new(Texts::made_up(text, run.into())),
        }
    }
}

/// The shortest message of a format, framing aside.
pub fn shortest(format: Format) -> usize {
    let head = Head::new(format, 0);
    head.bytes() + MARKER_BYTES
}

/// Bytes of text in a message of `size` bytes; none when that is too few.
pub fn text_bytes(format: Format, size: usize) -> Option<usize> {
    match size.checked_sub(shortest(format))? {
        0 => Some(0),
        // A space alone cannot stand behind the marker.
        1 => None,
        more => Some(more - 1),
    }
}

/// The messages of one connection.
#[derive(Debug)]
pub struct Messages {
    kind: Kind,
    head: Head,
    marker: Marker,
    /// A message up to where its text decides: the head, then the marker's front. What changes is written over it.
    stencil: Vec<u8>,
}

impl Messages {
    /// Begins with sequence number 0.
    pub fn new(kind: Kind, connection: u16) -> Self {
        let run = kind.run;
        let marker =
            Marker { run, connection, sequence: 0, last: false, due_ns: 0, text_bytes: 0, text_check: 0 };
        let mut messages = Self { head: Head::new(kind.format, 0), kind, marker, stencil: Vec::new() };
        messages.cut_stencil();
        messages
    }

    /// What the time is for the heads of the messages to come.
    pub fn at(&mut self, now_ns: u64) {
        if self.head.renew(self.kind.format, now_ns) {
            self.cut_stencil();
        }
    }

    fn cut_stencil(&mut self) {
        let mut marker = [0; MARKER_BYTES];
        self.marker.write(&mut marker);
        self.stencil.clear();
        self.stencil.extend_from_slice(&self.head.front);
        self.stencil.extend_from_slice(&marker[..TEXT_PART]);
    }

    /// Appends the next message.
    pub fn push(&mut self, due_ns: u64, last: bool, out: &mut Vec<u8>) {
        let marker_at = self.stencil.len() - TEXT_PART;
        if self.marker.due_ns != due_ns {
            self.marker.due_ns = due_ns;
            self.marker.write_time(&mut self.stencil[marker_at..]);
        }
        // Each connection begins elsewhere in the texts.
        let at = self.marker.sequence as usize + usize::from(self.marker.connection) * 61;
        let text = self.kind.texts.get(at);
        self.marker.last = last;
        self.marker.text_bytes = text.bytes;
        self.marker.text_check = text.check;
        if self.kind.framing == Some(Framing::Octet) {
            let bytes = self.stencil.len() + text.wire.len() + self.head.back.len();
            // A Vec takes every write.
            let _ = write!(out, "{bytes} ");
        }
        let start = out.len();
        out.extend_from_slice(&self.stencil);
        out.extend_from_slice(text.wire);
        out.extend_from_slice(self.head.back);
        if self.kind.framing == Some(Framing::Newline) {
            out.push(b'\n');
        }
        if self.head.with_priority {
            out[start + 1..start + 4].copy_from_slice(&text.priority);
        }
        self.marker.write_number(&mut out[start + marker_at..]);
        self.marker.sequence += 1;
    }
}

/// What stands around marker and text; it changes with the time only.
#[derive(Debug)]
struct Head {
    /// Whether it begins with a priority in brackets, three digits that each message fills in.
    with_priority: bool,
    front: Vec<u8>,
    back: &'static [u8],
    /// The time that `front` shows, in units of the format's precision.
    shows: u64,
}

impl Head {
    fn new(format: Format, now_ns: u64) -> Self {
        let mut head = Self {
            with_priority: matches!(format, Format::Rfc3164 | Format::Rfc5424),
            front: Vec::new(),
            back: if format == Format::Ndjson { b"\"}" } else { b"" },
            shows: u64::MAX,
        };
        head.renew(format, now_ns);
        head
    }

    /// Shows another time; whether that made a difference.
    fn renew(&mut self, format: Format, now_ns: u64) -> bool {
        let precision = if format == Format::Rfc3164 { 1_000_000_000 } else { 1_000_000 };
        if format == Format::Raw || self.shows == now_ns / precision {
            return false;
        }
        self.shows = now_ns / precision;
        let at = Timestamp::from_nanosecond(now_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        let front = match format {
            Format::Rfc3164 => format!("<000>{} wpgen-bench wpgen: ", local(at).strftime("%b %e %H:%M:%S")),
            Format::Rfc5424 => {
                format!("<000>1 {} wpgen-bench wpgen - bench - ", at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
            }
            Format::Ndjson => {
                format!(
                    "{{\"time\":\"{}\",\"level\":\"info\",\"message\":\"",
                    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
                )
            }
            Format::Raw => String::new(),
        };
        self.front = front.into_bytes();
        true
    }

    fn bytes(&self) -> usize {
        self.front.len() + self.back.len()
    }
}

fn local(at: Timestamp) -> Zoned {
    at.to_zoned(TimeZone::system())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scan::{Found, scan};

    fn kind(format: Format, framing: Option<Framing>, texts: Texts) -> Kind {
        Kind { format, framing, run: 7, texts: Arc::new(texts) }
    }

    fn two(kind: Kind) -> String {
        let mut messages = Messages::new(kind, 3);
        messages.at(1_700_000_000_123_456_789);
        let mut out = Vec::new();
        messages.push(5, false, &mut out);
        messages.push(6, true, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_format_has_the_size_that_was_asked_for_and_is_found_again() {
        for format in [Format::Rfc3164, Format::Rfc5424, Format::Raw, Format::Ndjson] {
            for size in [shortest(format), shortest(format) + 2, 300] {
                let texts = Texts::made_up(text_bytes(format, size).unwrap(), 1);
                let text = two(kind(format, Some(Framing::Newline), texts));
                assert!(text.lines().all(|line| line.len() == size), "{format:?} {size}: {text}");
                let mut found = Vec::new();
                scan(text.as_bytes(), true, |f| found.push(f));
                let [Found::Whole(a), Found::Whole(b)] = found[..] else { panic!("{found:?}") };
                assert_eq!((a.run, a.connection, a.sequence, a.due_ns, a.last), (7, 3, 0, 5, false));
                assert_eq!((b.sequence, b.due_ns, b.last), (1, 6, true));
            }
            assert_eq!(text_bytes(format, shortest(format) - 1), None);
        }
    }

    #[test]
    fn formats_look_as_they_are_called() {
        let look = |format| {
            two(kind(
                format,
                Some(Framing::Newline),
                Texts::varied(b"a \"b\"", format == Format::Ndjson, 1).unwrap(),
            ))
        };
        let text = look(Format::Rfc5424);
        assert!(
            text.contains(">1 2023-11-14T22:13:20.123Z wpgen-bench wpgen - bench - wpb1-00000007-0003-"),
            "{text}"
        );
        let text = look(Format::Rfc3164);
        assert!(text.contains(" wpgen-bench wpgen: wpb1-") && text.starts_with('<'), "{text}");
        assert_eq!(text.find("Nov 1"), Some(5), "{text}");
        for line in look(Format::Ndjson).lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(object["message"].as_str().is_some_and(|m| m.ends_with(" a \"b\"")), "{line}");
        }
    }

    #[test]
    fn octet_counts_are_right_and_datagrams_carry_no_framing() {
        let text =
            two(kind(Format::Ndjson, Some(Framing::Octet), Texts::varied(b"a \"b\"", true, 1).unwrap()));
        let (count, rest) = text.split_once(' ').unwrap();
        let count: usize = count.parse().unwrap();
        assert!(rest[..count].ends_with('}') && rest[count..].starts_with(&format!("{count} {{")), "{text}");
        assert!(!two(kind(Format::Raw, None, Texts::made_up(10, 1))).contains('\n'));
    }
}
