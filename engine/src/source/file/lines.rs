//! Cuts a file's bytes into runs of lines, across the borders of reads.
//!
//! Owns the unfinished line between two reads (the carry), the limit on a line's length and what happens beyond it.
//! Invariants: a line is given out once, whole, when its newline was seen or at [`Lines::finish`]; the carry holds at
//! most `max_line_bytes` and one read; positions only grow, and stay at a line's start until the line is given out.
//! Pure: it is handed bytes and offsets and knows no file.

use crate::batch::Span;
use crate::frame::newline;

/// What happens to a line longer than `max_line_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongLines {
    /// It becomes several records of at most that length.
    Split,
    /// It is dropped whole.
    Drop,
}

/// Lines of one run at most: bounds the spans of a file of nothing but newlines.
const RUN_LINES_MAX: usize = 32 << 10;

/// The state between two reads of one file.
#[derive(Debug)]
pub struct Lines {
    max: usize,
    long: LongLines,
    carry: Vec<u8>,
    /// Inside a line that is being dropped.
    skipping: bool,
    /// The bytes up to the first newline belong to the range before this one.
    seeking: bool,
    /// The last record ended without its newline (a flush, a split): a newline that comes first ends it, and is no
    /// empty line.
    unended: bool,
    /// The line at hand was given out in part: what comes first goes on with it.
    inside: bool,
    /// Whether the first line of the last [`Piece`] goes on with the one before.
    first_continues: bool,
    spans: Vec<Span>,
    counts: LineCounts,
}

/// What happened to lines beyond their limit. The same however the file was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Lines that were split.
    pub split: u64,
    /// Lines that were dropped.
    pub dropped: u64,
    /// Bytes of dropped lines, up to their newlines.
    pub dropped_bytes: u64,
}

/// A run of lines found in a segment; the spans are in [`Lines::spans`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Each line stands with its newline directly behind the one before.
    pub verbatim: bool,
    /// Offset in the segment behind the last line and its newline.
    pub next: usize,
}

impl Lines {
    /// Nothing read yet, at the start of a line.
    pub fn new(max_line_bytes: usize, long: LongLines) -> Self {
        Self {
            max: max_line_bytes.max(1),
            long,
            carry: Vec::new(),
            skipping: false,
            seeking: false,
            unended: false,
            inside: false,
            first_continues: false,
            spans: Vec::new(),
            counts: LineCounts::default(),
        }
    }

    /// What comes first belongs to the range before, up to and with the first newline.
    pub fn seek_line(&mut self) {
        self.seeking = true;
    }

    /// The byte before the position is not a newline: the line there was given out already as far as it was.
    pub fn resume_inside_line(&mut self) {
        self.unended = true;
    }

    /// The longest line.
    pub fn max_bytes(&self) -> usize {
        self.max
    }

    /// Bytes of the unfinished line that is kept.
    pub fn carried(&self) -> usize {
        self.carry.len()
    }

    /// The unfinished line, to be put in front of the next read's bytes; it is no longer kept.
    pub fn take_carry(&mut self, into: &mut [u8]) {
        into.copy_from_slice(&self.carry);
        self.carry.clear();
    }

