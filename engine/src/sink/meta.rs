//! The `meta` object of NDJSON: what a parsed syslog header says.
//!
//! Names are those of the sources' reference: numbers stand beside their names, the time is RFC 3339 in UTC where it
//! could be read and as it was written where not, structured data is by id and by name. Absent fields are left out.
//! Text that is not UTF-8 has U+FFFD where it is not.

use std::collections::{HashMap, HashSet};

use crate::batch::Span;
use crate::pool::Arena;
use crate::sink::json::{self, SHORT};
use crate::syslog::{FACILITIES, Header, SEVERITIES, Value, structured_data, write_rfc3339_ns};

/// Parameters among which a repeat is looked for one by one.
const FEW: usize = 16;
/// Parameters of a message at most that are gathered by name where one repeats.
const GATHERED_MAX: usize = 1024;

/// An element: its id, and the values of each of its parameters.
type Element<'a> = (&'a [u8], Vec<(&'a [u8], Vec<Value<'a>>)>);

/// A text in memory of fixed size: copied whole, which takes a few instructions where a text of any length takes a call.
struct Piece {
    bytes: [u8; 64],
    len: usize,
}

/// The members of facility 0 to 23.
static OF_FACILITY: [Piece; 24] = {
    let mut pieces = [const { Piece::EMPTY }; 24];
    let mut i = 0;
    while i < pieces.len() {
        pieces[i] = pieces[i].and("\"syslog_facility\":").and_number(i).and(",\"syslog_facility_name\":\"");
        pieces[i] = pieces[i].and(FACILITIES[i]).and("\",");
        i += 1;
    }
    pieces
};

/// The members of severity 0 to 7.
static OF_SEVERITY: [Piece; 8] = {
    let mut pieces = [const { Piece::EMPTY }; 8];
    let mut i = 0;
    while i < pieces.len() {
        pieces[i] = pieces[i].and("\"syslog_severity\":").and_number(i).and(",\"syslog_severity_name\":\"");
        pieces[i] = pieces[i].and(SEVERITIES[i]).and("\"");
        i += 1;
    }
    pieces
};

impl Piece {
    const EMPTY: Self = Self { bytes: [0; 64], len: 0 };

    const fn and(&self, text: &str) -> Self {
        let mut new = Self { bytes: self.bytes, len: self.len + text.len() };
        let mut i = 0;
        while i < text.len() {
            new.bytes[self.len + i] = text.as_bytes()[i];
            i += 1;
        }
        new
    }

    /// With a number below 100.
    const fn and_number(&self, n: usize) -> Self {
        let digits = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        let (_, last) = digits.split_at(1);
        match core::str::from_utf8(if n < 10 { last } else { &digits }) {
            Ok(digits) => self.and(digits),
            Err(_) => panic!("digits are text"),
        }
    }
}

/// Appends the members for `header`, whose ranges are over `bytes`; the first one follows a comma when `comma`.
pub(super) fn write_syslog(header: &Header, bytes: &[u8], mut comma: bool, out: &mut Arena) {
    if let Some(pri) = header.pri() {
        key(b",\"syslog_priority\":", &mut comma, out);
        write_number(pri, out);
        let (facility, severity) = (usize::from(pri >> 3) % 24, usize::from(pri & 7));
        for piece in [&OF_FACILITY[facility], &OF_SEVERITY[severity]] {
            out.extend_within(&piece.bytes, piece.len);
        }
    }
    if let Some(ns) = header.time_ns() {
        key(b",\"syslog_timestamp\":\"", &mut comma, out);
        let mut text = [0; 35];
        let n = write_rfc3339_ns(&mut text, ns);
        text[n] = b'"';
        out.extend_within(&text, n + 1);
    } else {
        write_field(b",\"syslog_timestamp\":\"", header.stamp, bytes, &mut comma, out);
    }
    write_field(b",\"syslog_hostname\":\"", header.host, bytes, &mut comma, out);
    write_field(b",\"syslog_app_name\":\"", header.app, bytes, &mut comma, out);
    write_field(b",\"syslog_proc_id\":\"", header.proc_id, bytes, &mut comma, out);
    write_field(b",\"syslog_msg_id\":\"", header.msg_id, bytes, &mut comma, out);
    if !header.structured_data.is_empty() {
        key(b",\"structured_data\":", &mut comma, out);
        write_structured(header.structured_data.of(bytes), out);
    }
}

/// A member whose value is a field; `name` is all from the comma to the opening quote.
#[inline]
fn write_field<const N: usize>(name: &[u8; N], field: Span, bytes: &[u8], comma: &mut bool, out: &mut Arena) {
    if field.is_empty() {
        return;
    }
    key(name, comma, out);
    write_inside(field, bytes, out);
    out.push(b'"');
}

/// A field as the inside of a string. Nearly all are short and hold nothing that JSON wants escaped.
#[inline]
fn write_inside(field: Span, bytes: &[u8], out: &mut Arena) {
    match bytes[field.start as usize..].first_chunk::<SHORT>() {
        Some(chunk) if json::is_plain(chunk, field.len()) => out.extend_within(chunk, field.len()),
        _ => write_lossy(field.of(bytes), out),
    }
}

