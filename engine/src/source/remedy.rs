//! Which setting would take bytes that the settings in force do not: every framing and header mode, tried on the bytes at
//! hand.
//!
//! Pure: bytes and rules in, a line of configuration out. A framing is named only when every record that it makes of the
//! bytes is a message and none is cut or left out; where none does, the header mode that takes anything is named. Bounded
//! work: at most [`SAMPLE_BYTES`] are tried, from two places, and only when there is something to say.

use std::fmt;

use crate::batch::Span;
use crate::frame::{Counts, Framer, Framing, Oversize, Rules};
use crate::source::proxy::{self, Proxied};
use crate::source::syslog::HeaderMode;
use crate::syslog::{TimeContext, YearPolicy, parse};

/// Bytes that are tried.
const SAMPLE_BYTES: usize = 64 << 10;

/// A setting that takes the bytes, as it stands in the configuration, and what speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The line to write.
    pub line: &'static str,
    /// What was found.
    pub why: String,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}   ({})", self.line, self.why)
    }
}

/// Ways to frame that a syslog source has; the more particular first, so that the one which fits best is named.
const WAYS: [(&str, Framing); 4] = [
    ("framing = \"octet\"", Framing::Octet),
    ("framing = \"newline\"", Framing::Newline),
    ("framing = \"nul\"", Framing::Nul),
    ("framing = \"auto\"", Framing::Auto),
];

/// For a record that is no message: `bad` lies in `bytes`, as the framing in force made it; `framing` is none for
/// datagrams.
pub fn of_message(bytes: &[u8], bad: Span, framing: Option<Rules>, mode: HeaderMode) -> Remedy {
    let record = bad.of(bytes);
    if framing.is_some() && is_proxy_header(bytes, bad) {
        let why = "it is a PROXY header, as a load balancer sends it in front of a connection";
        return Remedy { line: "proxy_protocol = true", why: why.to_owned() };
    }
    let start = bad.start as usize;
    let found = framing.and_then(|rules| {
        let counted = start - count_len(&bytes[..start]);
        framing_of(&bytes[counted..], rules).or_else(|| framing_of(bytes, rules))
    });
    found.unwrap_or_else(|| as_it_comes(record, framing.is_some(), mode))
}

fn is_proxy_header(bytes: &[u8], bad: Span) -> bool {
    let record = bad.of(bytes);
    // The line's end is not part of the record.
    matches!(proxy::parse(&bytes[bad.start as usize..]), Proxied::Header { .. })
        || record.starts_with(b"PROXY TCP")
        || record.starts_with(b"PROXY UNKNOWN")
}

/// For frames that do not begin as their framing demands: where the first of them lies in what was received together,
/// and what would take it.
pub fn of_frames(segment: &[u8], rules: Rules, is_syslog: bool) -> (usize, Option<Remedy>) {
    let at = first_line(segment, rules).unwrap_or(0);
    let found = if is_syslog {
        framing_of(&segment[at..], rules).or_else(|| framing_of(segment, rules))
    } else {
        terminated(&segment[at..])
    };
    (at, found)
}

/// The framing whose terminator is among bytes that are text otherwise: numbers in binary are full of zeros.
fn terminated(bytes: &[u8]) -> Option<Remedy> {
    let ways = [("framing = \"nul\"", 0, "NUL"), ("framing = \"newline\"", b'\n', "newline")];
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    ways.into_iter().find_map(|(line, terminator, name)| {
        if bytes.iter().any(|byte| *byte != terminator && !is_text(byte))
            || bytes.windows(2).any(|two| two == [0, 0])
            || (terminator == 0 && !are_ended_by_nul(bytes))
        {
            return None;
        }
        let count = bytes.iter().filter(|byte| **byte == terminator).count();
        (count > 0)
            .then(|| Remedy { line, why: format!("{count} x {name} in the {} bytes at hand", bytes.len()) })
    })
}

/// The framing beside the one in force that takes all of the bytes, if one does.
fn framing_of(bytes: &[u8], rules: Rules) -> Option<Remedy> {
    let bytes = &bytes[..bytes.len().min(SAMPLE_BYTES)];
    let ends_in_nul = are_ended_by_nul(bytes);
    let may_be = |framing: Framing| framing != rules.framing && (framing != Framing::Nul || ends_in_nul);
    let ways = WAYS.into_iter().filter(|(_, framing)| may_be(*framing));
    let (line, messages) = ways
        .filter_map(|(line, framing)| {
            let tried = Rules { framing, oversize: Oversize::Truncate, ..rules };
            Some((line, messages(bytes, tried)?))
        })
        .reduce(|best, other| if other.1 > best.1 { other } else { best })?;
    let plural = if messages == 1 { "" } else { "s" };
    let why = format!("it makes {messages} whole message{plural} of the {} bytes at hand", bytes.len());
    Some(Remedy { line, why })
}

