//! RFC 3164 lines: `<PRI>Mmm dd hh:mm:ss HOST TAG[PID]: message`, for receivers that know no other.
//!
//! What a record lacks is made as for RFC 5424. Times are local ones of this machine, as the RFC has it; what the form
//! has no place for (year, zone, fractions, message id, structured data) is left out.

use std::cell::Cell;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::batch::{Columns, Run};
use crate::pool::Arena;
use crate::sink::rfc5424::known;
use crate::syslog::{Header, Kind, PRI_DEFAULT, write_3164_prefix};

/// No zone changes its offset but at a multiple of this.
const QUARTER_NS: i64 = 15 * 60 * 1_000_000_000;

/// The header of records that have none of their own, rendered once a run.
pub(super) struct Frame {
    made: Arena,
    offsets: Offsets,
}

/// The offset of this machine's zone, looked up once for neighbouring times.
struct Offsets {
    zone: TimeZone,
    last: Cell<Option<(i64, i32)>>,
}

impl Offsets {
    /// Seconds east of UTC at a time.
    fn at(&self, ns: i64) -> i32 {
        let quarter = ns.div_euclid(QUARTER_NS);
        if let Some((of, offset)) = self.last.get()
            && of == quarter
        {
            return offset;
        }
        let offset = Timestamp::from_nanosecond(ns.into()).map_or(0, |at| self.zone.to_offset(at).seconds());
        self.last.set(Some((quarter, offset)));
        offset
    }
}

impl Frame {
    /// Renders the header for a run.
    pub(super) fn new(run: &Run<'_>) -> Self {
        let offsets = Offsets { zone: TimeZone::system(), last: Cell::new(None) };
        let mut made = Arena::new(0);
        let (host, app) = (run.origin.host.as_bytes(), run.origin.source.as_bytes());
        let offset = offsets.at(run.received_ns);
        write_3164_prefix(&mut made, PRI_DEFAULT, run.received_ns, offset, host, app, b"");
        Self { made, offsets }
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
            Columns::Syslog(headers) if headers[i].kind != Kind::Malformed => {
                self.write_parsed(&headers[i], run, out);
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

    fn write_parsed(&self, header: &Header, run: &Run<'_>, out: &mut Arena) {
        let at = header.time_ns().unwrap_or(run.received_ns);
        write_3164_prefix(
            out,
            header.pri().unwrap_or(PRI_DEFAULT),
            at,
            self.offsets.at(at),
            known(header.host.of(run.bytes), &run.origin.host, header),
            known(header.app.of(run.bytes), &run.origin.source, header),
            header.proc_id.of(run.bytes),
        );
    }
}