/// `{"id":{"name":"value",...},...}`; a name that an element has several times has a list of values.
fn write_structured(bytes: &[u8], out: &mut Arena) {
    if repeats(bytes) {
        return write_gathered(bytes, out);
    }
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
        out.push(b':');
        write_value(param.value, out);
    }
    out.extend(if open { b"}}" } else { b"}" });
}

fn write_value(value: Value<'_>, out: &mut Arena) {
    out.push(b'"');
    value.pieces().for_each(|piece| write_lossy(piece, out));
    out.push(b'"');
}

/// Whether an element, or a parameter of one, comes twice. The latter is no mistake (RFC 5424 6.3.3: "the same PARAM-NAME
/// MAY exist more than once"), and JSON takes a name once. Beyond [`GATHERED_MAX`] nobody looks.
fn repeats(bytes: &[u8]) -> bool {
    let mut few: [(&[u8], &[u8]); FEW] = [(&[], &[]); FEW];
    for (i, param) in structured_data(bytes).enumerate() {
        if i == FEW {
            return many_repeat(bytes);
        }
        let is_again =
            |(id, name): &(&[u8], &[u8])| *id == param.id && (param.is_first || *name == param.name);
        if few[..i].iter().any(is_again) {
            return true;
        }
        few[i] = (param.id, param.name);
    }
    false
}

fn many_repeat(bytes: &[u8]) -> bool {
    let mut params = structured_data(bytes);
    if params.clone().nth(GATHERED_MAX).is_some() {
        return false;
    }
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    params.any(|param| (param.is_first && !ids.insert(param.id)) | !names.insert((param.id, param.name)))
}

/// As [`write_structured`], each id and name once.
fn write_gathered(bytes: &[u8], out: &mut Arena) {
    // In the order of their first coming.
    let mut elements: Vec<Element<'_>> = Vec::new();
    let (mut of_id, mut of_name) = (HashMap::new(), HashMap::new());
    for param in structured_data(bytes) {
        let element = *of_id.entry(param.id).or_insert(elements.len());
        if element == elements.len() {
            elements.push((param.id, Vec::new()));
        }
        let params = &mut elements[element].1;
        if !param.name.is_empty() {
            let at = *of_name.entry((element, param.name)).or_insert(params.len());
            if at == params.len() {
                params.push((param.name, Vec::new()));
            }
            params[at].1.push(param.value);
        }
    }
    write_list(b"{}", elements, out, |(id, params), out| {
        write_text(id, out);
        out.push(b':');
        write_list(b"{}", params, out, |(name, values), out| {
            write_text(name, out);
            out.push(b':');
            match values[..] {
                [value] => write_value(value, out),
                _ => write_list(b"[]", values, out, write_value),
            }
        });
    });
}

fn write_list<T>(brackets: &[u8; 2], items: Vec<T>, out: &mut Arena, write: impl Fn(T, &mut Arena)) {
    out.push(brackets[0]);
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// Appends what introduces a member, without its comma where it is the first one.
#[inline]
fn key<const N: usize>(name: &[u8; N], comma: &mut bool, out: &mut Arena) {
    if std::mem::replace(comma, true) {
        out.extend(name);
    } else {
        out.extend(&name[1..]);
    }
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

/// A number and a comma.
#[inline]
fn write_number(n: u8, out: &mut Arena) {
    let leading = 2 - usize::from(n >= 10) - usize::from(n >= 100);
    let digits = [b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10, b','];
    out.extend_within(&(u32::from_le_bytes(digits) >> (8 * leading)).to_le_bytes(), 4 - leading);
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
    fn what_repeats_is_a_list_and_an_element_that_comes_twice_is_one() {
        let of = |data: &str| meta(format!("<13>1 - - - - - {data} x").as_bytes())["structured_data"].clone();
        assert_eq!(of(r#"[o ip="1" n="a" ip="2"]"#), serde_json::json!({"o": {"ip": ["1", "2"], "n": "a"}}));
        assert_eq!(of(r#"[o ip="1"][b][o ip="2"]"#), serde_json::json!({"o": {"ip": ["1", "2"]}, "b": {}}));
        assert_eq!(of(r#"[o a="1"][b a="1"]"#), serde_json::json!({"o": {"a": "1"}, "b": {"a": "1"}}));
        let many = |params: usize| (0..params).map(|n| format!(" a{n}=\"{n}\"")).collect::<String>();
        for params in [FEW - 1, FEW, FEW + 1, GATHERED_MAX - 1] {
            let found = of(&format!("[o{} a0=\"again\"]", many(params)));
            assert_eq!(found["o"]["a0"], serde_json::json!(["0", "again"]), "{params}");
            assert_eq!(found["o"].as_object().map(serde_json::Map::len), Some(params));
        }
        let beyond = of(&format!("[o{} a0=\"again\"]", many(GATHERED_MAX)));
        assert_eq!(beyond["o"]["a0"], "again", "as it came: JSON's readers take the last one");
    }

    #[test]
    fn little_and_broken() {
        assert_eq!(meta(b"no header"), serde_json::json!({}));
        assert_eq!(meta(b"<0>x")["syslog_priority"], 0);
        assert_eq!(meta(b"<13>1 - h\xff - - - - x")["syslog_hostname"], "h\u{fffd}");
    }
}
