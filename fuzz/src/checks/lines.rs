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
        let got = read_on(&mut Lines::new(max, long), file, sizes, head);
        assert_eq!(got, want, "reads of {sizes:?} and 1, {max} {long:?}");
    }
    for place in sizes {
        let border = 1 + usize::from(place) * file.len() / 256;
        for sizes in [&[255][..], &sizes] {
            assert_eq!(
                in_ranges(file, sizes, border, max, long),
                want.records,
                "ranges that meet at {border}, reads of {sizes:?} and 1, {max} {long:?}"
            );
        }
        goes_on(file.split_at(border.min(file.len())), &sizes, max, long, head);
    }
}

/// A file that was given out up to its end, and grew: what came is the rest of its last line or that line's end, for the same
/// `Lines` and for those of a later run, which know only what byte stands before it.
fn goes_on((before, behind): (&[u8], &[u8]), sizes: &[u8], max: usize, long: LongLines, head: usize) {
    let is_inside = before.last().is_some_and(|&last| last != b'\n');
    let end = match behind {
        [b'\n', ..] if is_inside => 1,
        [b'\r', b'\n', ..] if is_inside => 2,
        _ => 0,
    };
    let mut want = naive(&behind[end..], max, long);
    want.records.iter_mut().for_each(|record| *record = (record.0 + end, record.1 + end));

    let mut later = Lines::new(max, long);
    if is_inside {
        later.resume_inside_line();
    }
    assert_eq!(
        read_on(&mut later, behind, sizes, head),
        want,
        "behind {} bytes, {max} {long:?}",
        before.len()
    );
    // Of a line that is being dropped nothing more comes, which those of a later run cannot know.
    if long == LongLines::Split {
        let mut same = Lines::new(max, long);
        read_on(&mut same, before, sizes, head);
        let records = read_on(&mut same, behind, sizes, head).records;
        assert_eq!(records, want.records, "behind {} bytes, {max}", before.len());
    }
}

/// Two ranges of a file, as of one that is read in parallel: each line is of the range in which it begins.
fn in_ranges(file: &[u8], sizes: &[u8], border: usize, max: usize, long: LongLines) -> Vec<(usize, usize)> {
    let mut read = Read::default();
    let mut first = Lines::new(max, long);
    let (mut offset, mut sizes, mut ended) = (0, sizes.iter().cycle(), false);
    while !ended && offset < file.len() {
        let size = 1 + usize::from(*sizes.next().unwrap_or(&0));
        let body = &file[offset..file.len().min(offset + size)];
        let base = offset - first.carried();
        let bytes = first.append_long(body);
        offset += body.len();
        let mut at = 0;
        while !ended && first.next(&bytes, &mut at).is_some() {
            ended = give_before(&mut first, base, border, &mut read);
        }
        first.restore_long(bytes, at);
    }
    // What is left at the end is of this range if it begins here, or goes on with a line that does.
    let (base, rest) = (offset - first.carried(), first.append_long(&[]));
    let mut at = 0;
    if !ended && (base < border || first.is_inside()) && first.finish(&rest, &mut at).is_some() {
        give(&first, &rest, base, &mut read);
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
fn give_before(lines: &mut Lines, base: usize, border: usize, read: &mut Read) -> bool {
    let (all, ours) = (lines.spans().len(), lines.starting_before(border.saturating_sub(base) as u64));
    lines.keep_spans(ours);
    let place = |at: u32| base + at as usize;
    read.records.extend(lines.spans().iter().map(|span| (place(span.start), place(span.end))));
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
fn read_on(lines: &mut Lines, file: &[u8], sizes: &[u8], head: usize) -> Read {
    let mut read = Read::default();
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
        take(lines, &bytes, &mut at, base, &mut read);
        if carried > head {
            lines.restore_long(bytes, at);
        } else {
            lines.keep(&bytes[at..]);
        }
        assert!(lines.carried() <= lines.max_bytes() + 1, "{} bytes carried", lines.carried());
    }
    let rest = lines.append_long(&[]);
    let (mut at, base) = (0, file.len() - rest.len());
    take(lines, &rest, &mut at, base, &mut read);
    if lines.finish(&rest, &mut at).is_some() {
        give(lines, &rest, base, &mut read);
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
