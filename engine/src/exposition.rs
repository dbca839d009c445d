//! The text that Prometheus reads: families of samples with their help and type, version 0.0.4 of the format.
//!
//! Pure. Invariants: a family's samples stand together behind its HELP and TYPE lines, and no family stands twice; names
//! and labels are literals of this program, values of labels may hold anything and are escaped.

use std::fmt::{Display, Write};

/// What a number means to those who draw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// A family whose samples are being written.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Page {
    /// Begins a family. By Prometheus' conventions a counter's name ends in `_total`, and a gauge's does not.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: self, name }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&'static str, &str)], value: impl Display) -> &mut Self {
        let text = &mut self.page.text;
        text.push_str(self.name);
        for (i, (name, value)) in labels.iter().enumerate() {
            text.push(if i == 0 { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        // A String takes every write.
        let _ = writeln!(text, " {value}");
        self
    }
}

fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.family("a_bytes_total", Kind::Counter, "Bytes\nand \\.")
            .sample(&[], 7u64)
            .sample(&[("k", "a\"b\\c\nd"), ("l", "é")], 8u64);
        page.family("b_seconds", Kind::Gauge, "Seconds.").sample(&[], 0.25);
        let wanted = "# HELP a_bytes_total Bytes\\nand \\\\.\n# TYPE a_bytes_total counter\na_bytes_total 7\n\
                      a_bytes_total{k=\"a\\\"b\\\\c\\nd\",l=\"é\"} 8\n# HELP b_seconds Seconds.\n# TYPE b_seconds gauge\n\
                      b_seconds 0.25\n";
        assert_eq!(page.finish(), wanted);
    }
}
