//! Joining lines: the same records and positions however lines come in runs, and a group ends only for a reason.

use engine::batch::{Columns, Origin, Positions, Run, Span};
use engine::frame::multiline::{Begins, Group, Joiner, Multiline};

use super::dial::Dial;

const TIMEOUT_NS: u64 = 1000;

/// Whether a line begins a record: the rule in the engine's form, and as one says it.
type Rule = (Begins, fn(&[u8]) -> bool);

/// Any lines under any limits, in one run, in several, and each in its own. Lines beyond the limit of a line come in parts.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let first = usize::from(dial.byte());
    let line_bytes_max = if first < 3 { usize::MAX } else { first / 3 };
    let (begins, begins_naive): Rule = match first % 3 {
        0 => (Begins::Unindented, |line| !matches!(line.first(), Some(b' ' | b'\t'))),
        1 => (pattern(r"^\d{2}-"), |line| {
            line.len() >= 3 && line[0].is_ascii_digit() && line[1].is_ascii_digit() && line[2] == b'-'
        }),
        _ => (pattern("[{]"), |line| line.contains(&b'{')),
    };
    let lines_max = 1 + dial.below(6) as u32;
    let bytes_max = 1 + usize::from(dial.byte());
    let places = dial.places();
    let input = dial.rest();
    let rules = Multiline { begins, lines_max, bytes_max, timeout_ns: TIMEOUT_NS };

    let lines = lines(input, line_bytes_max);
    let whole = join(&rules, input, [&lines[..]].into_iter());
    assert_eq!(join(&rules, input, runs(&lines, &places)), whole, "cut at {places:?}");
    assert_eq!(join(&rules, input, lines.chunks(1)), whole, "line by line");
    groups_have_reasons(&rules, begins_naive, input, &lines, &whole);
}

fn pattern(text: &str) -> Begins {
    Begins::pattern(text).expect("the pattern is one")
}

/// A line without its ending, or a part of a long one, and the offset behind it and its ending.
struct Line {
    span: Span,
    upto: u32,
}

impl Line {
    fn of<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        self.span.of(input)
    }

    /// Only the last part of a line has an ending, and not that at the input's end.
    fn has_ending(&self) -> bool {
        self.upto > self.span.end
    }
}

/// Lines in parts of at most so many bytes; what has no newline at the input's end is one too.
fn lines(input: &[u8], bytes_max: usize) -> Vec<Line> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for whole in input.split_inclusive(|&byte| byte == b'\n') {
        let ending = if whole.ends_with(b"\r\n") { 2 } else { usize::from(whole.ends_with(b"\n")) };
        let (end, upto) = (start + whole.len() - ending, start + whole.len());
        while end - start > bytes_max {
            let part = Span { start: start as u32, end: (start + bytes_max) as u32 };
            lines.push(Line { span: part, upto: part.end });
            start += bytes_max;
        }
        lines.push(Line { span: Span { start: start as u32, end: end as u32 }, upto: upto as u32 });
        start = upto;
    }
    lines
}

/// The lines in several runs.
fn runs<'a>(lines: &'a [Line], places: &[u8]) -> impl Iterator<Item = &'a [Line]> {
    let mut at: Vec<usize> = places.iter().map(|&place| usize::from(place) * lines.len() / 256).collect();
    at.extend([0, lines.len()]);
    at.sort_unstable();
    at.dedup();
    (1..at.len()).map(move |i| &lines[at[i - 1]..at[i]])
}

