//! Lines of a file, read in pieces as the file source reads: the same lines at the same places, however it is read.

use engine::source::file::lines::{LineCounts, Lines, LongLines};

use super::dial::Dial;

/// What a file became: where in the file each record lies, and what happened to long lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// From where to where.
    records: Vec<(usize, usize)>,
    counts: LineCounts,
}

/// Any file, any sizes of reads, any limit, with and without head room for the carry.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let long = if dial.flag() { LongLines::Drop } else { LongLines::Split };
    let max = 1 + dial.below(64);
    let head = dial.below(32);
    let sizes = dial.places();
    let file = dial.rest();
    let want = naive(file, max, long);
    for sizes in [&sizes[..], &[0], &[255]] {
        assert_eq!(read(file, sizes, max, long, head), want, "reads of {sizes:?} and 1, {max} {long:?}");
    }
    for place in sizes {
        let border = 1 + usize::from(place) * file.len() / 256;
        assert_eq!(
            in_ranges(file, border, max, long),
            want.records,
            "ranges that meet at {border}, {max} {long:?}"
        );
    }
}

/// Two ranges of a file, as of one that is read in parallel: each line is of the range in which it begins.
fn in_ranges(file: &[u8], border: usize, max: usize, long: LongLines) -> Vec<(usize, usize)> {
    let mut read = Read::default();
    let (mut first, mut at) = (Lines::new(max, long), 0);
    let mut ended = false;
    while !ended && first.next(file, &mut at).is_some() {
        ended = give_before(&mut first, border, &mut read);
    }
    // What is left at the end is of this range if it begins here, or goes on with a line that does.
    if !ended && (at < border || first.is_inside()) && first.finish(file, &mut at).is_some() {
        give(&first, file, 0, &mut read);
    }
    // The byte in front of the border tells whether a line begins there. The same `Lines` go from one file to another.
    let mut second = first;
    second.restart();
    second.rest();
    second.seek_line();
    let base = border - 1;
    let (bytes, mut at) = (file.get(base..).unwrap_or_default(), 0);
    take(&mut second, bytes, &mut at, base, &mut read);
    if second.finish(bytes, &mut at).is_some() {
        give(&second, bytes, base, &mut read);
    }
    read.records
}

/// Takes the lines that begin before the border, or go on with one that does; whether others follow.
fn give_before(lines: &mut Lines, border: usize, read: &mut Read) -> bool {
    let (all, ours) = (lines.spans().len(), lines.starting_before(border as u64));
    lines.keep_spans(ours);
    read.records.extend(lines.spans().iter().map(|span| (span.start as usize, span.end as usize)));
    ours < all
}

fn naive(file: &[u8], max: usize, long: LongLines) -> Read {
    let (mut read, mut start) = (Read::default(), 0);
    for whole in file.split_inclusive(|&byte| byte == b'\n') {
        let raw = whole.strip_suffix(b"\n").unwrap_or(whole);
        let line = if raw.len() < whole.len() { raw.strip_suffix(b"\r").unwrap_or(raw) } else { raw };
        match long {
            _ if line.len() <= max => read.records.push((start, start + line.len())),
            LongLines::Drop => {
                read.counts.dropped += 1;
                read.counts.dropped_bytes += raw.len() as u64;
            }
            LongLines::Split => {
                read.counts.split += 1;
                let end = start + line.len();
                read.records.extend((start..end).step_by(max).map(|at| (at, end.min(at + max))));
            }
        }
        start += whole.len();
    }
    read
}

/// Reads as the reader does: the carry in front of the next read, or the long way where there is no room for it.
fn read(file: &[u8], sizes: &[u8], max: usize, long: LongLines, head: usize) -> Read {
    let (mut lines, mut read) = (Lines::new(max, long), Read::default());
    let (mut offset, mut sizes) = (0, sizes.iter().cycle());
    while offset < file.len() {
        let size = 1 + usize::from(*sizes.next().unwrap_or(&0));
        let body = &file[offset..file.len().min(offset + size)];
        let carried = lines.carried();
        let bytes = if carried > head {
            lines.append_long(body)
        } else {
            let mut front = vec![0; carried];
            lines.take_carry(&mut front);
            [&front, body].concat()
        };
        // Positions count from the carry's first byte.
        let base = offset - carried;
        assert_eq!(bytes, file[base..offset + body.len()], "the carry is not what the file has there");
        offset += body.len();
        let mut at = 0;
        take(&mut lines, &bytes, &mut at, base, &mut read);
        if carried > head {
            lines.restore_long(bytes, at);
        } else {
            lines.keep(&bytes[at..]);
        }
        assert!(lines.carried() <= max + 1, "{} bytes carried", lines.carried());
    }
    let rest = lines.append_long(&[]);
    let (mut at, base) = (0, file.len() - rest.len());
    take(&mut lines, &rest, &mut at, base, &mut read);
    if lines.finish(&rest, &mut at).is_some() {
        give(&lines, &rest, base, &mut read);
    }
    assert_eq!(at, rest.len(), "the end of the file is not taken");
    read.counts = lines.take_counts();
    read
}

fn take(lines: &mut Lines, bytes: &[u8], at: &mut usize, base: usize, read: &mut Read) {
    loop {
        let from = *at;
        let Some(piece) = lines.next(bytes, at) else { return };
        assert!(from < *at && *at == piece.next && *at <= bytes.len(), "positions only grow");
        let spans = lines.spans();
        assert!(!spans.is_empty(), "a piece of nothing");
        if piece.verbatim {
            assert!(spans.windows(2).all(|pair| pair[1].start == pair[0].end + 1));
            assert!(spans.iter().all(|span| bytes[span.end as usize] == b'\n'));
        }
        give(lines, bytes, base, read);
    }
}

fn give(lines: &Lines, bytes: &[u8], base: usize, read: &mut Read) {
    for span in lines.spans() {
        assert!(span.start <= span.end && span.end as usize <= bytes.len());
        read.records.push((base + span.start as usize, base + span.end as usize));
    }
}
