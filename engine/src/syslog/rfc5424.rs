//! RFC 5424: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA [MSG]`.
//!
//! The RFC's grammar holds where a receiver could otherwise misread the record: one space between fields, no empty
//! field, a whole time, structured data that ends. Lengths of fields and the set of their characters are not enforced;
//! what is written inside an element is not judged either ("a collector MAY ignore malformed STRUCTURED-DATA
//! elements", 6.3): only brackets, quotes and backslashes decide where it ends.

use super::block::Block;
use super::scan::find;
use super::{Fault, Header, Kind, NOT_UTF8, elements, span, stamp};
use crate::batch::Span;

const BOM: &[u8; 3] = b"\xEF\xBB\xBF";

/// Whether a header of RFC 5424 begins behind the PRI: version 1, a space, and `-` or a year.
///
/// Another version may have another header (6.2.2: it is raised "for any new syslog protocol specification that
/// changes any part of the HEADER format"), so only this one is read.
#[inline(always)]
pub(super) fn begins(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at..) {
        Some([b'1', b' ', b'-', b' ', ..]) => true,
        Some([b'1', b' ', year @ ..]) => {
            year.len() >= 5 && year[4] == b'-' && year[..4].iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// Parses from the version on; what is wrong comes with its position.
#[inline]
pub(super) fn parse(bytes: &[u8], at: usize, header: &mut Header) -> Result<(), (Fault, usize)> {
    let at = timestamp(bytes, at + 2, header)?;
    let at = fields(bytes, at, header)?;
    let behind = structured_data(bytes, at)?;
    if bytes.get(at) == Some(&b'[') {
        header.structured_data = span(at, behind);
    }
    header.message = message(bytes, behind, header)?;
    header.kind = Kind::Rfc5424;
    Ok(())
}

/// The time, up to the first byte of the next field.
#[inline(always)]
fn timestamp(bytes: &[u8], at: usize, header: &mut Header) -> Result<usize, (Fault, usize)> {
    if bytes.get(at) == Some(&b'-') {
        return Ok(at + 2);
    }
    let (time, end) = stamp::iso(bytes, at).map_err(|wrong| (Fault::Timestamp, wrong))?;
    if bytes[at + 10] == b' ' {
        return Err((Fault::Timestamp, at + 10));
    }
    let Some(offset) = time.offset else { return Err((Fault::Timestamp, end)) };
    match bytes.get(end) {
        Some(b' ') => {}
        Some(_) => return Err((Fault::Timestamp, end)),
        None => return Err((Fault::HeaderEnds, end)),
    }
    header.set_time(span(at, end), time.at_offset(i64::from(offset)));
    Ok(end + 1)
}

/// Host, application, process and message id; up to the first byte behind their spaces.
#[inline(always)]
fn fields(bytes: &[u8], start: usize, header: &mut Header) -> Result<usize, (Fault, usize)> {
    let mut at = start;
    let mut spaces = Block::at(bytes, start).map_or(0, |block| block.mask(b' '));
    for field in [&mut header.host, &mut header.app, &mut header.proc_id, &mut header.msg_id] {
        let end =
            if spaces == 0 { find(bytes, at, [b' ']) } else { start + spaces.trailing_zeros() as usize };
        spaces &= spaces.wrapping_sub(1);
        if end >= bytes.len() {
            return Err((Fault::HeaderEnds, bytes.len()));
        }
        if end == at {
            return Err((Fault::EmptyField, at));
        }
        let is_nil = end == at + 1 && bytes[at] == b'-';
        *field = if is_nil { Span::default() } else { span(at, end) };
        at = end + 1;
    }
    Ok(at)
}

/// Where structured data ends.
#[inline(always)]
fn structured_data(bytes: &[u8], start: usize) -> Result<usize, (Fault, usize)> {
    match bytes.get(start) {
        Some(b'-') => Ok(start + 1),
        Some(b'[') => elements::end(bytes, start).ok_or((Fault::StructuredDataEnds, bytes.len())),
        Some(_) => Err((Fault::StructuredData, start)),
        None => Err((Fault::HeaderEnds, start)),
    }
}

/// The message behind structured data that ended at `at`, without its BOM.
#[inline(always)]
fn message(bytes: &[u8], at: usize, header: &mut Header) -> Result<Span, (Fault, usize)> {
    let end = bytes.len();
    let mut start = match bytes.get(at) {
        None => return Ok(span(end, end)),
        Some(b' ') => at + 1,
        Some(_) => return Err((Fault::NoSpace, at)),
    };
    if bytes[start..].starts_with(BOM) {
        start += BOM.len();
        if simdutf8::basic::from_utf8(&bytes[start..]).is_err() {
            header.flags |= NOT_UTF8;
        }
    }
    Ok(span(start, end))
}
