//! Collecting findings: all at once, each once, at most [`KEPT_MAX`].

use std::fmt;

use serde::Serialize;

use super::{Diagnostic, Severity, render};

/// Findings kept of one run. A file of megabytes of nonsense must not become gigabytes of text.
pub const KEPT_MAX: usize = 1000;

/// The findings of one run, in the making.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Diagnostic>,
    dropped: usize,
    errors: usize,
}

impl Findings {
    /// No findings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Diagnostic) {
        self.errors += usize::from(finding.severity == Severity::Error);
        if self.kept.len() < KEPT_MAX {
            self.kept.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    /// Adds an error that is made only when it is kept: there may be one for each line of a file of nonsense.
    pub fn push_error(&mut self, make: impl FnOnce() -> Diagnostic) {
        if self.kept.len() < KEPT_MAX {
            return self.push(make());
        }
        self.errors += 1;
        self.dropped += 1;
    }

    /// How many errors there are. Compared before and after, it says whether a step went well.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The findings by file and line, each once.
    pub fn finish(self) -> Diagnostics {
        let mut all = self.kept;
        all.sort_by(|a, b| place_key(a).cmp(&place_key(b)));
        // One mistake in a connector is met by each source that uses it.
        all.dedup();
        Diagnostics { all, dropped: self.dropped }
    }
}

fn place_key(finding: &Diagnostic) -> (Option<&str>, u32, u32, Severity, &str) {
    let place = finding.place.as_ref();
    (
        place.map(|p| p.file.as_str()),
        place.map_or(0, |p| p.line),
        place.map_or(0, |p| p.column),
        finding.severity,
        finding.message.as_str(),
    )
}

/// Findings, ordered by file and line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The findings.
    pub all: Vec<Diagnostic>,
    /// How many more there were than are kept.
    pub dropped: usize,
}

impl Diagnostics {
    /// How many errors are among those kept.
    pub fn errors(&self) -> usize {
        self.all.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// How many warnings are among those kept.
    pub fn warnings(&self) -> usize {
        self.all.len() - self.errors()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(finding: Diagnostic) -> Self {
        Self { all: vec![finding], dropped: 0 }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        render::write_all(self, render::Paint::Plain, out)
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{Code, SourceText};

    #[test]
    fn findings_are_ordered_and_each_stands_once() {
        let mut findings = Findings::new();
        findings.push(Diagnostic::warning(None, "b"));
        findings.push(Diagnostic::error(Code::WP404, "a"));
        findings.push(Diagnostic::warning(None, "b"));
        assert_eq!(findings.errors(), 1);
        let done = findings.finish();
        assert_eq!(done.all.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn findings_are_json() {
        let text = SourceText::new("a.toml", "/", "x = 1".to_owned());
        let finding = Diagnostic::error(Code::WP404, "m").at(text.place(0..1)).help("h");
        let json = serde_json::to_value(Diagnostics::from(finding)).expect("it is JSON");
        let one = &json["all"][0];
        assert_eq!((one["severity"].as_str(), one["code"].as_str()), (Some("error"), Some("WP404")));
        assert_eq!((one["place"]["line"].as_u64(), one["place"]["file"].as_str()), (Some(1), Some("a.toml")));
    }

    #[test]
    fn a_flood_of_findings_is_bounded() {
        let mut findings = Findings::new();
        for i in 0..KEPT_MAX + 5 {
            findings.push(Diagnostic::error(Code::WP404, i.to_string()));
        }
        let done = findings.finish();
        assert_eq!((done.all.len(), done.dropped), (KEPT_MAX, 5));
        assert!(done.to_string().contains("5 more findings"));
    }
}
