//! The scan for lines against a scan byte by byte.

use engine::batch::Span;
use engine::frame::newline::{Kernel, Scan, delimited, lines, lines_by};

use super::dial::Dial;

/// The kernels begin to work at some hundred bytes: short inputs are repeated up to here.
const BYTES_MAX: usize = 16 << 10;

/// The scan finds what the naive scan finds, from any place and in each form the machine has, and a limit only delays it.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let (times, from, limit) = (1 + dial.below(32), dial.byte(), 1 + dial.below(64));
    let piece = dial.rest();
    let bytes = piece.repeat(times.min(BYTES_MAX / piece.len().max(1)).max(1));
    let from = usize::from(from) * (bytes.len() + 1) / 256;

    let (want, end) = naive(&bytes, from, b'\n', true);
    let mut got = Vec::new();
    assert_eq!(lines(&bytes, from, usize::MAX, &mut got), end);
    assert_eq!(got, want);
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
        got.clear();
        assert_eq!(lines_by(kernel, &bytes, from, usize::MAX, &mut got), end, "{kernel:?}");
        assert_eq!(got, want, "{kernel:?}");
    }
    in_steps(&bytes, from, limit, &want, end);

    let (want, end) = naive(&bytes, from, 0, false);
    got.clear();
    assert_eq!(delimited(&bytes, from, 0, usize::MAX, &mut got), end.next);
    assert_eq!(got, want);
}

fn in_steps(bytes: &[u8], from: usize, limit: usize, want: &[Span], end: Scan) {
    let (mut all, mut step, mut next, mut cr) = (Vec::new(), Vec::new(), from, false);
    loop {
        step.clear();
        let scan = lines(bytes, next, limit, &mut step);
        assert!(step.len() < limit + 256, "{} spans where {limit} were asked for", step.len());
        all.extend_from_slice(&step);
        (next, cr) = (scan.next, cr | scan.cr);
        if step.len() < limit {
            break;
        }
    }
    assert_eq!((Scan { next, cr }, &all[..]), (end, want));
}

fn naive(bytes: &[u8], from: usize, delimiter: u8, drop_cr: bool) -> (Vec<Span>, Scan) {
    let (mut spans, mut start, mut any_cr) = (Vec::new(), from, false);
    for at in from..bytes.len() {
        if bytes[at] == delimiter {
            let cr = drop_cr && at > start && bytes[at - 1] == b'\r';
            spans.push(Span { start: start as u32, end: (at - usize::from(cr)) as u32 });
            (start, any_cr) = (at + 1, any_cr | cr);
        }
    }
    (spans, Scan { next: start, cr: any_cr })
}
