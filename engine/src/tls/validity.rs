//! From when and until when a certificate is valid: the two dates of its DER, and nothing else of it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::der::{Der, SEQUENCE};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time in which a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// It is good from then on,
    pub from: Timestamp,
    /// and until then.
    pub until: Timestamp,
}

/// Reads the dates of a certificate; nothing when it is none.
pub fn of(certificate: &[u8]) -> Option<Validity> {
    let mut dates = Der(Der::behind_issuer(certificate)?.next(SEQUENCE)?);
    Some(Validity { from: time(&mut dates)?, until: time(&mut dates)? })
}

/// The next value as a date.
fn time(dates: &mut Der<'_>) -> Option<Timestamp> {
    let tag = dates.kind()?;
    let text = std::str::from_utf8(dates.next(tag)?).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        // Two digits: 1950 to 2049.
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let date = DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    date.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::der::INTEGER;
    use super::*;

    const VERSION: u8 = 0xa0;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        let head =
            if len < 128 { vec![tag, len as u8] } else { vec![tag, 0x82, (len >> 8) as u8, len as u8] };
        [head, content.to_vec()].concat()
    }

    fn certificate(version: &[u8], from: (u8, &str), until: (u8, &str)) -> Vec<u8> {
        let dates = [value(from.0, from.1.as_bytes()), value(until.0, until.1.as_bytes())].concat();
        let signed = [
            version.to_vec(),
            value(INTEGER, &[1]),
            value(SEQUENCE, &[0; 9]),
            value(SEQUENCE, &[0; 200]),
            value(SEQUENCE, &dates),
        ];
        value(SEQUENCE, &value(SEQUENCE, &signed.concat()))
    }

    #[test]
    fn both_kinds_of_dates_are_read() {
        let of_two = of(&certificate(
            &value(VERSION, &[2]),
            (UTC_TIME, "500101000000Z"),
            (GENERALIZED_TIME, "20991231235959Z"),
        ));
        let validity = of_two.expect("it has dates");
        assert_eq!(validity.from.to_string(), "1950-01-01T00:00:00Z");
        assert_eq!(validity.until.to_string(), "2099-12-31T23:59:59Z");
        let without_version = of(&certificate(&[], (UTC_TIME, "491231235959Z"), (UTC_TIME, "491231235959Z")));
        assert_eq!(without_version.expect("it has dates").from.to_string(), "2049-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        let whole = certificate(&[], (UTC_TIME, "250101000000Z"), (UTC_TIME, "260101000000Z"));
        for cut in 0..whole.len() {
            assert_eq!(of(&whole[..cut]), None, "cut at {cut}");
        }
        for wrong in ["251301000000Z", "2501010000Z", "250101000000", "x50101000000Z", "éé0101000000Z"] {
            assert_eq!(
                of(&certificate(&[], (UTC_TIME, wrong), (UTC_TIME, "260101000000Z"))),
                None,
                "{wrong}"
            );
        }
        assert_eq!(of(&[SEQUENCE, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(of(&[SEQUENCE, 0x80]), None);
    }
}
