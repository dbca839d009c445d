//! Framing against a naive reading of the whole input, cut every way; and the hostile cases by name.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::header::{self, Header, Proof};
use super::{Carried, Counts, Framer, Framing, Oversize, Rules};

pub(crate) const FRAMINGS: [Framing; 5] =
    [Framing::Auto, Framing::Newline, Framing::Octet, Framing::Nul, Framing::Len32];
const POLICIES: [Oversize; 3] = [Oversize::Truncate, Oversize::Drop, Oversize::Split];

fn rules(framing: Framing, oversize: Oversize, record_bytes_max: usize) -> Rules {
    Rules { framing, prefer_newline: false, oversize, record_bytes_max }
}

/// The records of a whole input, read by someone who has all of it and no hurry.
struct Naive<'a> {
    rules: Rules,
    input: &'a [u8],
    records: Vec<Vec<u8>>,
    counts: Counts,
}

impl<'a> Naive<'a> {
    fn read(rules: Rules, input: &'a [u8]) -> (Vec<Vec<u8>>, Counts) {
        let mut this = Self { rules, input, records: Vec::new(), counts: Counts::default() };
        let mut at = 0;
        while at < input.len() {
            at = this.frame(at);
        }
        (this.records, this.counts)
    }

    fn frame(&mut self, at: usize) -> usize {
        let rest = &self.input[at..];
        let header = match self.rules.framing {
            Framing::Newline | Framing::Nul => Header::Text,
            Framing::Auto if self.rules.prefer_newline => header::octet(rest, Proof::Pri),
            Framing::Auto => header::octet(rest, Proof::Open),
            Framing::Octet => header::octet(rest, Proof::None),
            Framing::Len32 => header::len32(rest),
        };
        match header {
            Header::Counted { header, body } => self.counted(at + header, body),
            Header::More if self.rules.framing == Framing::Len32 => {
                self.counts.malformed += 1;
                self.counts.malformed_bytes += rest.len() as u64;
                self.input.len()
            }
            _ => self.line(at),
        }
    }

    fn line(&mut self, at: usize) -> usize {
        let nul = self.rules.framing == Framing::Nul;
        self.counts.malformed += u64::from(self.rules.framing == Framing::Octet);
        let rest = &self.input[at..];
        let end = rest.iter().position(|&byte| byte == if nul { 0 } else { b'\n' });
        let raw = &rest[..end.unwrap_or(rest.len())];
        let content = if nul || end.is_none() { raw } else { raw.strip_suffix(b"\r").unwrap_or(raw) };
        let max = self.rules.record_bytes_max;
        match self.rules.oversize {
            _ if content.len() <= max => self.records.push(content.to_vec()),
            Oversize::Truncate => {
                self.records.push(content[..max].to_vec());
                self.counts.truncated += 1;
                self.counts.truncated_bytes += (raw.len() - max) as u64;
            }
            Oversize::Drop => {
                self.counts.dropped += 1;
                self.counts.dropped_bytes += raw.len() as u64;
            }
            Oversize::Split => {
                self.records.extend(content.chunks(max).map(<[u8]>::to_vec));
                self.counts.cuts += content.chunks(max).len() as u64 - 1;
            }
        }
        at + raw.len() + 1
    }

    fn counted(&mut self, at: usize, body: u64) -> usize {
        let max = self.rules.record_bytes_max;
        let here = &self.input[at..][..body.min((self.input.len() - at) as u64) as usize];
        let whole = here.len() as u64 == body;
        if body <= max as u64 {
            self.last_piece(here, whole);
        } else {
            match self.rules.oversize {
                Oversize::Truncate if here.len() >= max => {
                    self.records.push(here[..max].to_vec());
                    self.counts.truncated += 1;
                    self.counts.truncated_bytes += (here.len() - max) as u64;
                }
                Oversize::Truncate => self.last_piece(here, false),
                Oversize::Drop => {
                    self.counts.dropped += 1;
                    self.counts.dropped_bytes += here.len() as u64;
                }
                Oversize::Split => {
                    let mut piece = here;
                    while piece.len() > max || (piece.len() == max && !whole) {
                        self.records.push(piece[..max].to_vec());
                        self.counts.cuts += 1;
                        piece = &piece[max..];
                    }
                    self.last_piece(piece, whole);
                }
            }
        }
        let next = at + here.len();
        let padded = self.rules.framing != Framing::Len32 && whole && self.input.get(next) == Some(&b'\n');
        next + usize::from(padded)
    }

