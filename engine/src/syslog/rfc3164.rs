//! RFC 3164 and what devices make of it: `<PRI>TIME HOST TAG[PID]: MESSAGE`, each part behind the time optional.
//!
//! The RFC describes what was seen, and leaves the reader to tell host, tag and message apart. The rules here:
//!
//! - A word that ends in a colon, or has a bracket in it, is a tag: its record has no host.
//! - Any other first word is the host, unless it begins with a byte that no host begins with.
//! - The tag ends at its colon, bracket or space ("any non-alphanumeric character will terminate the TAG field",
//!   4.1.3). Without a colon it must be a word of letters, and something must follow it: a record's last word is its
//!   message, so that a message is never empty when there is text for it.
//! - `: %` marks what Cisco writes: in front of it stands nothing, a zone or a host, and the tag begins with `%`.
//! - Colon and one space separate; whatever white space comes behind them belongs to the message.

use super::bsd::{Time, time};
use super::scan::{find, number, skip_spaces};
use super::{Header, Kind, TimeContext, span};

/// Parses from behind the PRI; says whether there is a time, without which the record is not of this kind.
#[inline]
pub(super) fn parse(bytes: &[u8], at: usize, context: &TimeContext, header: &mut Header) -> bool {
    let at = if header.pri().is_some() { skip_spaces(bytes, at) } else { at };
    let Some((start, time)) = opening(bytes, at, context, header) else { return false };
    let mut end = time.end;
    end += usize::from(bytes.get(end) == Some(&b':'));
    if !matches!(bytes.get(end), None | Some(b' ')) {
        return false;
    }
    header.kind = Kind::Rfc3164;
    header.set_time(span(start, time.end), time.ns);
    body(bytes, skip_spaces(bytes, end), header);
    true
}

/// The time and where it starts; in front of it may be what Cisco adds.
#[inline(always)]
fn opening(bytes: &[u8], at: usize, context: &TimeContext, header: &mut Header) -> Option<(usize, Time)> {
    if header.pri().is_none() && !begins_unmistakably(bytes, at) {
        return None;
    }
    if let Some(time) = time(bytes, at, false, context) {
        return Some((at, time));
    }
    if header.pri().is_none() { None } else { cisco(bytes, at, context, header) }
}

/// Whether a line without a PRI may be a syslog message: the date and the time of day that begin many a text do not
/// make it one, a month's name or a `T` between them does.
fn begins_unmistakably(bytes: &[u8], at: usize) -> bool {
    !bytes.get(at).is_some_and(u8::is_ascii_digit) || bytes.get(at + 10) == Some(&b'T')
}

/// `[SEQUENCE: ][: ][HOST: ][*|.]TIME`: a sequence number once or twice, a mark for a clock that is not set.
#[inline(never)]
fn cisco(bytes: &[u8], mut at: usize, context: &TimeContext, header: &mut Header) -> Option<(usize, Time)> {
    for _ in 0..3 {
        let end = number(bytes, at, 10).map_or(at, |(_, end)| end);
        if !bytes.get(end..).is_some_and(|rest| rest.starts_with(b": ")) {
            break;
        }
        at = skip_spaces(bytes, end + 1);
    }
    if let Some(found) = marked(bytes, at, context) {
        return Some(found);
    }
    let end = find(bytes, at, [b' ']);
    if end < at + 2 || bytes.get(end - 1) != Some(&b':') {
        return None;
    }
    let found = marked(bytes, end + 1, context)?;
    header.host = span(at, end - 1);
    Some(found)
}

/// A time behind Cisco's mark, if there is one.
fn marked(bytes: &[u8], at: usize, context: &TimeContext) -> Option<(usize, Time)> {
    let start = at + usize::from(matches!(bytes.get(at), Some(b'*' | b'.')));
    Some((start, time(bytes, start, true, context)?))
}