/// Whether NUL ends records in the bytes: one that stands in a line is none.
fn are_ended_by_nul(bytes: &[u8]) -> bool {
    let nuls = bytes.iter().filter(|byte| **byte == 0).count();
    bytes.last() == Some(&0) || (nuls > 1 && !bytes.contains(&b'\n'))
}

/// How many messages a framing makes of the bytes; none when something else comes of them.
fn messages(bytes: &[u8], rules: Rules) -> Option<usize> {
    let context = TimeContext::new(0, 0, YearPolicy::Inferred);
    let is_message = |bytes: &[u8], record: &Span| parse(bytes, *record, &context).malformed().is_none();
    let mut framer = Framer::new(rules);
    let (mut records, mut next, mut messages) = (Vec::new(), 0, 0);
    while next < bytes.len() {
        let step = framer.feed(bytes, next, &mut records);
        let carried = step.carried.map(|carried| is_message(framer.carry(), &carried.span));
        if carried == Some(false) || !records.iter().all(|record| is_message(bytes, record)) {
            return None;
        }
        messages += records.len() + usize::from(carried.is_some());
        next = step.next;
    }
    // What is not whole yet says nothing, unless there is nothing else.
    if framer.take_counts() != Counts::default() {
        return None;
    }
    if messages == 0 {
        let carried = framer.finish()?;
        let is_whole = is_message(framer.carry(), &carried.span) && framer.take_counts() == Counts::default();
        return is_whole.then_some(1);
    }
    Some(messages)
}

/// What takes a record that no framing makes a message of.
fn as_it_comes(record: &[u8], is_stream: bool, mode: HeaderMode) -> Remedy {
    let line = if mode == HeaderMode::Keep { "on_bad_message = \"pass\"" } else { "header_mode = \"keep\"" };
    let count = record.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let counts = count > 0 && record[count..].starts_with(b" <");
    let why = if !is_stream && counts {
        "it begins with an octet count, which belongs to streams: better switched off at the sender"
    } else if is_stream {
        "takes it as it comes; no framing makes a message of it"
    } else {
        "takes it as it comes"
    };
    Remedy { line, why: why.to_owned() }
}

/// The length of an octet count at the end of the bytes.
fn count_len(before: &[u8]) -> usize {
    let Some(digits) = before.strip_suffix(b" ") else { return 0 };
    match digits.iter().rev().take_while(|byte| byte.is_ascii_digit()).count() {
        0 => 0,
        n => n + 1,
    }
}

