//! How records become bytes: raw, NDJSON, RFC 5424, RFC 3164; a whole run at a time into a batch's arena.
//!
//! Invariants: an encoded record ends with a newline. An arena does not pass the limit, except by one record that is
//! alone in it. What is the same for the records of a run is rendered once a run; nothing is allocated for a record.
//!
//! It knows no sink and no clock, and changes no record: framing that a reader could mistake (a newline inside a
//! record) is left as it came.

use crate::batch::Run;
use crate::pool::Arena;
use crate::sink::{ndjson, rfc3164, rfc5424};

/// How a sink writes records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The record and a newline.
    #[default]
    Raw,
    /// One JSON object a line, with time, source, tags and metadata.
    Ndjson,
    /// RFC 5424: the parsed header where the source has one, else one made of source and host.
    Syslog5424,
    /// RFC 3164, for receivers that know no other: local time to the second, without a year or a zone.
    Syslog3164,
}

impl Format {
    /// All formats, in the order in which they are documented.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Ndjson, Self::Syslog5424, Self::Syslog3164];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ndjson => "ndjson",
            Self::Syslog5424 => "syslog5424",
            Self::Syslog3164 => "syslog3164",
        }
    }

    /// The format of a word in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// What [`encode`] took of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The first record not looked at: `run.records.len()` when the run is done, else the batch is full.
    pub next: usize,
    /// Records written; fewer than looked at when some were not kept.
    pub records: u32,
}

/// Which records of a run a sink takes, by index.
pub type Keep<'a> = Option<&'a dyn Fn(usize) -> bool>;

/// Appends the records of `run` from `from` on to `out`, until the run is done or the next record would make `out`
/// longer than `limit`; an empty `out` takes a record of any length. `ends`, where wanted, gets the length of `out`
/// behind each record.
pub fn encode(
    format: Format,
    run: &Run<'_>,
    from: usize,
    keep: Keep<'_>,
    out: &mut Arena,
    limit: usize,
    ends: Option<&mut Vec<u32>>,
) -> Encoded {
    if from >= run.records.len() {
        return Encoded { next: from, records: 0 };
    }
    match (format, keep) {
        (Format::Raw, None) if run.verbatim => copy_verbatim(run, from, out, limit, ends),
        (Format::Raw, None) => gather(run, from, out, limit, ends),
        (Format::Raw, _) => Loop { run, from, keep, overhead: 1 }.write(out, limit, ends, |i, out| {
            let record = run.records[i].of(run.bytes);
            let room = out.spare(record.len() + 1);
            room[..record.len()].copy_from_slice(record);
            room[record.len()] = b'\n';
            out.advance(record.len() + 1);
        }),
        (Format::Ndjson, _) => {
            let frame = ndjson::Frame::new(run, from);
            let overhead = frame.overhead();
            Loop { run, from, keep, overhead }.write(out, limit, ends, |i, out| frame.write(run, i, out))
        }
        (Format::Syslog5424, _) => {
            let frame = rfc5424::Frame::new(run);
            let overhead = frame.overhead(run);
            Loop { run, from, keep, overhead }.write(out, limit, ends, |i, out| frame.write(run, i, out))
        }
        (Format::Syslog3164, _) => {
            let frame = rfc3164::Frame::new(run);
            let overhead = frame.overhead(run);
            Loop { run, from, keep, overhead }.write(out, limit, ends, |i, out| frame.write(run, i, out))
        }
    }
}

/// The records of a run that end in newlines and lie behind each other: one copy of as many as fit.
fn copy_verbatim(
    run: &Run<'_>,
    from: usize,
    out: &mut Arena,
    limit: usize,
    ends: Option<&mut Vec<u32>>,
) -> Encoded {
    let records = &run.records[from..];
    let start = records[0].start as usize;
    let room = limit.saturating_sub(out.len());
    let mut taken = records.partition_point(|record| record.end as usize + 1 - start <= room);
    if taken == 0 && out.is_empty() {
        taken = 1;
    }
    if taken > 0 {
        let before = out.len();
        out.extend(&run.bytes[start..=records[taken - 1].end as usize]);
        if let Some(ends) = ends {
            ends.extend(records[..taken].iter().map(|r| (before + r.end as usize + 1 - start) as u32));
        }
    }
    Encoded { next: from + taken, records: taken as u32 }
}

/// Bytes that [`gather`] copies at once.
const CHUNK: usize = 64;

