//! Sizes ("1GiB", "10MB", 4096) and durations ("200ms", "5s", "1h").

use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// The number of bytes, as an index; what does not fit is the largest there is.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `4096`, `4096B`, `10MB` (powers of 1000) and `1MiB` (powers of 1024), a fraction too.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1000,
            "mb" => 1000_u64.pow(2),
            "gb" => 1000_u64.pow(3),
            "tb" => 1000_u64.pow(4),
            _ => return None,
        };
        scale(number, unit).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(out, "{}{name}", self.0 / unit),
            None => write!(out, "{}", self.0),
        }
    }
}

/// Reads `200ms`, `5s`, `1.5h`; the unit is required, except for 0.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "" if number == "0" => 1,
        _ => return None,
    };
    scale(number, unit).map(Duration::from_nanos)
}

/// A duration in the largest unit that holds it whole.
pub fn show_duration(value: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let ns = value.as_nanos();
    let unit = UNITS.iter().find(|(unit, _)| ns >= *unit && ns.is_multiple_of(*unit));
    unit.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", ns / unit))
}

/// Splits `10 MiB` into its number and its unit.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.starts_with(|c: char| c.is_ascii_digit())).then(|| (number, unit.trim_start()))
}

fn scale(number: &str, unit: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let value = number.parse::<f64>().ok()? * unit as f64;
    (value < u64::MAX as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("10MB", 10_000_000),
            ("10 MB", 10_000_000),
            ("1GiB", 1 << 30),
            ("1.5KiB", 1536),
            ("64k", 65536),
            ("1mib", 1 << 20),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "B", "-1", "1 GiBB", "1e3", "99999999999999999999", "20000000TiB", ".5k", "1.2.3k"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size(1 << 20).to_string(), "1MiB");
        assert_eq!(Size(10_485_760).to_string(), "10MiB");
        assert_eq!(Size(1001).to_string(), "1001");
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("200ms", 200), ("5s", 5000), ("0", 0), ("0s", 0), ("1.5s", 1500), ("2 min", 120_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "5 S", "-1s", "s", "1w", "999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["200ms", "5s", "90s", "1h", "0s"] {
            assert_eq!(
                parse_duration(&show_duration(parse_duration(text).expect("valid"))),
                parse_duration(text)
            );
        }
    }
}
