//! PRI: its reading, and what its facility and severity are called.

use super::Fault;

/// Highest PRI: facility 23, severity 7.
const PRI_MAX: u32 = 191;

/// Names of the severities, 0 to 7, as `syslog.h` spells them.
pub const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Names of the facilities, 0 to 23: those of `syslog.h`, and for 12 to 15 of RFC 5424's table.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Name of a facility; `unknown` for a number that is none.
pub fn facility_name(facility: u8) -> &'static str {
    FACILITIES.get(usize::from(facility)).copied().unwrap_or("unknown")
}

/// Name of a severity; `unknown` for a number that is none.
pub fn severity_name(severity: u8) -> &'static str {
    SEVERITIES.get(usize::from(severity)).copied().unwrap_or("unknown")
}

/// Reads the PRI whose `<` is at `at`: its value and where the header goes on, or what is wrong and where.
///
/// One to three digits, no leading zero ("leading zeros MUST NOT be used", RFC 3164 4.1.1 and 5424 6.2.1), 0-191.
#[inline(always)]
pub(super) fn pri(bytes: &[u8], at: usize) -> Result<(u8, usize), (Fault, usize)> {
    let first = at + 1;
    let mut value = 0u32;
    let mut end = first;
    while let Some(digit) = bytes.get(end).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
        if end == first + 3 {
            return Err((Fault::PriRange, first));
        }
        value = value * 10 + u32::from(digit);
        end += 1;
    }
    match bytes.get(end) {
        Some(b'>') if end > first => {}
        _ => return Err((Fault::PriSyntax, end)),
    }
    if value > PRI_MAX {
        return Err((Fault::PriRange, first));
    }
    if end > first + 1 && bytes[first] == b'0' {
        return Err((Fault::PriSyntax, first));
    }
    Ok((value as u8, end + 1))
}

#[cfg(test)]
mod tests {
    use super::{facility_name, pri, severity_name};
    use crate::syslog::Fault;

    #[test]
    fn all_values_and_none_beyond() {
        for value in 0..1200u32 {
            let text = format!("<{value}>x");
            let expected =
                if value <= 191 { Ok((value as u8, text.len() - 1)) } else { Err((Fault::PriRange, 1)) };
            assert_eq!(pri(text.as_bytes(), 0), expected, "{text}");
        }
    }

    #[test]
    fn broken_ones_are_named_with_their_position() {
        for (text, fault, at) in [
            ("<", Fault::PriSyntax, 1),
            ("<>", Fault::PriSyntax, 1),
            ("<1", Fault::PriSyntax, 2),
            ("<1 >", Fault::PriSyntax, 2),
            ("<-1>", Fault::PriSyntax, 1),
            ("<00>", Fault::PriSyntax, 1),
            ("<013>", Fault::PriSyntax, 1),
            ("<192>", Fault::PriRange, 1),
            ("<999999999999>", Fault::PriRange, 1),
        ] {
            assert_eq!(pri(text.as_bytes(), 0), Err((fault, at)), "{text}");
        }
    }

    #[test]
    fn names_end_with_the_table() {
        assert_eq!((facility_name(23), facility_name(24)), ("local7", "unknown"));
        assert_eq!((severity_name(3), severity_name(8)), ("err", "unknown"));
    }
}
