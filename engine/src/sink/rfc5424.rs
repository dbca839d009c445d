//! RFC 5424 lines: the parsed header where a source has one, else one made of what is known of the record.
//!
//! Without a header a record is `user.notice` (PRI 13), its time is that of receipt, its host the origin's and its
//! application the source. A header of RFC 3164 keeps its fields; what it lacks is made the same way.

use crate::batch::{Columns, Run};
use crate::pool::Arena;
use crate::syslog::{Header, Kind, PRI_DEFAULT, write_5424_prefix};

/// The header of records that have none of their own, rendered once a run.
pub(super) struct Frame {
    made: Arena,
}

impl Frame {
    /// Renders the header for a run.
    pub(super) fn new(run: &Run<'_>) -> Self {
        let mut made = Arena::new(0);
        let (host, app) = (run.origin.host.as_bytes(), run.origin.source.as_bytes());
        write_5424_prefix(&mut made, PRI_DEFAULT, Some(run.received_ns), host, app, b"", b"", b"");
        Self { made }
    }

    /// Bytes that a record takes beside its own, at least.
    pub(super) fn overhead(&self, run: &Run<'_>) -> usize {
        match run.columns {
            Columns::None | Columns::Kafka(_) => self.made.len() + 1,
            Columns::Syslog(_) => 1,
        }
    }

    /// Appends record `i`.
    #[inline]
    pub(super) fn write(&self, run: &Run<'_>, i: usize, out: &mut Arena) {
        let message = match run.columns {
            // The message alone, also when the source keeps its headers: there must not be two.
            Columns::Syslog(headers) if headers[i].kind != Kind::Malformed => {
                write_parsed(&headers[i], run, out);
                headers[i].message
            }
            _ => {
                out.extend(self.made.filled());
                run.records[i]
            }
        };
        out.extend(message.of(run.bytes));
        out.push(b'\n');
    }
}

fn write_parsed(header: &Header, run: &Run<'_>, out: &mut Arena) {
    let pri = header.pri().unwrap_or(PRI_DEFAULT);
    write_5424_prefix(
        out,
        pri,
        header.time_ns().or(Some(run.received_ns)),
        known(header.host.of(run.bytes), &run.origin.host, header),
        known(header.app.of(run.bytes), &run.origin.source, header),
        header.proc_id.of(run.bytes),
        header.msg_id.of(run.bytes),
        header.structured_data.of(run.bytes),
    );
}

/// A field of the header; where it is absent, what the engine knows, unless the sender said `-`.
#[inline]
pub(super) fn known<'a>(field: &'a [u8], made: &'a str, header: &Header) -> &'a [u8] {
    if field.is_empty() && header.kind != Kind::Rfc5424 { made.as_bytes() } else { field }
}
