//! Framing: the same records and counts however a stream is cut, bounded memory, and no byte unaccounted for.

use engine::frame::{Carried, Counts, Framer, Framing, Oversize, Rules};

use super::dial::{Dial, cut};

/// What a stream became.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// Its records.
    pub records: Vec<Vec<u8>>,
    /// What was done to them.
    pub counts: Counts,
}

/// Any framing, policy and limit; a stream whole, cut at some places, and byte by byte.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let framing =
        dial.one_of(&[Framing::Auto, Framing::Newline, Framing::Octet, Framing::Nul, Framing::Len32]);
    let rules = rules(framing, &mut dial);
    let places = dial.places();
    let input = dial.rest();
    let whole = read_however_cut(rules, input, &places);
    conserves_bytes(rules, input, &whole);
    survives_a_cut(rules, cut(input, &places[..1]));
}

/// Memory is short and the unfinished record is ended: the next ones are found, and every byte is accounted for.
fn survives_a_cut(rules: Rules, halves: Vec<&[u8]>) {
    let mut framer = Framer::new(rules);
    let (mut records, mut spans, mut counts) = (Vec::new(), Vec::new(), Counts::default());
    for half in &halves {
        let mut from = 0;
        while from < half.len() {
            let step = framer.feed(half, from, &mut spans);
            records.extend(step.carried.map(|carried| take(&framer, carried)));
            records.extend(spans.iter().map(|span| span.of(half).to_vec()));
            from = step.next;
        }
        let held = framer.unfinished_bytes();
        counts.add(&framer.take_counts());
        let record = framer.cut().map(|carried| take(&framer, carried));
        assert!(
            record.as_ref().is_none_or(|record| (1..=held).contains(&record.len())),
            "of {held}, {rules:?}"
        );
        records.extend(record);
    }
    while let Some(carried) = framer.finish() {
        records.push(take(&framer, carried));
    }
    counts.add(&framer.take_counts());
    assert!(records.iter().all(|record| record.len() <= rules.record_bytes_max));
    let input = halves.concat();
    let kept: usize = records.iter().map(Vec::len).sum();
    let lost = counts.truncated_bytes + counts.dropped_bytes + counts.malformed_bytes;
    let accounted = kept + lost as usize;
    match rules.framing {
        Framing::Nul => {
            let nuls = input.iter().filter(|&&byte| byte == 0).count();
            assert_eq!(accounted + nuls, input.len(), "{rules:?}");
        }
        Framing::Len32 => assert_eq!(accounted + lengths(&input), input.len(), "{rules:?}"),
        _ => assert!(accounted <= input.len(), "{rules:?}"),
    }
}

/// The rules that a dial says.
pub fn rules(framing: Framing, dial: &mut Dial<'_>) -> Rules {
    let oversize = dial.one_of(&[Oversize::Truncate, Oversize::Drop, Oversize::Split]);
    let prefer_newline = dial.flag();
    let record_bytes_max = match dial.byte() {
        255 => 1 << 20,
        small => 1 + usize::from(small),
    };
    Rules { framing, prefer_newline, oversize, record_bytes_max }
}

/// Reads a stream whole, and checks that cuts change nothing. One framer reads it each time: one that finished is as new.
pub fn read_however_cut(rules: Rules, input: &[u8], places: &[u8]) -> Read {
    let mut framer = Framer::new(rules);
    let whole = read(&mut framer, rules, [input].into_iter());
    let again = read(&mut framer, rules, cut(input, places).into_iter());
    assert_eq!(again, whole, "cut at {places:?}, {rules:?}");
    assert_eq!(read(&mut framer, rules, input.chunks(1)), whole, "byte by byte, {rules:?}");
    whole
}

