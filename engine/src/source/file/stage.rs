//! What stands between a file's lines and its records: nothing, decoding, or joining.
//!
//! Invariants: records keep the order of their lines; a record's position is that of the end of its last line, so that a
//! restart begins with the first line that is in no record yet. Pure.

use super::join::Join;
use crate::batch::{Origin, Positions, Run, Span};
use crate::decode::{BadByte, Encode, OnBad, decode_run};
use crate::frame::multiline::Multiline;
use crate::metrics::{Reason, SourceCounters};

/// A line that did not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLine {
    /// File offset of the line.
    pub line_at: u64,
    /// The byte that cannot stand there, and where in the line.
    pub bad: BadByte,
    /// How the line should have been encoded.
    pub encode: Encode,
    /// What becomes of it.
    pub on_bad: OnBad,
}

/// The way from lines to records.
pub struct Stage {
    kind: Kind,
}

enum Kind {
    Plain,
    Decode(Box<Decode>),
    Join(Box<Join>),
}

struct Decode {
    encode: Encode,
    on_bad: OnBad,
    bytes: Vec<u8>,
    spans: Vec<Span>,
    positions: Vec<u64>,
    /// The first bad line since [`Stage::take_bad`].
    bad: Option<BadLine>,
    bad_lines: u64,
}

/// Records of a run of lines.
pub struct Staged<'a> {
    /// The records.
    pub run: Run<'a>,
    /// Input position behind what was used up; `None` when nothing is given out and nothing moves.
    pub upto: Option<u64>,
    /// The first line not taken yet: call again with it until it is the run's number of lines.
    pub next: usize,
    /// A bad line asks the source to stop.
    pub stop: bool,
}

impl Stage {
    /// Lines are records.
    pub fn plain() -> Self {
        Self { kind: Kind::Plain }
    }

    /// Each line is decoded to one record.
    pub fn decode(encode: Encode, on_bad: OnBad) -> Self {
        if encode == Encode::Text {
            return Self::plain();
        }
        Self {
            kind: Kind::Decode(Box::new(Decode {
                encode,
                on_bad,
                bytes: Vec::new(),
                spans: Vec::new(),
                positions: Vec::new(),
                bad: None,
                bad_lines: 0,
            })),
        }
    }

    /// Lines of at most `line_bytes_max` bytes are joined to records.
    pub fn join(rules: Multiline, line_bytes_max: usize) -> Self {
        Self { kind: Kind::Join(Box::new(Join::new(rules, line_bytes_max))) }
    }

    /// Whether lines are records as they stand.
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// The records of the lines of a run from `from` on; counts them and what was dropped.
    pub fn take<'a>(&'a mut self, run: &Run<'a>, from: usize, counters: &SourceCounters) -> Staged<'a> {
        match &mut self.kind {
            Kind::Plain => {
                debug_assert_eq!(from, 0, "a plain run is taken whole");
                counters.records.add(run.records.len() as u64);
                let upto = run.records.len().checked_sub(1).map(|last| run.position_after(last));
                Staged { run: *run, upto, next: run.records.len(), stop: false }
            }
            Kind::Decode(decode) => decode.take(run, counters),
            Kind::Join(join) => join.take(run, from, counters),
        }
    }

    /// The group that is held for more lines, whatever its age: a record of `origin`.
    pub fn flush<'a>(
        &'a mut self,
        origin: &'a Origin,
        now_ns: i64,
        counters: &SourceCounters,
    ) -> Option<Staged<'a>> {
        match &mut self.kind {
            Kind::Plain | Kind::Decode(_) => None,
            Kind::Join(join) => join.flush(origin, now_ns, counters),
        }
    }

    /// Memory of lines that are in no record yet.
    pub fn held_bytes(&self) -> usize {
        match &self.kind {
            Kind::Plain | Kind::Decode(_) => 0,
            Kind::Join(join) => join.held_bytes(),
        }
    }

    /// Whether lines are held that are in no record yet.
    pub fn is_holding(&self) -> bool {
        self.due_ns().is_some()
    }

    /// When what is held becomes a record if no line comes, in nanoseconds since the Unix epoch.
    pub fn due_ns(&self) -> Option<i64> {
        match &self.kind {
            Kind::Plain | Kind::Decode(_) => None,
            Kind::Join(join) => join.due_ns(),
        }
    }

    /// Whether what is held waits no longer.
    pub fn due(&self, now_ns: i64) -> bool {
        self.due_ns().is_some_and(|due| now_ns >= due)
    }

    /// Forgets what is held: the input goes on elsewhere.
    pub fn forget(&mut self) {
        if let Kind::Join(join) = &mut self.kind {
            join.forget();
        }
    }

    /// The first bad line since the last call, and how many there were.
    pub fn take_bad(&mut self) -> Option<(BadLine, u64)> {
        let Kind::Decode(decode) = &mut self.kind else { return None };
        let bad = decode.bad.take()?;
        Some((bad, std::mem::take(&mut decode.bad_lines)))
    }
}

