//! The `meta` object of NDJSON: what a parsed syslog header says.
//!
//! Names are those of the sources' reference: numbers stand beside their names, the time is RFC 3339 in UTC where it
//! could be read and as it was written where not, structured data is by id and by name. Absent fields are left out.
//! Text that is not UTF-8 has U+FFFD where it is not.

use crate::batch::Span;
use crate::pool::Arena;
use crate::sink::json;
use crate::syslog::{Header, facility_name, severity_name, structured_data, write_rfc3339_ns};

/// Appends the members for `header`, whose ranges are over `bytes`; the first one follows a comma when `comma`.
pub(super) fn write_syslog(header: &Header, bytes: &[u8], mut comma: bool, out: &mut Arena) {
    if let (Some(pri), Some(facility), Some(severity)) = (header.pri(), header.facility(), header.severity())
    {
        key("syslog_priority", &mut comma, out);
        write_number(pri, out);
        key("syslog_facility", &mut comma, out);
        write_number(facility, out);
        key("syslog_facility_name", &mut comma, out);
        write_text(facility_name(facility).as_bytes(), out);
        key("syslog_severity", &mut comma, out);
        write_number(severity, out);
        key("syslog_severity_name", &mut comma, out);
        write_text(severity_name(severity).as_bytes(), out);
    }
    if let Some(ns) = header.time_ns() {
        key("syslog_timestamp", &mut comma, out);
        let mut text = [0; 35];
        let n = write_rfc3339_ns(&mut text, ns);
        write_text(&text[..n], out);
    } else {
        write_field("syslog_timestamp", header.stamp, bytes, &mut comma, out);
    }
    for (name, field) in [
        ("syslog_hostname", header.host),
        ("syslog_app_name", header.app),
        ("syslog_proc_id", header.proc_id),
        ("syslog_msg_id", header.msg_id),
    ] {
        write_field(name, field, bytes, &mut comma, out);
    }
    if !header.structured_data.is_empty() {
        key("structured_data", &mut comma, out);
        write_structured(header.structured_data.of(bytes), out);
    }
}

fn write_field(name: &str, field: Span, bytes: &[u8], comma: &mut bool, out: &mut Arena) {
    if !field.is_empty() {
        key(name, comma, out);
        write_text(field.of(bytes), out);
    }
}

/// `{"id":{"name":"value",...},...}`.
fn write_structured(bytes: &[u8], out: &mut Arena) {
    out.push(b'{');
    let mut open = false;
    for param in structured_data(bytes) {
        if param.is_first {
            out.extend(if open { b"}," } else { b"" });
            write_text(param.id, out);
            out.extend(b":{");
            open = true;
        }
        if param.name.is_empty() {
            continue;
        }
        if !param.is_first {
            out.push(b',');
        }
        write_text(param.name, out);
        out.extend(b":\"");
        param.value.pieces().for_each(|piece| write_lossy(piece, out));
        out.push(b'"');
    }
    out.extend(if open { b"}}" } else { b"}" });
}

/// Appends `"name":`, behind a comma from the second one on.
#[inline]
fn key(name: &str, comma: &mut bool, out: &mut Arena) {
    if std::mem::replace(comma, true) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend(name.as_bytes());
    out.extend(b"\":");
}

fn write_text(text: &[u8], out: &mut Arena) {
    out.push(b'"');
    write_lossy(text, out);
    out.push(b'"');
}

fn write_lossy(text: &[u8], out: &mut Arena) {
    for chunk in text.utf8_chunks() {
        json::escape(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            json::escape("\u{fffd}", out);
        }
    }
}

fn write_number(n: u8, out: &mut Arena) {
    let digits = [b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10];
    let leading = 2 - usize::from(n >= 10) - usize::from(n >= 100);
    out.extend(&digits[leading..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::{TimeContext, YearPolicy, parse};

    fn meta(message: &[u8]) -> serde_json::Value {
        let record = Span { start: 0, end: message.len() as u32 };
        let header = parse(message, record, &TimeContext::new(1_700_000_000, 0, YearPolicy::default()));
        let mut out = Arena::new(64);
        out.extend(b"{");
        write_syslog(&header, message, false, &mut out);
        out.extend(b"}");
        serde_json::from_slice(out.filled()).unwrap_or_else(|e| panic!("{e}: {:?}", out.filled()))
    }

    #[test]
    fn all_of_rfc_5424() {
        let message = br#"<165>1 2003-10-11T22:14:15.003Z h.example evnt 7 ID47 [a@1 x="1" y="\"]\\"][b@2][c z="\q"] hi"#;
        let expected = serde_json::json!({
            "syslog_priority": 165,
            "syslog_facility": 20, "syslog_facility_name": "local4",
            "syslog_severity": 5, "syslog_severity_name": crate::syslog::severity_name(5),
            "syslog_timestamp": "2003-10-11T22:14:15.003000000Z",
            "syslog_hostname": "h.example", "syslog_app_name": "evnt", "syslog_proc_id": "7", "syslog_msg_id": "ID47",
            "structured_data": {"a@1": {"x": "1", "y": "\"]\\"}, "b@2": {}, "c": {"z": "\\q"}},
        });
        // The quote and bracket inside of a value need their escapes to be there at all.
        let escaped = String::from_utf8_lossy(message).replace(r#"\"]"#, r#"\"\]"#);
        assert_eq!(meta(escaped.as_bytes()), expected);
    }

    #[test]
    fn little_and_broken() {
        assert_eq!(meta(b"no header"), serde_json::json!({}));
        assert_eq!(meta(b"<0>x")["syslog_priority"], 0);
        assert_eq!(meta(b"<13>1 - h\xff - - - - x")["syslog_hostname"], "h\u{fffd}");
    }
}
