//! Agreement with `syslog_loose`, a parser that others rely on, on the inputs of its own tests and on lines in the shape
//! of public log collections.
//!
//! Inputs are written anew after the cases that `syslog_loose` 0.23 (MIT) tests: same shapes, other names and numbers
//! where those do not matter. The lines at the end have the shapes of the loghub collection's Linux, OpenSSH and
//! Thunderbird logs and of two firewalls.
//!
//! White space around a message is not compared: `syslog_loose` trims it. RFC 5424 6.4 makes MSG any octets, so here
//! it stays. Structured data is compared without escapes. All other differences are these, each with its cases below:
//!
//! | `syslog_loose` | here | by |
//! |---|---|---|
//! | `TIME word: text`: a host `word` | a tag `word` | RFC 3164 4.1.3: a colon ends a TAG; 4.1.2: a space ends a HOSTNAME |
//! | takes `[id a="b"]` or a `-` out of a 3164 message | part of the message | RFC 3164 knows no structured data: CONTENT is "the details of the message" |
//! | a 5424 message begins or ends with white space: trimmed | malformed; kept | RFC 5424 6: the header begins with `<` |
//! | a malformed element vanishes whole | its parameters before the fault stay | RFC 5424 6.3: "MAY ignore malformed STRUCTURED-DATA elements" |
//! | `\n` in a value is a newline | a backslash and `n` | RFC 5424 6.3.3: a backslash before any other character is "a regular backslash" |
//! | any version of digits | version 1; others are a PRI and a message | RFC 5424 6.2.2: another version may have another header |
//! | several spaces between 5424 fields | malformed | RFC 5424 6: one SP, and NILVALUE for a field without a value |
//! | no space behind `-` or `]` | malformed | RFC 5424 6: `[SP MSG]` |
//! | PRI with leading zeros; a PRI over 191 without facility | malformed | RFC 5424 6.2.1: 0 to 191, "leading 0s MUST NOT be used" |
//! | `-` is a time of 3164, with or without a PRI | it is text | RFC 3164 4.1.2: `Mmm dd hh:mm:ss`; NILVALUE is RFC 5424's |
//! | `<PRI>2020-01-02 03:04:05 host ...` is nothing | a time, unless its fraction has a comma (log4j's text) | no RFC: firewalls write it |
//! | PRI and no time: nothing is parsed | PRI and message | RFC 3164 4.3.3: a valid PRI without a valid TIMESTAMP |
//! | the last word is a tag, its message empty | the last word is the message | the text of a message is never empty when there is some (ours) |
//! | `host word[not a pid] text`: the tag `word[not` | no tag | RFC 3164 5.3: brackets hold the process id (ours) |

use super::{Header, Kind, TimeContext, YearPolicy, parse, structured_data};
use crate::batch::Span;

/// 1 June 2020, UTC: where `syslog_loose`'s tests want 2019 for December and 2020 otherwise, we infer it.
const NOW: i64 = 1_590_969_600;

/// What both parsers say of a record, as text to be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    is_5424: bool,
    pri: Option<u8>,
    time_ns: Option<i64>,
    host: String,
    app: String,
    proc_id: String,
    msg_id: String,
    structured: Vec<(String, String, String)>,
    message: String,
}

fn ours(text: &str) -> (Header, Reading) {
    let bytes = text.as_bytes();
    let context = TimeContext::new(NOW, 0, YearPolicy::Inferred);
    let header = parse(bytes, Span { start: 0, end: bytes.len() as u32 }, &context);
    let field = |span: Span| String::from_utf8_lossy(span.of(bytes)).into_owned();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let reading = Reading {
        is_5424: header.kind == Kind::Rfc5424,
        pri: header.pri(),
        time_ns: header.time_ns(),
        host: field(header.host),
        app: field(header.app),
        proc_id: field(header.proc_id),
        msg_id: field(header.msg_id),
        structured: structured_data(header.structured_data.of(bytes))
            .map(|p| (lossy(p.id), lossy(p.name), p.value.pieces().map(lossy).collect()))
            .collect(),
        message: field(header.message).trim().to_owned(),
    };
    (header, reading)
}

fn theirs(text: &str) -> Reading {
    let variant = syslog_loose::Variant::Either;
    let epoch = syslog_loose::parse_message("<1>1 1970-01-01T00:00:00Z - - - - -", variant);
    let utc = epoch.timestamp.map(|time| *time.offset());
    let year = |(month, ..): syslog_loose::IncompleteDate| if month > 7 { 2019 } else { 2020 };
    let message = syslog_loose::parse_message_with_year_tz(text, year, utc, variant);
    let field = |field: Option<&str>| field.unwrap_or_default().to_owned();
    let structured = message.structured_data.iter().flat_map(|element| {
        let id = element.id.to_owned();
        let bare = element.params.is_empty().then(|| (id.clone(), String::new(), String::new()));
        let params = element.params().map(move |(name, value)| (id.clone(), (*name).to_owned(), value));
        bare.into_iter().chain(params)
    });
    Reading {
        is_5424: matches!(message.protocol, syslog_loose::Protocol::RFC5424(_)),
        pri: message.facility.zip(message.severity).map(|(f, s)| (f as u8) << 3 | s as u8),
        time_ns: message.timestamp.and_then(|time| time.timestamp_nanos_opt()),
        host: field(message.hostname),
        app: field(message.appname),
        proc_id: message.procid.as_ref().map(ToString::to_string).unwrap_or_default(),
        msg_id: field(message.msgid),
        structured: structured.collect(),
        message: message.msg.trim().to_owned(),
    }
}

