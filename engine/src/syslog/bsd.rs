//! The times of RFC 3164 and its relatives: `Oct 11 22:14:15`, with a year, a fraction, a zone, or as ISO 8601.
//!
//! The form of the RFC has a fixed layout and is read as two words. Everything else goes the slow way: a day of one
//! digit, a year behind the date or the time, a year in front (NX-OS, then a colon must follow the time), fractions,
//! zones. Of zones only numbers and `UTC`, `GMT`, `Z` mean something; other names are ambiguous (CST is in America, in
//! China and in Cuba), so they are skipped and the source's zone holds. A name is taken for a zone only before a
//! colon, where Cisco writes it: elsewhere it is a host.

use super::scan::{number, skip_spaces, word};
use super::stamp::{Stamp, clock, fraction, iso, offset};
use super::time::{TimeContext, month, nanoseconds};

/// A time that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// Nanoseconds of the Unix epoch, where 64 bits hold them.
    pub ns: Option<i64>,
    /// Where it ends, a colon behind it not included.
    pub end: usize,
}

/// Reads a time at `at`. `cisco` says that Cisco's marks were in front of it.
#[inline(always)]
pub(super) fn time(bytes: &[u8], at: usize, cisco: bool, context: &TimeContext) -> Option<Time> {
    if bytes.get(at)?.is_ascii_digit() {
        return with_year_first(bytes, at, context);
    }
    let Some((month, day, second)) = fixed(bytes, at) else { return loose(bytes, at, None, cisco, context) };
    let end = at + 15;
    if let Some([b' ', next]) = bytes.get(end..end + 2)
        && !(next.is_ascii_uppercase() || next.is_ascii_digit() || matches!(next, b'+' | b'-'))
    {
        let secs = context.day(month, day)? + i64::from(second);
        return Some(Time { ns: nanoseconds(secs, 0), end });
    }
    Parts { year: None, month, day, second }.with_tail(bytes, end, cisco, context)
}

/// Month, day and second of the day from the RFC's layout, `Mmm dd hh:mm:ss`.
#[inline(always)]
fn fixed(bytes: &[u8], at: usize) -> Option<(u32, u32, u32)> {
    let (date, time) = (word(bytes, at)?, word(bytes, at + 7)?);
    let [.., c, tens, ones, d, _] = date.to_le_bytes();
    // A space for the first digit is worth nothing, as is `0`.
    let (tens, ones) = (tens.wrapping_sub(b'0').min(tens ^ b' '), ones.wrapping_sub(b'0'));
    if c != b' ' || d != b' ' || tens > 3 || ones > 9 {
        return None;
    }
    Some((month(date as u32)?, u32::from(tens) * 10 + u32::from(ones), clock(time).ok()?))
}

/// A date and a time of day, as far as read.
struct Parts {
    year: Option<u32>,
    month: u32,
    day: u32,
    second: u32,
}

impl Parts {
    /// Reads what may stand behind the seconds (a fraction, a year, a zone) and makes a time of it all.
    fn with_tail(mut self, bytes: &[u8], at: usize, cisco: bool, context: &TimeContext) -> Option<Time> {
        let (nanos, mut end) = fraction(bytes, at).ok()?;
        if self.year.is_none()
            && let Some((year, behind)) = year(bytes, end)
        {
            self.year = Some(year);
            end = behind;
        }
        let mut secs = match self.year {
            Some(year) => context.day_of_year(year as i32, self.month, self.day)?,
            None => context.day(self.month, self.day)?,
        } + i64::from(self.second);
        if let Some((offset, behind)) = zone(bytes, end, cisco) {
            end = behind;
            secs += offset.map_or(0, |offset| context.offset() - i64::from(offset));
        }
        Some(Time { ns: nanoseconds(secs, nanos), end })
    }
}

/// Whether a time's part may end at `at`. A colon ends it before a space only: `2001:db8::1` is a host, and no year.
fn ends(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        None | Some(b' ') => true,
        Some(b':') => matches!(bytes.get(at + 1), None | Some(b' ')),
        Some(_) => false,
    }
}

