//! Calendar arithmetic without a clock: what a time without year or zone means, and times written out.
//!
//! A [`TimeContext`] holds `now` and the offset of a source's zone, both passed in, and answers from a table of twelve
//! month starts: no calendar is computed for a message of RFC 3164. It is made anew whenever the caller's `now` or
//! offset moves on; one a second is plenty.
//!
//! The offset is the one that holds now. A message from the other side of a change of daylight saving time that has
//! been delayed across it is off by that change; nothing in the message would tell.

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days from 0000-03-01, shifted by one Gregorian cycle, to 1970-01-01.
const EPOCH_SHIFT: u32 = 719_468 + 146_097;
/// The years in which a clock may be: 1 to 9998, so that a neighbouring year has four digits too.
const NOW_MIN: i64 = -62_135_596_800;
const NOW_MAX: i64 = 253_370_764_799;
/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Which year a time without one belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum YearPolicy {
    /// The year that puts the month between eleven months ago and one month ahead: a December message that arrives in
    /// January is last year's, a January message on New Year's Eve (a clock that runs ahead) next year's.
    #[default]
    Inferred,
    /// This year, whatever the month.
    Fixed(i32),
}

/// What times without zone or year are read against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeContext {
    /// Seconds of the Unix epoch at which each month begins in the source's zone, in the year that holds for it.
    month_start: [i64; 12],
    /// Days of each month in that year. February has 29 where `leap_day` answers for its last one.
    month_days: [u8; 12],
    /// Start of 29 February: of the inferred year, or of the latest leap year before it.
    leap_day: i64,
    /// Seconds east of UTC.
    offset: i32,
}

impl TimeContext {
    /// A context for the moment `now` (seconds of the Unix epoch) and a zone `offset` seconds east of UTC.
    ///
    /// With an inferred year that has no 29 February, such a date means the latest one before: only the inference can
    /// be wrong, as a sender's calendar has it. With a fixed year the date does not exist.
    pub fn new(now: i64, offset: i32, policy: YearPolicy) -> Self {
        let now = now.clamp(NOW_MIN, NOW_MAX);
        let (this_year, this_month, _) = civil((now + i64::from(offset)).div_euclid(DAY));
        let mut context = Self { month_start: [0; 12], month_days: [0; 12], leap_day: 0, offset };
        for month in 1..=12u32 {
            let year = match policy {
                YearPolicy::Fixed(year) => year.clamp(0, 9999),
                YearPolicy::Inferred => nearest_year(this_year, this_month, month),
            };
            let slot = month as usize - 1;
            context.month_start[slot] = days(year, month, 1) * DAY - i64::from(offset);
            context.month_days[slot] = days_in_month(year, month) as u8;
            if month == 2 {
                let inferred = policy == YearPolicy::Inferred;
                let leap = if inferred { (year - 8..=year).rev().find(|y| is_leap(*y)) } else { Some(year) };
                context.leap_day = days(leap.unwrap_or(year), 2, 29) * DAY - i64::from(offset);
                if inferred {
                    context.month_days[slot] = 29;
                }
            }
        }
        context
    }

    /// Seconds of the Unix epoch at the start of a day without a year; nothing when there is no such day.
    #[inline(always)]
    pub(super) fn day(&self, month: u32, day: u32) -> Option<i64> {
        let slot = month.wrapping_sub(1) as usize;
        if day == 0 || day > u32::from(*self.month_days.get(slot)?) {
            return None;
        }
        if month == 2 && day == 29 {
            return Some(self.leap_day);
        }
        Some(self.month_start.get(slot)? + i64::from(day - 1) * DAY)
    }

    /// Seconds of the Unix epoch at the start of a day of the source's zone; nothing when there is no such day.
    #[inline]
    pub(super) fn day_of_year(&self, year: i32, month: u32, day: u32) -> Option<i64> {
        Some(day_number(year, month, day)? * DAY - i64::from(self.offset))
    }

    /// Seconds east of UTC of the source's zone.
    #[inline]
    pub(super) fn offset(&self) -> i64 {
        i64::from(self.offset)
    }
}

/// The year in which `month` lies less than eleven months before, or at most one after, a month of `year`.
fn nearest_year(year: i32, now: u32, month: u32) -> i32 {
    match month as i32 - now as i32 {
        -11 => year + 1,
        2.. => year - 1,
        _ => year,
    }
}

/// Whether a year has a 29 February.
fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month; 0 for a month that does not exist.
#[inline]
fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap(year)),
        1..=12 => 31,
        _ => 0,
    }
}

/// Days of the Unix epoch of a date that exists.
#[inline]
pub(super) fn day_number(year: i32, month: u32, day: u32) -> Option<i64> {
    // The 28th exists in every month; only later days ask for the length of theirs.
    let exists = (1..=28).contains(&day) && (1..=12).contains(&month)
        || (29..=31).contains(&day) && day <= days_in_month(year, month);
    exists.then(|| days(year, month, day))
}

