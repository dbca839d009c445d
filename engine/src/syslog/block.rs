//! Sixty-four bytes at once: a bit for each byte that is the one looked for.
//!
//! Fields of a header are short and of any length, so a loop that ends where a field ends is guessed wrong about once a
//! field. A mask has all the spaces of a header at once, and the next one is found by counting zeros.
//!
//! A block begins at the byte asked for and may reach beyond the last one; there its masks have no bits. It is loaded
//! where 64 bytes lie, which may be in front of that place, and its masks are shifted: nothing is copied, and nothing
//! behind the end is read. Only bytes that are fewer than a block altogether have none, and the caller goes on with
//! [`super::scan`].
//!
//! SSE2 is a part of every x86-64, so nothing is chosen at run time; its one load is all of `syslog`'s `unsafe`. Elsewhere
//! a word of eight bytes makes eight bits, which is its twin in tests.

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// Up to 64 bytes from a place on.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    bytes: &'a [u8; BLOCK],
    /// Bytes in front of the place asked for, less than a block.
    shift: u32,
}

impl<'a> Block<'a> {
    /// The block at `at`; nothing behind the last byte, and where there are fewer than 64 of them.
    #[inline(always)]
    pub(super) fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let last = bytes.len().checked_sub(BLOCK)?;
        if at >= bytes.len() {
            return None;
        }
        let from = at.min(last);
        Some(Self { bytes: bytes[from..].first_chunk()?, shift: (at - from) as u32 })
    }

    /// Bit `i` is set when byte `i` is `needle`.
    #[inline(always)]
    pub(super) fn mask(self, needle: u8) -> u64 {
        lanes(self.bytes, needle) >> self.shift
    }
}

/// A bit for each byte that is `needle`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn lanes(bytes: &[u8; BLOCK], needle: u8) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};

    let quarters = bytes.as_chunks::<16>().0.iter().enumerate();
    quarters.fold(0, |mask, (i, quarter)| {
        // SAFETY: every x86-64 has SSE2; a quarter has the 16 bytes that are read, and the load needs no alignment.
        let found = unsafe {
            let vector = _mm_loadu_si128(quarter.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(vector, _mm_set1_epi8(needle.cast_signed())))
        };
        mask | u64::from(found.cast_unsigned()) << (16 * i)
    })
}

/// As above, by words.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn lanes(bytes: &[u8; BLOCK], needle: u8) -> u64 {
    lanes_of_words(bytes, needle)
}

/// The twin of the vectors: a byte that is the needle is zero after `^`, and only such a byte keeps its high bit clear
/// when 0x7F is added to what is below it. A multiplication gathers the eight high bits.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn lanes_of_words(bytes: &[u8; BLOCK], needle: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = ONES * 0x7F;
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let words = bytes.as_chunks::<8>().0.iter().enumerate();
    words.fold(0, |mask, (i, word)| {
        let x = u64::from_le_bytes(*word) ^ (ONES * u64::from(needle));
        let zeros = !(((x & LOW) + LOW) | x | LOW) >> 7;
        mask | (zeros.wrapping_mul(GATHER) >> 56) << (8 * i)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

    use super::{BLOCK, Block, lanes, lanes_of_words};

    fn naive(bytes: &[u8], at: usize, needle: u8) -> u64 {
        let found = bytes[at..].iter().take(BLOCK).enumerate().filter(|(_, b)| **b == needle);
        found.fold(0, |mask, (i, _)| mask | 1 << i)
    }

    #[test]
    fn every_byte_at_every_place() {
        for needle in 0..=255u8 {
            for place in 0..BLOCK {
                let mut bytes = [needle ^ 0x80; BLOCK];
                bytes[place] = needle;
                assert_eq!(lanes(&bytes, needle), 1 << place);
                assert_eq!(lanes_of_words(&bytes, needle), 1 << place);
            }
        }
    }

    #[test]
    fn few_bytes_have_no_block_and_none_begins_behind_them() {
        assert!(Block::at(&[0; BLOCK - 1], 0).is_none());
        assert!(Block::at(&[0; BLOCK], BLOCK).is_none());
        assert!(Block::at(&[0; BLOCK], BLOCK - 1).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_mask_is_that_of_its_twins(bytes in prop::collection::vec(any::<u8>(), BLOCK..200), needle: u8) {
            for at in 0..bytes.len() {
                let block = Block::at(&bytes, at).unwrap();
                prop_assert_eq!(block.mask(needle), naive(&bytes, at, needle));
                prop_assert_eq!(block.mask(bytes[at]), naive(&bytes, at, bytes[at]));
            }
            let first = bytes.first_chunk().unwrap();
            prop_assert_eq!(lanes_of_words(first, needle), lanes(first, needle));
            prop_assert_eq!(lanes_of_words(first, bytes[0]), lanes(first, bytes[0]));
        }
    }
}