#[test]
fn on_its_own_inputs() {
    for text in [
        "<190>Dec 28 16:49:07 web-x220 nginx: 127.0.0.1 - - [28/Dec/2019:16:49:07 +0000] \"GET / HTTP/1.1\" 304 0 \"-\"",
        "<46>Jan  5 15:33:03 web-X220 rsyslogd: start",
        "<133>Jan 13 16:33:35 haproxy[73411]: Proxy sticky-servers started.",
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - BOM'su root' failed for lonvick on /dev/pts/8",
        "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] BOMAn entry...",
        "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"\" eventID=\"1011\"] An entry...",
        "<165>1 2003-10-11T22:14:15.003Z m.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource= \"Application\"][examplePriority@32473 class=\"high\"] An entry...",
        "<46>Jan  5 15:33:03 web-X220 rsyslogd:  [software=\"rsyslogd\" swVersion=\"8.32.0\" x-pid=\"20506\"] start",
        "<46>Jan  5 15:33:03 web-X220  [software=\"rsyslogd\" swVersion=\"8.32.0\"] start",
        "<46>Jan 5 10:01:00 Übergröße außerplanmäßig größenordnungsmäßig",
        "<75>1 1969-12-03T23:58:58+00:00 - - - - - ",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [meta sequenceId=\"1\" sysUpTime=\"37\" language=\"EN\"][origin ip=\"192.168.0.1\" software=\"test\"] i am foobar",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [incorrect x] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [incorrect x=] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [empty] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [non_empty x=\"1\"][empty] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [empty][non_empty x=\"1\"] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 74794bfb6795 root 8449 - [empty not_really=\"testing the test\"] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 h root 8449 - [abc][id aa=] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 h root 8449 - [abc][id aa=\"bb\"] qwerty",
        "<13>1 2019-02-13T19:48:34+00:00 h root 8449 - [id aa=\"hullo \\\"there\\\"\" bb=\"let's \\\\\\\\do this\\\\\\\\\" cc=\"hello [bye\\]\" ee=\"not \\esc\\aped\"] x",
        "<13>Feb 13 20:07:26 74794bfb6795 root[8539]: i am foobar",
        "<13>Feb 13 20:07:26 74794bfb6795 root[8539]:syslog message",
        "<28>1 2020-05-22T14:59:09.250-03:00 OX-MX204 OX-CONTEUDO:rpd 6589 - - bgp_listen_accept: %DAEMON-4: Connection attempt from 2001:XXX::219:166+57284",
        "1 2020-05-22T14:59:09.250-03:00 OX-MX204 OX-CONTEUDO:rpd 6589 - - bgp_listen_accept: %DAEMON-4: Connection attempt",
        "Dec 28 16:49:07 web-x220 nginx: 127.0.0.1 - - [28/Dec/2019:16:49:07 +0000] \"GET / HTTP/1.1\" 304 0",
        "<34>1 2003-10-11T22:14:15.003Z 42.52.1.1 su - ID47 - bananas and peas",
        "<34>1 2003-10-11T22:14:15.003Z ::FFFF:129.144.52.38 su - ID47 - bananas and peas",
        "<4>Jan 26 05:59:54 ubnt kernel: [WAN_LOCAL-default-D]IN=eth0 OUT= MAC=b4:fb:xx:08:00 SRC=192.0.2.121 LEN=60 TOS=0x00",
        "<131>1 2025-05-09T09:56:18.906539+02:00 Host-Name.network.example appname 1234 01230456:1: [F5@1234 hostname=\"Host-Name.network.example\" errdefs_msgno=\"01230456:1:\"] RST sent from 192.0.2.1:443, [0xdeadbef:1010] RST",
        "<14>1 - 10.0.4.87 Serial-Debugger - - - Serializer started!",
        "<34>Oct 11 22:14:15 : a message",
        "<34>OCT 11 22:14:15 : a message",
        "<134>Oct 30 16:05:54 opsaudit  {\"username\": \"admin\", \"city\": \"局域网\"}",
        "<54> 1970-01-01T00:01:31+00:00 host :",
        "<34>Oct 11 22:14:15 mymachine app[323]: a message",
        "<34>2020-10-11T22:14:15.00Z mymachine app[323]: a message",
        "<131>Jun 8 11:54:08 master apache_error [Tue Jun 08 11:54:08.929301 2021] [php7:emerg] [pid 1374899] rest of message",
        "<134>Dec 28 2008 16:49:07 host app: text",
        "<134>Aug 4 2020 16:49:07 host app: text",
        "<134>Dec 28 16:49:07: host app: text",
        "complete and utter gobbledegook",
        "I am an invalid syslog message, but I do like cheese",
    ] {
        assert_eq!(ours(text).1, theirs(text), "{text}");
    }
}

#[test]
fn on_the_shapes_of_public_logs() {
    for text in [
        "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=192.0.2.4 ",
        "Jul 27 14:41:57 combo kernel: klogd 1.4.1, log source = /proc/kmsg started.",
        "Jul  1 00:21:28 combo syslogd 1.4.1: restart.",
        "Dec 10 06:55:46 LabSZ sshd[24200]: reverse mapping checking getaddrinfo for ns.example.com [192.0.2.86] failed",
        "Dec 10 06:55:46 LabSZ sshd[24200]: input_userauth_request: invalid user webmaster [preauth]",
        "<13>Nov 9 12:01:01 dn228/dn228 crond(pam_unix)[2915]: session closed for user root",
        "<13>Nov 9 12:01:01 dn228/dn228 crond[2916]: (root) CMD (run-parts /etc/cron.hourly)",
        "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_38865049064139660 terminating",
        "<190>May 15 2023 07:09:12 KM-B02 %%01POLICY/6/POLICYPERMIT(l):CID=0x814f041e;vsys=Security, protocol=6",
    ] {
        assert_eq!(ours(text).1, theirs(text), "{text}");
    }
}

/// The differences in the table above: what we say, and that it is not what `syslog_loose` says.
#[test]
fn differences() {
    let differs = |text: &str| {
        let (header, reading) = ours(text);
        assert_ne!(reading, theirs(text), "{text}: no difference any more, tell the table");
        (header, reading)
    };
    let (_, colon) = differs("<34>Oct 11 22:14:15 mymachine: a message");
    assert_eq!(
        (colon.host.as_str(), colon.app.as_str(), colon.message.as_str()),
        ("", "mymachine", "a message")
    );

    let (_, content) = differs("<46>Jan  5 15:33:03 h rsyslogd:  [origin software=\"rsyslogd\"] start");
    assert_eq!(content.message, "[origin software=\"rsyslogd\"] start");
    differs("<190>2019-02-13T21:53:30.605850+00:00 h liblogging:  [origin software=\"rsyslogd\"] start");

    assert_eq!(differs("Jul  7 08:06:15 combo  -- root[2421]: LOGIN").1.message, "-- root[2421]: LOGIN");
    let (leap_day, dashes) = differs("<134> Feb 29 14:07:19 myhostname sshd - - - this is my message");
    assert_eq!((leap_day.kind, dashes.message.as_str()), (Kind::Rfc3164, "- - - this is my message"));
    assert_eq!(differs("<13>2015-10-18 18:01:47 fw01 text text").1.host, "fw01");
    assert_eq!(differs("<13>2015-10-18 18:01:47,978 INFO [main] text").0.kind, Kind::Bare);

    let (framed, _) =
        differs("\n  <13>1 2019-02-13T19:48:34+00:00 h root 8449 - [meta sequenceId=\"1\"] i am foobar\n");
    assert_eq!(framed.kind, Kind::Malformed);

    let (_, half) = differs("<13>1 - h a p m [half x=\"1\" y] text");
    assert_eq!(half.structured, [("half".to_owned(), "x".to_owned(), "1".to_owned())]);
    let (_, newline) = differs(r#"<13>1 - h a p m [x y="a\nb"] text"#);
    assert_eq!(newline.structured[0].2, r"a\nb");

    assert_eq!(differs("<13>2 - h a p m - text").0.kind, Kind::Bare);
    for text in [
        "<13>1 -  h a p m - text",
        "<13>1 - h a p m -text",
        "<13>1 - h a p m [x]text",
        "<013>1 - h a p m - text",
        "<200>1 - h a p m - text",
    ] {
        assert_eq!(differs(text).0.kind, Kind::Malformed, "{text}");
    }
    let (bare, _) = differs("<34>test message");
    assert_eq!((bare.kind, bare.pri()), (Kind::Bare, Some(34)));
    // A day that a fixed year does not have is no time; an inferred year is one that has it.
    let (leap, _) = differs("<134> Feb 30 14:07:19 myhostname sshd - - - this is my message");
    assert_eq!(leap.kind, Kind::Bare);

    let (dash, _) =
        differs("- 1131566461 2005.11.09 dn228 Nov 9 12:01:01 dn228/dn228 crond[2916]: (root) CMD");
    assert_eq!(dash.kind, Kind::Malformed);

    assert_eq!(differs("<1>Jan  5 10:01:00 host word").1.message, "word");
    assert_eq!(differs("<1>Jan  5 10:01:00 host word[not a pid] text").1.message, "word[not a pid] text");
}

/// The message ends its record, whatever was taken for header.
#[test]
fn lines_with_a_header_keep_all_their_text() {
    for text in ["<13>Nov 22 21:00:00 h a: b", "<13>1 - h a p m - b", "<13>b", "b"] {
        let (header, reading) = ours(text);
        assert!(text.ends_with(&reading.message) && !reading.message.is_empty(), "{header:?}");
    }
}
