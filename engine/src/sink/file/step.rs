//! The arithmetic of writing a file whose end is never where a block ends; pure.
//!
//! A file stands at `visible` bytes that are in it, and up to a block of `pending` bytes in memory that belong behind
//! them. A batch's records lie in `memory[from..end]`. Large batches go past the page cache, which wants file offset,
//! memory and length in whole blocks. So a record byte must lie in memory where it will lie in the file, modulo a
//! block: that is what a batch's head is for.
//!
//! Invariants: bytes that a reader can see are never written again, and nothing is written behind a gap. So when the
//! visible end is inside of a block, that block is filled through the page cache, and only then do whole blocks go
//! past it: a cached page never reaches beyond the file's end while a direct write moves that end, or a reader could
//! see the zeros behind it.

use std::ops::Range;

use crate::pool::ALIGN;

/// Bytes of a block.
pub(super) const BLOCK: usize = ALIGN;
/// Less than this goes through the page cache: a direct write waits for the disk.
pub(super) const DIRECT_MIN: usize = 256 << 10;

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Bytes in the file.
    pub(super) visible: u64,
    /// Bytes in memory that come next, less than a block.
    pub(super) pending: usize,
}

impl Standing {
    /// The file's length when all is written.
    pub(super) fn len(self) -> u64 {
        self.visible + self.pending as u64
    }

    /// The head that the next records should have in their memory.
    pub(super) fn head(self) -> usize {
        (self.len() % BLOCK as u64) as usize
    }

    fn is_inside_block(self) -> bool {
        !self.visible.is_multiple_of(BLOCK as u64)
    }
}

/// What to do next with the records in `memory[from..end]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is left.
    Done,
    /// Write what is pending through the page cache.
    Flush,
    /// Move the records so that they lie behind this head.
    Shift(usize),
    /// Write this much of memory through the page cache.
    Cached(Range<usize>),
    /// Copy what is pending to the start of this range, and write it past the page cache.
    Direct(Range<usize>),
    /// Make it pending.
    Keep(Range<usize>),
}

/// The next step. `direct` is whether the file takes direct writes; `whole` is whether none of the batch is written
/// yet, so that it may still be moved.
pub(super) fn next(at: Standing, from: usize, end: usize, whole: bool, direct: bool) -> Step {
    let left = end - from;
    if left == 0 {
        return Step::Done;
    }
    if direct && !at.is_inside_block() && at.pending + left < BLOCK {
        return Step::Keep(from..end);
    }
    let cached = || if at.pending > 0 { Step::Flush } else { Step::Cached(from..end) };
    if !direct || left < DIRECT_MIN {
        return cached();
    }
    if from % BLOCK != at.head() {
        return if whole { Step::Shift(at.head()) } else { cached() };
    }
    if at.is_inside_block() {
        return if at.pending > 0 { Step::Flush } else { Step::Cached(from..from + BLOCK - at.head()) };
    }
    Step::Direct(from - at.pending..end - end % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, prop, proptest};

    const BIG: usize = 600_000;

    #[test]
    fn what_is_small_goes_through_the_cache() {
        let at = |visible, pending| Standing { visible, pending };
        assert_eq!(next(at(10, 0), 5, 5, true, true), Step::Done);
        assert_eq!(next(at(10, 0), 5, 100, true, true), Step::Cached(5..100));
        assert_eq!(next(at(0, 0), 5, 100, true, true), Step::Keep(5..100));
        assert_eq!(next(at(0, 0), 5, 100, true, false), Step::Cached(5..100));
        assert_eq!(next(at(0, 4000), 0, 96, true, true), Step::Flush);
        assert_eq!(next(at(0, 4000), 0, 95, true, true), Step::Keep(0..95));
        assert_eq!(next(at(4096, 7), 0, 9000, true, true), Step::Flush);
        assert_eq!(next(at(4096, 7), 0, BIG, true, false), Step::Flush);
    }

    #[test]
    fn what_is_big_goes_in_whole_blocks() {
        let at = |visible, pending| Standing { visible, pending };
        assert_eq!(next(at(8192, 0), 0, BIG, true, true), Step::Direct(0..BIG - BIG % BLOCK));
        assert_eq!(next(at(8192, 9), 9, BIG, true, true), Step::Direct(0..BIG - BIG % BLOCK));
        assert_eq!(next(at(8192, 9), 0, BIG, true, true), Step::Shift(9));
        assert_eq!(next(at(8192, 9), 0, BIG, false, true), Step::Flush);
        assert_eq!(next(at(8201, 0), 9, BIG, true, true), Step::Cached(9..4096));
        assert_eq!(next(at(12288, 0), 4096, BIG, false, true), Step::Direct(4096..BIG - BIG % BLOCK));
    }

    /// A file and a batch, as the steps change them.
    fn play(lens: &[usize], heads: &[usize], shorts: &[usize], direct: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut file, mut pending, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut shorts = shorts.iter().cycle();
        for (i, len) in lens.iter().enumerate() {
            let records: Vec<u8> = (0..*len).map(|n| (n * 31 + i) as u8).collect();
            all.extend_from_slice(&records);
            let mut memory = vec![0; heads[i % heads.len()]];
            let mut from = memory.len();
            memory.extend_from_slice(&records);
            let mut whole = true;
            loop {
                let at = Standing { visible: file.len() as u64, pending: pending.len() };
                // Some writes are short, by whole sectors past the cache.
                let short = *shorts.next().unwrap_or(&0);
                match next(at, from, memory.len(), whole, direct) {
                    Step::Done => break,
                    Step::Flush => file.append(&mut pending),
                    Step::Shift(head) => {
                        memory.splice(..from, vec![0; head]);
                        from = head;
                        continue;
                    }
                    Step::Cached(range) => {
                        let n = if short > 0 { range.len().min(short) } else { range.len() };
                        assert_eq!((range.start, pending.len()), (from, 0));
                        file.extend_from_slice(&memory[from..from + n]);
                        from += n;
                    }
                    Step::Direct(range) => {
                        assert!(direct && file.len() % BLOCK == 0);
                        assert_eq!((range.start % BLOCK, range.end % BLOCK), (0, 0));
                        assert_eq!(range.start + pending.len(), from);
                        memory[range.start..from].copy_from_slice(&pending);
                        let n =
                            if short > 0 { range.len().min(short.div_ceil(512) * 512) } else { range.len() };
                        file.extend_from_slice(&memory[range.start..range.start + n]);
                        from += n.saturating_sub(pending.len());
                        pending.drain(..n.min(pending.len()));
                    }
                    Step::Keep(range) => {
                        assert_eq!(range, from..memory.len());
                        pending.extend_from_slice(&memory[range]);
                        from = memory.len();
                    }
                }
                whole = false;
            }
            assert!(pending.len() < BLOCK);
        }
        file.append(&mut pending);
        (file, all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn every_byte_is_written_once_and_in_order(
            lens in prop::collection::vec(prop::sample::select(vec![0usize, 1, 95, 4095, 4096, 4097, 300_000, 262_144, 270_001]), 1..12),
            heads in prop::collection::vec(0..4096usize, 1..4),
            shorts in prop::collection::vec(prop::sample::select(vec![0usize, 0, 0, 1, 512, 5000]), 1..5),
            direct: bool,
        ) {
            let (file, all) = play(&lens, &heads, &shorts, direct);
            assert!(file == all);
        }
    }
}
