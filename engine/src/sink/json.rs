//! JSON strings: escaping into an arena at the speed of a copy.
//!
//! The text is looked at 64 bytes a step: a mask says which of them JSON wants escaped (`"`, `\` and what is below
//! 0x20). The stretches between are copied, in whole vectors where there is room behind them, because a copy of
//! known size is far cheaper than one of the exact size. AVX2 or a scalar twin make the mask, chosen by the machine
//! at run time; everything behind the mask is the same code.
//!
//! With AVX-512 VBMI2 there are no stretches: log lines hold a few quotes each, and a branch for each of them is
//! guessed wrong. 32 bytes are spread over 64, one lane more for each quote or backslash, with a vector of
//! backslashes below them. Only what needs a longer escape goes the other way.
//!
//! It takes valid UTF-8 only and refuses nothing: deciding what is text is the caller's.

use crate::pool::Arena;

/// Bytes looked at in one step.
const STEP: usize = 64;
/// Bytes of text escaped before room is asked for again.
const PIECE: usize = 2048;
/// The longest escape: `\u0000`.
const ESCAPE_MAX: usize = 6;

/// Bytes that [`is_plain`] looks at.
pub const SHORT: usize = 32;

/// Whether the first `len` bytes of a chunk can stand in a JSON string as they are: ASCII, and nothing to escape. False
/// where they are more than the chunk.
#[inline]
pub fn is_plain(chunk: &[u8; SHORT], len: usize) -> bool {
    let len = u8::try_from(len).unwrap_or(u8::MAX);
    let mut wrong = len > SHORT as u8;
    for (i, &byte) in (0u8..).zip(chunk) {
        wrong |= (i < len) & ((byte.wrapping_sub(0x20) >= 0x60) | (byte == b'"') | (byte == b'\\'));
    }
    !wrong
}

/// Appends `text` to `out` as the inside of a JSON string.
pub fn escape(text: &str, out: &mut Arena) {
    let kernel = Kernel::best();
    for piece in text.as_bytes().chunks(PIECE) {
        let worst = piece.len() * ESCAPE_MAX + STEP;
        let wanted = if out.room() >= worst { worst } else { escaped_len(piece) + STEP };
        let written = kernel.escape(piece, out.spare(wanted));
        out.advance(written);
    }
}

/// Appends `text` to `out` as a JSON string, quotes included. For what is rendered once a run.
pub fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match escape_of(byte) {
            Some((escaped, len)) => out.extend_from_slice(&escaped[..len]),
            None => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Length of `bytes` when escaped.
fn escaped_len(bytes: &[u8]) -> usize {
    bytes.iter().map(|&byte| escape_of(byte).map_or(1, |(_, len)| len)).sum()
}

/// What stands for a byte that JSON wants escaped, padded to a vector, and its length.
#[inline]
fn escape_of(byte: u8) -> Option<([u8; 8], usize)> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = |letter| Some(([b'\\', letter, 0, 0, 0, 0, 0, 0], 2));
    match byte {
        b'"' | b'\\' => short(byte),
        b'\n' => short(b'n'),
        b'\r' => short(b'r'),
        b'\t' => short(b't'),
        0x08 => short(b'b'),
        0x0c => short(b'f'),
        0..0x20 => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            Some(([b'\\', b'u', b'0', b'0', high, low, 0, 0], 6))
        }
        _ => None,
    }
}

/// Which instructions make the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Vbmi2,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Scalar,
}

impl Kernel {
    /// The best that this machine has. std caches the answer.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512vbmi2")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("popcnt")
            {
                return Self::Vbmi2;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Scalar
    }

    /// Escapes `text` into the front of `out`, which holds the result and a step more; the bytes behind the result
    /// are left undefined. Returns the length of the result.
    fn escape(self, text: &[u8], out: &mut [u8]) -> usize {
        match self {
            // SAFETY: the variant is made only where the machine has the features.
            #[cfg(target_arch = "x86_64")]
            Self::Vbmi2 => unsafe { x86::escape_vbmi2(text, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::escape_avx2(text, out) },
            Self::Scalar => escape_with(text, out, mask_scalar),
        }
    }
}

/// Bit `i` is set when byte `i` must be escaped.
fn mask_scalar(bytes: &[u8; STEP]) -> u64 {
    bytes.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(escape_of(byte).is_some()))
}