/// Records and the positions behind them.
fn join<'a>(rules: &Multiline, input: &[u8], runs: impl Iterator<Item = &'a [Line]>) -> Vec<(Vec<u8>, u64)> {
    let mut joiner = Joiner::new(rules.clone(), 1 << 20);
    let (mut records, mut now_ns) = (Vec::new(), 0);
    let (mut spans, mut positions) = (Vec::new(), Vec::new());
    begins_and_forgets(&mut joiner, &mut spans, &mut positions);
    let take = |joiner: &Joiner, group: Group| (group.span.of(joiner.carry()).to_vec(), group.upto);
    let origin = origin();
    for lines in runs.filter(|lines| !lines.is_empty()) {
        let (base, upto) = (lines[0].span.start, lines[lines.len() - 1].upto);
        let bytes = &input[base as usize..upto as usize];
        let lines: Vec<Span> = lines
            .iter()
            .map(|line| Span { start: line.span.start - base, end: line.span.end - base })
            .collect();
        let run = run(bytes, &lines, &origin, base.into());
        now_ns += TIMEOUT_NS as i64 - 1;
        assert_eq!(joiner.expire(now_ns), None, "it was not silent for so long");
        let mut next = 0;
        while next < lines.len() {
            let step = joiner.join(&run, next, now_ns, &mut spans, &mut positions);
            assert!(step.next > next || step.carried.is_some(), "no progress");
            records.extend(step.carried.map(|group| take(&joiner, group)));
            assert_eq!(spans.len(), positions.len());
            records.extend(spans.iter().zip(&positions).map(|(span, &upto)| (span.of(bytes).to_vec(), upto)));
            assert!(joiner.held_bytes() <= (1 << 20) + 64);
            next = step.next;
        }
    }
    let deadline = joiner.deadline_ns();
    assert!(deadline.is_none_or(|at| at == now_ns + TIMEOUT_NS as i64));
    let last = deadline.and_then(|at| joiner.expire(at));
    records.extend(last.map(|group| take(&joiner, group)));
    assert_eq!(joiner.flush(), None);
    records
}

/// An input that starts anew while a group is held leaves nothing of it.
fn begins_and_forgets(joiner: &mut Joiner, spans: &mut Vec<Span>, positions: &mut Vec<u64>) {
    let step = joiner.join(&run(b"{", &[Span { start: 0, end: 1 }], &origin(), 0), 0, 0, spans, positions);
    assert_eq!(step.next, 1);
    joiner.forget();
    assert_eq!(joiner.deadline_ns(), None);
}

fn origin() -> Origin {
    Origin::new("s", "h")
}

fn run<'a>(bytes: &'a [u8], records: &'a [Span], origin: &'a Origin, base: u64) -> Run<'a> {
    Run {
        bytes,
        records,
        verbatim: false,
        columns: Columns::None,
        peers: &[],
        origin,
        received_ns: 0,
        positions: Positions::Linear { base, upto: base + bytes.len() as u64 },
    }
}

/// Records with their endings are the input; a line that begins one is first in its group; and a group ended because such a
/// line came or a limit was reached. The parts of a line are of one group, as far as the limits let them.
fn groups_have_reasons(
    rules: &Multiline,
    begins: fn(&[u8]) -> bool,
    input: &[u8],
    lines: &[Line],
    records: &[(Vec<u8>, u64)],
) {
    let mut rest = lines;
    for (record, upto) in records {
        let count = rest.iter().take_while(|line| u64::from(line.upto) <= *upto).count();
        let (group, behind) = rest.split_at(count);
        let (first, last) = (group.first().expect("a record has a line"), &group[count - 1]);
        assert_eq!(u64::from(last.upto), *upto, "a record ends with a line");
        let start = first.span.start;
        assert_eq!(
            Span { start, end: last.span.end }.of(input),
            record,
            "a record is a stretch of the input"
        );
        assert!(count <= rules.lines_max as usize && (count == 1 || record.len() <= rules.bytes_max));
        let begins_behind = |before: &Line, line: &Line| before.has_ending() && begins(line.of(input));
        assert!(group.windows(2).all(|pair| !begins_behind(&pair[0], &pair[1])), "a beginning inside");
        if let Some(next) = behind.first() {
            let full = count == rules.lines_max as usize;
            let long = (next.span.end - start) as usize > rules.bytes_max;
            let begun = begins_behind(last, next);
            assert!(full || long || begun, "{} ended for nothing", first.of(input).escape_ascii());
        }
        rest = behind;
    }
    assert!(rest.is_empty(), "the end of the input is in no record");
}
