//! Where structured data ends: a row of elements `[ID NAME="VALUE" ...][...]`, whatever is written inside of them.
//!
//! Only three bytes count. A quote begins a value and ends it, unless a backslash within the value escapes it; a bracket
//! outside of values ends its element; and the row goes on where the next byte opens another element.
//!
//! A block of 64 bytes is a step, without a branch for an element, a value or an escape: values are told from the rest by
//! a running parity of the quotes. That takes every backslash for one within a value. One outside of them, which no
//! sender writes, escapes nothing; a row that has one in front of its end is gone through again a byte at a time.

use super::block::{BLOCK, Block};
use super::scan::find;

/// The places with even numbers.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Where the row of elements that begins at `start` ends; nothing when an element or a value in it has no end.
#[inline]
pub(super) fn end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut row = Row::default();
    let mut at = start;
    while let Some(block) = Block::at(bytes, at) {
        match row.step(block) {
            Step::Ends(n) => return Some(at + n),
            Step::GoesOn => at += BLOCK,
            Step::Unclear => return end_by_byte(bytes, start),
        }
    }
    // Fewer bytes than a block have none; else the row's last byte is the record's, or is missing.
    if at == start { end_by_byte(bytes, start) } else { (row.closed != 0).then_some(bytes.len()) }
}

/// What the blocks before leave to the next one.
#[derive(Default)]
struct Row {
    /// All ones within a value.
    quoted: u64,
    /// 1 when the next byte is escaped.
    escaped: u64,
    /// 1 when the last byte ended an element.
    closed: u64,
}

enum Step {
    /// The row ends in front of this byte of the block.
    Ends(usize),
    GoesOn,
    /// There is a backslash outside of values.
    Unclear,
}

impl Row {
    #[inline(always)]
    fn step(&mut self, block: Block<'_>) -> Step {
        let backslashes = block.mask(b'\\');
        let quotes = block.mask(b'"') & !self.escapes(backslashes);
        let within = parity(quotes) ^ self.quoted;
        let closes = block.mask(b']') & !within;
        let opens = block.mask(b'[');
        // An element's end is the row's when no element begins behind it: the end is the byte behind.
        let behind = closes << 1 | self.closed;
        let ends = behind & !opens;
        let up_to_end = ends ^ ends.wrapping_sub(1);
        if backslashes & !within & up_to_end != 0 {
            return Step::Unclear;
        }
        if ends != 0 {
            return Step::Ends(ends.trailing_zeros() as usize);
        }
        self.quoted = (within.cast_signed() >> 63).cast_unsigned();
        self.closed = closes >> 63;
        Step::GoesOn
    }

    /// The bytes behind rows of backslashes of which the last one escapes: those with an odd number of them. To a row is
    /// added its first bit, which clears it and carries to the byte behind it. A row of odd length that begins at an even
    /// place ends behind an odd one, and the other way round.
    #[inline(always)]
    fn escapes(&mut self, backslashes: u64) -> u64 {
        let free = backslashes & !self.escaped;
        let firsts = free & !(free << 1);
        let behind_even = free.wrapping_add(firsts & EVEN) & !free;
        let (behind_odd, odd_at_the_end) = free.overflowing_add(firsts & !EVEN);
        let behind_odd = behind_odd & !free;
        let escaped = behind_even & !EVEN | behind_odd & EVEN | self.escaped;
        self.escaped = u64::from(odd_at_the_end);
        escaped
    }
}

/// Bit `i` is set when the number of bits up to `i`, itself included, is odd.
#[inline(always)]
fn parity(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// As [`end`], from one byte that counts to the next: for few bytes, for backslashes in odd places, and the twin in tests.
fn end_by_byte(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while bytes.get(at) == Some(&b'[') {
        at += 1;
        loop {
            at = find(bytes, at, [b'"', b']']);
            match bytes.get(at)? {
                b']' => break,
                _ => at = behind_value(bytes, at + 1)?,
            }
        }
        at += 1;
    }
    Some(at)
}

/// The byte behind the quote of a value that begins at `at`.
fn behind_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = find(bytes, at, [b'"', b'\\']);
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

    use super::{BLOCK, end, end_by_byte};

    /// What stands around a row must not matter: `text` at every place of a block, and with much or little behind it.
    fn check(text: &[u8], expected: Option<usize>) {
        for before in 0..=BLOCK {
            for after in [0, 1, BLOCK, 2 * BLOCK] {
                let bytes = [&vec![b'"'; before], text, &vec![b']'; after]].concat();
                let expected = match expected {
                    None => end_by_byte(&bytes, before),
                    some => some.map(|n| before + n),
                };
                assert_eq!(end(&bytes, before), expected, "{} {before} {after}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn the_end_is_behind_the_last_bracket() {
        for (text, n) in [
            (&br#"[a] "#[..], 3),
            (br#"[a][b] [c]"#, 6),
            (br#"[a b="]"] x"#, 9),
            (br#"[a b="\"]"] x"#, 11),
            (br#"[a b="\\"] x"#, 10),
            (br#"[a b="\\\"]"] x"#, 13),
            (br#"[a b="[" c=""][d] x"#, 17),
            // Outside of values a backslash is a byte like any other.
            (br#"[a\]" x"#, 4),
            (br#"[a \"]" b] x"#, 10),
        ] {
            check(text, Some(n));
        }
    }

    #[test]
    fn without_an_end_there_is_none() {
        for text in [&b"["[..], b"[a", br#"[a b="]"#, br#"[a b="\"]"#, br#"[a b="c\"#, br#"[a][b"#] {
            assert_eq!(end(text, 0), None);
            check(text, None);
            let long = [text, &[b'x'; 3 * BLOCK]].concat();
            assert_eq!(end(&long, 0), None);
        }
    }

    #[test]
    fn rows_of_backslashes_of_any_length_at_any_place() {
        for before in 0..2 * BLOCK {
            for row in 0..2 * BLOCK {
                let text = format!(r#"[{} b="{}"] "] x"#, "a".repeat(before), "\\".repeat(row));
                assert_eq!(end(text.as_bytes(), 0), end_by_byte(text.as_bytes(), 0), "{text}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn blocks_agree_with_bytes(
            bytes in prop::collection::vec(prop::sample::select(br#"[[]]""""\\ax "#.to_vec()), 0..300),
            plain in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let text = [b"[", &plain[..], &bytes[..]].concat();
            prop_assert_eq!(end(&text, 0), end_by_byte(&text, 0));
            for start in 0..bytes.len() {
                if bytes[start] == b'[' {
                    prop_assert_eq!(end(&bytes, start), end_by_byte(&bytes, start));
                }
            }
        }
    }
}