/// A year behind the time: a space and four digits that look like one.
fn year(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    if bytes.get(at) != Some(&b' ') {
        return None;
    }
    let (year, end) = number(bytes, at + 1, 4)?;
    ((1970..2100).contains(&year) && ends(bytes, end)).then_some((year, end))
}

/// A zone behind the time: its offset, or none for a name that says nothing.
fn zone(bytes: &[u8], at: usize, cisco: bool) -> Option<(Option<i32>, usize)> {
    let start = at + usize::from(bytes.get(at) == Some(&b' '));
    if let Ok((Some(offset), end)) = offset(bytes, start)
        && ends(bytes, end)
    {
        return Some((Some(offset), end));
    }
    let name = bytes.get(start..)?;
    let letters = name.iter().take(6).take_while(|b| b.is_ascii_uppercase()).count();
    let end = start + letters;
    if start == at || !(2..=5).contains(&letters) || !ends(bytes, end) {
        return None;
    }
    if matches!(&name[..letters], b"UTC" | b"GMT") {
        return Some((Some(0), end));
    }
    // Otherwise only where Cisco writes one: `CET: %SYS-5-...`. Without its marks, `CRON: ...` would be one too.
    let colon = bytes.get(end) == Some(&b':');
    (colon && (cisco || bytes[end + 1..].starts_with(b" %"))).then_some((None, end))
}

/// `Mmm d [yyyy] h:mm:ss`, any number of spaces between.
#[inline(never)]
fn loose(bytes: &[u8], at: usize, year: Option<u32>, cisco: bool, context: &TimeContext) -> Option<Time> {
    let name = bytes.get(at..)?.first_chunk::<4>()?;
    let month = month(u32::from_le_bytes(*name)).filter(|_| name[3] == b' ')?;
    let (day, end) = number(bytes, skip_spaces(bytes, at + 4), 2)?;
    let mut parts = Parts { year, month, day, second: 0 };
    let mut at = spaces(bytes, end)?;
    if let Some((year, end)) = number(bytes, at, 4).filter(|(year, _)| parts.year.is_none() && *year >= 1000)
    {
        parts.year = Some(year);
        at = spaces(bytes, end)?;
    }
    let (hour, end) = number(bytes, at, 2).filter(|(hour, _)| *hour < 24)?;
    let (minute, end) = sixty(bytes, end, 59)?;
    let (second, end) = sixty(bytes, end, 60)?;
    parts.second = hour * 3600 + minute * 60 + second;
    parts.with_tail(bytes, end, cisco, context)
}

/// Where one space or more end.
fn spaces(bytes: &[u8], at: usize) -> Option<usize> {
    let end = skip_spaces(bytes, at);
    (end > at).then_some(end)
}

/// A colon and two digits, `most` at most.
fn sixty(bytes: &[u8], at: usize, most: u32) -> Option<(u32, usize)> {
    let (value, end) = number(bytes, at + 1, 2)?;
    (bytes.get(at) == Some(&b':') && end == at + 3 && value <= most).then_some((value, end))
}

/// A time that begins with its year: ISO 8601, or NX-OS's `yyyy Mmm dd hh:mm:ss ZONE:`.
#[inline(never)]
fn with_year_first(bytes: &[u8], at: usize, context: &TimeContext) -> Option<Time> {
    if let Ok((stamp, end)) = iso(bytes, at) {
        // With a space and a comma it is a line of log4j or Python that begins its text.
        if bytes[at + 10] == b' ' && bytes.get(at + 19) == Some(&b',') {
            return None;
        }
        return Some(written(stamp, end, bytes, context));
    }
    let (year, end) = number(bytes, at, 4).filter(|(year, _)| (1970..2100).contains(year))?;
    let time = loose(bytes, spaces(bytes, end)?, Some(year), true, context)?;
    (bytes.get(time.end) == Some(&b':')).then_some(time)
}

/// The time of an ISO stamp: at its own offset, at that of a zone behind it, or at the source's.
fn written(stamp: Stamp, end: usize, bytes: &[u8], context: &TimeContext) -> Time {
    let mut time = Time { ns: None, end };
    let mut at = stamp.offset;
    if at.is_none()
        && let Some((offset, end)) = zone(bytes, end, false)
    {
        at = offset;
        time.end = end;
    }
    time.ns = stamp.at_offset(at.map_or(context.offset(), i64::from));
    time
}

