//! The scan kernels: where a delimiter stands, written as spans, 256 bytes a step.
//!
//! Each step loads 256 bytes, compares them with the delimiter into four 64-bit masks and walks the bits of each mask. A
//! branch-free form (write a span for every mask, count it by conditional moves) was measured and takes twice the time on
//! lines of 240 bytes: the branch is cheaper than the stores.
//!
//! This module owns all of `frame`'s `unsafe`. Its kernels are private to `newline`, whose scalar scan is their twin:
//! same arguments, same answer, compared by the tests there. The rest behind the last full 256 bytes is left to it.

use crate::batch::Span;
use crate::frame::newline::Kernel;

/// Bytes a step looks at.
const STEP: usize = 256;

/// Where a kernel stands.
pub(super) struct Cursor {
    /// Everything before is looked at.
    pub(super) at: usize,
    /// The start of the line that is not finished.
    pub(super) start: usize,
    /// Whether a carriage return was dropped from any line.
    pub(super) cr: bool,
}

/// Runs the best kernel of this machine over the full steps of `bytes`.
///
/// Nothing is looked at before `cursor.at`. `bytes[cursor.start..cursor.at]` must not be empty, and no delimiter in it: so
/// every delimiter that a kernel meets has a byte of the same scan before it. Stops when `out` holds `limit` spans or more.
/// Returns false, having done nothing, where the machine has no kernel.
pub(super) fn scan<const CR: bool>(
    bytes: &[u8],
    delimiter: u8,
    limit: usize,
    cursor: &mut Cursor,
    out: &mut Vec<Span>,
) -> bool {
    scan_by::<CR>(Kernel::Avx512, bytes, delimiter, limit, cursor, out)
        || scan_by::<CR>(Kernel::Avx2, bytes, delimiter, limit, cursor, out)
}

/// As [`scan`], with this kernel and no other.
#[inline]
pub(super) fn scan_by<const CR: bool>(
    kernel: Kernel,
    bytes: &[u8],
    delimiter: u8,
    limit: usize,
    cursor: &mut Cursor,
    out: &mut Vec<Span>,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    match kernel {
        Kernel::Avx512 if x86::has_avx512() => {
            // SAFETY: the features were found on this machine.
            unsafe { x86::avx512::<CR>(bytes, delimiter, limit, cursor, out) };
            return true;
        }
        Kernel::Avx2 if x86::has_avx2() => {
            // SAFETY: the features were found on this machine.
            unsafe { x86::avx2::<CR>(bytes, delimiter, limit, cursor, out) };
            return true;
        }
        _ => {}
    }
    let _ = (kernel, bytes, delimiter, limit, cursor, out);
    false
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
        _mm512_cmpeq_epi8_mask, _mm512_loadu_si512, _mm512_set1_epi8,
    };

    use super::{Cursor, STEP};
    use crate::batch::Span;

    /// The standard library looks once and remembers.
    pub(in crate::frame) fn has_avx512() -> bool {
        std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bw") && has_bits()
    }

    /// As [`has_avx512`].
    pub(in crate::frame) fn has_avx2() -> bool {
        std::is_x86_feature_detected!("avx2") && has_bits()
    }

    fn has_bits() -> bool {
        std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("bmi2")
            && std::is_x86_feature_detected!("popcnt")
            && std::is_x86_feature_detected!("lzcnt")
    }

    #[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2,popcnt,lzcnt")]
    pub(in crate::frame) fn avx512<const CR: bool>(
        bytes: &[u8],
        delimiter: u8,
        limit: usize,
        cursor: &mut Cursor,
        out: &mut Vec<Span>,
    ) {
        let wanted = _mm512_set1_epi8(delimiter.cast_signed());
        drive::<CR>(bytes, limit, cursor, out, |at| {
            let mut masks = [0; 4];
            for (i, mask) in masks.iter_mut().enumerate() {
                // SAFETY: `drive` asks only for `at` with STEP bytes behind it.
                let v = unsafe { _mm512_loadu_si512(at.add(i * 64).cast()) };
                *mask = _mm512_cmpeq_epi8_mask(v, wanted);
            }
            masks
        });
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
    pub(in crate::frame) fn avx2<const CR: bool>(
        bytes: &[u8],
        delimiter: u8,
        limit: usize,
        cursor: &mut Cursor,
        out: &mut Vec<Span>,
    ) {
        let wanted = _mm256_set1_epi8(delimiter.cast_signed());
        drive::<CR>(bytes, limit, cursor, out, |at| {
            let mut masks = [0; 4];
            for (i, mask) in masks.iter_mut().enumerate() {
                // SAFETY: `drive` asks only for `at` with STEP bytes behind it.
                let (low, high) = unsafe {
                    (
                        _mm256_loadu_si256(at.add(i * 64).cast()),
                        _mm256_loadu_si256(at.add(i * 64 + 32).cast()),
                    )
                };
                let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)).cast_unsigned();
                let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)).cast_unsigned();
                *mask = u64::from(low) | u64::from(high) << 32;
            }
            masks
        });
    }

    /// The loop of both kernels; inlined into each, so that it and `masks` are compiled with the kernel's features.
    #[inline(always)]
    fn drive<const CR: bool>(
        bytes: &[u8],
        limit: usize,
        cursor: &mut Cursor,
        out: &mut Vec<Span>,
        masks: impl Fn(*const u8) -> [u64; 4],
    ) {
        let mut at = cursor.at;
        let mut start = cursor.start as u32;
        let mut crs = 0;
        while at + STEP <= bytes.len() && out.len() < limit {
            out.reserve(STEP);
            let len = out.len();
            // SAFETY: `at + STEP <= bytes.len()`.
            let masks = masks(unsafe { bytes.as_ptr().add(at) });
            // SAFETY: within the capacity, which was reserved just now.
            let first = unsafe { out.as_mut_ptr().add(len) };
            let mut slot = first;
            for (i, mask) in masks.into_iter().enumerate() {
                // SAFETY: 64 bytes from `at + i * 64` are in `bytes` and there is a byte before them; `slot` moved at
                // most once for each byte before, so it has room for 64 more spans.
                slot = unsafe { emit::<CR>(bytes, at + i * 64, mask, slot, &mut start, &mut crs) };
            }
            // SAFETY: both point into `out`'s memory; every slot before `slot` was written.
            unsafe { out.set_len(len + slot.offset_from_unsigned(first)) };
            at += STEP;
        }
        cursor.at = at;
        cursor.start = start as usize;
        cursor.cr |= crs != 0;
    }

    /// Writes a span for each bit of `mask`, which stands for 64 bytes from `base`; returns the next free slot.
    ///
    /// # Safety
    /// `1 <= base` and `base + 64 <= bytes.len()`; `slot` has room for as many spans as `mask` has bits.
    #[inline(always)]
    unsafe fn emit<const CR: bool>(
        bytes: &[u8],
        base: usize,
        mask: u64,
        mut slot: *mut Span,
        start: &mut u32,
        crs: &mut u32,
    ) -> *mut Span {
        let mut rest = mask;
        while rest != 0 {
            let end = base + rest.trailing_zeros() as usize;
            // SAFETY: `1 <= base <= end < base + 64`.
            let cr = u32::from(CR && unsafe { *bytes.get_unchecked(end - 1) } == b'\r');
            // SAFETY: by the caller's word: one slot a bit.
            unsafe { slot.write(Span { start: *start, end: end as u32 - cr }) };
            *crs |= cr;
            *start = end as u32 + 1;
            // SAFETY: as above.
            slot = unsafe { slot.add(1) };
            rest &= rest - 1;
        }
        slot
    }
}
