//! Where lines end: complete lines of a segment, as spans, in one pass.
//!
//! A line is a span without its newline. A carriage return directly before the newline belongs to the line's end and is
//! left out too; any other carriage return is content. What stands behind the last newline is no line: the caller
//! keeps it and comes back with more.
//!
//! Invariants: spans are in order and do not overlap; without a dropped carriage return each one starts directly behind
//! the newline of the one before, which is what `Run::verbatim` needs. `out` is appended to, never cleared.
//!
//! The scan is three deep: AVX-512 or AVX2 over whole steps (`simd`), found at run time, and below them `memchr`, which also
//! takes the rest of a segment and every machine without a kernel. The three give the same answer.

use crate::batch::Span;
use crate::frame::simd::{self, Cursor};

/// The longest segment a scan takes: offsets are `u32`, and a sum of two must not overflow either.
pub const SEGMENT_BYTES_MAX: usize = (u32::MAX / 2) as usize;

/// Below this a kernel is not worth its start.
const KERNEL_BYTES_MIN: usize = 320;

/// What a scan found beside the spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Offset behind the last newline found; where it began if there was none.
    pub next: usize,
    /// Whether any line lost a carriage return: then the lines are not verbatim.
    pub cr: bool,
}

/// A form of the scan. [`lines`] and [`delimited`] take the best that the machine has; tests take each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// 64 bytes an instruction.
    Avx512,
    /// 32 bytes an instruction.
    Avx2,
    /// None: `memchr` alone.
    Memchr,
}

impl Kernel {
    /// All of them, the best first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Memchr];

    /// Whether this machine has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Memchr => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => simd::x86::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => simd::x86::has_avx2(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// Appends the complete lines of `bytes[from..]` to `out`.
///
/// Stops soon after `out` holds `limit` spans (within 256 of it), so that the spans of a segment of nothing but newlines
/// have a bound; `next` then is where to go on.
///
/// # Panics
/// If `bytes` is longer than [`SEGMENT_BYTES_MAX`] or `from` lies outside.
pub fn lines(bytes: &[u8], from: usize, limit: usize, out: &mut Vec<Span>) -> Scan {
    scan::<true>(bytes, from, b'\n', limit, out)
}

/// As [`lines`], with this form of the scan; with `memchr` alone where the machine has not got it.
///
/// # Panics
/// As [`lines`].
pub fn lines_by(kernel: Kernel, bytes: &[u8], from: usize, limit: usize, out: &mut Vec<Span>) -> Scan {
    scan_with::<true>(bytes, from, b'\n', limit, out, |cursor, out| {
        simd::scan_by::<true>(kernel, bytes, b'\n', limit, cursor, out);
    })
}

/// As [`lines`] with another delimiter; nothing but the delimiter is left out. Returns where to go on.
///
/// # Panics
/// As [`lines`].
pub fn delimited(bytes: &[u8], from: usize, delimiter: u8, limit: usize, out: &mut Vec<Span>) -> usize {
    scan::<false>(bytes, from, delimiter, limit, out).next
}

fn scan<const CR: bool>(bytes: &[u8], from: usize, delimiter: u8, limit: usize, out: &mut Vec<Span>) -> Scan {
    scan_with::<CR>(bytes, from, delimiter, limit, out, |cursor, out| {
        simd::scan::<CR>(bytes, delimiter, limit, cursor, out);
    })
}

/// The scan around `kernel`, which takes the full steps.
#[inline]
fn scan_with<const CR: bool>(
    bytes: &[u8],
    from: usize,
    delimiter: u8,
    limit: usize,
    out: &mut Vec<Span>,
    kernel: impl FnOnce(&mut Cursor, &mut Vec<Span>),
) -> Scan {
    assert!(bytes.len() <= SEGMENT_BYTES_MAX, "a segment of {} bytes", bytes.len());
    assert!(from <= bytes.len(), "a scan from {from} of {}", bytes.len());
    let mut cursor = Cursor { at: from, start: from, cr: false };
    if bytes.len() - from >= KERNEL_BYTES_MIN && out.len() < limit {
        // The kernels look one byte back from each delimiter: the first byte is taken here.
        if bytes[from] == delimiter {
            out.push(Span { start: from as u32, end: from as u32 });
            cursor.start += 1;
        }
        cursor.at += 1;
        kernel(&mut cursor, out);
    }
    rest::<CR>(bytes, delimiter, limit, &mut cursor, out);
    Scan { next: cursor.start, cr: cursor.cr }
}

/// The scalar twin of the kernels; takes over wherever they stopped.
fn rest<const CR: bool>(bytes: &[u8], delimiter: u8, limit: usize, cursor: &mut Cursor, out: &mut Vec<Span>) {
    if out.len() >= limit {
        return;
    }
    let base = cursor.at;
    for found in memchr::memchr_iter(delimiter, &bytes[base..]) {
        let newline = base + found;
        let cr = CR && newline > cursor.start && bytes[newline - 1] == b'\r';
        out.push(Span { start: cursor.start as u32, end: (newline - usize::from(cr)) as u32 });
        cursor.cr |= cr;
        cursor.start = newline + 1;
        if out.len() >= limit {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_oneof};
    use proptest::{prop_assert_eq, proptest};

    use super::{Cursor, Scan, Span, lines, rest};

    /// The scan as one would say it: split at newlines, drop the last piece, take one CR off each.
    fn naive(bytes: &[u8], from: usize, delimiter: u8, drop_cr: bool) -> (Vec<Span>, Scan) {
        let (mut spans, mut scan) = (Vec::new(), Scan { next: from, cr: false });
        for at in from..bytes.len() {
            if bytes[at] == delimiter {
                let cr = drop_cr && at > scan.next && bytes[at - 1] == b'\r';
                spans.push(Span { start: scan.next as u32, end: (at - usize::from(cr)) as u32 });
                scan = Scan { next: at + 1, cr: scan.cr | cr };
            }
        }
        (spans, scan)
    }

    fn check(bytes: &[u8], from: usize) {
        let (want, end) = naive(bytes, from, b'\n', true);
        let mut got = Vec::new();
        assert_eq!(lines(bytes, from, usize::MAX, &mut got), end);
        assert_eq!(got, want);
        let (want, end) = naive(bytes, from, 0, false);
        got.clear();
        assert_eq!(super::delimited(bytes, from, 0, usize::MAX, &mut got), end.next);
        assert_eq!(got, want);
        twins(bytes, from);
    }

    type Step = dyn Fn(&[u8], &mut Cursor, &mut Vec<Span>);

    /// Every form of the scan that this machine can run, with its own steps forced.
    fn twins(bytes: &[u8], from: usize) {
        if from == bytes.len() || bytes[from] == b'\n' {
            return;
        }
        let (want, end) = naive(bytes, from, b'\n', true);
        let scalar = |bytes: &[u8], cursor: &mut Cursor, out: &mut Vec<Span>| {
            rest::<true>(bytes, b'\n', usize::MAX, cursor, out);
        };
        let run = |step: &Step| {
            let (mut cursor, mut got) = (Cursor { at: from + 1, start: from, cr: false }, Vec::new());
            step(bytes, &mut cursor, &mut got);
            scalar(bytes, &mut cursor, &mut got);
            assert_eq!(got, want);
            assert_eq!(Scan { next: cursor.start, cr: cursor.cr }, end);
        };
        run(&|_, _, _| ());
        #[cfg(target_arch = "x86_64")]
        {
            use super::simd::x86;
            if x86::has_avx512() {
                // SAFETY: the features were found on this machine.
                run(&|b, c, o| unsafe { x86::avx512::<true>(b, b'\n', usize::MAX, c, o) });
            }
            if x86::has_avx2() {
                // SAFETY: the features were found on this machine.
                run(&|b, c, o| unsafe { x86::avx2::<true>(b, b'\n', usize::MAX, c, o) });
            }
        }
    }

    /// Bytes in which what matters is frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => b'a'..=b'z', 2 => proptest::strategy::Just(b'\n'),
            2 => proptest::strategy::Just(b'\r'), 1 => proptest::strategy::Just(0), 1 => any::<u8>()];
        vec(byte, 0..if cfg!(miri) { 400 } else { 2000 })
    }

