//! How long messages took: from the time each one was due until it was seen.
//!
//! Because a message's time is when it was due, not when it was sent, a receiver that stops for a second shows a second of
//! latency for all messages of that second, and not for the one that happened to be under way (coordinated omission).
//!
//! Owns a histogram of fixed size, three digits precise. A time before its message was due (two machines' clocks) counts
//! as zero and is told.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest latency that is told apart.
const MAX_NS: u64 = 3_600_000_000_000;

/// The figures that are told, and their share of the messages.
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// The latencies of many messages.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    negative: u64,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, 3);
        Self { histogram: histogram.expect("1 ns to an hour with 3 digits is a valid range"), negative: 0 }
    }

    /// Adds a message that was due at one time and seen at another.
    pub fn add(&mut self, due_ns: u64, seen_ns: u64) {
        self.negative += u64::from(seen_ns < due_ns);
        self.histogram.saturating_record(seen_ns.saturating_sub(due_ns).max(1));
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so there is nothing to refuse.
        let _ = self.histogram.add(&other.histogram);
        self.negative += other.negative;
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.histogram.is_empty()
    }

    /// Messages that were seen before they were due.
    pub fn negative(&self) -> u64 {
        self.negative
    }

    /// The latency that this many percent of the messages stay within.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent)
    }

    /// Each figure that is told, by its name; the longest last.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures: Vec<_> =
            PERCENTILES.iter().map(|(name, p)| (*name, self.percentile_ns(*p))).collect();
        figures.push(("max", self.histogram.max()));
        figures
    }

    /// The figures for programs, nanoseconds.
    pub fn json(&self) -> Value {
        let figures = self.figures().into_iter().map(|(name, ns)| (name.to_owned(), json!(ns)));
        if self.is_empty() { Value::Null } else { Value::Object(figures.collect()) }
    }
}

/// `15 ns`, `1.23 us`, `45.6 ms`, `2.00 s`
pub fn show(ns: u64) -> String {
    let value = ns as f64;
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (value / 1e3, "us"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_messages() {
        let mut latencies = Latencies::new();
        for ms in 1..=1000 {
            latencies.add(5_000_000_000, 5_000_000_000 + ms * 1_000_000);
        }
        for (name, ns) in latencies.figures() {
            let ms = match name {
                "p50" => 500.0,
                "p90" => 900.0,
                "p99" => 990.0,
                "p99.9" => 999.0,
                _ => 1000.0,
            };
            assert!((ns as f64 / 1e6 / ms - 1.0).abs() < 0.002, "{name}: {ns}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_is_told() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.json(), Value::Null);
        latencies.add(10, 5);
        assert_eq!((latencies.negative(), latencies.percentile_ns(99.0)), (1, 1));
        let mut both = Latencies::new();
        both.add(0, u64::MAX);
        both.merge(&latencies);
        assert_eq!((both.negative(), both.is_empty()), (1, false));
    }

    #[test]
    fn times_read_well() {
        for (ns, text) in [
            (999, "999 ns"),
            (1234, "1.23 us"),
            (45_600_000, "45.6 ms"),
            (200_000_000, "200 ms"),
            (2_000_000_000, "2.00 s"),
        ] {
            assert_eq!(show(ns), text);
        }
    }
}
