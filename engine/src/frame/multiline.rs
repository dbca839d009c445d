//! Lines to records: a stack trace, a pretty-printed document, whatever one event wrote as several lines.
//!
//! A record is the stretch of input from its first line's start to its last line's end, newlines inside kept as they were. As long
//! as its lines lie in one run it is a span over that run; only the group at a run's end, which may go on in the next, is
//! copied into the carry. However the lines are cut into runs, the records are the same.
//!
//! A group ends where a line begins a record, where its lines or bytes reach their limit (what follows is then a group
//! of its own, whatever it looks like), where a line between was dropped, and when no line came for the timeout, by the
//! clock that the caller passes in.
//!
//! Invariants: the carry holds one group, within the limit of bytes or a single line. Positions are those behind a record's last
//! line, so a restart reads a group that was not given out from its start.

use regex::bytes::{Regex, RegexBuilder};

use super::carry::Carry;
use crate::batch::{Run, Span};

/// A compiled pattern may take this much; counted repetitions of counted repetitions would take all there is.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Which lines begin a record.
#[derive(Debug, Clone)]
pub enum Begins {
    /// Those in which the pattern matches.
    Pattern(Regex),
    /// Those that do not begin with a blank or a tab. An empty line begins a record too.
    Unindented,
}

impl Begins {
    /// A pattern over bytes: classes such as `\d` are ASCII, `.` is any byte.
    ///
    /// # Errors
    /// Why the pattern is none, in several lines of text, of which one points at the place.
    pub fn pattern(pattern: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES_MAX).build();
        built.map(Self::Pattern).map_err(|error| error.to_string())
    }

    fn begins(&self, line: &[u8]) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match(line),
            Self::Unindented => !matches!(line.first(), Some(b' ' | b'\t')),
        }
    }
}

/// The rules of one input.
#[derive(Debug, Clone)]
pub struct Multiline {
    /// Which lines begin a record.
    pub begins: Begins,
    /// A record has at most so many lines (pieces, where a line was split); at least 1.
    pub lines_max: u32,
    /// A record of several lines has at most so many bytes.
    pub bytes_max: usize,
    /// A group to which no line came for so long is a record.
    pub timeout_ns: u64,
}

/// A record in the carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// Where it lies in [`Joiner::carry`].
    pub span: Span,
    /// The input position behind it.
    pub upto: u64,
}

/// What a call yields: the carried group, then the spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// A record that began in an earlier run.
    pub carried: Option<Group>,
    /// The first line not taken; the run's number of lines when all are.
    pub next: usize,
}

/// The joining of one input.
#[derive(Debug)]
pub struct Joiner {
    rules: Multiline,
    carry: Carry,
    open: Option<Open>,
}

/// The group in the carry.
#[derive(Debug, Clone, Copy)]
struct Open {
    lines: u32,
    /// What stands between its last line and the next.
    ending: Ending,
    upto: u64,
    grown_ns: i64,
}

/// How a line ends in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Not yet: it was split, or cut off; what follows goes on with it.
    None,
    Newline,
    CarriageReturn,
}

impl Ending {
    fn behind(bytes: &[u8], line: Span) -> Self {
        match &bytes[line.end as usize..] {
            [b'\n', ..] => Self::Newline,
            [b'\r', b'\n', ..] => Self::CarriageReturn,
            _ => Self::None,
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::None => b"",
            Self::Newline => b"\n",
            Self::CarriageReturn => b"\r\n",
        }
    }
}

impl Joiner {
    /// Joining for a new input whose lines have at most `line_bytes_max` bytes.
    ///
    /// # Panics
    /// If a record may have no line.
    pub fn new(rules: Multiline, line_bytes_max: usize) -> Self {
        assert!(rules.lines_max > 0, "records of no line");
        let carry = Carry::new(rules.bytes_max.max(line_bytes_max));
        Self { rules, carry, open: None }
    }