    /// Puts a read's bytes behind a carry that is too long for any head room, and lends the whole.
    /// Give it back with [`Lines::restore_long`].
    pub fn append_long(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.carry);
        whole.extend_from_slice(bytes);
        whole
    }

    /// Takes back what [`Lines::append_long`] lent, without its first `used` bytes.
    pub fn restore_long(&mut self, mut whole: Vec<u8>, used: usize) {
        whole.drain(..used);
        if whole.is_empty() && whole.capacity() > 4 * self.max.min(1 << 20) {
            whole = Vec::new();
        }
        self.carry = whole;
    }

    /// The lines of the last [`Piece`].
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whether the line at hand was given out in part.
    pub fn is_inside(&self) -> bool {
        self.inside
    }

    /// How many lines of the last [`Piece`] start before `limit` or go on with one that does.
    pub fn starting_before(&self, limit: u64) -> usize {
        let mut n = self.spans.partition_point(|s| u64::from(s.start) < limit);
        if n == 0 && self.first_continues && !self.spans.is_empty() {
            n = 1;
        }
        while n > 0 && n < self.spans.len() && self.spans[n].start == self.spans[n - 1].end {
            n += 1;
        }
        n
    }

    /// Keeps only the first `n` lines of the last [`Piece`].
    pub fn keep_spans(&mut self, n: usize) {
        self.spans.truncate(n);
    }

    /// What was split and dropped since the last call.
    pub fn take_counts(&mut self) -> LineCounts {
        std::mem::take(&mut self.counts)
    }

    /// The next lines of `segment` from `at` on, or `None` when only an unfinished line is left; its start is then in
    /// `at`.
    pub fn next(&mut self, segment: &[u8], at: &mut usize) -> Option<Piece> {
        self.spans.clear();
        if !self.at_line(segment, at, false) {
            return None;
        }
        self.first_continues = self.inside;
        let scan = newline::lines(segment, *at, RUN_LINES_MAX, &mut self.spans);
        let mut verbatim = !scan.cr;
        if segment.len() - *at > self.max && self.spans.iter().any(|s| s.len() > self.max) {
            verbatim = false;
            self.cut_long(segment);
        }
        if scan.next > *at {
            self.unended = false;
            self.inside = false;
            *at = scan.next;
            if !self.spans.is_empty() {
                return Some(Piece { verbatim, next: *at });
            }
            // Every line was dropped: look on behind them.
            return self.next(segment, at);
        }
        self.cut_unfinished(segment, at)
    }

    /// The rest is a record: the file ended, or nothing came for long. `at` moves behind it.
    pub fn finish(&mut self, segment: &[u8], at: &mut usize) -> Option<Piece> {
        self.spans.clear();
        if !self.at_line(segment, at, true) || *at == segment.len() {
            return None;
        }
        self.push_cut(segment, Span { start: *at as u32, end: segment.len() as u32 }, self.inside);
        *at = segment.len();
        self.unended = true;
        (!self.spans.is_empty()).then_some(Piece { verbatim: false, next: *at })
    }

    /// Keeps the unfinished line for the next read.
    pub fn keep(&mut self, rest: &[u8]) {
        self.carry.clear();
        self.carry.extend_from_slice(rest);
    }

    /// Gives scratch memory back: the file rests.
    pub fn rest(&mut self) {
        self.spans = Vec::new();
        if self.carry.is_empty() {
            self.carry = Vec::new();
        }
    }

    /// At the start of another file's first line.
    pub fn restart(&mut self) {
        self.forget();
        (self.skipping, self.seeking, self.unended, self.inside) = (false, false, false, false);
    }

    /// Forgets the carry: the next read starts at its first byte again.
    pub fn forget(&mut self) {
        self.carry = Vec::new();
    }

    /// Moves `at` to the start of a line; `false` when the segment has none. `last`: nothing will follow the segment.
    fn at_line(&mut self, segment: &[u8], at: &mut usize, last: bool) -> bool {
        if self.unended && *at < segment.len() {
            match segment[*at..] {
                [b'\n', ..] => (*at, self.inside) = (*at + 1, false),
                [b'\r', b'\n', ..] => (*at, self.inside) = (*at + 2, false),
                // A lone CR may be half of the line's end: wait for what follows.
                [b'\r'] if !last => return false,
                _ => {}
            }
            self.unended = false;
        }
        if self.skipping || self.seeking {
            let Some(n) = memchr::memchr(b'\n', &segment[*at..]) else {
                self.counts.dropped_bytes += if self.skipping { (segment.len() - *at) as u64 } else { 0 };
                *at = segment.len();
                return false;
            };
            self.counts.dropped_bytes += if self.skipping { n as u64 } else { 0 };
            *at += n + 1;
            self.skipping = false;
            self.seeking = false;
        }
        true
    }

    /// Cuts or drops the spans that are too long.
    fn cut_long(&mut self, segment: &[u8]) {
        let whole = std::mem::take(&mut self.spans);
        for (i, span) in whole.into_iter().enumerate() {
            self.push_cut(segment, span, i == 0 && self.inside);
        }
    }

    /// `goes_on`: the line was given out in part, and is counted already.
    fn push_cut(&mut self, segment: &[u8], span: Span, goes_on: bool) {
        if span.len() <= self.max {
            return self.spans.push(span);
        }
        match self.long {
            LongLines::Drop => {
                self.counts.dropped += 1;
                // A line that is dropped before its end is seen cannot leave its CR out, so none does.
                let cr = segment.get(span.end as usize) == Some(&b'\r');
                self.counts.dropped_bytes += span.len() as u64 + u64::from(cr);
            }
            LongLines::Split => {
                self.counts.split += u64::from(!goes_on);
                let step = self.max as u32;
                let mut start = span.start;
                while start < span.end {
                    let end = span.end.min(start.saturating_add(step));
                    self.spans.push(Span { start, end });
                    start = end;
                }
            }
        }
    }

    /// The unfinished line at `at`: given out in part, or dropped, when it is already too long. One byte of grace, for
    /// a CR whose newline is still to come.
    fn cut_unfinished(&mut self, segment: &[u8], at: &mut usize) -> Option<Piece> {
        let rest = segment.len() - *at;
        if rest <= self.max + 1 {
            return None;
        }
        match self.long {
            LongLines::Drop => {
                self.counts.dropped += 1;
                self.counts.dropped_bytes += rest as u64;
                self.skipping = true;
                *at = segment.len();
                None
            }
            LongLines::Split => {
                // A line is counted when it is split first, however many reads it takes.
                self.counts.split += u64::from(!self.inside);
                while segment.len() - *at > self.max + 1 {
                    let end = *at + self.max;
                    self.spans.push(Span { start: *at as u32, end: end as u32 });
                    *at = end;
                }
                self.unended = true;
                self.inside = true;
                Some(Piece { verbatim: false, next: *at })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the rules say, for the whole file at once: records and where each ends.
    fn naive(file: &[u8], max: usize, long: LongLines) -> Vec<Vec<u8>> {
        let mut lines: Vec<&[u8]> = file.split(|b| *b == b'\n').collect();
        let last = lines.pop().unwrap_or_default();
        let mut records = Vec::new();
        for line in lines {
            push(&mut records, line.strip_suffix(b"\r").unwrap_or(line), max, long);
        }
        if !last.is_empty() {
            push(&mut records, last, max, long);
        }
        records
    }

    fn push(records: &mut Vec<Vec<u8>>, line: &[u8], max: usize, long: LongLines) {
        match long {
            _ if line.len() <= max => records.push(line.to_vec()),
            LongLines::Drop => {}
            LongLines::Split => records.extend(line.chunks(max).map(<[u8]>::to_vec)),
        }
    }

    /// Reads `file` in pieces of the given sizes, as the reader does: carry in front, or the long way.
    fn read(file: &[u8], sizes: &[usize], max: usize, long: LongLines, head: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(max, long);
        let (mut records, mut offset, mut i) = (Vec::new(), 0, 0);
        let mut take = |lines: &Lines, bytes: &[u8]| {
            records.extend(lines.spans().iter().map(|s| s.of(bytes).to_vec()));
        };
        while offset < file.len() {
            let n = sizes[i % sizes.len()].clamp(1, file.len() - offset);
            i += 1;
            let body = &file[offset..offset + n];
            offset += n;
            let whole = if lines.carried() > head {
                lines.append_long(body)
            } else {
                let mut front = vec![0; lines.carried()];
                lines.take_carry(&mut front);
                front.extend_from_slice(body);
                front
            };
            let mut at = 0;
            while lines.next(&whole, &mut at).is_some() {
                take(&lines, &whole);
            }
            lines.keep(&whole[at..]);
            assert!(lines.carried() <= max + 1);
        }
        let rest = lines.append_long(&[]);
        let mut at = 0;
        while lines.next(&rest, &mut at).is_some() {
            take(&lines, &rest);
        }
        if lines.finish(&rest, &mut at).is_some() {
            take(&lines, &rest);
        }
        records
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![3 => Just(b'a'), 1 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(0u8)],
            0..300,
        )
    }

    proptest! {
        #[test]
        fn however_a_file_is_read_its_lines_are_the_same(
            file in text(),
            sizes in prop::collection::vec(1usize..40, 1..6),
            max in 1usize..30,
            head in 0usize..20,
            drop in any::<bool>(),
        ) {
            let long = if drop { LongLines::Drop } else { LongLines::Split };
            prop_assert_eq!(read(&file, &sizes, max, long, head), naive(&file, max, long));
        }
    }

    #[test]
    fn a_newline_after_a_flushed_rest_is_no_empty_line() {
        let mut lines = Lines::new(100, LongLines::Split);
        let mut at = 0;
        assert!(lines.finish(b"abc", &mut at).is_some());
        let mut at = 0;
        let piece = lines.next(b"\n\ndef\n", &mut at);
        assert_eq!(lines.spans().len(), 2, "{piece:?}");
        assert_eq!(lines.spans()[0], Span { start: 1, end: 1 });
    }

    #[test]
    fn a_split_line_is_counted_once_and_the_next_one_does_not_go_on_with_it() {
        let mut lines = Lines::new(4, LongLines::Split);
        for _ in 0..3 {
            let mut at = 0;
            assert!(lines.next(b"0123456789", &mut at).is_some());
            assert_eq!((at, lines.is_inside()), (8, true));
        }
        let mut at = 0;
        assert!(lines.next(b"\nnext line\n", &mut at).is_some());
        assert_eq!(lines.starting_before(1), 0, "it begins behind the newline");
        assert_eq!(lines.take_counts().split, 2, "the long line, and the next one");
    }

    #[test]
    fn a_range_begins_behind_its_first_newline() {
        let mut lines = Lines::new(100, LongLines::Split);
        lines.seek_line();
        let mut at = 0;
        assert!(lines.next(b"tail of the line befo", &mut at).is_none());
        let mut at = 0;
        lines.next(b"re\nmine\n", &mut at);
        assert_eq!(lines.spans(), [Span { start: 3, end: 7 }]);
    }

    #[test]
    fn a_segment_of_newlines_comes_in_bounded_runs() {
        let file = vec![b'\n'; 200_000];
        let mut lines = Lines::new(100, LongLines::Split);
        let (mut at, mut n) = (0, 0);
        while lines.next(&file, &mut at).is_some() {
            assert!(lines.spans().len() <= RUN_LINES_MAX + 256);
            n += lines.spans().len();
        }
        assert_eq!(n, file.len());
    }
}