/// Records that do not lie behind each other (their headers were cut off), each with a newline. How many fit is known
/// before the first is copied. A copy goes in whole chunks and beyond the record's end, over which the next one is
/// written: a few instructions in place of a call for a length that nobody can guess.
fn gather(run: &Run<'_>, from: usize, out: &mut Arena, limit: usize, ends: Option<&mut Vec<u32>>) -> Encoded {
    let before = out.len();
    let (mut taken, mut bytes) = (0, 0);
    for record in &run.records[from..] {
        let more = bytes + record.len() + 1;
        if before + more > limit && (before > 0 || taken > 0) {
            break;
        }
        (taken, bytes) = (taken + 1, more);
    }
    let records = &run.records[from..from + taken];
    let room = out.spare(bytes + CHUNK);
    let mut at = 0;
    for record in records {
        let (start, len) = (record.start as usize, record.len());
        let whole = len.next_multiple_of(CHUNK);
        match run.bytes.get(start..start + whole) {
            Some(source) => {
                let (chunks, into) = (source.as_chunks::<CHUNK>().0, &mut room[at..at + whole]);
                for (to, from) in into.as_chunks_mut::<CHUNK>().0.iter_mut().zip(chunks) {
                    *to = *from;
                }
            }
            None => room[at..at + len].copy_from_slice(record.of(run.bytes)),
        }
        room[at + len] = b'\n';
        at += len + 1;
    }
    out.advance(bytes);
    if let Some(ends) = ends {
        let mut end = before as u32;
        ends.extend(records.iter().map(|record| {
            end += record.len() as u32 + 1;
            end
        }));
    }
    Encoded { next: from + taken, records: taken as u32 }
}

/// Records one after the other, each by a function that was chosen once for the run.
struct Loop<'a> {
    run: &'a Run<'a>,
    from: usize,
    keep: Keep<'a>,
    /// Bytes that a record takes at least beside its own.
    overhead: usize,
}

