//! Times with a year: RFC 3339 and the ISO 8601 forms near it.

use super::scan::{lane, leading_digits, pairs, word};
use super::time::{day_number, nanoseconds};

/// A date and a time of day as written; the offset is absent when the text has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Seconds of the epoch as if it were written in UTC.
    pub local_secs: i64,
    /// Nanoseconds of the second; digits beyond them are dropped.
    pub nanos: u32,
    /// Seconds east of UTC.
    pub offset: Option<i32>,
}

impl Stamp {
    /// Nanoseconds of the Unix epoch, written at `offset` seconds east of UTC.
    #[inline(always)]
    pub(super) fn at_offset(&self, offset: i64) -> Option<i64> {
        nanoseconds(self.local_secs - offset, self.nanos)
    }
}

/// Seconds of the day from eight bytes `hh:mm:ss`. A leap second is the next minute's first.
#[inline(always)]
pub(super) fn clock(word: u64) -> Result<u32, usize> {
    let value = pairs(word, b"00:00:00")?;
    let (hour, minute, second) = (lane(value, 0), lane(value, 3), lane(value, 6));
    if hour > 23 || minute > 59 || second > 60 {
        return Err(if hour > 23 {
            0
        } else if minute > 59 {
            3
        } else {
            6
        });
    }
    Ok(hour * 3600 + minute * 60 + second)
}

/// Reads `YYYY-MM-DD(T| )hh:mm:ss[(.|,)fraction][Z|±hh[:]mm]` at `at` and says where it ends, or where it is wrong.
#[inline(always)]
pub(super) fn iso(bytes: &[u8], at: usize) -> Result<(Stamp, usize), usize> {
    let (Some(date), Some(time)) = (word(bytes, at), word(bytes, at + 11)) else { return Err(bytes.len()) };
    let date = pairs(date, b"0000-00-").map_err(|n| at + n)?;
    let digit = |i: usize| match bytes[at + i].wrapping_sub(b'0') {
        d @ 0..=9 => Ok(u32::from(d)),
        _ => Err(at + i),
    };
    let (year, month, day) = (lane(date, 0) * 100 + lane(date, 2), lane(date, 5), digit(8)? * 10 + digit(9)?);
    if !matches!(bytes[at + 10], b'T' | b't' | b' ') {
        return Err(at + 10);
    }
    let second = clock(time).map_err(|n| at + 11 + n)?;
    let days = day_number(year as i32, month, day).ok_or(at + 5)?;
    let (nanos, end) = fraction(bytes, at + 19)?;
    let (offset, end) = offset(bytes, end)?;
    Ok((Stamp { local_secs: days * 86_400 + i64::from(second), nanos, offset }, end))
}

/// Reads a fraction of a second, if there is one.
#[inline(always)]
pub(super) fn fraction(bytes: &[u8], at: usize) -> Result<(u32, usize), usize> {
    if !matches!(bytes.get(at), Some(b'.' | b',')) {
        return Ok((0, at));
    }
    // Of three or six digits nearly always: one word holds them and what ends them.
    match word(bytes, at + 1).and_then(leading_digits) {
        Some((value, digits)) if digits > 0 => Ok((value * 10, at + 1 + digits)),
        _ => fraction_by_digit(bytes, at + 1),
    }
}

/// As [`fraction`] behind its point, a digit a step: for any number of them, and the twin in tests.
fn fraction_by_digit(bytes: &[u8], at: usize) -> Result<(u32, usize), usize> {
    let (mut nanos, mut unit, mut end) = (0, 100_000_000, at);
    while let Some(digit) = bytes.get(end).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
        nanos += u32::from(digit) * unit;
        unit /= 10;
        end += 1;
    }
    if end == at { Err(end) } else { Ok((nanos, end)) }
}

/// Reads an offset from UTC, if there is one.
#[inline(always)]
pub(super) fn offset(bytes: &[u8], at: usize) -> Result<(Option<i32>, usize), usize> {
    match bytes.get(at) {
        Some(b'Z' | b'z') => Ok((Some(0), at + 1)),
        Some(sign @ (b'+' | b'-')) => {
            let (secs, end) = hours_minutes(bytes, at + 1)?;
            Ok((Some(if *sign == b'-' { -secs } else { secs }), end))
        }
        _ => Ok((None, at)),
    }
}

