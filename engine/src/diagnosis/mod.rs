//! Findings: what is wrong, where, why, and what mends it.
//!
//! A [`Diagnostic`] is data: whoever finds something makes one, [`render`] turns it into the text of a terminal, serde into
//! JSON.
//!
//! What is the same for each finding of one [`Code`] stands in the [`catalogue`], once.
//!
//! Nothing here prints, opens a file or reads the environment.

pub mod catalogue;
mod code;
mod findings;
mod near;
mod place;
pub mod render;

pub use code::Code;
pub use findings::{Diagnostics, Findings};
pub use near::{nearest, nearest_of};
pub use place::{Place, SourceText};

use serde::Serialize;

/// Stands in front of each help in a finding that is logged in one line.
pub const HELP: &str = "; help: ";

/// Whether the engine can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot: what the finding is about does not start.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The row of the catalogue, if it has one.
    pub code: Option<Code>,
    /// What is wrong, naming the thing at fault.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What stands beside the caret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Other places it takes to understand the finding: the first of two things of one name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<(String, Place)>,
    /// What was found out about the cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What mends it, ready to use; one entry a mend, an entry may have several lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error with a row in the catalogue.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(code), message.into())
    }

    /// A warning, with a row in the catalogue or without one.
    pub fn warning(code: Option<Code>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    /// An error that has no row in the catalogue.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, None, message.into())
    }

    fn new(severity: Severity, code: Option<Code>, message: String) -> Self {
        Self {
            severity,
            code,
            message,
            place: None,
            label: None,
            others: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says what stands beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Names another place that belongs to the finding.
    #[must_use]
    pub fn other(mut self, what: impl Into<String>, place: Place) -> Self {
        self.others.push((what.into(), place));
        self
    }

    /// Adds something that was found out about the cause.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a mend.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a mend if there is one.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        render::write(self, render::Paint::Plain, out)
    }
}