impl Loop<'_> {
    #[inline]
    fn write(
        self,
        out: &mut Arena,
        limit: usize,
        mut ends: Option<&mut Vec<u32>>,
        mut write: impl FnMut(usize, &mut Arena),
    ) -> Encoded {
        let mut records = 0;
        for (i, record) in self.run.records.iter().enumerate().skip(self.from) {
            if self.keep.is_some_and(|keep| !keep(i)) {
                continue;
            }
            let before = out.len();
            if before > 0 && before + self.overhead + record.len() > limit {
                return Encoded { next: i, records };
            }
            write(i, out);
            if before > 0 && out.len() > limit {
                // It grew by escapes. It is the first of the next batch.
                out.truncate(before);
                return Encoded { next: i, records };
            }
            records += 1;
            if let Some(ends) = ends.as_deref_mut() {
                ends.push(out.len() as u32);
            }
        }
        Encoded { next: self.run.records.len(), records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Columns, Mark, Origin, Positions, Span};
    use crate::syslog::{TimeContext, YearPolicy, parse};
    use proptest::prelude::{ProptestConfig, proptest};

    fn origin() -> Origin {
        Origin {
            source: "file_1".into(),
            host: "web 7".into(),
            tags: vec![
                ("env".into(), "test".into()),
                ("q".into(), "\"".into()),
                ("env".into(), "prod".into()),
            ],
            peer: None,
            tls_subject: None,
            assignment: None,
            protocol: None,
            mark: Mark::default(),
        }
    }

    /// Lines and their spans, CR taken off where there is one.
    fn spans(bytes: &[u8]) -> (Vec<Span>, bool) {
        let mut start = 0;
        let mut verbatim = true;
        let mut records = Vec::new();
        for end in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i) {
            let cut = end - usize::from(end > start && bytes[end - 1] == b'\r');
            verbatim &= cut == end;
            records.push(Span { start: start as u32, end: cut as u32 });
            start = end + 1;
        }
        (records, verbatim)
    }

    fn run<'a>(bytes: &'a [u8], records: &'a [Span], verbatim: bool, origin: &'a Origin) -> Run<'a> {
        Run {
            bytes,
            records,
            verbatim,
            columns: Columns::None,
            peers: &[],
            origin,
            received_ns: 1_700_000_000_123_456_789,
            positions: Positions::Linear { base: 0, upto: bytes.len() as u64 },
        }
    }

    /// All of a run in arenas of `limit`; asserts the limit and the ends.
    fn all(format: Format, run: &Run<'_>, keep: Keep<'_>, limit: usize) -> Vec<u8> {
        let mut whole = Vec::new();
        let mut next = 0;
        while next < run.records.len() {
            let mut out = Arena::new(64);
            out.clear_with_head(13);
            let mut ends = Vec::new();
            let took = encode(format, run, next, keep, &mut out, limit, Some(&mut ends));
            assert!(took.next > next, "an empty arena always takes a record");
            assert!(out.len() <= limit || took.records == 1);
            assert_eq!(ends.len(), took.records as usize);
            assert!(ends.iter().all(|&end| out.filled()[end as usize - 1] == b'\n'));
            assert!(ends.is_empty() || ends[ends.len() - 1] as usize == out.len());
            whole.extend_from_slice(out.filled());
            next = took.next;
        }
        whole
    }

    fn object(line: &[u8]) -> serde_json::Value {
        serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(line)))
    }

    #[test]
    fn raw_is_the_bytes_whatever_the_limit() {
        let bytes = b"a\n\nbb\nccc\0\xff\n\n\n0123456789\n";
        let (records, verbatim) = spans(bytes);
        let origin = origin();
        for limit in 0..40 {
            assert_eq!(all(Format::Raw, &run(bytes, &records, verbatim, &origin), None, limit), bytes);
            assert_eq!(all(Format::Raw, &run(bytes, &records, false, &origin), None, limit), bytes);
            let every = |_: usize| true;
            assert_eq!(
                all(Format::Raw, &run(bytes, &records, verbatim, &origin), Some(&every), limit),
                bytes
            );
        }
    }

    #[test]
    fn raw_loses_the_cr_and_the_records_not_kept() {
        let bytes = b"a\r\nb\r\r\nc\n";
        let (records, verbatim) = spans(bytes);
        let origin = origin();
        let run = run(bytes, &records, verbatim, &origin);
        assert_eq!(all(Format::Raw, &run, None, 100), b"a\nb\r\nc\n");
        assert_eq!(all(Format::Raw, &run, Some(&|i| i != 1), 100), b"a\nc\n");
        assert_eq!(all(Format::Raw, &run, Some(&|_| false), 100), b"");
    }

    #[test]
    fn a_record_that_does_not_fit_waits_for_the_next_batch() {
        let bytes = b"aaaa\nbbbb\n";
        let (records, _) = spans(bytes);
        let origin = origin();
        for format in Format::ALL {
            let run = run(bytes, &records, true, &origin);
            let mut out = Arena::new(4096);
            let first = encode(format, &run, 0, None, &mut out, 1, None);
            assert_eq!((first.next, first.records), (1, 1));
            let len = out.len();
            let full = encode(format, &run, 1, None, &mut out, len + 1, None);
            assert_eq!((full.next, full.records, out.len()), (1, 0, len));
        }
    }

    #[test]
    fn an_ndjson_line_has_time_source_data_tags_and_meta() {
        let bytes = b"say \"hi\"\t\\o/\nplain\nbad \xc3\x28\n";
        let (records, verbatim) = spans(bytes);
        let mut origin = origin();
        origin.peer = Some("[::1]:514".parse().unwrap());
        let whole = all(Format::Ndjson, &run(bytes, &records, verbatim, &origin), None, 4000);
        let lines: Vec<_> = whole.split(|b| *b == b'\n').collect();
        let first = object(lines[0]);
        assert_eq!(first["time"], "2023-11-14T22:13:20.123456789Z");
        assert_eq!(first["source"], "file_1");
        assert_eq!(first["data"], "say \"hi\"\t\\o/");
        assert_eq!(first["tags"], serde_json::json!({"q": "\"", "env": "prod"}));
        assert_eq!(first["meta"], serde_json::json!({"peer": "[::1]:514"}));
        origin.tls_subject = Some("CN=\"a\"".into());
        let known = all(Format::Ndjson, &run(bytes, &records, verbatim, &origin), None, 4000);
        let both = serde_json::json!({"peer": "[::1]:514", "tls_subject": "CN=\"a\""});
        assert_eq!(object(known.split(|b| *b == b'\n').next().unwrap())["meta"], both);
        origin.protocol = Some("tls");
        let known = all(Format::Ndjson, &run(bytes, &records, verbatim, &origin), None, 4000);
        let meta =
            b"\"meta\":{\"protocol\":\"tls\",\"peer\":\"[::1]:514\",\"tls_subject\":\"CN=\\\"a\\\"\"}}\n";
        assert!(
            known.windows(meta.len()).any(|window| window == meta),
            "{}",
            String::from_utf8_lossy(&known)
        );
        assert!(first.get("encoding").is_none());
        let third = object(lines[2]);
        assert_eq!((&third["data"], &third["encoding"]), (&"YmFkIMMo".into(), &"base64".into()));
    }

    #[test]
    fn a_character_cut_by_a_record_border_is_not_text() {
        let bytes = "aé".as_bytes();
        let records = [Span { start: 0, end: 2 }, Span { start: 2, end: 3 }];
        let origin = origin();
        let whole = all(Format::Ndjson, &run(bytes, &records, false, &origin), None, 4000);
        for line in whole.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            assert_eq!(object(line)["encoding"], "base64");
        }
    }

    #[test]
    fn rfc5424_is_made_of_source_and_host_where_there_is_no_header() {
        let bytes = b"hello\n";
        let (records, verbatim) = spans(bytes);
        let origin = origin();
        let whole = all(Format::Syslog5424, &run(bytes, &records, verbatim, &origin), None, 4000);
        let expected = "<13>1 2023-11-14T22:13:20.123456Z web_7 file_1 - - - hello\n";
        assert_eq!(String::from_utf8(whole).unwrap(), expected);
    }

    #[test]
    fn rfc5424_keeps_a_parsed_header_and_adds_what_it_lacks() {
        let context = TimeContext::new(1_700_000_000, 0, YearPolicy::default());
        let origin = origin();
        for (message, expected) in [
            (
                "<34>1 2003-10-11T22:14:15.003Z h app - ID [a x=\"1\"] hi",
                "<34>1 2003-10-11T22:14:15.003000Z h app - ID [a x=\"1\"] hi\n",
            ),
            ("<34>1 - - - - - - hi", "<34>1 2023-11-14T22:13:20.123456Z - - - - - hi\n"),
            ("<34>test message", "<34>1 2023-11-14T22:13:20.123456Z web_7 file_1 - - - test message\n"),
            ("<nothing", "<13>1 2023-11-14T22:13:20.123456Z web_7 file_1 - - - <nothing\n"),
        ] {
            let record = Span { start: 0, end: message.len() as u32 };
            let header = parse(message.as_bytes(), record, &context);
            let (records, headers) = ([record], [header]);
            let mut run = run(message.as_bytes(), &records, false, &origin);
            run.columns = Columns::Syslog(&headers);
            assert_eq!(String::from_utf8(all(Format::Syslog5424, &run, None, 4000)).unwrap(), expected);
        }
    }

    #[test]
    fn rfc3164_keeps_what_it_has_a_place_for() {
        let context = TimeContext::new(1_700_000_000, 0, YearPolicy::default());
        let origin = origin();
        let local = |ns: i64| {
            let zone = jiff::tz::TimeZone::system();
            jiff::Timestamp::from_nanosecond(ns.into())
                .unwrap()
                .to_zoned(zone)
                .strftime("%b %e %T")
                .to_string()
        };
        let (now, then) = (local(1_700_000_000_123_456_789), local(1_065_910_455_003_000_000));
        for (message, expected) in [
            (
                "<34>1 2003-10-11T22:14:15.003Z h app 7 ID [a x=\"1\"] hi",
                format!("<34>{then} h app[7]: hi\n"),
            ),
            ("<34>1 - - - - - - hi", format!("<34>{now} - -: hi\n")),
            ("<34>test message", format!("<34>{now} web_7 file_1: test message\n")),
            ("<nothing", format!("<13>{now} web_7 file_1: <nothing\n")),
        ] {
            let record = Span { start: 0, end: message.len() as u32 };
            let header = parse(message.as_bytes(), record, &context);
            let (records, headers) = ([record], [header]);
            let mut run = run(message.as_bytes(), &records, false, &origin);
            run.columns = Columns::Syslog(&headers);
            assert_eq!(String::from_utf8(all(Format::Syslog3164, &run, None, 4000)).unwrap(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn ndjson_gives_every_record_back(lines: Vec<Vec<u8>>, limit in 0..2000usize) {
            let bytes: Vec<u8> = lines.iter().flat_map(|line| [line, &b"\n"[..]].concat()).collect();
            let (records, verbatim) = spans(&bytes);
            let origin = origin();
            let run = run(&bytes, &records, verbatim, &origin);
            let whole = all(Format::Ndjson, &run, None, limit);
            let mut objects = whole.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(object);
            for record in &records {
                let object = objects.next().unwrap();
                let data = object["data"].as_str().unwrap();
                let data = match object.get("encoding") {
                    Some(_) => base64_simd::STANDARD.decode_to_vec(data).unwrap(),
                    None => data.as_bytes().to_vec(),
                };
                assert_eq!(data, record.of(&bytes));
            }
            assert!(objects.next().is_none());
        }
    }
}