    fn last_piece(&mut self, piece: &[u8], whole: bool) {
        self.counts.unfinished += u64::from(!whole);
        if whole || !piece.is_empty() {
            self.records.push(piece.to_vec());
        }
    }
}

fn take(framer: &Framer, carried: Carried) -> Vec<u8> {
    if carried.verbatim {
        assert_eq!(framer.carry()[carried.span.end as usize..], *b"\n");
    }
    carried.span.of(framer.carry()).to_vec()
}

/// What the framer makes of chunks; checks on the way what a step promises.
fn framed<'a>(rules: Rules, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Counts) {
    let mut framer = Framer::new(rules);
    let (mut records, mut spans) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let mut from = 0;
        while from < chunk.len() {
            let step = framer.feed(chunk, from, &mut spans);
            assert!(step.next > from || step.carried.is_some(), "no progress");
            if let Some(carried) = step.carried {
                assert!(from <= carried.upto && carried.upto <= step.next);
                records.push(take(&framer, carried));
            }
            records.extend(spans.iter().map(|span| span.of(chunk).to_vec()));
            assert!(from <= step.upto && step.upto <= step.next);
            for pair in spans.windows(2) {
                assert!(pair[0].end <= pair[1].start);
                assert!(
                    !step.verbatim
                        || (pair[1].start == pair[0].end + 1 && chunk[pair[0].end as usize] == b'\n')
                );
            }
            if let Some(last) = spans.last() {
                assert!(last.end as usize <= step.upto);
                assert!(
                    !step.verbatim
                        || (chunk[last.end as usize] == b'\n' && step.upto == last.end as usize + 1)
                );
            }
            from = step.next;
            assert!(framer.held_bytes() <= rules.record_bytes_max.max(2048) + 64);
        }
        framer.release();
    }
    while let Some(carried) = framer.finish() {
        records.push(take(&framer, carried));
    }
    assert_eq!(framer.unfinished_bytes(), 0);
    (records, framer.take_counts())
}

/// Beginnings and ends that broke others.
const ODD: &[&str] = &[
    "2018 01 30\n",
    "0 <1>x",
    "007 <1>",
    "99999999999 <1>a\n",
    "12 <",
    "3 <1>",
    "3 <1>\n",
    "9999999999 <1>",
    "\n",
    "\r\n",
    "\r",
    "\0\0\0\0",
    "\0\0\0\x05hello",
    "5 <b>a",
    "5 <1>a",
    "1 <1>",
    "40 <34>",
    "1",
];

/// Input in which frames of every framing begin, end, overlap and break off.
pub(crate) fn input() -> impl Strategy<Value = Vec<u8>> {
    let octet = (vec(any::<u8>(), 0..40), 0usize..9).prop_map(|(body, lie)| {
        let mut frame = format!("{} <{}>", body.len() + 4 + lie / 7, lie * 11).into_bytes();
        frame.extend(body);
        frame
    });
    let len32 = vec(any::<u8>(), 0..40).prop_map(|body| {
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend(body);
        frame
    });
    let line = (
        vec(prop_oneof![8 => b'a'..=b'z', 1 => Just(b' '), 1 => Just(b'\r')], 0..60),
        prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\0"), 1 => Just("")],
    )
        .prop_map(|(mut text, end)| {
            text.extend_from_slice(end.as_bytes());
            text
        });
    let odd = proptest::sample::select(ODD).prop_map(str::as_bytes).prop_map(<[u8]>::to_vec);
    vec(prop_oneof![3 => octet, 2 => len32, 4 => line, 3 => odd, 1 => vec(any::<u8>(), 0..30)], 0..25)
        .prop_map(|parts| parts.concat())
}

fn some_rules() -> impl Strategy<Value = Rules> {
    let max = prop_oneof![1usize..8, 8usize..70, Just(1 << 20)];
    (proptest::sample::select(&FRAMINGS[..]), any::<bool>(), proptest::sample::select(&POLICIES[..]), max)
        .prop_map(|(framing, prefer_newline, oversize, record_bytes_max)| Rules {
            framing,
            prefer_newline,
            oversize,
            record_bytes_max,
        })
}

