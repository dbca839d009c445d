//! From framed records to syslog messages: headers parsed into a column, messages told from what is none.
//!
//! It owns the column and the calendar, and decides by `header_mode` and `on_bad_message` what a record is: the message
//! alone, or all of it. Pure but for the zone's rules: the time is passed in.

use std::net::SocketAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::batch::{Columns, Span};
use crate::source::syslog::{HeaderMode, OnBadMessage};
use crate::syslog::{Header, Kind, Malformed, TimeContext, YearPolicy, parse_into};

/// What becomes of headers.
#[derive(Clone, Debug)]
pub struct HeaderRules {
    /// Whether the header is parsed, cut off or kept.
    pub mode: HeaderMode,
    /// What happens to a record that is no message.
    pub on_bad: OnBadMessage,
    /// The zone of times without one.
    pub zone: TimeZone,
    /// The year of times without one.
    pub year: YearPolicy,
}

/// Records of a run that are no messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bad {
    /// How many.
    pub records: u64,
    /// The first: where it lies and what is wrong with it.
    pub first: Option<(Span, Malformed)>,
    /// How many of them were taken out of the run.
    pub dropped: u64,
}

/// The headers of one run at a time.
#[derive(Debug)]
pub struct Headers {
    rules: HeaderRules,
    /// Whether a sink needs the column even though the source does not.
    wanted: bool,
    rows: Vec<Header>,
    bad: u64,
    context: TimeContext,
    /// The second for which `context` was made.
    second: i64,
}

impl Headers {
    /// Nothing is parsed yet.
    pub fn new(rules: HeaderRules) -> Self {
        let context = TimeContext::new(0, 0, rules.year);
        Self { rules, wanted: false, rows: Vec::new(), bad: 0, context, second: i64::MIN }
    }

    /// Whether some sink looks at the header whatever the mode.
    pub fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Parses the headers of a run. Records become messages as the mode says; bad ones go, with their peers, if they are
    /// to be dropped.
    pub fn read(
        &mut self,
        bytes: &[u8],
        records: &mut Vec<Span>,
        peers: &mut Vec<SocketAddr>,
        now_ns: i64,
    ) -> Bad {
        let keeps = self.rules.mode == HeaderMode::Keep;
        self.bad = 0;
        if keeps && !self.wanted && self.rules.on_bad == OnBadMessage::Pass {
            self.rows.clear();
            return Bad::default();
        }
        self.set_clock(now_ns.div_euclid(1_000_000_000));
        self.rows.resize(records.len(), Header::default());
        for (record, row) in records.iter_mut().zip(&mut self.rows) {
            parse_into(bytes, *record, &self.context, row);
            self.bad += u64::from(row.kind == Kind::Malformed);
            if !keeps {
                *record = row.message;
            }
        }
        if self.bad == 0 { Bad::default() } else { self.judge(records, peers) }
    }

    #[cold]
    fn judge(&mut self, records: &mut Vec<Span>, peers: &mut Vec<SocketAddr>) -> Bad {
        let is_good = |row: &Header| row.kind != Kind::Malformed;
        let first = self.rows.iter().position(|row| !is_good(row));
        let first = first.and_then(|i| Some((records[i], self.rows[i].malformed()?)));
        let mut bad = Bad { records: self.bad, first, dropped: 0 };
        if self.rules.on_bad == OnBadMessage::Drop {
            bad.dropped = self.bad;
            self.bad = 0;
            let mut rows = self.rows.iter();
            records.retain(|_| rows.next().is_some_and(is_good));
            let mut rows = self.rows.iter();
            peers.retain(|_| rows.next().is_some_and(is_good));
            self.rows.retain(is_good);
        }
        bad
    }

    /// What becomes of headers.
    pub fn mode(&self) -> HeaderMode {
        self.rules.mode
    }

    /// Whether records are as they were framed.
    pub fn keeps(&self) -> bool {
        self.rules.mode == HeaderMode::Keep
    }

    /// The records from `from` on that share a run: where they end, and whether they bear the mark of a bad message.
    pub fn alike(&self, from: usize, records: usize) -> (usize, bool) {
        if self.bad == 0 || self.keeps() {
            return (records, false);
        }
        let is_bad = |i: &usize| self.rows[*i].kind == Kind::Malformed;
        let marked = is_bad(&from);
        let end = (from..records).find(|i| is_bad(i) != marked).unwrap_or(records);
        (end, marked)
    }