    /// Takes the lines of `run` from `from` on. `spans` and `positions` are cleared, then hold the records that lie in place and the
    /// input positions behind them.
    ///
    /// Call it again with `next` until all lines are taken; one call yields at most one carried group, valid until the next call.
    pub fn join(
        &mut self,
        run: &Run<'_>,
        from: usize,
        now_ns: i64,
        spans: &mut Vec<Span>,
        positions: &mut Vec<u64>,
    ) -> Joined {
        spans.clear();
        positions.clear();
        self.carry.release();
        let mut next = self.go_on(run, from, now_ns);
        let carried = if next < run.records.len() || self.is_full() { self.flush() } else { None };
        while next < run.records.len() {
            let behind = self.group_end(run, next);
            let (first, last) = (run.records[next], run.records[behind - 1]);
            let full = behind - next >= self.rules.lines_max as usize;
            if behind == run.records.len() && !full {
                if !self.carry.is_given() {
                    self.open_with(run, next, now_ns);
                    next = behind;
                }
                break;
            }
            spans.push(Span { start: first.start, end: last.end });
            positions.push(run.position_after(behind - 1));
            next = behind;
        }
        Joined { carried, next }
    }

    /// The group that is held, if no line came for the timeout.
    pub fn expire(&mut self, now_ns: i64) -> Option<Group> {
        if self.deadline_ns().is_some_and(|deadline| now_ns >= deadline) { self.flush() } else { None }
    }

    /// When the group that is held becomes a record, if no line comes.
    pub fn deadline_ns(&self) -> Option<i64> {
        self.open.map(|open| open.grown_ns.saturating_add_unsigned(self.rules.timeout_ns))
    }

    /// The group that is held, now: the input ends here.
    pub fn flush(&mut self) -> Option<Group> {
        self.carry.release();
        let open = self.open.take()?;
        // A newline behind it, so that a record of nothing is there to be given too.
        self.carry.extend(b"\n");
        let len = self.carry.content().len();
        self.carry.give(len);
        Some(Group { span: Span { start: 0, end: len as u32 - 1 }, upto: open.upto })
    }

    /// Forgets the group that is held: the input starts anew.
    pub fn forget(&mut self) {
        self.carry.release();
        self.carry.clear();
        self.open = None;
    }

    /// The carried group of the last call.
    pub fn carry(&self) -> &[u8] {
        self.carry.given()
    }

    /// Memory the carry holds, for who keeps account of it.
    pub fn held_bytes(&self) -> usize {
        self.carry.capacity()
    }

    fn is_full(&self) -> bool {
        self.open.is_some_and(|open| open.lines >= self.rules.lines_max)
    }

    /// Appends to the held group what belongs to it; returns the first line that does not.
    fn go_on(&mut self, run: &Run<'_>, from: usize, now_ns: i64) -> usize {
        let Some(mut open) = self.open else { return from };
        let mut next = from;
        while let Some(line) = run.records.get(next) {
            let len = self.carry.content().len() + open.ending.bytes().len() + line.len();
            let gap = next > from && !is_adjacent(run.bytes, run.records[next - 1], *line);
            if gap
                || open.lines >= self.rules.lines_max
                || !self.belongs(open.ending, line.of(run.bytes), len)
            {
                break;
            }
            self.carry.extend(open.ending.bytes());
            self.carry.extend(line.of(run.bytes));
            open = Open {
                lines: open.lines + 1,
                ending: Ending::behind(run.bytes, *line),
                upto: run.position_after(next),
                grown_ns: now_ns,
            };
            next += 1;
        }
        self.open = Some(open);
        next
    }

    /// Behind the last line of the group that begins with line `first`, as far as the run goes.
    fn group_end(&self, run: &Run<'_>, first: usize) -> usize {
        let start = run.records[first].start;
        let mut next = first + 1;
        while let Some(&line) = run.records.get(next) {
            let before = run.records[next - 1];
            let ending = Ending::behind(run.bytes, before);
            let len = (line.end - start) as usize;
            if next - first >= self.rules.lines_max as usize
                || !is_adjacent(run.bytes, before, line)
                || !self.belongs(ending, line.of(run.bytes), len)
            {
                break;
            }
            next += 1;
        }
        next
    }

    /// Whether a line goes on with the group before it, which it makes `len` bytes long.
    fn belongs(&self, ending: Ending, line: &[u8], len: usize) -> bool {
        len <= self.rules.bytes_max && (ending == Ending::None || !self.rules.begins.begins(line))
    }

