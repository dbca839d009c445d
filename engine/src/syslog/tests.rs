//! The parser from outside: the RFCs' examples, what devices send, what attackers send, and what holds for any bytes.

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{
    Fault, Header, Kind, TimeContext, YearPolicy, parse, structured_data, write_5424_prefix, write_rfc3339,
};
use crate::batch::Span;
use crate::pool::Arena;

/// 13 June 2020, UTC.
fn context() -> TimeContext {
    TimeContext::new(1_592_000_000, 0, YearPolicy::Inferred)
}

fn read(bytes: &[u8]) -> Header {
    parse(bytes, Span { start: 0, end: bytes.len() as u32 }, &context())
}

/// A header in one line: kind, PRI, time, host, app, process, message id, structured data, `: ` and the message.
fn line(bytes: &[u8]) -> String {
    let header = read(bytes);
    let field = |span: Span| match span.of(bytes) {
        [] => "-".to_owned(),
        some => String::from_utf8_lossy(some).into_owned(),
    };
    let time = header.time_ns().map_or("-".to_owned(), |ns| {
        let mut out = [0; 35];
        let n = write_rfc3339(&mut out, ns);
        String::from_utf8_lossy(&out[..n]).replace(".000000Z", "Z").replace("000Z", "Z")
    });
    let kind = match header.kind {
        Kind::Malformed => {
            let malformed = header.malformed().unwrap();
            assert_eq!(header.message.of(bytes), bytes, "a malformed record is untouched");
            assert_eq!(header.pri(), None);
            return format!("{:?}@{}", malformed.fault, malformed.position);
        }
        Kind::Bare => "bare",
        Kind::Rfc3164 => "3164",
        Kind::Rfc5424 => "5424",
    };
    let pri = header.pri().map_or("-".to_owned(), |pri| pri.to_string());
    let [host, app, proc_id] = [header.host, header.app, header.proc_id].map(field);
    let [msg_id, sd] = [header.msg_id, header.structured_data].map(field);
    let message = String::from_utf8_lossy(header.message.of(bytes)).into_owned();
    format!("{kind} {pri} {time} {host} {app} {proc_id} {msg_id} {sd}: {message}")
}

fn table(rows: &[(&str, &str)]) {
    for (record, expected) in rows {
        assert_eq!(line(record.as_bytes()), *expected, "{record}");
    }
}

#[test]
fn examples_of_rfc_5424() {
    table(&[
        (
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{FEFF}'su root' failed for lonvick",
            "5424 34 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 -: 'su root' failed for lonvick",
        ),
        (
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
            "5424 165 2003-08-24T12:14:15.000003Z 192.0.2.1 myproc 8710 - -: %% It's time to make the do-nuts.",
        ),
        (
            "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
             eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]",
            "5424 165 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
             eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]: ",
        ),
        ("<0>1 - - - - - -", "5424 0 - - - - - -: "),
        ("<191>1 - - - - - - ", "5424 191 - - - - - -: "),
        ("<34>1 - h a p m - \u{FEFF}", "5424 34 - h a p m -: "),
    ]);
}