#[cfg(test)]
mod tests {
    use super::super::time::{TimeContext, YearPolicy};
    use super::time;

    /// Read in a zone two hours east of UTC, in June 2020; written in UTC, with where it ends.
    fn read(text: &str) -> Option<(String, usize)> {
        let context = TimeContext::new(1_592_000_000, 7200, YearPolicy::Inferred);
        let time = time(text.as_bytes(), 0, false, &context)?;
        let mut out = [0; 35];
        super::super::time::write_rfc3339(&mut out, time.ns?);
        Some((String::from_utf8_lossy(&out[..23]).into_owned(), time.end))
    }

    #[test]
    fn forms_in_the_field() {
        for (text, expected, rest) in [
            ("Oct 11 22:14:15 host", "2019-10-11T20:14:15.000", " host"),
            ("Oct 11 22:14:15", "2019-10-11T20:14:15.000", ""),
            ("OCT 11 22:14:15 h", "2019-10-11T20:14:15.000", " h"),
            ("Jan  5 15:33:03 Host", "2020-01-05T13:33:03.000", " Host"),
            ("Jan 05 15:33:03 10.0.0.1", "2020-01-05T13:33:03.000", " 10.0.0.1"),
            ("Jan 5 5:33:03 h", "2020-01-05T03:33:03.000", " h"),
            ("Mar  1 18:46:11.123 UTC: %SYS", "2020-03-01T18:46:11.123", ": %SYS"),
            ("Mar  1 18:46:11 CET: %SYS", "2020-03-01T16:46:11.000", ": %SYS"),
            ("Mar  1 18:46:11 CRON: text", "2020-03-01T16:46:11.000", " CRON: text"),
            ("Mar  1 18:46:11 GMT host", "2020-03-01T18:46:11.000", " host"),
            ("Mar  1 18:46:11 +01:00 host", "2020-03-01T17:46:11.000", " host"),
            ("Mar  1 18:46:11 -host x", "2020-03-01T16:46:11.000", " -host x"),
            ("May 15 2023 07:09:12 KM", "2023-05-15T05:09:12.000", " KM"),
            ("May 15 07:09:12 2023 H3C", "2023-05-15T05:09:12.000", " H3C"),
            ("May 15 07:09:12 2023: H3C", "2023-05-15T05:09:12.000", ": H3C"),
            ("May 15 07:09:12 2123 x", "2020-05-15T05:09:12.000", " 2123 x"),
            ("2016 Mar 28 10:50:20 EDT: %X", "2016-03-28T08:50:20.000", ": %X"),
            ("2019-02-13T21:53:30.605850+00:00 h", "2019-02-13T21:53:30.605", " h"),
            ("2019-02-13T21:53:30 h", "2019-02-13T19:53:30.000", " h"),
            ("2019-02-13 21:53:30 UTC h", "2019-02-13T21:53:30.000", " h"),
            ("May 15 07:09:12 2001:db8::1 x", "2020-05-15T05:09:12.000", " 2001:db8::1 x"),
            ("May 15 07:09:12 UTC:x y", "2020-05-15T05:09:12.000", " UTC:x y"),
            ("Feb 29 10:00:00 2016 x", "2016-02-29T08:00:00.000", " x"),
        ] {
            let (stamp, end) = read(text).expect(text);
            assert_eq!((stamp.as_str(), &text[end..]), (expected, rest), "{text}");
        }
    }

    #[test]
    fn no_times() {
        for text in [
            "",
            "Oct",
            "Oct 11",
            "Oct 11 22:14",
            "Oct 11 22:14:1",
            "Oct 32 22:14:15 x",
            "Oct  0 22:14:15 x",
            "Oct 11 24:14:15 x",
            "Oct 11 22:61:15 x",
            "Okt 11 22:14:15 x",
            "Apr 31 22:14:15 x",
            "Feb 29 10:00:00 2015 x",
            "1990 Oct 22 10:52:01 TZ-6 scapegoat",
            "2018 01 30 text",
            "2015-10-18 18:01:47,978 INFO [main] text",
            "2019-02-30T21:53:30Z h",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