    /// Copies the lines from `first` to the run's end into the carry.
    fn open_with(&mut self, run: &Run<'_>, first: usize, now_ns: i64) {
        let lines = &run.records[first..];
        let last = lines[lines.len() - 1];
        self.carry.extend(&run.bytes[lines[0].start as usize..last.end as usize]);
        self.open = Some(Open {
            lines: lines.len() as u32,
            ending: Ending::behind(run.bytes, last),
            upto: run.position_after(run.records.len() - 1),
            grown_ns: now_ns,
        });
    }
}

/// Whether nothing but the first line's ending stands between the two.
fn is_adjacent(bytes: &[u8], before: Span, line: Span) -> bool {
    line.start as usize == before.end as usize + Ending::behind(bytes, before).bytes().len()
}

#[cfg(test)]
mod tests {

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::{prop_assert_eq, proptest};

    use super::{Begins, Joiner, Multiline};
    use crate::batch::{Columns, Origin, Positions, Run, Span};
    use crate::frame::newline;

    fn rules(begins: Begins) -> Multiline {
        Multiline { begins, lines_max: 100, bytes_max: 10_000, timeout_ns: 1000 }
    }

    fn dated() -> Begins {
        Begins::pattern(r"^\d{4}-").expect("a pattern")
    }

    /// Records and the positions behind them, as the joiner gives them for an input that comes in pieces of whole lines.
    fn joined<'a>(rules: &Multiline, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, u64)> {
        let origin = Origin::new("s", "h");
        let mut joiner = Joiner::new(rules.clone(), 1 << 20);
        let (mut records, mut base) = (Vec::new(), 0);
        let (mut lines, mut spans, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for bytes in pieces {
            lines.clear();
            let end = newline::lines(bytes, 0, usize::MAX, &mut lines).next;
            if end < bytes.len() {
                lines.push(Span { start: end as u32, end: bytes.len() as u32 });
            }
            let upto = base + bytes.len() as u64;
            let run = Run {
                bytes,
                records: &lines,
                verbatim: false,
                columns: Columns::None,
                peers: &[],
                origin: &origin,
                received_ns: 0,
                positions: Positions::Linear { base, upto },
            };
            let mut next = 0;
            while next < lines.len() {
                let step = joiner.join(&run, next, 0, &mut spans, &mut positions);
                assert!(step.next > next || step.carried.is_some(), "no progress");
                records
                    .extend(step.carried.map(|group| (group.span.of(joiner.carry()).to_vec(), group.upto)));
                assert_eq!(spans.len(), positions.len());
                records.extend(
                    spans.iter().zip(&positions).map(|(span, &upto)| (span.of(bytes).to_vec(), upto)),
                );
                assert!(joiner.held_bytes() <= (1 << 20) + 64);
                next = step.next;
            }
            base = upto;
        }
        records.extend(joiner.flush().map(|group| (group.span.of(joiner.carry()).to_vec(), group.upto)));
        records
    }

