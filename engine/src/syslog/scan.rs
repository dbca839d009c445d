//! Finding delimiters and reading digits, eight bytes a step.
//!
//! A header's tokens are short, so a call into a SIMD search costs more than the search. A word of eight bytes is
//! compared with a needle in all lanes at once: `x ^ needle` is zero where the needle is, and `(x - 1) & !x` has its
//! high bit set in the lowest zero lane. Lanes above that one may be false, the lowest never is, and only that one is
//! used. Words are read little-endian, so the lowest lane is the first byte.
//!
//! No function here panics: behind the end of the bytes there is nothing, and a search ends there.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Eight bytes from `at`, or nothing when fewer are left.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

/// The first of `needles` at or behind `from`; the end of `bytes` when there is none.
#[inline(always)]
pub(super) fn find<const N: usize>(bytes: &[u8], from: usize, needles: [u8; N]) -> usize {
    let mut at = from;
    while let Some(word) = word(bytes, at) {
        let mut hits = 0;
        for needle in needles {
            let x = word ^ (ONES * needle as u64);
            hits |= x.wrapping_sub(ONES) & !x & HIGHS;
        }
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    find_scalar(bytes, at, needles)
}

/// As [`find`], a byte a step: its tail and its twin in tests.
#[inline]
fn find_scalar<const N: usize>(bytes: &[u8], from: usize, needles: [u8; N]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter().position(|b| needles.contains(b)).map_or(bytes.len(), |n| from + n)
}

/// The first byte at or behind `at` that is not a space.
#[inline]
pub(super) fn skip_spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// Reads `word` against a template in which `0` stands for any digit and every other byte for itself. Lane `i` of the
/// answer is digit `i` times ten plus digit `i + 1`; a mismatch answers with the index of the first wrong byte.
#[inline(always)]
pub(super) fn pairs(word: u64, template: &[u8; 8]) -> Result<u64, usize> {
    let values = word ^ u64::from_le_bytes(*template);
    let mut six = 0;
    let mut mask = u64::MAX;
    for (i, t) in template.iter().enumerate() {
        if *t == b'0' {
            six |= 0x06 << (8 * i);
            mask ^= 0x0F << (8 * i);
        }
    }
    // A digit is at most 9, so adding 6 leaves its high nibble empty; any other byte must have cancelled out wholly.
    let wrong = (values | values.wrapping_add(six)) & mask;
    if wrong != 0 {
        return Err((wrong.trailing_zeros() / 8) as usize);
    }
    Ok(values.wrapping_mul(10).wrapping_add(values >> 8))
}

/// Lane `i` of what [`pairs`] answers.
#[inline(always)]
pub(super) fn lane(pairs: u64, i: u32) -> u32 {
    (pairs >> (8 * i)) as u32 & 0xFF
}

/// The digits that begin a word, as if zeros followed them up to the eighth, and how many there are; nothing when all
/// eight are digits, so that another may follow.
#[inline(always)]
pub(super) fn leading_digits(word: u64) -> Option<(u32, usize)> {
    let values = word ^ (ONES * b'0' as u64);
    let others = (values | values.wrapping_add(ONES * 0x06)) & (ONES * 0xF0);
    if others == 0 {
        return None;
    }
    let digits = (others.trailing_zeros() / 8) as usize;
    let values = values & ((1 << (8 * digits)) - 1);
    // Pairs of digits, then pairs of pairs: each step is one multiplication for all lanes.
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    let eight = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF;
    Some((eight as u32, digits))
}

/// A decimal number of at most `most` digits at `at`, and where it ends; nothing when there is no digit or one too many.
#[inline]
pub(super) fn number(bytes: &[u8], at: usize, most: usize) -> Option<(u32, usize)> {
    let mut value = 0u32;
    let mut end = at;
    while let Some(digit) = bytes.get(end).filter(|b| b.is_ascii_digit()) {
        if end - at == most {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'));
        end += 1;
    }
    (end > at).then_some((value, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

    use super::{find, find_scalar, lane, number, pairs, word};

    #[test]
    fn pairs_accept_digits_and_separators_only() {
        let read = |text: &[u8]| pairs(word(text, 0).unwrap(), b"00:00:00");
        let value = read(b"23:59:07").unwrap();
        assert_eq!([lane(value, 0), lane(value, 3), lane(value, 6)], [23, 59, 7]);
        for i in 0..8 {
            for byte in 0..=255u8 {
                let mut text = *b"12:34:56";
                text[i] = byte;
                let good = if i == 2 || i == 5 { byte == b':' } else { byte.is_ascii_digit() };
                assert_eq!(read(&text).map_err(|at| at == i).is_ok(), good, "byte {byte} at {i}");
                if !good {
                    assert_eq!(read(&text), Err(i));
                }
            }
        }
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(number(b"a12b", 1, 3), Some((12, 3)));
        assert_eq!(number(b"1234", 0, 3), None);
        assert_eq!(number(b"x", 0, 3), None);
        assert_eq!(number(b"", 7, 3), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn find_agrees_with_its_scalar_twin(
            bytes in prop::collection::vec(prop::sample::select(vec![b' ', b'[', 0, 0x21, 0x1F, 0xA0, 0x7F, 0xFF, b'a']), 0..40),
            from in 0usize..48,
            needle in any::<u8>(),
        ) {
            prop_assert_eq!(find(&bytes, from, [b' ']), find_scalar(&bytes, from, [b' ']));
            prop_assert_eq!(find(&bytes, from, [b' ', b'[', needle]), find_scalar(&bytes, from, [b' ', b'[', needle]));
        }
    }
}