impl Decode {
    fn take<'a>(&'a mut self, run: &Run<'a>, counters: &SourceCounters) -> Staged<'a> {
        self.bytes.clear();
        self.spans.clear();
        self.positions.clear();
        let mut seen = Seen { stopped: None, skipped: Vec::new(), first: None, bad: 0 };
        let on_bad = self.on_bad;
        decode_run(self.encode, run.bytes, run.records, &mut self.bytes, &mut self.spans, &mut |i, bad| {
            seen.note(i, bad, on_bad)
        });
        let used = seen.stopped.unwrap_or(run.records.len());
        self.positions.extend(seen.kept(used).map(|i| run.position_after(i)));
        debug_assert_eq!(self.positions.len(), self.spans.len());
        counters.records.add(used as u64);
        counters.errors.add(seen.bad);
        counters.drop_records(Reason::BadLine, seen.skipped.len() as u64);
        self.bad_lines += seen.bad;
        if let (None, Some((i, bad))) = (self.bad, seen.first) {
            let (encode, line_at) = (self.encode, start_of(run, i));
            self.bad = Some(BadLine { line_at, bad, encode, on_bad });
        }
        let upto = used.checked_sub(1).map(|last| run.position_after(last));
        // A skipped line at the end still moves the input on with the last record of the run.
        if let (Some(last), Some(upto)) = (self.positions.last_mut(), upto) {
            *last = upto;
        }
        let staged = Run {
            bytes: &self.bytes,
            records: &self.spans,
            verbatim: false,
            positions: Positions::Each(&self.positions),
            ..*run
        };
        Staged { run: staged, upto, next: run.records.len(), stop: seen.stopped.is_some() }
    }
}

/// Input position of the first byte of line `i`.
fn start_of(run: &Run<'_>, i: usize) -> u64 {
    match run.positions {
        Positions::Linear { base, .. } => base + u64::from(run.records[i].start),
        Positions::Each(each) => i.checked_sub(1).map_or(0, |before| each[before]),
    }
}

struct Seen {
    stopped: Option<usize>,
    skipped: Vec<usize>,
    first: Option<(usize, BadByte)>,
    bad: u64,
}

impl Seen {
    fn note(&mut self, i: usize, bad: BadByte, on_bad: OnBad) -> OnBad {
        self.first.get_or_insert((i, bad));
        self.bad += 1;
        match on_bad {
            OnBad::Skip => self.skipped.push(i),
            OnBad::Stop => self.stopped = Some(i),
            OnBad::Pass => {}
        }
        on_bad
    }

    /// Lines up to `used` that gave a record.
    fn kept(&self, used: usize) -> impl Iterator<Item = usize> + '_ {
        let mut skipped = self.skipped.iter().copied().peekable();
        (0..used).filter(move |i| skipped.next_if_eq(i).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Columns;

    fn lines(bytes: &[u8]) -> Vec<Span> {
        let mut spans = Vec::new();
        crate::frame::newline::lines(bytes, 0, usize::MAX, &mut spans);
        spans
    }

    fn run<'a>(bytes: &'a [u8], spans: &'a [Span], origin: &'a Origin) -> Run<'a> {
        Run {
            bytes,
            records: spans,
            verbatim: true,
            columns: Columns::None,
            peers: &[],
            origin,
            received_ns: 0,
            positions: Positions::Linear { base: 1000, upto: 1000 + bytes.len() as u64 },
        }
    }

    fn origin() -> Origin {
        Origin::new("s", "h")
    }

    #[test]
    fn a_bad_line_is_skipped_counted_and_passed_by_the_position() {
        let bytes = b"4142\nzz\n43\nxx\n";
        let (spans, origin, counters) = (lines(bytes), origin(), SourceCounters::default());
        let mut stage = Stage::decode(Encode::Hex, OnBad::Skip);
        let staged = stage.take(&run(bytes, &spans, &origin), 0, &counters);
        let records: Vec<&[u8]> = staged.run.records.iter().map(|s| s.of(staged.run.bytes)).collect();
        assert_eq!(records, [&b"AB"[..], b"C"]);
        assert_eq!((staged.run.position_after(0), staged.run.position_after(1)), (1005, 1014));
        assert_eq!((staged.upto, staged.next, staged.stop), (Some(1014), 4, false));
        assert_eq!((counters.records.get(), counters.dropped[Reason::BadLine as usize].get()), (4, 2));
        let (bad, n) = stage.take_bad().unwrap();
        assert_eq!((bad.line_at, bad.bad.at, n), (1005, 0, 2));
    }

    #[test]
    fn stop_ends_the_run_before_the_bad_line() {
        let bytes = b"4142\nzz\n43\n";
        let (spans, origin, counters) = (lines(bytes), origin(), SourceCounters::default());
        let mut stage = Stage::decode(Encode::Hex, OnBad::Stop);
        let staged = stage.take(&run(bytes, &spans, &origin), 0, &counters);
        assert_eq!((staged.run.records.len(), staged.upto, staged.stop), (1, Some(1005), true));
        assert_eq!(counters.records.get(), 1);
    }

    #[test]
    fn pass_gives_the_raw_line() {
        let bytes = b"zz\n43\n";
        let (spans, origin, counters) = (lines(bytes), origin(), SourceCounters::default());
        let mut stage = Stage::decode(Encode::Hex, OnBad::Pass);
        let staged = stage.take(&run(bytes, &spans, &origin), 0, &counters);
        let records: Vec<&[u8]> = staged.run.records.iter().map(|s| s.of(staged.run.bytes)).collect();
        assert_eq!(records, [&b"zz"[..], b"C"]);
        assert_eq!(counters.errors.get(), 1);
    }
}