/// Cuts an input at the given places.
pub(crate) fn chunks<'a>(input: &'a [u8], cuts: &[proptest::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(if cfg!(miri) { 2 } else { 3000 }))]

    #[test]
    fn cuts_do_not_matter(input in input(), rules in some_rules(), cuts in vec(any::<proptest::sample::Index>(), 0..12)) {
        let want = Naive::read(rules, &input);
        prop_assert_eq!(framed(rules, std::iter::once(&input[..])), want.clone());
        prop_assert_eq!(framed(rules, chunks(&input, &cuts).into_iter()), want.clone());
        prop_assert_eq!(framed(rules, input.chunks(1)), want);
    }

    #[test]
    fn a_cut_record_keeps_the_stream_in_step(input in input(), rules in some_rules(), at in any::<proptest::sample::Index>()) {
        let mut framer = Framer::new(rules);
        let (head, tail) = input.split_at(at.index(input.len() + 1));
        let mut spans = Vec::new();
        let mut count = 0;
        let mut feed = |framer: &mut Framer, chunk: &[u8]| {
            let mut from = 0;
            while from < chunk.len() {
                let step = framer.feed(chunk, from, &mut spans);
                count += spans.len() + usize::from(step.carried.is_some());
                from = step.next;
            }
            count
        };
        feed(&mut framer, head);
        let (held, before) = (framer.unfinished_bytes(), framer.take_counts());
        let cut = framer.cut();
        if let Some(carried) = cut {
            prop_assert!(!take(&framer, carried).is_empty());
        }
        let counts = framer.take_counts();
        prop_assert_eq!(counts.truncated + counts.dropped + counts.cuts > 0, cut.is_some() || (held > 0 && framer.unfinished_bytes() == 0));
        feed(&mut framer, tail);
        while framer.finish().is_some() {}
        let mut all = before;
        all.add(&counts);
        all.add(&framer.take_counts());
        // A cut makes of one record at most two, and never touches another.
        let (_, naive) = Naive::read(rules, &input);
        prop_assert_eq!(all.malformed, naive.malformed);
    }
}

fn all(framing: Framing, input: &[u8]) -> Vec<Vec<u8>> {
    let rules = rules(framing, Oversize::Truncate, 1 << 20);
    let want = framed(rules, std::iter::once(input)).0;
    for first in 0..=input.len() {
        let (head, tail) = input.split_at(first);
        assert_eq!(framed(rules, [head, tail].into_iter()).0, want, "cut at {first}");
    }
    want
}

#[test]
fn auto_takes_what_syslog_sends() {
    let records =
        all(Framing::Auto, b"<34>one\n2018 01 30 text\n12 <34>two\nmore<35>three\r\n5 <1>ab\n\nlast");
    let want: [&[u8]; 7] =
        [b"<34>one", b"2018 01 30 text", b"<34>two\nmore", b"<35>three", b"<1>ab", b"", b"last"];
    assert_eq!(records, want);
}

#[test]
fn newlines_inside_an_octet_frame_are_its_own() {
    assert_eq!(
        all(Framing::Octet, b"6 a\nb\nc\n3 \n\n\n0 x\n4 tail"),
        [&b"a\nb\nc\n"[..], b"\n\n\n", b"0 x", b"tail"]
    );
    let rules = Rules { prefer_newline: true, ..rules(Framing::Auto, Oversize::Truncate, 100) };
    let input = b"10 <34>a\nb\nc\n7 <34>\n\n\n2018 <b>x\n";
    let (records, counts) = framed(rules, input.chunks(1));
    assert_eq!(records, [&b"<34>a\nb\nc\n"[..], b"<34>\n\n\n", b"2018 <b>x"]);
    assert_eq!(counts, Counts::default());
}

#[test]
fn nul_and_len32() {
    assert_eq!(all(Framing::Nul, b"a\r\nb\0\0c"), [&b"a\r\nb"[..], b"", b"c"]);
    assert_eq!(all(Framing::Len32, b"\0\0\0\x02ab\0\0\0\0\0\0\0\x05abc"), [&b"ab"[..], b"", b"abc"]);
    assert_eq!(all(Framing::Len32, b"\0\0\0\0"), [b""]);
}

