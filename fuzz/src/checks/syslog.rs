//! Syslog headers: ranges within their record, none over another, and headers that come back when they are written out.

use engine::batch::Span;
use engine::pool::Arena;
use engine::syslog::{
    FACILITIES, Header, Kind, PRI_DEFAULT, Param, SEVERITIES, TimeContext, YearPolicy, facility_name, parse,
    severity_name, structured_data, write_3164_prefix, write_5424_prefix, write_rfc3339_ns, write_sd_param,
};

use super::dial::Dial;

/// What stands around the record in its run: what a header must not reach into.
const AROUND: &[u8] = b"<1>1 - [a b=\"]\" ";
/// A moment in 2024, a leap year.
const NOW: i64 = 1_709_250_000;
/// The last hours of 2023, when a message of January is of the year to come.
const NEW_YEARS_EVE: i64 = 1_704_060_000;

/// Any bytes, at any place of a run.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let place = dial.below(AROUND.len());
    let context = context(&mut dial);
    let record = dial.rest();
    elements_are_within(record);
    if let Some(header) = read(record, &AROUND[..place], &context) {
        comes_back(record, &header, &context);
        elements_come_back(header.structured_data.of(record));
    }
}

/// The same behind `<PRI>1 `, so that nearly every input is about RFC 5424.
pub fn check_rfc5424(data: &[u8]) {
    let mut dial = Dial::new(data);
    let pri = dial.byte();
    let context = context(&mut dial);
    let mut record = format!("<{pri}>1 ").into_bytes();
    record.extend_from_slice(dial.rest());
    if let Some(header) = read(&record, b"", &context) {
        assert!(pri <= 191, "PRI {pri} is none");
        comes_back(&record, &header, &context);
        elements_come_back(header.structured_data.of(&record));
    }
}

fn context(dial: &mut Dial<'_>) -> TimeContext {
    let offset = (i32::from(dial.byte()) - 128) * 450;
    let which = dial.byte();
    let policy = if which & 1 == 1 { YearPolicy::Fixed(2023) } else { YearPolicy::Inferred };
    let now = if which & 2 == 2 { NEW_YEARS_EVE } else { NOW };
    TimeContext::new(now, offset, policy)
}

/// Parses a record within a run; its header over the record alone if it is one of RFC 5424.
fn read(record: &[u8], before: &[u8], context: &TimeContext) -> Option<Header> {
    let alone = parse(record, Span { start: 0, end: record.len() as u32 }, context);
    holds(record, &alone);
    is_written_in_3164(record, &alone);
    let run = [before, record, AROUND].concat();
    let start = before.len() as u32;
    let within = parse(&run, Span { start, end: start + record.len() as u32 }, context);
    same(&alone, record, &within, &run);
    (alone.kind == Kind::Rfc5424).then_some(alone)
}

fn fields(header: &Header) -> [Span; 7] {
    let Header { stamp, host, app, proc_id, msg_id, structured_data, message, .. } = *header;
    [stamp, host, app, proc_id, msg_id, structured_data, message]
}

/// Ranges lie in the record, do not overlap, end with the message, and say what the kind says.
fn holds(record: &[u8], header: &Header) {
    let mut taken = fields(header).to_vec();
    taken.retain(|field| !field.is_empty());
    // Cisco has a host in front of the time; else the order is that of the fields.
    taken.sort_by_key(|field| field.start);
    let mut behind = 0;
    for field in &taken {
        assert!(behind <= field.start && field.start < field.end, "{header:?}");
        behind = field.end;
    }
    assert!(behind as usize <= record.len(), "{header:?}");
    assert!(header.message.is_empty() || header.message.end == behind, "{header:?}");
    assert!(header.pri().is_none_or(|pri| pri <= 191 && record.starts_with(format!("<{pri}>").as_bytes())));
    assert!(header.time_ns().is_none() || !header.stamp.is_empty());
    names_are_known(header);
    match header.kind {
        Kind::Malformed => {
            assert_eq!(header.message.of(record), record);
            let wrong = header.malformed().expect("a malformed record has a fault");
            assert!(wrong.position as usize <= record.len(), "{wrong:?}");
            assert!(!wrong.fault.words().is_empty());
        }
        Kind::Bare => assert!(header.pri().is_some() && header.stamp.is_empty()),
        Kind::Rfc3164 => assert!(header.structured_data.is_empty()),
        Kind::Rfc5424 => elements_are_within(header.structured_data.of(record)),
    }
}

/// Whatever bytes it is given, structured data ends, and its parameters are no more than the bytes.
fn elements_are_within(bytes: &[u8]) {
    let value = |param: &Param<'_>| param.value.pieces().map(<[u8]>::len).sum::<usize>();
    let taken = structured_data(bytes).map(|param| param.id.len().min(param.name.len()) + value(&param));
    assert!(taken.sum::<usize>() <= bytes.len(), "{}", bytes.escape_ascii());
}