/// Days of the Unix epoch of a date in years -400 to 9999; years begin in March, so that a leap day is a year's last.
#[inline]
fn days(year: i32, month: u32, day: u32) -> i64 {
    let early = month <= 2;
    let y = (year + 400 - i32::from(early)) as u32;
    let m = if early { month + 9 } else { month - 3 };
    let century = y / 100;
    let days = 365 * y + y / 4 - century + century / 4 + (153 * m + 2) / 5 + day - 1;
    i64::from(days) - i64::from(EPOCH_SHIFT)
}

/// Year, month and day of a day of the Unix epoch between the years -400 and 9999.
#[inline]
fn civil(day: i64) -> (i32, u32, u32) {
    let shifted = (day + i64::from(EPOCH_SHIFT)) as u32;
    let century = (4 * shifted + 3) / 146_097;
    let in_century = (4 * shifted + 3) % 146_097 / 4;
    let year_of_century = (4 * in_century + 3) / 1461;
    let in_year = (4 * in_century + 3) % 1461 / 4;
    let m = (5 * in_year + 2) / 153;
    let day = in_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = (century * 100 + year_of_century) as i32 - 400 + i32::from(m >= 10);
    (year, month, day)
}

/// Nanoseconds of the Unix epoch, where 64 bits hold them (the years 1678 to 2261).
#[inline(always)]
pub(super) fn nanoseconds(secs: i64, nanos: u32) -> Option<i64> {
    secs.checked_mul(SECOND_NS)?.checked_add(i64::from(nanos))
}

/// Names of the months as RFC 3164 has them.
pub(super) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The month of a three-letter name in any case, the letters in the low three bytes.
#[inline(always)]
pub(super) fn month(letters: u32) -> Option<u32> {
    const fn key(name: &[u8; 3]) -> u32 {
        u32::from_le_bytes([name[0], name[1] | 0x20, name[2] | 0x20, 0]) | 0x20
    }
    macro_rules! table {
        ($($number:literal)*) => {
            match letters & 0xFF_FFFF | 0x20_2020 {
                $(m if m == const { key(MONTHS[$number - 1]) } => Some($number),)*
                _ => None,
            }
        };
    }
    table!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// Pairs of decimal digits, 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
};

/// Writes `value`, below 100, as two digits.
#[inline(always)]
fn put(out: &mut [u8], at: usize, value: u32) {
    let pair = PAIRS[value as usize % 100];
    out[at] = pair[0];
    out[at + 1] = pair[1];
}

/// Writes the date and time of day `YYYY-MM-DDThh:mm:ss`, 19 bytes.
#[inline(always)]
fn write_second(out: &mut [u8; 35], secs: i64) {
    let (year, month, day) = civil(secs.div_euclid(DAY));
    let second = secs.rem_euclid(DAY) as u32;
    out[..19].copy_from_slice(b"0000-00-00T00:00:00");
    put(out, 0, year as u32 / 100);
    put(out, 2, year as u32 % 100);
    put(out, 5, month);
    put(out, 8, day);
    put(out, 11, second / 3600);
    put(out, 14, second / 60 % 60);
    put(out, 17, second % 60);
}

/// Writes a time as RFC 3339 with microseconds in UTC (`2003-10-11T22:14:15.003000Z`), which RFC 5424 takes too, and
/// says how many bytes: always 27.
#[inline]
pub fn write_rfc3339(out: &mut [u8; 35], unix_ns: i64) -> usize {
    write_second(out, unix_ns.div_euclid(SECOND_NS));
    let micros = unix_ns.rem_euclid(SECOND_NS) as u32 / 1000;
    out[19] = b'.';
    put(out, 20, micros / 10_000);
    put(out, 22, micros / 100);
    put(out, 24, micros);
    out[26] = b'Z';
    27
}

/// As [`write_rfc3339`] with nanoseconds, 30 bytes: finer than RFC 5424 allows.
#[inline]
pub fn write_rfc3339_ns(out: &mut [u8; 35], unix_ns: i64) -> usize {
    write_rfc3339(out, unix_ns);
    let below = unix_ns.rem_euclid(1000) as u32;
    out[26] = b'0' + (below / 100) as u8;
    put(out, 27, below);
    out[29] = b'Z';
    30
}

/// Writes the time of RFC 3164 (`Oct 11 22:14:15`) in a zone `offset` seconds east of UTC, 15 bytes.
#[inline]
pub fn write_rfc3164_time(out: &mut [u8; 15], unix_ns: i64, offset: i32) {
    let secs = unix_ns.div_euclid(SECOND_NS) + i64::from(offset);
    let (_, month, day) = civil(secs.div_euclid(DAY));
    let second = secs.rem_euclid(DAY) as u32;
    out.copy_from_slice(b"Mmm 00 00:00:00");
    out[..3].copy_from_slice(MONTHS[month as usize - 1]);
    put(out, 4, day);
    if day < 10 {
        out[4] = b' ';
    }
    put(out, 7, second / 3600);
    put(out, 10, second / 60 % 60);
    put(out, 13, second % 60);
}