    /// The same, by someone who has all lines, each with its ending, and joins them one by one.
    fn naive(rules: &Multiline, input: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let mut records: Vec<(Vec<u8>, u32, &[u8])> = Vec::new();
        let mut positions = Vec::new();
        let mut upto = 0;
        for whole in input.split_inclusive(|&byte| byte == b'\n') {
            upto += whole.len() as u64;
            let line =
                whole.strip_suffix(b"\n").map_or(whole, |line| line.strip_suffix(b"\r").unwrap_or(line));
            let ending = &whole[line.len()..];
            match records.last_mut() {
                Some((record, lines, last))
                    if !rules.begins.begins(line)
                        && *lines < rules.lines_max
                        && record.len() + last.len() + line.len() <= rules.bytes_max =>
                {
                    record.extend_from_slice(last);
                    record.extend_from_slice(line);
                    *lines += 1;
                    *last = ending;
                    positions.pop();
                }
                _ => records.push((line.to_vec(), 1, ending)),
            }
            positions.push(upto);
        }
        records.into_iter().map(|(record, ..)| record).zip(positions).collect()
    }

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(""),
            Just("2024-01-01 start"),
            Just("  indented"),
            Just("\tat x.y(Z)"),
            Just("free"),
            Just(" "),
            Just("a\rb")
        ];
        let ending = prop_oneof![3 => Just("\n"), 1 => Just("\r\n")];
        (vec((line, ending), 0..40), any::<bool>()).prop_map(|(lines, whole)| {
            let mut input: Vec<u8> =
                lines.iter().flat_map(|(line, end)| [*line, *end]).collect::<String>().into();
            if !whole {
                input.extend_from_slice(b"no end");
            }
            input
        })
    }

    proptest! {
        #[test]
        fn runs_do_not_matter(
            input in input(),
            cuts in vec(any::<bool>(), 41),
            indent: bool,
            lines_max in prop_oneof![1u32..5, Just(1000)],
            bytes_max in prop_oneof![1usize..60, Just(10_000)],
        ) {
            let begins = if indent { Begins::Unindented } else { dated() };
            let rules = Multiline { begins, lines_max, bytes_max, timeout_ns: 0 };
            let mut pieces = vec![0];
            let mut at = 0;
            for (line, cut) in input.split_inclusive(|&byte| byte == b'\n').zip(cuts) {
                at += line.len();
                if cut {
                    pieces.push(at);
                }
            }
            pieces.push(input.len());
            let pieces = pieces.windows(2).map(|pair| &input[pair[0]..pair[1]]);
            let want = naive(&rules, &input);
            prop_assert_eq!(joined(&rules, [&input[..]]), want.clone());
            prop_assert_eq!(joined(&rules, pieces), want);
        }
    }

    fn texts(records: Vec<(Vec<u8>, u64)>) -> Vec<String> {
        records.into_iter().map(|(record, _)| String::from_utf8(record).expect("text")).collect()
    }

    #[test]
    fn a_stack_trace_is_one_record() {
        let input = b"2024-01-01 boom\n\tat a\n\tat b\nCaused by: c\n2024-01-02 next\n";
        assert_eq!(
            texts(joined(&rules(dated()), [&input[..]])),
            ["2024-01-01 boom\n\tat a\n\tat b\nCaused by: c", "2024-01-02 next"]
        );
        assert_eq!(
            texts(joined(&rules(Begins::Unindented), [&input[..]])),
            ["2024-01-01 boom\n\tat a\n\tat b", "Caused by: c", "2024-01-02 next"]
        );
    }

    #[test]
    fn pieces_of_a_split_line_stay_together() {
        let origin = Origin::new("s", "h");
        let bytes = b"2024-2024-\nnext";
        let lines = [Span { start: 0, end: 5 }, Span { start: 5, end: 10 }, Span { start: 11, end: 15 }];
        let run = |records| Run {
            bytes,
            records,
            verbatim: false,
            columns: Columns::None,
            peers: &[],
            origin: &origin,
            received_ns: 0,
            positions: Positions::Linear { base: 0, upto: 15 },
        };
        for cut in 0..=3 {
            let mut joiner = Joiner::new(rules(dated()), 100);
            let (mut spans, mut positions) = (Vec::new(), Vec::new());
            for part in [&lines[..cut], &lines[cut..]] {
                joiner.join(&run(part), 0, 0, &mut spans, &mut positions);
                assert!(spans.is_empty());
            }
            let group = joiner.flush().expect("a group");
            assert_eq!(group.span.of(joiner.carry()), bytes);
        }
    }

    #[test]
    fn time_ends_a_group() {
        let origin = Origin::new("s", "h");
        let run = Run {
            bytes: b"2024-x\n",
            records: &[Span { start: 0, end: 6 }],
            verbatim: false,
            columns: Columns::None,
            peers: &[],
            origin: &origin,
            received_ns: 0,
            positions: Positions::Linear { base: 40, upto: 47 },
        };
        let mut joiner = Joiner::new(rules(dated()), 100);
        assert_eq!((joiner.deadline_ns(), joiner.expire(i64::MAX)), (None, None));
        joiner.join(&run, 0, 500, &mut Vec::new(), &mut Vec::new());
        assert_eq!((joiner.deadline_ns(), joiner.expire(1499)), (Some(1500), None));
        let group = joiner.expire(1500).expect("a group");
        assert_eq!((group.span.of(joiner.carry()), group.upto), (&b"2024-x"[..], 47));
        assert_eq!((joiner.deadline_ns(), joiner.flush()), (None, None));
    }

    #[test]
    fn patterns_have_bounds_and_reasons() {
        assert!(Begins::pattern("(").expect_err("no pattern").contains("unclosed group"));
        assert!(Begins::pattern(r"(\w{1000}){1000}").is_err());
        assert!(Begins::pattern("^\u{e9}t\u{e9}").is_ok());
    }
}
