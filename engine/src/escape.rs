//! Bytes from outside, made safe to show: in a log line, in an error, on a terminal.
//!
//! Owns the one way in which wpgen shows bytes it did not write itself (record excerpts, file names, peers' words).
//! Invariants: what comes out is one line, holds no control character, moves no cursor, reorders no text, and is bounded.
//! It refuses to interpret: bytes that are not UTF-8 stay visible as `\xNN`.

use std::fmt::Write;

/// Bytes of the input that [`escape_outside`] shows before it cuts.
pub const SHOWN_BYTES_MAX: usize = 256;

/// The bytes as printable text, cut behind [`SHOWN_BYTES_MAX`] with the full length named.
///
/// A backslash is doubled, so that the escaped text tells `\n` (two characters) from a newline.
pub fn escape_outside(bytes: &[u8]) -> String {
    escape_outside_to(bytes, SHOWN_BYTES_MAX)
}

/// As [`escape_outside`], with a limit of the caller's choice.
pub fn escape_outside_to(bytes: &[u8], shown_max: usize) -> String {
    let shown = &bytes[..whole_chars(bytes, shown_max)];
    let mut out = String::with_capacity(shown.len() + 16);
    for chunk in shown.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' { out.push_str("\\\\") } else { push_char(&mut out, c) }
        }
        for byte in chunk.invalid() {
            push_formatted(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    if shown.len() < bytes.len() {
        push_formatted(&mut out, format_args!("... ({} bytes)", bytes.len()));
    }
    out
}

/// Appends text of our own making in which foreign characters may still stand: controls are escaped, the rest stays.
pub fn escape_controls(out: &mut String, text: &str) {
    for c in text.chars() {
        push_char(out, c);
    }
}

/// How many of the first `max` bytes can be shown without cutting a UTF-8 sequence in two.
fn whole_chars(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    // A sequence has at most three continuation bytes; more of them in a row is not UTF-8 and may be cut anywhere.
    let is_start = |at: usize| bytes[at] & 0xC0 != 0x80;
    (max.saturating_sub(3)..=max).rev().find(|&at| is_start(at)).unwrap_or(max)
}

fn push_char(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\x1f' | '\x7f' => push_formatted(out, format_args!("\\x{:02x}", c as u32)),
        c if moves_text(c) => push_formatted(out, format_args!("\\u{{{:x}}}", c as u32)),
        c => out.push(c),
    }
}

/// Characters beyond ASCII that end lines, move the cursor or reorder what stands around them.
fn moves_text(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}'
        | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

fn push_formatted(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes every write.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_controls_are_told() {
        for (bytes, shown) in [
            (&b"plain"[..], "plain"),
            ("h\u{e9}llo \u{65e5}".as_bytes(), "h\u{e9}llo \u{65e5}"),
            (b"a\nb\rc\td", "a\\nb\\rc\\td"),
            (b"\x1b[2J\x07\0\x7f", "\\x1b[2J\\x07\\x00\\x7f"),
            (b"back\\n", "back\\\\n"),
            (b"\xff\xfeok\xe6\x97", "\\xff\\xfeok\\xe6\\x97"),
            ("\u{202e}cod\u{9b}".as_bytes(), "\\u{202e}cod\\u{9b}"),
            (b"", ""),
        ] {
            assert_eq!(escape_outside(bytes), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_its_length_told() {
        assert_eq!(escape_outside_to(b"abcdef", 6), "abcdef");
        assert_eq!(escape_outside_to(b"abcdef", 5), "abcde... (6 bytes)");
        assert_eq!(escape_outside_to(b"abcdef", 0), "... (6 bytes)");
        let text = "\u{65e5}\u{672c}\u{8a9e}";
        for max in 3..6 {
            assert_eq!(escape_outside_to(text.as_bytes(), max), "\u{65e5}... (9 bytes)");
        }
        assert_eq!(escape_outside_to(&[0x80; 9], 5), "\\x80\\x80\\x80\\x80\\x80... (9 bytes)");
    }

    proptest::proptest! {
        #[test]
        fn anything_becomes_one_bounded_line(bytes: Vec<u8>, max in 0usize..300) {
            let shown = escape_outside_to(&bytes, max);
            proptest::prop_assert!(shown.chars().all(|c| !c.is_control()));
            proptest::prop_assert!(shown.len() <= max * 8 + 40);
        }
    }
}
