//! The stable codes of findings, WP101 to WP603.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::catalogue::{self, Entry};

/// A row of the catalogue. Codes are stable: one is never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

macro_rules! codes {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs, reason = "the catalogue's titles document them")]
        impl Code {
            $(pub const $name: Code = Code($number);)*

            /// Every code, in order.
            pub const ALL: &[Code] = &[$(Code::$name),*];
        }
    };
}

codes! {
    WP101 = 101, WP102 = 102, WP103 = 103, WP104 = 104, WP105 = 105, WP106 = 106,
    WP201 = 201, WP202 = 202, WP203 = 203, WP204 = 204, WP205 = 205, WP206 = 206,
    WP301 = 301, WP302 = 302, WP303 = 303, WP304 = 304, WP305 = 305, WP306 = 306,
    WP401 = 401, WP402 = 402, WP403 = 403, WP404 = 404, WP405 = 405, WP406 = 406,
    WP501 = 501, WP502 = 502, WP503 = 503, WP504 = 504, WP505 = 505, WP506 = 506, WP507 = 507, WP508 = 508,
    WP601 = 601, WP602 = 602, WP603 = 603,
}

impl Code {
    /// Its row in the catalogue.
    pub fn entry(self) -> &'static Entry {
        catalogue::entry(self)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WP{:03}", self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not a code of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    /// Takes `WP401`, `wp401` and `401`.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let digits =
            text.get(..2).filter(|p| p.eq_ignore_ascii_case("wp")).map_or(text, |p| &text[p.len()..]);
        let number: u16 = digits.parse().map_err(|_| UnknownCode)?;
        Code::ALL.iter().copied().find(|code| code.0 == number).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_what_they_print() {
        for code in Code::ALL {
            assert_eq!(code.to_string().parse(), Ok(*code));
        }
        assert_eq!("wp401".parse(), Ok(Code::WP401));
        assert_eq!("401".parse(), Ok(Code::WP401));
        for wrong in ["", "WP", "WP499", "WP65536", "é401", "401 "] {
            assert_eq!(wrong.parse::<Code>(), Err(UnknownCode), "{wrong}");
        }
    }
}
