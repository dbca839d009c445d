//! Joining lines: the same records and positions however lines come in runs, and a group ends only for a reason.

use std::sync::Arc;

use engine::batch::{Columns, Origin, Positions, Run, Span};
use engine::frame::multiline::{Begins, Group, Joiner, Multiline};

use super::dial::{Dial, cut};

const TIMEOUT_NS: u64 = 1000;

/// Whether a line begins a record: the rule in the engine's form, and as one says it.
type Rule = (Begins, fn(&[u8]) -> bool);

/// Any lines under any limits, in one run, in several, and each in its own.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let (begins, begins_naive): Rule = match dial.below(3) {
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

    let whole = join(&rules, [input].into_iter());
    let pieces = at_line_ends(cut(input, &places), input);
    assert_eq!(join(&rules, pieces.into_iter()), whole, "cut near {places:?}");
    assert_eq!(join(&rules, input.split_inclusive(|&byte| byte == b'\n')), whole, "line by line");
    groups_have_reasons(&rules, begins_naive, input, &whole);
}

fn pattern(text: &str) -> Begins {
    Begins::pattern(text).expect("the pattern is one")
}

/// Moves the ends of pieces to the next line end.
fn at_line_ends<'a>(pieces: Vec<&[u8]>, input: &'a [u8]) -> Vec<&'a [u8]> {
    let (mut out, mut start, mut at) = (Vec::new(), 0, 0);
    for piece in pieces {
        at += piece.len();
        let more = input[at..].iter().position(|&byte| byte == b'\n').map_or(input.len() - at, |n| n + 1);
        if at + more > start {
            out.push(&input[start..at + more]);
            start = at + more;
        }
    }
    out
}

/// Records and the positions behind them, of pieces that are whole lines.
fn join<'a>(rules: &Multiline, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, u64)> {
    let origin = Origin {
        source: Arc::from("s"),
        host: Arc::from("h"),
        tags: Vec::new(),
        peer: None,
        tls_subject: None,
        assignment: None,
        protocol: None,
    };
    let mut joiner = Joiner::new(rules.clone(), 1 << 20);
    let (mut records, mut base, mut now_ns) = (Vec::new(), 0, 0);
    let (mut spans, mut positions) = (Vec::new(), Vec::new());
    let take = |joiner: &Joiner, group: Group| (group.span.of(joiner.carry()).to_vec(), group.upto);
    for bytes in pieces {
        let lines = lines(bytes);
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
        base = upto;
    }
    let deadline = joiner.deadline_ns();
    assert!(deadline.is_none_or(|at| at == now_ns + TIMEOUT_NS as i64));
    let last = deadline.and_then(|at| joiner.expire(at));
    records.extend(last.map(|group| take(&joiner, group)));
    assert_eq!(joiner.flush(), None);
    records
}

/// Lines without their endings; what has no newline at the input's end is one too.
fn lines(bytes: &[u8]) -> Vec<Span> {
    let mut start = 0;
    let line = |whole: &[u8]| {
        let span = Span { start, end: start + (whole.len() - ending(whole).len()) as u32 };
        start += whole.len() as u32;
        span
    };
    bytes.split_inclusive(|&byte| byte == b'\n').map(line).collect()
}

fn ending(whole: &[u8]) -> &[u8] {
    let bytes = if whole.ends_with(b"\r\n") { 2 } else { usize::from(whole.ends_with(b"\n")) };
    &whole[whole.len() - bytes..]
}

/// Records with their endings are the input; a line that begins one is first in its group; and a group ended because such a
/// line came or a limit was reached.
fn groups_have_reasons(
    rules: &Multiline,
    begins: fn(&[u8]) -> bool,
    input: &[u8],
    records: &[(Vec<u8>, u64)],
) {
    let mut from = 0;
    for (record, upto) in records {
        let whole = &input[from..*upto as usize];
        let end = ending(whole);
        assert_eq!(whole[..whole.len() - end.len()], record[..], "a record is a stretch of the input");
        let mut inside = whole.split_inclusive(|&byte| byte == b'\n');
        let first = inside.next().expect("a record has a line");
        let count = 1 + inside.clone().count();
        assert!(count <= rules.lines_max as usize && (count == 1 || record.len() <= rules.bytes_max));
        assert!(inside.all(|line| !begins(&line[..line.len() - ending(line).len()])), "a beginning inside");
        from = *upto as usize;
        if let Some(line) = input[from..].split_inclusive(|&byte| byte == b'\n').next() {
            let line = &line[..line.len() - ending(line).len()];
            let full = count == rules.lines_max as usize;
            let long = record.len() + end.len() + line.len() > rules.bytes_max;
            assert!(full || long || begins(line), "{} ended for nothing", first.escape_ascii());
        }
    }
    assert_eq!(from, input.len(), "the end of the input is in no record");
}
