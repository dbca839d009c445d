//! Every check that can be made on this machine, on a configuration and on the engine that runs with it: `doctor`.
//!
//! Owns the list of checks and the order they are told in. Invariants: a check tells what was found and not what might
//! be; nothing is changed (an address is bound for a moment where no engine runs, to see whether it can be); none needs
//! root; whatever hangs is given up, so that the whole ends in time. It refuses to print: that is the caller's work.

mod engine;
mod entries;
mod kernel;
mod limits;
mod places;
mod reach;
mod sockets;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::diagnosis::{Code, Diagnostic, Diagnostics, Place, Severity};

pub use engine::Running;
pub use limits::raise_open_files;

/// How long the sources and sinks may take that are tried, all at once.
const TRIALS_MAX: Duration = Duration::from_millis(1000);
/// The same where one of them is a Kafka: signing in takes a broker a second.
const KAFKA_TRIALS_MAX: Duration = Duration::from_secs(8);
/// How long the file systems may take that are asked.
const DISKS_MAX: Duration = Duration::from_millis(500);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but less well than it could, or not for long.
    Warn,
    /// It does not work.
    Fail,
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// How it ended.
    pub verdict: Verdict,
    /// What was looked at.
    pub subject: String,
    /// The row of the catalogue, if it has one.
    pub code: Option<Code>,
    /// What was found.
    pub found: String,
    /// What was found out about the cause.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What mends it; one entry a mend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub help: Vec<String>,
    /// Where in the configuration it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl Check {
    fn new(verdict: Verdict, subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { verdict, subject, code: None, found, notes: Vec::new(), help: Vec::new(), place: None }
    }

    fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, subject, found)
    }

    fn warn(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, subject, found)
    }

    fn fail(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, subject, found)
    }

    /// A finding about something.
    pub fn of(subject: impl Into<String>, finding: Diagnostic) -> Self {
        let verdict = if finding.severity == Severity::Error { Verdict::Fail } else { Verdict::Warn };
        Self {
            code: finding.code,
            notes: finding.notes,
            help: finding.help,
            place: finding.place,
            ..Self::new(verdict, subject, finding.message)
        }
    }

    fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// What is to be examined beside the machine.
#[derive(Debug, Default)]
pub struct Subject {
    /// The configuration, if there is one and it loads.
    pub config: Option<Arc<Config>>,
    /// What was found while it was loaded.
    pub findings: Diagnostics,
    /// What the engine that runs with it says of itself.
    pub running: Option<Running>,
}

/// Makes every check; what is told twice is told once.
pub fn examine(subject: &Subject) -> Vec<Check> {
    let config = subject.config.as_deref();
    let mut checks = configuration(subject);
    checks.extend(kernel::checks(config));
    checks.extend(limits::checks(config));
    if let Some(config) = &subject.config {
        checks.extend(entries::checks(config, subject.running.as_ref()));
        checks.extend(reach::checks(config));
        let (held, running) = (Arc::clone(config), subject.running.as_ref().map(Running::pid));
        let overdue = || vec![Check::fail("disk", "a file system does not answer")];
        checks.extend(within(DISKS_MAX, move || places::checks(&held, running)).unwrap_or_else(overdue));
    }
    if let (Some(config), Some(running)) = (config, &subject.running) {
        checks.extend(engine::checks(running, config));
    }
    once(checks)
}

/// Leaves out what was told already, perhaps behind the name of the source it is about.
fn once(checks: Vec<Check>) -> Vec<Check> {
    let mut kept: Vec<Check> = Vec::with_capacity(checks.len());
    for check in checks {
        let is_told = |told: &Check| told.verdict != Verdict::Ok && told.found.ends_with(&check.found);
        if check.verdict == Verdict::Ok || !kept.iter().any(is_told) {
            kept.push(check);
        }
    }
    kept
}

/// The worst of all; well where there is nothing.
pub fn verdict(checks: &[Check]) -> Verdict {
    checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
}

fn configuration(subject: &Subject) -> Vec<Check> {
    let told = subject.findings.all.iter();
    let mut checks: Vec<Check> = told.map(|found| Check::of("configuration", found.clone())).collect();
    if let Some(config) = &subject.config
        && checks.is_empty()
    {
        let (sources, sinks) = (config.sources.len(), config.sinks.len());
        let found = format!("{} loads: sources {sources}, sinks {sinks}", config.file.display());
        checks.push(Check::ok("configuration", found));
    }
    checks
}

/// Does something that may hang in the kernel; nothing when it does. The thread is left behind then.
fn within<T: Send + 'static>(at_most: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(work()));
    told.recv_timeout(at_most).ok()
}

/// A number of bytes for people.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_alone_can_be_examined_and_the_worst_is_the_verdict() {
        let checks = examine(&Subject::default());
        assert!(checks.iter().any(|check| check.subject == "io_uring"), "{checks:?}");
        let worst = checks.iter().map(|check| check.verdict).max();
        assert_eq!(Some(verdict(&checks)), worst);
        assert_eq!(verdict(&[]), Verdict::Ok);
        assert!(Verdict::Ok < Verdict::Warn && Verdict::Warn < Verdict::Fail);
    }

    #[test]
    fn what_hangs_is_given_up() {
        let (_hold, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || never.recv().is_ok()), None);
        assert_eq!(within(Duration::from_secs(60), || 1), Some(1));
    }

    #[test]
    fn bytes_are_for_people() {
        let shown = [0, 1023, 1024, 1536, 8 << 20, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "8 MiB", "16777216 TiB"]);
    }
}