/// Where the first frame lies that was taken as a line, if the bytes begin with a frame.
fn first_line(segment: &[u8], rules: Rules) -> Option<usize> {
    let mut framer = Framer::new(rules);
    let (mut records, mut next) = (Vec::new(), 0);
    while next < segment.len() {
        let step = framer.feed(segment, next, &mut records);
        let line = records.iter().find(|record| count_len(&segment[..record.start as usize]) == 0);
        if let Some(line) = line {
            return Some(line.start as usize);
        }
        if framer.take_counts().malformed > 0 {
            return Some(step.upto);
        }
        next = step.next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(framing: Framing) -> Rules {
        Rules { framing, prefer_newline: false, oversize: Oversize::Truncate, record_bytes_max: 1000 }
    }

    /// The remedy for the first record that `framing` makes of the bytes and that is no message.
    fn mended(framing: Framing, bytes: &[u8]) -> &'static str {
        let rules = rules(framing);
        let mut framer = Framer::new(rules);
        let mut records = Vec::new();
        let mut kept = Vec::new();
        let step = framer.feed(bytes, 0, &mut records);
        assert!(step.carried.is_none() && step.next == bytes.len());
        if let Some(carried) = framer.finish() {
            kept.extend_from_slice(framer.carry());
            records.push(carried.span);
        }
        let context = TimeContext::new(0, 0, YearPolicy::Inferred);
        for (i, record) in records.iter().enumerate() {
            let lies_in = if !kept.is_empty() && i + 1 == records.len() { &kept } else { bytes };
            if parse(lies_in, *record, &context).malformed().is_some() {
                return of_message(lies_in, *record, Some(rules), HeaderMode::Parse).line;
            }
        }
        panic!("all are messages")
    }

    #[test]
    fn the_framing_that_takes_the_bytes_is_named() {
        for (framing, bytes, line) in [
            (Framing::Newline, &b"8 <34>one\n8 <34>two\n"[..], "framing = \"octet\""),
            (Framing::Newline, b"12 <34>one\nline", "framing = \"octet\""),
            (Framing::Newline, b"7 <34>one7 <34>two", "framing = \"octet\""),
            (Framing::Newline, b"<34>a\nb\0<34>c\nd\0", "framing = \"nul\""),
            (Framing::Newline, b"<34>a\nb\0<34>c\n", "header_mode = \"keep\""),
            (Framing::Newline, b"8 <34>one\n<34>a line\n8 <34>two\n", "framing = \"auto\""),
            (Framing::Nul, b"7 <34>one7 <34>two", "framing = \"octet\""),
            (Framing::Octet, b"9 x\n<34>one\n", "header_mode = \"keep\""),
            (Framing::Auto, b"PROXY TCP4 10.0.0.1 10.0.0.2 5 514\r\n<34>one\n", "proxy_protocol = true"),
            (Framing::Newline, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "proxy_protocol = true"),
            (Framing::Auto, b"<999>no priority\n", "header_mode = \"keep\""),
            (Framing::Newline, b"GET / HTTP/1.1\n", "header_mode = \"keep\""),
            (Framing::Newline, b"6 <34>one\n", "header_mode = \"keep\""),
        ] {
            assert_eq!(mended(framing, bytes), line, "{framing:?} {}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_count_in_front_of_a_record_is_found() {
        let lens = [&b"x\n20 "[..], b"20 ", b"x ", b"12", b"", b" "].map(count_len);
        assert_eq!(lens, [3, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn datagrams_have_no_framing_and_keep_has_no_further_mode() {
        let bytes = b"8 <34>one";
        let all = Span { start: 0, end: 9 };
        let remedy = of_message(bytes, all, None, HeaderMode::Parse);
        assert_eq!(remedy.line, "header_mode = \"keep\"");
        assert!(remedy.why.contains("octet count"), "{remedy}");
        assert_eq!(
            of_message(b"x", Span { start: 0, end: 1 }, None, HeaderMode::Keep).line,
            "on_bad_message = \"pass\""
        );
    }

    #[test]
    fn lines_where_counts_are_demanded_are_found_and_taken_by_newline() {
        let octet = rules(Framing::Octet);
        let (at, remedy) = of_frames(b"8 <34>one\n<34>two\n<34>three\n", octet, true);
        assert_eq!((at, remedy.map(|remedy| remedy.line)), (10, Some("framing = \"newline\"")));
        let (at, remedy) = of_frames(b"<34>not whole yet", octet, true);
        assert_eq!((at, remedy.map(|remedy| remedy.line)), (0, Some("framing = \"newline\"")));
        let (at, remedy) = of_frames(b"one\ntwo\n", octet, true);
        assert_eq!((at, remedy), (0, None));
        let named = |bytes: &[u8]| of_frames(bytes, octet, false).1.map(|remedy| remedy.line);
        assert_eq!(named(b"one\ntwo\n"), Some("framing = \"newline\""));
        assert_eq!((named(b"one\0two\0"), named(b"one")), (Some("framing = \"nul\""), None));
        assert_eq!(
            (named(b"one\ntw\0o\nthree\n"), named(b"one\0two\0th")),
            (None, Some("framing = \"nul\""))
        );
        assert_eq!((named(b"\0\0\0\x05hello"), named(b"\x01\0\x02\n")), (None, None), "numbers");
        assert_eq!(of_frames(b"", octet, true), (0, None));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for bytes in [&b""[..], b" ", b"<", b"9999999999 <", b"\0\0\0", b"1 <", b"\r\n\r\n\0\r\nQUIT\n"] {
            let all = Span { start: 0, end: bytes.len() as u32 };
            for (_, framing) in WAYS {
                of_message(bytes, all, Some(rules(framing)), HeaderMode::Parse);
                of_frames(bytes, rules(framing), true);
                of_frames(bytes, rules(framing), false);
            }
        }
    }
}
