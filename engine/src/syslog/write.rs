//! Headers written out: what stands in front of a message in RFC 5424 and RFC 3164.
//!
//! Fields come from anywhere (a peer's header, a tag of the configuration, a file's name), so a field never breaks the
//! frame: bytes that a field may not hold become `_`, longer fields are cut at the RFC's limit, an empty one is `-`.
//! Structured data is taken as it is from a parsed header or from [`write_sd_param`], which escapes.

use super::time::{write_rfc3164_time, write_rfc3339};
use crate::pool::Arena;

/// Most bytes of HOSTNAME (RFC 5424 6).
const HOST_MAX: usize = 255;
/// Most bytes of APP-NAME.
const APP_MAX: usize = 48;
/// Most bytes of PROCID.
const PROC_ID_MAX: usize = 128;
/// Most bytes of MSGID.
const MSG_ID_MAX: usize = 32;
/// Most bytes of a name in structured data.
const SD_NAME_MAX: usize = 32;

/// Appends `<PRI>1 TIME HOST APP PROCID MSGID SD ` with the space in front of the message. `None` for the time and
/// empty fields become `-`; `sd` is whole elements, or empty.
#[expect(clippy::too_many_arguments, reason = "one for each field of the header, in its order")]
pub fn write_5424_prefix(
    out: &mut Arena,
    pri: u8,
    time_ns: Option<i64>,
    host: &[u8],
    app: &[u8],
    proc_id: &[u8],
    msg_id: &[u8],
    sd: &[u8],
) {
    write_pri(out, pri);
    out.extend(b"1 ");
    match time_ns {
        Some(ns) => {
            let mut text = [0; 35];
            let n = write_rfc3339(&mut text, ns);
            out.extend(&text[..n]);
        }
        None => out.push(b'-'),
    }
    for (field, most) in [(host, HOST_MAX), (app, APP_MAX), (proc_id, PROC_ID_MAX), (msg_id, MSG_ID_MAX)] {
        out.push(b' ');
        write_field(out, field, most, b"-", |b| b.is_ascii_graphic());
    }
    out.push(b' ');
    out.extend(if sd.is_empty() { b"-" } else { sd });
    out.push(b' ');
}

/// Appends `<PRI>Mmm dd hh:mm:ss HOST TAG[PID]: `, the time in a zone `offset` seconds east of UTC. An empty `proc_id`
/// leaves the brackets out, an empty `app` is `-`.
pub fn write_3164_prefix(
    out: &mut Arena,
    pri: u8,
    time_ns: i64,
    offset: i32,
    host: &[u8],
    app: &[u8],
    proc_id: &[u8],
) {
    write_pri(out, pri);
    let mut text = [0; 15];
    write_rfc3164_time(&mut text, time_ns, offset);
    out.extend(&text);
    out.push(b' ');
    write_field(out, host, HOST_MAX, b"-", |b| b.is_ascii_graphic() && b != b'[');
    out.push(b' ');
    write_field(out, app, APP_MAX, b"-", |b| b.is_ascii_graphic() && !matches!(b, b':' | b'[' | b']'));
    if !proc_id.is_empty() {
        out.push(b'[');
        write_field(out, proc_id, PROC_ID_MAX, b"-", |b| b.is_ascii_graphic() && b != b']');
        out.push(b']');
    }
    out.extend(b": ");
}

/// Appends ` NAME="VALUE"`, a parameter within an element of structured data, or `NAME` as an element's id when there
/// is no value; the value's quotes, backslashes and brackets are escaped.
pub fn write_sd_param(out: &mut Arena, name: &[u8], value: Option<&[u8]>) {
    if value.is_some() {
        out.push(b' ');
    }
    write_field(out, name, SD_NAME_MAX, b"_", |b| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"'));
    let Some(mut rest) = value else { return };
    out.extend(b"=\"");
    while let Some(n) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | b']')) {
        out.extend(&rest[..n]);
        out.extend(&[b'\\', rest[n]]);
        rest = &rest[n + 1..];
    }
    out.extend(rest);
    out.push(b'"');
}

/// Appends `<PRI>`; a value that is none becomes user.notice.
fn write_pri(out: &mut Arena, pri: u8) {
    let pri = if pri <= 191 { pri } else { super::PRI_DEFAULT };
    let digits = [b'0' + pri / 100, b'0' + pri / 10 % 10, b'0' + pri % 10];
    let leading = if pri >= 100 { 0 } else { 2 - usize::from(pri >= 10) };
    out.push(b'<');
    out.extend(&digits[leading..]);
    out.push(b'>');
}

/// Appends a field, cut at `most` bytes, with `_` for what may not be in it; `absent` when it is empty.
fn write_field(out: &mut Arena, field: &[u8], most: usize, absent: &[u8], may: impl Fn(u8) -> bool) {
    let field = &field[..field.len().min(most)];
    if field.is_empty() {
        return out.extend(absent);
    }
    let spare = out.spare(field.len());
    for (to, from) in spare.iter_mut().zip(field) {
        *to = if may(*from) { *from } else { b'_' };
    }
    out.advance(field.len());
}

#[cfg(test)]
mod tests {
    use super::{write_3164_prefix, write_5424_prefix, write_sd_param};
    use crate::pool::Arena;

    const NS: i64 = 1_065_910_455_003_000_000;

    fn text(write: impl FnOnce(&mut Arena)) -> String {
        let mut out = Arena::new(0);
        write(&mut out);
        String::from_utf8(out.filled().to_vec()).unwrap()
    }

    #[test]
    fn rfc5424() {
        let full =
            text(|out| write_5424_prefix(out, 165, Some(NS), b"h", b"app", b"7", b"ID47", b"[a b=\"c\"]"));
        assert_eq!(full, "<165>1 2003-10-11T22:14:15.003000Z h app 7 ID47 [a b=\"c\"] ");
        let empty = text(|out| write_5424_prefix(out, 5, None, b"", b"", b"", b"", b""));
        assert_eq!(empty, "<5>1 - - - - - - ");
        let hostile = text(|out| write_5424_prefix(out, 255, None, b"a b\n", &[b'x'; 60], b"\xFF", b"", b""));
        assert_eq!(hostile, format!("<13>1 - a_b_ {} _ - - ", "x".repeat(48)));
    }

    #[test]
    fn rfc3164() {
        let full = text(|out| write_3164_prefix(out, 34, NS, 0, b"mymachine", b"su", b"42"));
        assert_eq!(full, "<34>Oct 11 22:14:15 mymachine su[42]: ");
        let bare = text(|out| write_3164_prefix(out, 0, NS, 7200, b"", b"a:b c", b""));
        assert_eq!(bare, "<0>Oct 12 00:14:15 - a_b_c: ");
    }

    #[test]
    fn parameters_are_escaped() {
        let element = text(|out| {
            write_sd_param(out, b"id@1", None);
            write_sd_param(out, b"a=b", Some(b"x\"y\\z]"));
            write_sd_param(out, b"", Some(b""));
        });
        assert_eq!(element, r#"id@1 a_b="x\"y\\z\]" _="""#);
    }
}