/// The one body behind every mask.
#[inline(always)]
fn escape_with(text: &[u8], out: &mut [u8], mask_of: impl Fn(&[u8; STEP]) -> u64) -> usize {
    let mut written = 0;
    let (blocks, rest) = text.as_chunks::<STEP>();
    for block in blocks {
        written = escape_block(block, STEP, mask_of(block), out, written);
    }
    if rest.is_empty() {
        return written;
    }
    // A padded copy: nothing behind the text is read, and its padding needs no escape.
    let mut block = [b' '; STEP];
    block[..rest.len()].copy_from_slice(rest);
    escape_block(&block, rest.len(), mask_of(&block), out, written)
}

/// Writes the first `len` bytes of a block at `at`, escaped as `mask` says. Returns the place behind them.
#[inline(always)]
fn escape_block(block: &[u8; STEP], len: usize, mut mask: u64, out: &mut [u8], mut at: usize) -> usize {
    let mut from = 0;
    while mask != 0 {
        let place = mask.trailing_zeros() as usize;
        at = copy_stretch(block, from, place, out, at);
        let byte = block[place];
        if matches!(byte, b'"' | b'\\') {
            out[at..at + 2].copy_from_slice(&[b'\\', byte]);
            at += 2;
        } else if let Some((escaped, escaped_len)) = escape_of(byte) {
            out[at..at + escaped.len()].copy_from_slice(&escaped);
            at += escaped_len;
        }
        from = place + 1;
        mask &= mask - 1;
    }
    if from == 0 {
        out[at..at + STEP].copy_from_slice(block);
        return at + len;
    }
    copy_stretch(block, from, len, out, at)
}