    /// The column of the records `from..to`, as far as the mode or a sink wants it.
    pub fn column(&self, from: usize, to: usize) -> Columns<'_> {
        if self.rows.is_empty() || (self.rules.mode != HeaderMode::Parse && !self.wanted) {
            return Columns::None;
        }
        Columns::Syslog(&self.rows[from..to])
    }

    /// Moves the calendar on, at most once a second.
    #[inline]
    fn set_clock(&mut self, second: i64) {
        if second != self.second {
            self.second = second;
            let now = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            let offset = self.rules.zone.to_offset(now).seconds();
            self.context = TimeContext::new(second, offset, self.rules.year);
        }
    }
}

/// The length of a message without the newlines and NUL bytes that some senders put at its end, in a datagram or within
/// a counted frame. They end the message for whom they were put there, and are no part of it.
#[inline]
pub fn message_len(record: &[u8]) -> usize {
    let mut len = record.len();
    while len > 0 && matches!(record[len - 1], b'\n' | b'\r' | 0) {
        len -= 1;
    }
    len
}

/// The zone of a name that validation let pass: local, UTC, an offset, or a name of the zone database.
pub fn zone(name: &str) -> TimeZone {
    if name == "local" {
        return TimeZone::system();
    }
    if name.eq_ignore_ascii_case("utc") {
        return TimeZone::UTC;
    }
    let offset = || jiff::fmt::strtime::parse("%:z", name).ok()?.offset().map(TimeZone::fixed);
    offset().or_else(|| TimeZone::get(name).ok()).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mode: HeaderMode, on_bad: OnBadMessage) -> HeaderRules {
        HeaderRules { mode, on_bad, zone: TimeZone::UTC, year: YearPolicy::Inferred }
    }

    fn records(bytes: &[u8]) -> Vec<Span> {
        let mut start = 0;
        let span = |line: &[u8]| {
            let span = Span { start, end: start + line.len() as u32 };
            start = span.end + 1;
            span
        };
        bytes.split(|b| *b == b'\n').map(span).collect()
    }

    fn texts<'a>(bytes: &'a [u8], records: &[Span]) -> Vec<&'a str> {
        records.iter().map(|r| std::str::from_utf8(r.of(bytes)).unwrap()).collect()
    }

    const LINES: &[u8] = b"<34>one\nnone\nneither\n<35>1 - h a - - - two";

    #[test]
    fn parse_leaves_the_message_and_tells_bad_ones_apart() {
        let mut headers = Headers::new(rules(HeaderMode::Parse, OnBadMessage::Pass));
        let mut spans = records(LINES);
        let bad = headers.read(LINES, &mut spans, &mut Vec::new(), 0);
        assert_eq!((bad.records, bad.dropped, bad.first.unwrap().0.of(LINES)), (2, 0, &b"none"[..]));
        assert_eq!(texts(LINES, &spans), ["one", "none", "neither", "two"]);
        assert_eq!(headers.alike(0, 4), (1, false));
        assert_eq!(headers.alike(1, 4), (3, true));
        assert_eq!(headers.alike(3, 4), (4, false));
        let Columns::Syslog(rows) = headers.column(3, 4) else { panic!("parsed") };
        assert_eq!((rows[0].pri(), rows[0].host.of(LINES)), (Some(35), &b"h"[..]));
    }

    #[test]
    fn bad_ones_are_dropped_with_their_peers() {
        let mut headers = Headers::new(rules(HeaderMode::Strip, OnBadMessage::Drop));
        let mut spans = records(LINES);
        let mut peers: Vec<SocketAddr> = (1..=4).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let bad = headers.read(LINES, &mut spans, &mut peers, 0);
        assert_eq!((bad.records, bad.dropped), (2, 2));
        assert_eq!(texts(LINES, &spans), ["one", "two"]);
        assert_eq!(peers.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(headers.alike(0, 2), (2, false));
        assert!(matches!(headers.column(0, 2), Columns::None));
    }

    #[test]
    fn keep_touches_nothing_and_parses_only_when_asked() {
        for wanted in [false, true] {
            let mut headers = Headers::new(rules(HeaderMode::Keep, OnBadMessage::Pass));
            headers.want(wanted);
            let mut spans = records(LINES);
            headers.read(LINES, &mut spans, &mut Vec::new(), 0);
            assert_eq!(spans, records(LINES));
            assert_eq!(headers.alike(0, 4), (4, false));
            assert_eq!(matches!(headers.column(0, 4), Columns::Syslog(_)), wanted);
        }
    }

    #[test]
    fn zones_are_read_as_validation_reads_them() {
        let offset = |name: &str| zone(name).to_offset(Timestamp::UNIX_EPOCH).seconds();
        assert_eq!(offset("UTC"), 0);
        assert_eq!(offset("+08:00"), 8 * 3600);
        assert_eq!(offset("-03:30"), -(3 * 3600 + 1800));
    }
}
