//! Finds the messages of a bench in bytes: in a stream, a datagram or a file that any program wrote.
//!
//! The framing is not looked at: a message is where its marker is, and its text is as long as the marker says. Where
//! the text is another one, it may have been escaped on its way (JSON, or rsyslog's `#011`), and that is undone;
//! only then is it called damaged.
//!
//! Pure. Invariant: what [`scan`] leaves unread is shorter than the longest message with every byte escaped, 6 MiB, so
//! whoever keeps it is bounded.

use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::marker::{MARKER_BYTES, Marker, PREFIX, check};

/// An escaped byte takes at most six: `\u0041`.
const ESCAPED: usize = 6;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PREFIX));

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A message as it was sent.
    Whole(Marker),
    /// A message whose text is not the one that was sent.
    Damaged(Marker),
    /// Something that begins like a marker and is none.
    Unreadable,
}

/// Tells of each message in `bytes`, in order, and returns how many bytes are done with. What is behind them has to be
/// in front of the next bytes. `ended` says that nothing follows.
pub fn scan(bytes: &[u8], ended: bool, mut on: impl FnMut(Found)) -> usize {
    let mut at = 0;
    while let Some(found) = FINDER.find(&bytes[at..]) {
        let start = at + found;
        match one(&bytes[start..], ended) {
            Some((found, length)) => {
                on(found);
                at = start + length;
            }
            None => return start,
        }
    }
    if ended { bytes.len() } else { at.max(bytes.len().saturating_sub(PREFIX.len() - 1)) }
}

/// The message that begins here and its length; none when more bytes are needed to tell.
fn one(bytes: &[u8], ended: bool) -> Option<(Found, usize)> {
    let Some((head, text)) = bytes.split_first_chunk::<MARKER_BYTES>() else {
        return ended.then_some((Found::Unreadable, PREFIX.len()));
    };
    let Some(marker) = Marker::read(head) else { return Some((Found::Unreadable, PREFIX.len())) };
    let length = marker.text_bytes as usize;
    if length == 0 {
        return Some((Found::Whole(marker), MARKER_BYTES));
    }
    // The space in front of the text.
    let text = text.get(1..).unwrap_or_default();
    match text.get(..length) {
        Some(text) if check(text) == marker.text_check => {
            return Some((Found::Whole(marker), MARKER_BYTES + 1 + length));
        }
        None if !ended => return None,
        _ => {}
    }
    altered(&marker, text, ended).map(|found| (found, MARKER_BYTES))
}

/// Whether a text that differs from the one that was sent is an escaped form of it.
fn altered(marker: &Marker, text: &[u8], ended: bool) -> Option<Found> {
    let length = marker.text_bytes as usize;
    let most = &text[..text.len().min(ESCAPED * length)];
    let line = match memchr(b'\n', most) {
        Some(end) => &most[..end],
        None if most.len() < ESCAPED * length && !ended => return None,
        None => most,
    };
    let is_it = |plain: Vec<u8>| plain.len() == length && check(&plain) == marker.text_check;
    let whole = is_it(unescape(line, length, json_escape)) || is_it(unescape(line, length, octal_escape));
    Some(if whole { Found::Whole(*marker) } else { Found::Damaged(*marker) })
}

/// What one escape stands for, and its length.
type Escape = fn(&[u8]) -> Option<(char, usize)>;

