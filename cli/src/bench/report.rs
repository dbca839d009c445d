//! What a bench found, once as a table for people and once as JSON for programs: the same facts in the same order.

use serde_json::{Map, Value};

use super::clock::Used;
use super::latency::{Latencies, show};
use crate::printer::Printer;
use crate::progress::{bytes, count};

/// Facts in the order they were added.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(String, String)>,
    fields: Map<String, Value>,
}

impl Report {
    /// A fact: its name and text for people, its key and value for programs.
    pub fn add(&mut self, name: &str, text: impl Into<String>, key: &str, value: impl Into<Value>) {
        self.rows.push((name.to_owned(), text.into()));
        self.field(key, value);
    }

    /// A fact for programs only.
    pub fn field(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    /// A number of messages.
    pub fn messages(&mut self, name: &str, n: u64) {
        self.add(name, count(n), name, n);
    }

    /// Messages and bytes over a time.
    pub fn rate(&mut self, messages: u64, bytes_all: u64, seconds: f64) {
        let over = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let (records, volume) = (over(messages), over(bytes_all));
        let text = format!("{} messages/s, {}/s", count(records.round() as u64), bytes(volume as u64));
        self.add("rate", text, "messages_per_s", records);
        self.field("mb_per_s", volume / 1e6);
        self.field("seconds", seconds);
        self.field("bytes", bytes_all);
    }

    /// Latencies, when there are any.
    pub fn latencies(&mut self, latencies: &Latencies) {
        if latencies.is_empty() {
            return;
        }
        let text: Vec<String> =
            latencies.figures().iter().map(|(name, ns)| format!("{name} {}", show(*ns))).collect();
        self.add("latency", text.join(", "), "latency_ns", latencies.json());
        if latencies.negative() > 0 {
            let text = format!(
                "{} messages came before they were due: two clocks differ",
                count(latencies.negative())
            );
            self.add("clocks", text, "negative_latencies", latencies.negative());
        }
    }

    /// What a process used for a number of messages.
    pub fn used(&mut self, used: Used, messages: u64) {
        let cpu_s = used.cpu.as_secs_f64();
        let for_a_million = if messages > 0 { cpu_s * 1e6 / messages as f64 } else { 0.0 };
        let text = format!(
            "{for_a_million:.3} CPU seconds a million messages, {} of memory at most",
            bytes(used.memory_peak_bytes)
        );
        self.add("process", text, "cpu_s_per_million", for_a_million);
        self.field("cpu_s", cpu_s);
        self.field("memory_peak_bytes", used.memory_peak_bytes);
    }

    /// For people.
    pub fn text(&self) -> String {
        let widest = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.rows.iter().map(|(name, text)| format!("{name:<widest$}  {text}\n")).collect()
    }

    /// For programs.
    pub fn json(self) -> Value {
        Value::Object(self.fields)
    }

    /// Prints it as it was asked for.
    pub fn print(self, as_json: bool, printer: &Printer) {
        let text = if as_json { format!("{:#}\n", self.json()) } else { self.text() };
        printer.result(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn people_and_programs_learn_the_same() {
        let mut report = Report::default();
        report.messages("received", 2_000_000);
        report.rate(2_000_000, 500_000_000, 2.0);
        report.latencies(&Latencies::new());
        report.used(Used { cpu: Duration::from_millis(100), memory_peak_bytes: 12_000_000 }, 2_000_000);
        assert_eq!(
            report.text(),
            "received  2,000,000\n\
             rate      1,000,000 messages/s, 250 MB/s\n\
             process   0.050 CPU seconds a million messages, 12.0 MB of memory at most\n"
        );
        let json = report.json();
        assert_eq!(
            (json["received"].as_u64(), json["messages_per_s"].as_f64()),
            (Some(2_000_000), Some(1e6))
        );
        assert_eq!(
            (json["cpu_s_per_million"].as_f64(), json["mb_per_s"].as_f64()),
            (Some(0.05), Some(250.0))
        );
    }
}
