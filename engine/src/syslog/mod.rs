//! Syslog headers: RFC 3164 as it is found in the field, RFC 5424 whole; read into ranges, nothing allocated.
//!
//! [`parse`] reads one record of a run and answers with a [`Header`]: a PRI, a time, and ranges over the *run's* bytes,
//! so that a sink takes them with [`Span::of`] and the message alone is a record like any other. The module is pure: it
//! knows no clock, zone or environment ([`TimeContext`] is passed in), and no input makes it panic.
//!
//! A record is one of four kinds:
//!
//! - [`Kind::Rfc5424`]: `<PRI>1 `, or `1 ` alone, and then a time of RFC 3339 or `-`. From there on the RFC's grammar
//!   holds and what breaks it makes the record malformed.
//! - [`Kind::Rfc3164`]: a time of one of the forms in the field behind the PRI, or first of all. Nothing behind the
//!   time can be wrong: what is no host or no tag belongs to the message.
//! - [`Kind::Bare`]: a PRI and anything else, which is the message (RFC 3164 4.3.3).
//! - [`Kind::Malformed`]: a broken PRI, no PRI and no time, or a broken header of RFC 5424. The message is the whole
//!   record, untouched, and [`Header::malformed`] says what is wrong and where.
//!
//! What it refuses to do: guess a host or a tag from a record without a time, take structured data out of a message of
//! RFC 3164, undo escapes while parsing (sinks do, see [`structured_data`]), trim white space of a message.

#[cfg(test)]
mod agreement_tests;
mod block;
mod bsd;
mod elements;
mod names;
mod rfc3164;
mod rfc5424;
mod scan;
mod stamp;
mod structured;
#[cfg(test)]
mod tests;
mod time;
mod write;

use crate::batch::Span;

pub use names::{FACILITIES, SEVERITIES, facility_name, severity_name};
pub use structured::{Param, Params, Value, structured_data};
pub use time::{TimeContext, YearPolicy, write_rfc3164_time, write_rfc3339, write_rfc3339_ns};
pub use write::{write_3164_prefix, write_5424_prefix, write_sd_param};

/// PRI of a message that came without: user.notice (RFC 3164 4.3.3).
pub const PRI_DEFAULT: u8 = 13;

/// Which grammar a record follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// None: the record is to be passed on untouched, or dropped.
    #[default]
    Malformed,
    /// A PRI and a message.
    Bare,
    /// RFC 3164 or one of its relatives: at least a time.
    Rfc3164,
    /// RFC 5424, version 1.
    Rfc5424,
}

/// What is wrong with a malformed record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The record is empty.
    Empty,
    /// Neither a PRI nor a time begins it.
    NoHeader,
    /// `<` is not followed by one to three digits without leading zero and `>`.
    PriSyntax,
    /// The PRI is greater than 191.
    PriRange,
    /// The time is not one of RFC 5424.
    Timestamp,
    /// The record ends before its structured data.
    HeaderEnds,
    /// A field is empty where RFC 5424 has a value or `-`.
    EmptyField,
    /// Structured data is neither `-` nor begins with `[`.
    StructuredData,
    /// An element or a quoted value of the structured data has no end.
    StructuredDataEnds,
    /// Something else than a space follows the structured data.
    NoSpace,
}

impl Fault {
    /// What is wrong, for a message to the operator.
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "nothing is wrong",
            Self::Empty => "the record is empty",
            Self::NoHeader => "neither a PRI nor a time begins the record",
            Self::PriSyntax => "PRI is not `<`, one to three digits without leading zero, `>`",
            Self::PriRange => "PRI is greater than 191",
            Self::Timestamp => "the time is not one of RFC 5424",
            Self::HeaderEnds => "the record ends before its structured data",
            Self::EmptyField => "a header field is empty",
            Self::StructuredData => "structured data is neither `-` nor begins with `[`",
            Self::StructuredDataEnds => "structured data has no end",
            Self::NoSpace => "no space follows the structured data",
        }
    }
}

/// What is wrong with a record, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the first wrong byte in the record; its length when something is missing at the end.
    pub position: u32,
    /// What is wrong.
    pub fault: Fault,
}