/// The first `length` bytes of a text without its escapes.
fn unescape(line: &[u8], length: usize, escape: Escape) -> Vec<u8> {
    let mut plain = Vec::with_capacity(length + 4);
    let mut rest = line;
    while plain.len() < length
        && let Some((first, behind)) = rest.split_first()
    {
        match escape(rest) {
            Some((meant, taken)) => {
                plain.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[taken..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

fn json_escape(text: &[u8]) -> Option<(char, usize)> {
    let [b'\\', kind, digits @ ..] = text else { return None };
    let meant = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b't' => '\t',
        b'r' => '\r',
        b'n' => '\n',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return utf16(digits),
        _ => return None,
    };
    Some((meant, 2))
}

/// `\u00e4`, or a pair of surrogates; `digits` begin behind the first `\u`.
fn utf16(digits: &[u8]) -> Option<(char, usize)> {
    let unit = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(digits)?;
    if let Some(meant) = char::from_u32(first.into()) {
        return Some((meant, 6));
    }
    let second = unit(digits.get(4..)?.strip_prefix(b"\\u")?)?;
    let meant = char::decode_utf16([first, second]).next()?.ok()?;
    Some((meant, 12))
}

/// rsyslog writes a control character as `#` and three octal digits.
fn octal_escape(text: &[u8]) -> Option<(char, usize)> {
    let [b'#', digits @ ..] = text else { return None };
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    let meant = u8::from_str_radix(digits, 8).ok().filter(u8::is_ascii)?;
    Some((char::from(meant), 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marker(sequence: u64, text: &[u8]) -> Marker {
        Marker {
            run: 1,
            connection: 2,
            sequence,
            last: false,
            due_ns: 3,
            text_bytes: text.len() as u32,
            text_check: check(text),
        }
    }

    /// A message as it is sent, `shown` being what became of its text.
    fn message(sequence: u64, text: &[u8], shown: &[u8]) -> Vec<u8> {
        let mut head = [0; MARKER_BYTES];
        marker(sequence, text).write(&mut head);
        let gap: &[u8] = if text.is_empty() { b"" } else { b" " };
        [&head[..], gap, shown].concat()
    }

    fn all(bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        assert_eq!(scan(bytes, true, |f| found.push(f)), bytes.len());
        found
    }

    #[test]
    fn messages_are_found_in_whatever_stands_around_them() {
        let text = b"GET /a b";
        let plain = message(0, text, text);
        let lines = [
            plain.clone(),
            [b"<34>Oct 11 22:14:15 host app: ".as_slice(), &plain].concat(),
            [b"{\"message\":\"".as_slice(), &plain, b"\",\"n\":1}"].concat(),
            message(3, b"", b""),
        ];
        let found = all(&lines.join(&b'\n'));
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|f| matches!(f, Found::Whole(_))), "{found:?}");
    }

    #[test]
    fn what_was_escaped_is_whole() {
        let text = "a \"b\" \\ \t \u{e4} \u{1f600} c".as_bytes();
        for shown in [
            &b"a \\\"b\\\" \\\\ \\t \\u00e4 \\ud83d\\ude00 c\"}"[..],
            "a \\\"b\\\" \\\\ \\t \u{e4} \u{1f600} c\"}".as_bytes(),
            "a \"b\" \\ #011 \u{e4} \u{1f600} c".as_bytes(),
        ] {
            assert_eq!(all(&message(0, text, shown)), [Found::Whole(marker(0, text))]);
        }
    }

    #[test]
    fn what_was_changed_or_cut_is_damaged_and_hides_nothing_behind_it() {
        let text = b"one two three";
        let next = message(1, text, text);
        for shown in [&b"one two thrae"[..], b"one two", b"", b"one two three"] {
            let bytes = [message(0, text, shown), b"\n".to_vec(), next.clone()].concat();
            let first =
                if shown == text { Found::Whole(marker(0, text)) } else { Found::Damaged(marker(0, text)) };
            assert_eq!(all(&bytes), [first, Found::Whole(marker(1, text))], "{shown:?}");
        }
        assert_eq!(all(&message(0, text, text)[..40]), [Found::Unreadable]);
        let mut bad = message(0, text, text);
        bad[20] = b'g';
        assert_eq!(all(&[bad, next].concat()), [Found::Unreadable, Found::Whole(marker(1, text))]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            texts in proptest::collection::vec("[a-z\"\\\\ ]{0,30}", 0..8),
            damage in proptest::collection::vec((0usize..600, any::<u8>()), 0..3),
            cuts in proptest::collection::vec(0usize..600, 0..6),
        ) {
            let mut bytes = Vec::new();
            for (n, text) in texts.iter().enumerate() {
                bytes.extend(message(n as u64, text.as_bytes(), text.as_bytes()));
                bytes.push(b'\n');
            }
            for (at, to) in damage {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = to;
                }
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.min(&bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut found, mut kept) = (Vec::new(), Vec::new());
            for piece in cuts.windows(2) {
                kept.extend_from_slice(&bytes[piece[0]..piece[1]]);
                let done = scan(&kept, piece[1] == bytes.len(), |f| found.push(f));
                kept.drain(..done);
                prop_assert!(kept.len() < MARKER_BYTES + 1 + ESCAPED * 30);
            }
            prop_assert_eq!(found, all(&bytes));
        }
    }
}