#[cfg(test)]
mod tests {
    use super::{
        DAY, TimeContext, YearPolicy, civil, day_number, month, write_rfc3164_time, write_rfc3339,
        write_rfc3339_ns,
    };

    #[test]
    fn every_day_goes_there_and_back() {
        let first = day_number(1600, 1, 1).unwrap();
        let mut last = (1599, 12, 31);
        for day in first..day_number(2400, 1, 1).unwrap() {
            let (y, m, d) = civil(day);
            assert_eq!(day_number(y, m, d), Some(day));
            assert!((y, m, d) > last);
            last = (y, m, d);
        }
        assert_eq!(day_number(1970, 1, 1), Some(0));
        assert_eq!(day_number(2000, 2, 29), Some(11_016));
        assert_eq!(day_number(0, 1, 1), Some(-719_528));
        for (y, m, d) in
            [(1900, 2, 29), (2023, 2, 29), (2023, 4, 31), (2023, 0, 1), (2023, 13, 1), (2023, 1, 0)]
        {
            assert_eq!(day_number(y, m, d), None);
        }
    }

    #[test]
    fn months_have_names_in_any_case() {
        let read = |text: &[u8; 3]| month(u32::from_le_bytes([text[0], text[1], text[2], b' ']));
        assert_eq!(
            [read(b"Jan"), read(b"FEB"), read(b"mar"), read(b"dEC")],
            [Some(1), Some(2), Some(3), Some(12)]
        );
        assert_eq!([read(b"Foo"), read(b"ja\0"), read(b"   ")], [None; 3]);
    }

    fn at(year: i32, month: u32, day: u32) -> i64 {
        day_number(year, month, day).unwrap() * DAY
    }

    #[test]
    fn the_year_is_the_nearest() {
        let in_january = TimeContext::new(at(2020, 1, 2), 0, YearPolicy::Inferred);
        assert_eq!(in_january.day(12, 31), Some(at(2019, 12, 31)));
        assert_eq!(in_january.day(1, 3), Some(at(2020, 1, 3)));
        assert_eq!(in_january.day(2, 29), Some(at(2020, 2, 29)));
        let in_december = TimeContext::new(at(2019, 12, 31), 0, YearPolicy::Inferred);
        assert_eq!(in_december.day(1, 1), Some(at(2020, 1, 1)));
        assert_eq!(in_december.day(2, 1), Some(at(2019, 2, 1)));
        let fixed = TimeContext::new(at(2019, 12, 31), 0, YearPolicy::Fixed(2001));
        assert_eq!(fixed.day(12, 31), Some(at(2001, 12, 31)));
    }

    #[test]
    fn new_year_comes_at_local_midnight() {
        let eve = at(2020, 1, 1) - 1800;
        let berlin = TimeContext::new(eve, 3600, YearPolicy::Inferred);
        assert_eq!(berlin.day(1, 1), Some(at(2020, 1, 1) - 3600));
        assert_eq!(berlin.day(12, 31), Some(at(2019, 12, 31) - 3600));
    }

    #[test]
    fn a_leap_day_is_the_latest_there_was() {
        let context = |year, policy| TimeContext::new(at(year, 6, 1), 0, policy);
        assert_eq!(context(2020, YearPolicy::Inferred).day(2, 29), Some(at(2020, 2, 29)));
        assert_eq!(context(2023, YearPolicy::Inferred).day(2, 29), Some(at(2020, 2, 29)));
        assert_eq!(context(2103, YearPolicy::Inferred).day(2, 29), Some(at(2096, 2, 29)));
        assert_eq!(context(2023, YearPolicy::Inferred).day(2, 30), None);
        assert_eq!(context(2023, YearPolicy::Fixed(2023)).day(2, 29), None);
        assert_eq!(context(2023, YearPolicy::Fixed(2024)).day(2, 29), Some(at(2024, 2, 29)));
    }

    #[test]
    fn times_are_written() {
        let mut out = [0; 35];
        let text = |n: usize, out: &[u8; 35]| String::from_utf8(out[..n].to_vec()).unwrap();
        for (ns, micro, nano) in [
            (0, "1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000000Z"),
            (1_065_910_455_003_000_000, "2003-10-11T22:14:15.003000Z", "2003-10-11T22:14:15.003000000Z"),
            (1_709_251_199_987_654_321, "2024-02-29T23:59:59.987654Z", "2024-02-29T23:59:59.987654321Z"),
            (-1, "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775Z", "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224Z", "1677-09-21T00:12:43.145224192Z"),
        ] {
            let n = write_rfc3339(&mut out, ns);
            assert_eq!(text(n, &out), micro);
            let n = write_rfc3339_ns(&mut out, ns);
            assert_eq!(text(n, &out), nano);
        }
        let mut out = [0; 15];
        write_rfc3164_time(&mut out, 1_065_910_455_003_000_000, 7 * 3600);
        assert_eq!(&out, b"Oct 12 05:14:15");
        write_rfc3164_time(&mut out, 0, 0);
        assert_eq!(&out, b"Jan  1 00:00:00");
    }
}