/// A parsed header. Ranges are over the run's bytes; an empty range is a field that is absent or NILVALUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// See [`Header::time_ns`].
    time_ns: i64,
    /// The time as it was written, without Cisco's `*` or `.` and colon.
    pub stamp: Span,
    /// HOSTNAME.
    pub host: Span,
    /// APP-NAME, or the name in the TAG.
    pub app: Span,
    /// PROCID, or what the TAG has in brackets.
    pub proc_id: Span,
    /// MSGID.
    pub msg_id: Span,
    /// Structured data, from the first `[` to the last `]`.
    pub structured_data: Span,
    /// The message alone; the whole record when it is malformed.
    pub message: Span,
    fault_at: u32,
    pri: u8,
    /// Which grammar the record follows.
    pub kind: Kind,
    fault: Fault,
    flags: u8,
}

const HAS_PRI: u8 = 1;
const HAS_TIME: u8 = 2;
const NOT_UTF8: u8 = 4;

impl Header {
    /// PRI, 0-191.
    #[inline]
    pub fn pri(&self) -> Option<u8> {
        (self.flags & HAS_PRI != 0).then_some(self.pri)
    }

    /// Facility, 0-23.
    #[inline]
    pub fn facility(&self) -> Option<u8> {
        self.pri().map(|pri| pri >> 3)
    }

    /// Severity, 0-7.
    #[inline]
    pub fn severity(&self) -> Option<u8> {
        self.pri().map(|pri| pri & 7)
    }

    /// The time, nanoseconds since the Unix epoch; absent too when 64 bits do not hold it.
    #[inline]
    pub fn time_ns(&self) -> Option<i64> {
        (self.flags & HAS_TIME != 0).then_some(self.time_ns)
    }

    /// Whether the message was announced as UTF-8 by a BOM (which is removed) and is not.
    #[inline]
    pub fn is_not_utf8(&self) -> bool {
        self.flags & NOT_UTF8 != 0
    }

    /// What is wrong with the record, if it is malformed.
    #[inline]
    pub fn malformed(&self) -> Option<Malformed> {
        (self.kind == Kind::Malformed).then_some(Malformed { position: self.fault_at, fault: self.fault })
    }

    #[inline(always)]
    fn set_time(&mut self, stamp: Span, ns: Option<i64>) {
        self.stamp = stamp;
        if let Some(ns) = ns {
            self.time_ns = ns;
            self.flags |= HAS_TIME;
        }
    }

    /// Forgets what was read: the record is malformed at `at` of its run.
    #[cold]
    fn break_off(&mut self, record: Span, fault: Fault, at: usize) {
        *self = Self { message: record, fault, fault_at: at as u32 - record.start, ..Self::default() };
    }

    /// Keeps the PRI alone, which ends at `at`; without one the record is malformed.
    #[inline(never)]
    fn without_time(&mut self, record: Span, at: usize) {
        if self.pri().is_none() {
            let fault = if record.is_empty() { Fault::Empty } else { Fault::NoHeader };
            return self.break_off(record, fault, at);
        }
        let message = span(at, record.end as usize);
        *self = Self { pri: self.pri, flags: HAS_PRI, kind: Kind::Bare, message, ..Self::default() };
    }
}

/// A range as the header keeps it. Runs are far smaller than 4 GiB: their own spans are 32 bits wide.
#[inline(always)]
fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}

/// Parses the header of one record of a run.
///
/// `record` lies in `bytes`, as framing made it. Ranges of the answer are over `bytes`.
#[inline]
pub fn parse(bytes: &[u8], record: Span, context: &TimeContext) -> Header {
    let mut header = Header::default();
    parse_into(bytes, record, context, &mut header);
    header
}

/// As [`parse`], into a column's row: what was in `header` is forgotten. Saves a copy of the row, a fifth of the time.
pub fn parse_into(bytes: &[u8], record: Span, context: &TimeContext, header: &mut Header) {
    *header = Header::default();
    let bytes = &bytes[..record.end as usize];
    let start = record.start as usize;
    let mut at = start;
    if bytes.get(at) == Some(&b'<') {
        match names::pri(bytes, at) {
            Ok((pri, behind)) => {
                header.pri = pri;
                header.flags = HAS_PRI;
                at = behind;
            }
            Err((fault, at)) => return header.break_off(record, fault, at),
        }
    }
    if rfc5424::begins(bytes, at) {
        if let Err((fault, at)) = rfc5424::parse(bytes, at, header) {
            header.break_off(record, fault, at);
        }
    } else if !rfc3164::parse(bytes, at, context, header) {
        header.without_time(record, at);
    }
}