/// Seconds of `hh:mm` or `hhmm`.
#[inline]
fn hours_minutes(bytes: &[u8], at: usize) -> Result<(i32, usize), usize> {
    let digit = |i: usize| match bytes.get(i) {
        Some(d @ b'0'..=b'9') => Ok(i32::from(d - b'0')),
        _ => Err(i),
    };
    let hours = digit(at)? * 10 + digit(at + 1)?;
    let colon = usize::from(bytes.get(at + 2) == Some(&b':'));
    let minutes = digit(at + 2 + colon)? * 10 + digit(at + 3 + colon)?;
    if hours > 23 || minutes > 59 {
        return Err(at);
    }
    Ok((hours * 3600 + minutes * 60, at + 4 + colon))
}

#[cfg(test)]
mod tests {
    use super::{fraction, fraction_by_digit, iso};

    fn read(text: &str) -> Result<(i64, Option<i32>, usize), usize> {
        let (stamp, end) = iso(text.as_bytes(), 0)?;
        Ok((stamp.at_offset(i64::from(stamp.offset.unwrap_or(0))).ok_or(99usize)?, stamp.offset, end))
    }

    #[test]
    fn the_examples_of_rfc_5424() {
        assert_eq!(read("1985-04-12T23:20:50.52Z"), Ok((482_196_050_520_000_000, Some(0), 23)));
        assert_eq!(read("1985-04-12T19:20:50.52-04:00"), Ok((482_196_050_520_000_000, Some(-14_400), 28)));
        assert_eq!(read("2003-10-11T22:14:15.003Z"), Ok((1_065_910_455_003_000_000, Some(0), 24)));
        assert_eq!(
            read("2003-08-24T05:14:15.000003-07:00"),
            Ok((1_061_727_255_000_003_000, Some(-25_200), 32))
        );
        // Six digits at most by the RFC; nine make a nanosecond and are taken.
        assert_eq!(
            read("2003-08-24T05:14:15.000000003-07:00"),
            Ok((1_061_727_255_000_000_003, Some(-25_200), 35))
        );
    }

    #[test]
    fn other_forms() {
        assert_eq!(read("1970-01-01 00:00:01,5 x"), Ok((1_500_000_000, None, 21)));
        assert_eq!(read("1970-01-01T01:00:01+0100"), Ok((1_000_000_000, Some(3600), 24)));
        assert_eq!(read("2016-12-31T23:59:60Z"), read("2017-01-01T00:00:00Z"));
        assert_eq!(read("0001-01-01T00:00:00Z"), Err(99), "64 bits do not hold it");
    }

    #[test]
    fn a_fraction_agrees_with_its_scalar_twin() {
        for digits in 0..14 {
            for rest in ["", "Z", " ", "/", ":", "\u{FFFF}", "Zzzzzzzzzz", "+01:00 h"] {
                let text = format!(".{}{rest}", &"98765432101234"[..digits]);
                assert_eq!(fraction(text.as_bytes(), 0), fraction_by_digit(text.as_bytes(), 1), "{text}");
            }
        }
    }

    #[test]
    fn wrong_ones_say_where() {
        for (text, at) in [
            ("2003-10-11T22:14:1", 18),
            ("2003-1a-11T22:14:15Z", 6),
            ("2003-10-1xT22:14:15Z", 9),
            ("2003-10-11x22:14:15Z", 10),
            ("2003-10-11T24:14:15Z", 11),
            ("2003-10-11T22:60:15Z", 14),
            ("2003-10-11T22:14:61Z", 17),
            ("2003-13-11T22:14:15Z", 5),
            ("2003-02-29T22:14:15Z", 5),
            ("2003-10-11T22:14:15.Z", 20),
            ("2003-10-11T22:14:15+", 20),
            ("2003-10-11T22:14:15+01:", 23),
            ("2003-10-11T22:14:15+24:00", 20),
        ] {
            assert_eq!(read(text), Err(at), "{text}");
        }
    }
}