#[test]
fn rfc_5424_as_it_comes() {
    table(&[
        (r#"<1>1 - h a p m [x y="a]b\"]\\"] text"#, r#"5424 1 - h a p m [x y="a]b\"]\\"]: text"#),
        ("<1>1 - h a p m [x] [y]", "5424 1 - h a p m [x]: [y]"),
        ("<1>1 - h a p m -  two", "5424 1 - h a p m -:  two"),
        // 64 bits of nanoseconds do not hold the year: no time, nothing wrong.
        ("<1>1 0001-01-01T00:00:00Z h a p m - x", "5424 1 - h a p m -: x"),
        ("1 2003-10-11T22:14:15Z h a p m - no PRI", "5424 - 2003-10-11T22:14:15Z h a p m -: no PRI"),
        // Neither version 1 nor a header: PRI and message.
        ("<1>2 - h a p m - x", "bare 1 - - - - - -: 2 - h a p m - x"),
        ("<1>1 potato", "bare 1 - - - - - -: 1 potato"),
    ]);
}

#[test]
fn a_bom_announces_utf8() {
    let good = "<34>1 - h a p m - \u{FEFF}größer".as_bytes();
    assert!(!read(good).is_not_utf8());
    let bad = [b"<34>1 - h a p m - \xEF\xBB\xBF".as_slice(), b"gr\xF6\xDFer"].concat();
    assert!(read(&bad).is_not_utf8());
    assert_eq!(read(&bad).message.of(&bad), b"gr\xF6\xDFer");
    // Without a BOM a message is any octets.
    assert!(!read(b"<34>1 - h a p m - gr\xF6\xDFer").is_not_utf8());
}

#[test]
fn broken_rfc_5424_says_where() {
    table(&[
        ("<34>1 2003-10-11T22:14:15.003Z", "HeaderEnds@30"),
        ("<34>1 2003-10-11T22:14", "Timestamp@22"),
        ("<34>1 2003-10-11T22:14:15 h a p m - x", "Timestamp@25"),
        ("<34>1 2003-10-11 22:14:15Z h a p m - x", "Timestamp@16"),
        ("<34>1 2003-10-11T22:14:15Zh a p m - x", "Timestamp@26"),
        ("<34>1 2003-02-30T22:14:15Z h a p m - x", "Timestamp@11"),
        ("<34>1 - ", "HeaderEnds@8"),
        ("<34>1 - h a p", "HeaderEnds@13"),
        ("<34>1 - h a p m", "HeaderEnds@15"),
        ("<34>1 - h a p m ", "HeaderEnds@16"),
        ("<34>1 - h  p m - x", "EmptyField@10"),
        ("<34>1 - h a p m x", "StructuredData@16"),
        ("<34>1 - h a p m -x", "NoSpace@17"),
        ("<34>1 - h a p m []x", "NoSpace@18"),
        ("<34>1 - h a p m [", "StructuredDataEnds@17"),
        ("<34>1 - h a p m [x y=\"]", "StructuredDataEnds@23"),
        ("<34>1 - h a p m [x y=\"\\", "StructuredDataEnds@23"),
        ("<34>1 - h a p m [x y=\"\\\"] z", "StructuredDataEnds@27"),
    ]);
}

#[test]
fn examples_of_rfc_3164() {
    table(&[
        (
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            "3164 34 2019-10-11T22:14:15Z mymachine su - - -: 'su root' failed for lonvick on /dev/pts/8",
        ),
        ("Use the BFG!", "NoHeader@0"),
        (
            "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
            "3164 13 2020-02-05T17:32:18Z 10.0.0.99 Use - - -: the BFG!",
        ),
        (
            "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time",
            "3164 165 2019-08-24T05:34:00Z CST - - - -: 1987 mymachine myproc[10]: %% It's time",
        ),
        (
            "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
            "bare 0 - - - - - -: 1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
        ),
    ]);
}

#[test]
fn rfc_3164_in_the_field() {
    table(&[
        ("<34>test message", "bare 34 - - - - - -: test message"),
        ("<34>", "bare 34 - - - - - -: "),
        ("<189>65536", "bare 189 - - - - - -: 65536"),
        (
            "<189>65536: *Mar  1 18:46:11.123 UTC: %SYS-5-CONFIG_I: Configured from console",
            "3164 189 2020-03-01T18:46:11.123Z - %SYS-5-CONFIG_I - - -: Configured from console",
        ),
        (
            "<189>12: core-sw: .Mar  1 18:46:11: %LINK-3-UPDOWN: down",
            "3164 189 2020-03-01T18:46:11Z core-sw %LINK-3-UPDOWN - - -: down",
        ),
        (
            "<189>: 2016 Mar 28 10:50:20 EDT: %ETHPORT-5-IF_UP: Interface up",
            "3164 189 2016-03-28T10:50:20Z - %ETHPORT-5-IF_UP - - -: Interface up",
        ),
        (
            "<166>Jan 01 2020 12:00:00 fw1 : %ASA-6-305011: Built",
            "3164 166 2020-01-01T12:00:00Z fw1 %ASA-6-305011 - - -: Built",
        ),
        (
            "<166>Jan 01 2020 12:00:00: %ASA-6-305011: Built",
            "3164 166 2020-01-01T12:00:00Z - %ASA-6-305011 - - -: Built",
        ),
        ("<166>Jan 01 2020 12:00:00 fw1: %ASA-6-1: B", "3164 166 2020-01-01T12:00:00Z fw1 %ASA-6-1 - - -: B"),
        (
            "<190>May 15 2023 07:09:12 KM-B02 %%01POLICY/6/PERMIT(l):CID=0x81;vsys=a",
            "3164 190 2023-05-15T07:09:12Z KM-B02 %%01POLICY/6/PERMIT(l) - - -: CID=0x81;vsys=a",
        ),
        (
            "<188>May 17 08:54:06 WAF01 2023-05-17 08:54:06 WAF: 10.1.2.3",
            "3164 188 2020-05-17T08:54:06Z WAF01 - - - -: 2023-05-17 08:54:06 WAF: 10.1.2.3",
        ),
        // No host: what writes to /dev/log.
        ("<13>Nov 22 21:00:00 root: hello", "3164 13 2019-11-22T21:00:00Z - root - - -: hello"),
        ("<13>Nov 22 21:00:00 cron[7]: hello", "3164 13 2019-11-22T21:00:00Z - cron 7 - -: hello"),
        ("<13>Nov 22 21:00:00 root:", "3164 13 2019-11-22T21:00:00Z - root - - -: "),
        ("<13>Nov 22 21:00:00 - root: hello", "3164 13 2019-11-22T21:00:00Z - root - - -: hello"),
        // ISO times.
        (
            "<190>2019-02-13T21:53:30.605850+01:00 74794bfb6795 std:  [origin] start",
            "3164 190 2019-02-13T20:53:30.605850Z 74794bfb6795 std - - -:  [origin] start",
        ),
        ("<54> 1970-01-01 00:01:31 host a:b", "3164 54 1970-01-01T00:01:31Z host a - - -: b"),
        // No PRI.
        (
            "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0",
            "3164 - 2020-06-14T15:16:01Z combo sshd(pam_unix) 19939 - -: authentication failure; logname= uid=0",
        ),
        ("2015-07-29 17:41:44,747 - INFO [x] text", "NoHeader@0"),
        ("foo: Jan  5 10:01:00 x", "NoHeader@0"),
        ("- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 x", "NoHeader@0"),
        // Tags.
        ("<1>Jan  5 10:01:00 h app text", "3164 1 2020-01-05T10:01:00Z h app - - -: text"),
        ("<1>Jan  5 10:01:00 h app[12] text", "3164 1 2020-01-05T10:01:00Z h app 12 - -: text"),
        ("<1>Jan  5 10:01:00 h app[]: text", "3164 1 2020-01-05T10:01:00Z h app - - -: text"),
        ("<1>Jan  5 10:01:00 h app[12]:text", "3164 1 2020-01-05T10:01:00Z h app 12 - -: text"),
        ("<1>Jan  5 10:01:00 h app[12", "3164 1 2020-01-05T10:01:00Z h - - - -: app[12"),
        ("<1>Jan  5 10:01:00 h app", "3164 1 2020-01-05T10:01:00Z h - - - -: app"),
        ("<1>Jan  5 10:01:00 h app ", "3164 1 2020-01-05T10:01:00Z h - - - -: app "),
        ("<1>Jan  5 10:01:00 word", "3164 1 2020-01-05T10:01:00Z - - - - -: word"),
        ("<1>Jan  5 10:01:00 h {\"a\":1}", "3164 1 2020-01-05T10:01:00Z h - - - -: {\"a\":1}"),
        ("<1>Jan  5 10:01:00 h k=v: x", "3164 1 2020-01-05T10:01:00Z h - - - -: k=v: x"),
        ("<1>Jan  5 10:01:00 {\"a\": 1}", "3164 1 2020-01-05T10:01:00Z - - - - -: {\"a\": 1}"),
        ("<1>Jan  5 10:01:00 [a] b", "3164 1 2020-01-05T10:01:00Z - - - - -: [a] b"),
        ("<1>Jan  5 10:01:00 ::1 app: x", "3164 1 2020-01-05T10:01:00Z ::1 app - - -: x"),
        ("<1>Jan  5 10:01:00", "3164 1 2020-01-05T10:01:00Z - - - - -: "),
        ("<1>Jan  5 10:01:00 ", "3164 1 2020-01-05T10:01:00Z - - - - -: "),
        // A time that is none leaves a PRI and a message.
        ("<1>Jan 32 10:01:00 h app: x", "bare 1 - - - - - -: Jan 32 10:01:00 h app: x"),
        ("<1>Jan  5 10:01:00x h app: x", "bare 1 - - - - - -: Jan  5 10:01:00x h app: x"),
    ]);
}

#[test]
fn a_long_tag_is_a_tag() {
    let tag = "t".repeat(5000);
    let record = format!("<1>Jan  5 10:01:00 h {tag}[{tag}]: x");
    let header = read(record.as_bytes());
    assert_eq!((header.app.len(), header.proc_id.len(), header.message.len()), (5000, 5000, 1));
}

#[test]
fn broken_pri_leaves_the_record_alone() {
    table(&[
        ("", "Empty@0"),
        ("<", "PriSyntax@1"),
        ("<>", "PriSyntax@1"),
        ("<>x", "PriSyntax@1"),
        ("<3", "PriSyntax@2"),
        ("<034>x", "PriSyntax@1"),
        ("<192>x", "PriRange@1"),
        ("<999999999999>", "PriRange@1"),
        ("<a>x", "PriSyntax@1"),
        ("complete and utter gobbledegook", "NoHeader@0"),
        ("2018 01 30 text", "NoHeader@0"),
    ]);
}

#[test]
fn a_hundred_thousand_elements() {
    let mut record = b"<34>1 - h a p m ".to_vec();
    for i in 0..100_000 {
        record.extend_from_slice(format!("[e{i} k=\"{i}\\]\"]").as_bytes());
    }
    record.extend_from_slice(b" text");
    let header = read(&record);
    assert_eq!(header.message.of(&record), b"text");
    assert_eq!(structured_data(header.structured_data.of(&record)).count(), 100_000);
}

#[test]
fn ranges_are_over_the_run() {
    let run = b"junk\n<34>Oct 11 22:14:15 host su[1]: text\n<9>1 x";
    let header = parse(run, Span { start: 5, end: 41 }, &context());
    assert_eq!(header.host.of(run), b"host");
    assert_eq!(header.message.of(run), b"text");
    assert_eq!(header.stamp.of(run), b"Oct 11 22:14:15");
    let broken = parse(b"xxx<34>1 - h", Span { start: 3, end: 12 }, &context());
    assert_eq!(broken.malformed().map(|m| (m.fault, m.position)), Some((Fault::HeaderEnds, 9)));
}

#[test]
fn every_prefix_of_a_header_is_read() {
    for record in [
        r#"<165>1 2003-10-11T22:14:15.003Z host app 12 ID47 [a@1 b="\"c"][d e="f"] text"#,
        "<189>65536: *Mar  1 18:46:11.123 UTC: %SYS-5-CONFIG_I: Configured",
        "<34>Oct 11 22:14:15 mymachine su[123]: 'su root' failed",
        "<166>Jan 01 2020 12:00:00 fw1 : %ASA-6-305011: Built",
    ] {
        for n in 0..record.len() {
            check_ranges(&record.as_bytes()[..n]);
        }
    }
}

/// What holds for any bytes: ranges lie within the record, in order, and the message ends with it.
fn check_ranges(bytes: &[u8]) {
    let run = [b"head ", bytes, b" tail"].concat();
    let record = Span { start: 5, end: 5 + bytes.len() as u32 };
    let header = parse(&run, record, &context());
    for span in [header.stamp, header.host, header.app, header.proc_id, header.msg_id, header.structured_data]
    {
        assert!(
            span.is_empty() || span.start >= record.start && span.end <= header.message.start,
            "{header:?}"
        );
    }
    assert!(header.message.start >= record.start && header.message.end == record.end, "{header:?}");
    assert_eq!(header.kind == Kind::Malformed, header.malformed().is_some());
    if let Some(malformed) = header.malformed() {
        assert!(malformed.position <= bytes.len() as u32 && header.message == record);
    }
    // The run around a record says nothing about it.
    let alone = read(bytes);
    assert_eq!((alone.kind, alone.time_ns(), alone.pri()), (header.kind, header.time_ns(), header.pri()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_ranges(&bytes);
    }

    /// Pieces of headers in any order reach every branch, which random bytes do not.
    #[test]
    fn any_pieces(pieces in prop::collection::vec(prop::sample::select(vec![
        "<34>", "<", ">", "1 ", "- ", "-", " ", "2003-10-11T22:14:15.003Z", "Oct 11 22:14:15", "Oct", "2020", "UTC",
        ":", ": ", "*", "65536: ", "host", "app", "[", "]", "\"", "\\", "=", "%A-1-B", "\u{FEFF}", "ü", "+01:00", "T",
        "\0", "\n", "9",
    ]), 0..14)) {
        check_ranges(pieces.concat().as_bytes());
    }

    #[test]
    fn generated_messages_go_there_and_back(
        pri in 0u8..=191,
        micros in prop::option::of(-2_000_000_000_000_000i64..4_000_000_000_000_000),
        fields in prop::collection::vec("[!-~]{0,30}", 4),
        elements in prop::collection::vec(("[a-zA-Z0-9@.]{1,12}", prop::collection::vec(("[a-zA-Z]{1,8}", "[ -~ü]{0,16}"), 0..4)), 0..4),
        message in "[^\u{FEFF}]{0,40}",
    ) {
        let sd: String = elements.iter().map(|(id, params)| {
            let params: String = params.iter().map(|(name, value)| {
                format!(" {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]"))
            }).collect();
            format!("[{id}{params}]")
        }).collect();
        let mut out = Arena::new(0);
        let time_ns = micros.map(|n| n * 1000);
        let [host, app, proc_id, msg_id] = [0, 1, 2, 3].map(|i| fields[i].as_bytes());
        write_5424_prefix(&mut out, pri, time_ns, host, app, proc_id, msg_id, sd.as_bytes());
        out.extend(message.as_bytes());
        let bytes = out.filled();
        let header = read(bytes);
        prop_assert_eq!(header.kind, Kind::Rfc5424);
        prop_assert_eq!((header.pri(), header.time_ns()), (Some(pri), time_ns));
        for (span, field) in [(header.host, host), (header.app, app), (header.proc_id, proc_id), (header.msg_id, msg_id)] {
            prop_assert_eq!(span.of(bytes), if field == b"-" { b"" } else { field });
        }
        prop_assert_eq!(header.message.of(bytes), message.as_bytes());
        prop_assert!(!header.is_not_utf8());
        let found: Vec<_> = structured_data(header.structured_data.of(bytes))
            .map(|p| (p.id.to_vec(), p.name.to_vec(), p.value.pieces().collect::<Vec<_>>().concat()))
            .collect();
        let expected: Vec<_> = elements.iter().flat_map(|(id, params)| {
            let bare = params.is_empty().then(|| (id.clone().into_bytes(), vec![], vec![]));
            let full = params.iter().map(|(n, v)| (id.clone().into_bytes(), n.clone().into_bytes(), v.clone().into_bytes()));
            bare.into_iter().chain(full)
        }).collect();
        prop_assert_eq!(found, expected);
    }
}