    proptest! {
        #[test]
        fn scan_is_the_naive_scan(bytes in bytes(), from in any::<proptest::sample::Index>()) {
            check(&bytes, 0);
            check(&bytes, from.index(bytes.len() + 1));
        }

        #[test]
        fn a_limit_only_delays(bytes in bytes(), limit in 1usize..40) {
            let (want, end) = naive(&bytes, 0, b'\n', true);
            let (mut got, mut part, mut next) = (Vec::new(), Vec::new(), 0);
            loop {
                part.clear();
                let scan = lines(&bytes, next, limit, &mut part);
                assert!(part.len() < limit + 256);
                got.extend_from_slice(&part);
                if part.len() < limit {
                    prop_assert_eq!(scan.next, end.next);
                    break;
                }
                next = scan.next;
            }
            prop_assert_eq!(got, want);
        }
    }

    /// Miri takes a thousand times as long: it sees every thirty-first.
    const STEP: usize = if cfg!(miri) { 31 } else { 1 };

    #[test]
    fn every_length_and_alignment() {
        let pattern = b"ab\n\r\nc\n\n\r\r\nlonger text here\rno end\n";
        let bytes: Vec<u8> = pattern.iter().copied().cycle().take(900).collect();
        for len in (0..300).step_by(STEP) {
            for shift in [0, 1, 3, 31, 63, 64, 255, 300, 600 - len] {
                check(&bytes[shift..shift + len], 0);
            }
            check(&bytes[..600], len);
        }
    }

    #[test]
    fn one_newline_at_each_place() {
        for len in [319, 320, 321, 512, 513, 577, 640] {
            for at in (0..len).step_by(STEP) {
                let mut bytes = vec![b'x'; len];
                bytes[at] = b'\n';
                check(&bytes, 0);
                bytes[at.saturating_sub(1)] = b'\r';
                check(&bytes, 0);
            }
        }
    }

    #[test]
    fn all_newlines_and_none() {
        for len in [0, 1, 255, 256, 257, 320, if cfg!(miri) { 513 } else { 4096 }] {
            check(&vec![b'\n'; len], 0);
            check(&vec![b'\r'; len], 0);
            check(&vec![0; len], 0);
            check(&vec![b'x'; len], 0);
        }
    }

    #[test]
    fn a_carriage_return_before_the_scan_is_not_its_business() {
        let mut bytes = vec![b'x'; 700];
        bytes[99] = b'\r';
        bytes[100] = b'\n';
        let mut got = Vec::new();
        let scan = lines(&bytes, 100, usize::MAX, &mut got);
        assert_eq!(scan, Scan { next: 101, cr: false });
        assert_eq!(got, [Span { start: 100, end: 100 }]);
    }
}