/// Host, tag and message; `at` is the first byte behind the time's spaces.
#[inline(always)]
fn body(bytes: &[u8], at: usize, header: &mut Header) {
    let end = find(bytes, at, [b' ', b'[']);
    let last = if end > at { bytes[end - 1] } else { b' ' };
    match bytes.get(end) {
        Some(b' ') if last != b':' => {
            if begins_host(bytes[at]) {
                header.host = span(at, end);
            } else if last != b'-' || end != at + 1 {
                return message(bytes, at, header);
            }
            behind_host(bytes, end + 1, header);
        }
        Some(b' ') => colon_word(bytes, at, end, header),
        Some(_) if end > at => tag(bytes, at, header),
        None if last == b':' => tag(bytes, at, header),
        _ => message(bytes, at, header),
    }
}

/// What stands behind the host and its space.
#[inline(always)]
fn behind_host(bytes: &[u8], at: usize, header: &mut Header) {
    match bytes.get(at) {
        // No tag: its place is empty.
        Some(b' ') => message(bytes, at + 1, header),
        Some(b':') if matches!(bytes.get(at + 1), None | Some(b' ')) => colon_word(bytes, at, at + 1, header),
        _ => tag(bytes, at, header),
    }
}

/// A word with its colon, `word: `, where a host or a tag may be: it is the tag, or the host when Cisco's follows.
fn colon_word(bytes: &[u8], start: usize, end: usize, header: &mut Header) {
    let empty = start + 1 == end;
    if bytes.get(end + 1) != Some(&b'%') {
        return if empty {
            message(bytes, behind_space(bytes, end), header)
        } else {
            tag(bytes, start, header)
        };
    }
    if !empty {
        header.host = span(start, end - 1);
    }
    tag(bytes, end + 1, header);
}

/// The tag at `at` and the message behind it; the message alone where there is no tag.
#[inline(always)]
fn tag(bytes: &[u8], at: usize, header: &mut Header) {
    let end = tag_end(bytes, at);
    let name = span(at, end);
    match bytes.get(end) {
        Some(b':') if end > at => {
            header.app = name;
            message(bytes, behind_space(bytes, end + 1), header);
        }
        Some(b'[') if end > at => {
            let close = find(bytes, end, [b']', b' ']);
            if bytes.get(close) != Some(&b']') {
                return message(bytes, at, header);
            }
            header.app = name;
            header.proc_id = if close > end + 1 { span(end + 1, close) } else { span(0, 0) };
            let colon = usize::from(bytes.get(close + 1) == Some(&b':'));
            message(bytes, behind_space(bytes, close + 1 + colon), header);
        }
        Some(b' ') if end + 1 < bytes.len() && is_word(&bytes[at..end]) => {
            header.app = name;
            message(bytes, end + 1, header);
        }
        _ => message(bytes, at, header),
    }
}

/// The byte behind a space at `at`, if there is one.
#[inline(always)]
fn behind_space(bytes: &[u8], at: usize) -> usize {
    at + usize::from(bytes.get(at) == Some(&b' '))
}

#[inline(always)]
fn message(bytes: &[u8], at: usize, header: &mut Header) {
    header.message = span(at, bytes.len());
}

/// Letters, digits, `:` of `::1`, `_` and what is not ASCII.
#[inline(always)]
fn begins_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b':' | b'_')
}

/// Which bytes a tag's name may hold; JSON, quotes and assignments are messages.
const TAG: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0x21;
    while i < 256 {
        table[i] = !matches!(
            i as u8,
            b':' | b'[' | b']' | b'{' | b'}' | b'"' | b'\'' | b'=' | b',' | b';' | b'<' | b'>' | b'|' | 0x7F
        );
        i += 1;
    }
    table
};

/// Where a tag's name that begins at `at` ends.
#[inline(always)]
fn tag_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().position(|b| !TAG[usize::from(*b)]).map_or(bytes.len(), |n| at + n)
}

/// Whether a tag without a colon is one: a letter (or Cisco's `%`, a path's `/`), then letters, digits and `-_./`.
fn is_word(name: &[u8]) -> bool {
    let letter = |b: &u8| b.is_ascii_alphabetic() || *b >= 0x80;
    let Some((first, rest)) = name.split_first() else { return false };
    (letter(first) || matches!(first, b'%' | b'/' | b'_'))
        && rest.iter().all(|b| letter(b) || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}
