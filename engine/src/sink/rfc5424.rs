//! RFC 5424 lines: the parsed header where a source has one, else one made of what is known of the record.
//!
//! Without a header a record is `user.notice` (PRI 13), its time is that of receipt, its host the origin's and its
//! application the source. Names are cut and mended to what the RFC allows: printable ASCII, no space.

use std::io::Write;

use crate::batch::Run;
use crate::pool::Arena;

/// Longest HOSTNAME and APP-NAME of RFC 5424.
const HOST_MAX: usize = 255;
const APP_MAX: usize = 48;

/// The header of records that have none of their own, rendered once a run.
pub(super) struct Frame {
    made: Vec<u8>,
}

impl Frame {
    /// Renders the header for a run.
    pub(super) fn new(run: &Run<'_>) -> Self {
        let mut made = Vec::with_capacity(128);
        let time = jiff::Timestamp::from_nanosecond(i128::from(run.received_ns)).unwrap_or_default();
        // Writing to a Vec cannot fail. TIME-SECFRAC has six digits at most.
        let _ = write!(made, "<13>1 {time:.6} ");
        write_name(&run.origin.host, HOST_MAX, &mut made);
        made.push(b' ');
        write_name(&run.origin.source, APP_MAX, &mut made);
        made.extend_from_slice(b" - - - ");
        Self { made }
    }

    /// Bytes that a record takes beside its own, at least.
    pub(super) fn overhead(&self) -> usize {
        self.made.len() + 1
    }

    /// Appends record `i`.
    #[inline]
    pub(super) fn write(&self, run: &Run<'_>, i: usize, out: &mut Arena) {
        out.extend(&self.made);
        out.extend(run.records[i].of(run.bytes));
        out.push(b'\n');
    }
}

/// A name in printable ASCII, at most `max` bytes; `-` for none.
fn write_name(name: &str, max: usize, out: &mut Vec<u8>) {
    if name.is_empty() {
        out.push(b'-');
    }
    out.extend(name.chars().take(max).map(|c| if c.is_ascii_graphic() { c as u8 } else { b'_' }));
}