#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn a_million_digits_are_a_line() {
    let mut input = vec![b'7'; 1_000_000];
    input.extend_from_slice(b" <34>x\n3 <1>");
    for framing in [Framing::Auto, Framing::Octet] {
        let rules = rules(framing, Oversize::Truncate, 100);
        for size in [1, 7, 4096, input.len()] {
            let (records, counts) = framed(rules, input.chunks(size));
            assert_eq!(records, [&[b'7'; 100][..], b"<1>"]);
            assert_eq!((counts.truncated, counts.truncated_bytes), (1, 1_000_000 + 6 - 100));
        }
    }
}

#[test]
fn a_frame_that_declares_too_much_is_cut_and_the_next_is_found() {
    let mut input = b"5000 <34>".to_vec();
    input.resize(5005, b'x');
    input.extend_from_slice(b"7 <34>end");
    for (policy, first) in
        [(Oversize::Truncate, Some(64)), (Oversize::Drop, None), (Oversize::Split, Some(64))]
    {
        let rules = rules(Framing::Auto, policy, 64);
        for size in [1, 63, 64, 65, 4096, 9000] {
            let (records, counts) = framed(rules, input.chunks(size));
            assert_eq!(records.last().map(Vec::as_slice), Some(&b"<34>end"[..]));
            match policy {
                Oversize::Truncate => assert_eq!((counts.truncated, counts.truncated_bytes), (1, 4936)),
                Oversize::Drop => assert_eq!((counts.dropped, counts.dropped_bytes), (1, 5000)),
                Oversize::Split => assert_eq!((counts.cuts, records.len()), (78, 80)),
            }
            if let Some(len) = first {
                assert_eq!(records[0].len(), len);
            }
        }
    }
}

#[test]
fn a_framer_whose_stream_ended_in_a_dropped_line_is_as_new() {
    let mut framer = Framer::new(rules(Framing::Newline, Oversize::Drop, 4));
    let mut spans = Vec::new();
    for _ in 0..2 {
        // The carriage return may be half of the line's end: only the stream's end shows that the line is too long.
        assert_eq!(framer.feed(b"line\nlong!\nlast\r", 0, &mut spans).next, 16);
        assert_eq!((spans.len(), framer.finish()), (1, None));
        let counts = framer.take_counts();
        assert_eq!((counts.dropped, counts.dropped_bytes), (2, 10));
    }
}

#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn a_frame_that_never_ends_takes_no_memory() {
    let rules = rules(Framing::Len32, Oversize::Truncate, 1000);
    let mut framer = Framer::new(rules);
    let mut spans = Vec::new();
    let head = u32::MAX.to_be_bytes();
    framer.feed(&head, 0, &mut spans);
    assert_eq!(framer.held_bytes(), 0);
    let mut records = 0;
    for _ in 0..10_000 {
        let chunk = [b'x'; 300];
        let mut from = 0;
        while from < chunk.len() {
            let step = framer.feed(&chunk, from, &mut spans);
            records += spans.len() + usize::from(step.carried.is_some());
            from = step.next;
        }
        assert!(framer.held_bytes() <= 2048);
    }
    assert_eq!(records, 1);
    assert_eq!(framer.take_counts().truncated_bytes, 3_000_000 - 1000);
    assert_eq!(framer.finish(), None);
}

#[test]
#[cfg_attr(miri, ignore = "millions of steps")]
fn a_step_is_bounded_and_lines_between_frames_stay_cheap() {
    let input = vec![b'\n'; 100_000];
    let mut framer = Framer::new(rules(Framing::Newline, Oversize::Truncate, 10));
    let (mut spans, mut from, mut records) = (Vec::new(), 0, 0);
    while from < input.len() {
        from = framer.feed(&input, from, &mut spans).next;
        assert!(spans.len() < super::RECORDS_PER_STEP + 256);
        records += spans.len();
    }
    assert_eq!(records, input.len());
    // Alternating lines and frames over 4 MiB: were every line to scan the rest, this would take minutes.
    let input = b"a\n5 <1>xx".repeat(480_000);
    let (records, _) = framed(rules(Framing::Auto, Oversize::Truncate, 100), std::iter::once(&input[..]));
    assert_eq!(records.len(), 960_000);
}

#[test]
fn every_framing_of_nothing_is_nothing() {
    for framing in FRAMINGS {
        assert_eq!(all(framing, b""), Vec::<Vec<u8>>::new());
    }
}