/// Writes `block[from..to]` at `at`: in one vector when it is short and its source does not pass the block's end.
#[inline(always)]
fn copy_stretch(block: &[u8; STEP], from: usize, to: usize, out: &mut [u8], at: usize) -> usize {
    const SHORT: usize = 16;
    let len = to - from;
    if len <= SHORT && from + SHORT <= STEP {
        out[at..at + SHORT].copy_from_slice(&block[from..from + SHORT]);
    } else {
        out[at..at + len].copy_from_slice(&block[from..to]);
    }
    at + len
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The kernels by vector. The scalar one is their twin.

    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8,
        _mm256_or_si256, _mm256_set1_epi8, _mm512_castsi256_si512, _mm512_castsi512_si256,
        _mm512_cmpeq_epi8_mask, _mm512_cmplt_epu8_mask, _mm512_extracti64x4_epi64, _mm512_mask_expand_epi8,
        _mm512_mask_loadu_epi8, _mm512_set1_epi8, _mm512_storeu_si512, _pdep_u64, _pext_u64,
    };

    use super::{STEP, escape_block, escape_with};

    /// Every second bit: the first or the second lane of each pair.
    const FIRST: u64 = 0x5555_5555_5555_5555;
    const SECOND: u64 = !FIRST;

    /// # Safety
    /// The machine has AVX-512 F, BW and VBMI2, BMI2 and POPCNT.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi2,popcnt")]
    pub(super) unsafe fn escape_vbmi2(text: &[u8], out: &mut [u8]) -> usize {
        let mut at = 0;
        for block in text.chunks(STEP) {
            let len = block.len();
            // SAFETY: the mask has a bit for each byte of the block; masked lanes are not read.
            let v = unsafe {
                _mm512_mask_loadu_epi8(
                    _mm512_set1_epi8(b' ' as i8),
                    u64::MAX >> (STEP - len),
                    block.as_ptr().cast(),
                )
            };
            let short = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(b'"' as i8))
                | _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(b'\\' as i8));
            let long = _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20));
            if long != 0 {
                let mut padded = [b' '; STEP];
                padded[..len].copy_from_slice(block);
                at = escape_block(&padded, len, short | long, out, at);
                continue;
            }
            let (low, high) = (short as u32, (short >> 32) as u32);
            at = spread(_mm512_castsi512_si256(v), low, len.min(STEP / 2), out, at);
            if len > STEP / 2 {
                at = spread(_mm512_extracti64x4_epi64::<1>(v), high, len - STEP / 2, out, at);
            }
        }
        at
    }

    /// Writes the first `len` bytes at `at`, a backslash before each one of the mask. Returns the place behind them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi2,popcnt")]
    fn spread(bytes: __m256i, mask: u32, len: usize, out: &mut [u8], at: usize) -> usize {
        // A pair of lanes for each byte: the second one is the byte's, the first one is there when it is escaped.
        let lanes = _pdep_u64(mask.into(), FIRST) | SECOND;
        let of_bytes = _pext_u64(SECOND, lanes);
        let backslashes = _mm512_set1_epi8(b'\\' as i8);
        let spread: __m512i = _mm512_mask_expand_epi8(backslashes, of_bytes, _mm512_castsi256_si512(bytes));
        let room = &mut out[at..at + STEP];
        // SAFETY: `room` has the 64 bytes that are written; the store needs no alignment.
        unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), spread) };
        at + len + mask.count_ones() as usize
    }

    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn escape_avx2(text: &[u8], out: &mut [u8]) -> usize {
        escape_with(text, out, |block| mask_avx2(block))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask_avx2(block: &[u8; STEP]) -> u64 {
        let half = |at: usize| {
            // SAFETY: `at` is 0 or 32: 32 bytes from there are in the block; the load needs no alignment.
            let v = unsafe { _mm256_loadu_si256(block.as_ptr().add(at).cast()) };
            let low = _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v);
            let quote = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'"' as i8));
            let slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(b'\\' as i8));
            let any = _mm256_or_si256(low, _mm256_or_si256(quote, slash));
            u64::from(_mm256_movemask_epi8(any) as u32)
        };
        half(0) | half(32) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    fn naive(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        quote(text, &mut out);
        out[1..out.len() - 1].to_vec()
    }

    fn kernels() -> Vec<Kernel> {
        let mut all = vec![Kernel::Scalar, Kernel::best()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            all.push(Kernel::Avx2);
        }
        all.dedup();
        all
    }

    fn check(text: &str) {
        let expected = naive(text);
        for kernel in kernels() {
            let mut out = vec![0xAA; expected.len() + STEP];
            let n = kernel.escape(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out[..n]), String::from_utf8_lossy(&expected), "{kernel:?}");
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_block() {
        for byte in 0..128u8 {
            for place in 0..130 {
                let mut text = vec![b'x'; 130];
                text[place] = byte;
                check(std::str::from_utf8(&text).unwrap());
            }
        }
    }

    #[test]
    fn plain_is_what_nothing_has_to_be_done_about() {
        for byte in 0..=255u8 {
            let needs_nothing = byte.is_ascii() && escape_of(byte).is_none();
            for len in 0..=SHORT {
                for place in 0..SHORT {
                    let mut chunk = [b'x'; SHORT];
                    chunk[place] = byte;
                    assert_eq!(is_plain(&chunk, len), needs_nothing || place >= len, "{byte} {place} {len}");
                }
            }
        }
        assert!(!is_plain(&[b'x'; SHORT], SHORT + 1) && !is_plain(&[b'x'; SHORT], 1 << 20));
    }

    #[test]
    fn the_result_is_what_serde_json_says() {
        let text: String = (0..0x500u32).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        quote(&text, &mut out);
        let back: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(back, text);
        assert_eq!(out, serde_json::to_vec(&text).unwrap());
    }

    #[test]
    fn a_text_longer_than_the_arena_makes_it_grow() {
        let text = "\u{1}é\"".repeat(5000);
        let mut out = Arena::new(4096);
        escape(&text, &mut out);
        assert_eq!(out.filled(), &naive(&text)[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_escaped_as_by_the_twin(text in any::<String>(), quotes in 0..300usize) {
            check(&text);
            check(&format!("{}{text}{text}{text}", "\"\\".repeat(quotes)));
        }
    }
}