/// A record means the same wherever it lies.
fn same(alone: &Header, record: &[u8], within: &Header, run: &[u8]) {
    for (one, other) in fields(alone).into_iter().zip(fields(within)) {
        assert_eq!(one.of(record), other.of(run), "{alone:?} {within:?}");
    }
    assert_eq!((alone.kind, alone.pri(), alone.time_ns()), (within.kind, within.pri(), within.time_ns()));
    assert_eq!((alone.malformed(), alone.is_not_utf8()), (within.malformed(), within.is_not_utf8()));
}

/// Written out and read again a header of RFC 5424 says the same, as far as the RFC's limits let it.
fn comes_back(record: &[u8], header: &Header, context: &TimeContext) {
    let [_, host, app, proc_id, msg_id, sd, message] = fields(header).map(|field| field.of(record));
    let mut out = Arena::new(0);
    // A header without a PRI is taken too, and written with the RFC's default.
    let pri = header.pri().unwrap_or(PRI_DEFAULT);
    write_5424_prefix(&mut out, pri, header.time_ns(), host, app, proc_id, msg_id, sd);
    out.extend(message);
    let text = out.filled();
    let again = parse(text, Span { start: 0, end: text.len() as u32 }, context);
    holds(text, &again);
    assert_eq!((again.kind, again.pri()), (Kind::Rfc5424, Some(pri)), "{again:?}");
    // Microseconds are written, RFC 5424 knows no finer time.
    assert_eq!(again.time_ns(), header.time_ns().map(|ns| ns.div_euclid(1000) * 1000));
    let bounds = [
        (again.host, host, 255),
        (again.app, app, 48),
        (again.proc_id, proc_id, 128),
        (again.msg_id, msg_id, 32),
    ];
    for (got, field, most) in bounds {
        assert_eq!(got.of(text), printable(field, most), "{:?}", field.escape_ascii());
    }
    assert_eq!(again.structured_data.of(text), sd);
    // A second BOM is the message's own, and is taken for the first by the next reader.
    let message = message.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(message);
    assert_eq!(again.message.of(text), message);
}

fn names_are_known(header: &Header) {
    let numbers = (header.pri(), header.facility(), header.severity());
    let (Some(pri), Some(facility), Some(severity)) = numbers else {
        return assert_eq!(numbers, (None, None, None));
    };
    assert_eq!(u16::from(facility) * 8 + u16::from(severity), u16::from(pri));
    assert!(FACILITIES.contains(&facility_name(facility)) && SEVERITIES.contains(&severity_name(severity)));
}

/// Whatever fields a record has, written in the older form they are a header of that form, with the time to the second.
fn is_written_in_3164(record: &[u8], header: &Header) {
    let [_, host, app, proc_id, _, _, message] = fields(header).map(|field| field.of(record));
    // Four digits behind a time are a year to whoever reads them, also with a colon, and not every year has every day.
    let word = host.strip_suffix(b":").unwrap_or(host);
    if word.len() == 4 && word.iter().all(u8::is_ascii_digit) {
        return;
    }
    let pri = header.pri().unwrap_or(PRI_DEFAULT);
    let time_ns = header.time_ns().unwrap_or(NOW * 1_000_000_000);
    let mut out = Arena::new(0);
    write_3164_prefix(&mut out, pri, time_ns, 0, host, app, proc_id);
    out.extend(message);
    let text = out.filled();
    // A year that is inferred has every day that any year has.
    let context = TimeContext::new(NOW, 0, YearPolicy::Inferred);
    let again = parse(text, Span { start: 0, end: text.len() as u32 }, &context);
    holds(text, &again);
    assert_eq!((again.kind, again.pri()), (Kind::Rfc3164, Some(pri)), "{}", text.escape_ascii());
    let mut stamp = [0; 35];
    let length = write_rfc3339_ns(&mut stamp, time_ns);
    let shown = again.stamp.of(text);
    // A day of one digit has a space in front, where the other form has a zero.
    assert_eq!((shown[4] & 0xF, shown[5]), (stamp[8] & 0xF, stamp[9]), "{}", text.escape_ascii());
    assert_eq!((&shown[7..15], stamp[length - 1]), (&stamp[11..19], b'Z'), "{}", text.escape_ascii());
}

/// Every parameter says the same when it is written alone, escapes and all.
fn elements_come_back(elements: &[u8]) {
    for param in structured_data(elements).filter(|param| !param.name.is_empty()) {
        let value = param.value.pieces().collect::<Vec<_>>().concat();
        let mut out = Arena::new(0);
        out.push(b'[');
        write_sd_param(&mut out, param.id, None);
        write_sd_param(&mut out, param.name, Some(&value));
        out.push(b']');
        let again: Vec<_> = structured_data(out.filled()).collect();
        assert_eq!(again.len(), 1, "{}", out.filled().escape_ascii());
        assert_eq!(again[0].value.pieces().collect::<Vec<_>>().concat(), value, "{again:?}");
    }
}

/// What the writer makes of a field.
fn printable(field: &[u8], most: usize) -> Vec<u8> {
    field.iter().take(most).map(|&byte| if byte.is_ascii_graphic() { byte } else { b'_' }).collect()
}