/// Reads a stream that comes in chunks, and holds each step to what it promises.
fn read<'a>(framer: &mut Framer, rules: Rules, chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut records, mut spans) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let mut from = 0;
        while from < chunk.len() {
            let step = framer.feed(chunk, from, &mut spans);
            assert!(step.next > from || step.carried.is_some(), "no progress");
            assert!(from <= step.upto && step.upto <= step.next && step.next <= chunk.len());
            if let Some(carried) = step.carried {
                assert!(from <= carried.upto && carried.upto <= step.next);
                records.push(take(framer, carried));
            }
            let mut behind = from;
            for span in &spans {
                assert!(span.start <= span.end && behind <= span.start as usize, "spans overlap");
                behind = span.end as usize;
                assert!(!step.verbatim || chunk.get(behind) == Some(&b'\n'), "verbatim without its newline");
                records.push(span.of(chunk).to_vec());
            }
            assert!(behind <= step.upto || spans.is_empty());
            assert!(!step.verbatim || spans.windows(2).all(|pair| pair[1].start == pair[0].end + 1));
            holds_little(framer, rules);
            from = step.next;
        }
        framer.release();
    }
    while let Some(carried) = framer.finish() {
        records.push(take(framer, carried));
    }
    assert_eq!(framer.unfinished_bytes(), 0);
    assert!(records.iter().all(|record| record.len() <= rules.record_bytes_max), "a record beyond the limit");
    Read { records, counts: framer.take_counts() }
}

/// The limit and a constant, whatever a frame declares.
fn holds_little(framer: &Framer, rules: Rules) {
    let bound = rules.record_bytes_max.max(2048) + 64;
    assert!(framer.held_bytes() <= bound, "{} bytes held, {rules:?}", framer.held_bytes());
}

fn take(framer: &Framer, carried: Carried) -> Vec<u8> {
    if carried.verbatim {
        assert_eq!(framer.carry()[carried.span.end as usize..], *b"\n");
    }
    carried.span.of(framer.carry()).to_vec()
}

/// Every byte of the input is in a record, counted as lost, or known to be framing.
fn conserves_bytes(rules: Rules, input: &[u8], read: &Read) {
    let counts = &read.counts;
    let lost = counts.truncated_bytes + counts.dropped_bytes + counts.malformed_bytes;
    let kept: usize = read.records.iter().map(Vec::len).sum();
    let accounted = kept + lost as usize;
    match rules.framing {
        Framing::Newline => assert_eq!(accounted + line_ends(rules, input), input.len(), "{rules:?}"),
        Framing::Nul => {
            let nuls = input.iter().filter(|&&byte| byte == 0).count();
            assert_eq!(accounted + nuls, input.len(), "{rules:?}");
        }
        Framing::Len32 => assert_eq!(accounted + lengths(input), input.len(), "{rules:?}"),
        // `octet` knows exactly; here only that nothing but counts and line ends can be missing.
        Framing::Auto | Framing::Octet => {
            let framing =
                input.iter().filter(|byte| matches!(byte, b'0'..=b'9' | b' ' | b'\r' | b'\n')).count();
            assert!(accounted <= input.len() && input.len() <= accounted + framing, "{rules:?}");
        }
    }
    if matches!(rules.framing, Framing::Newline | Framing::Nul) {
        let end = if rules.framing == Framing::Nul { 0 } else { b'\n' };
        let ends = input.iter().filter(|&&byte| byte == end).count();
        let begun = ends + usize::from(input.last().is_some_and(|&last| last != end));
        let made = read.records.len() as u64 + counts.dropped - counts.cuts;
        assert_eq!(made, begun as u64, "{rules:?}");
    }
}

/// Newlines, and the carriage returns before them that no count has: those of lines that were not too long.
fn line_ends(rules: Rules, input: &[u8]) -> usize {
    let mut ends = 0;
    for line in input.split_inclusive(|&byte| byte == b'\n') {
        let Some(raw) = line.strip_suffix(b"\n") else { continue };
        ends += 1;
        if let Some(content) = raw.strip_suffix(b"\r") {
            let fits = content.len() <= rules.record_bytes_max || rules.oversize == Oversize::Split;
            ends += usize::from(fits);
        }
    }
    ends
}

/// The bytes of whole four-byte lengths.
fn lengths(input: &[u8]) -> usize {
    let (mut rest, mut bytes) = (input, 0);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        bytes += 4;
        rest = &behind[behind.len().min(u32::from_be_bytes(*length) as usize)..];
    }
    bytes
}
