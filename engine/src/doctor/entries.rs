//! Each source and sink, really tried, as far as that disturbs nobody: addresses are bound only where no engine runs.

use std::sync::Arc;
use std::time::Duration;

use super::{Check, KAFKA_TRIALS_MAX, Running, TRIALS_MAX, Verdict, sockets};
use crate::config::types::ListenAddr;
use crate::config::{Config, Side, SourceConfig};
use crate::diagnosis::{Code, Place};
use crate::sink::SinkParams;
use crate::source::SourceParams;
use crate::source::file::params::Mode;
use crate::trial::{self, Trial};

pub(super) fn checks(config: &Arc<Config>, running: Option<&Running>) -> Vec<Check> {
    let mut tried = Config::clone(config);
    let mut checks = Vec::new();
    for source in &mut tried.sources {
        if !source.enable || !stays_alone(source, running) {
            continue;
        }
        source.enable = false;
        checks.extend(match running {
            Some(running) => sockets::held(source, running.pid()),
            None => Some(untried(source)),
        });
    }
    let at_most = if speaks_kafka(&tried) { KAFKA_TRIALS_MAX } else { TRIALS_MAX };
    let trials = trial::run(&Arc::new(tried), None, at_most);
    checks.extend(trials.iter().flat_map(|trial| told(trial, config)));
    if running.is_none() {
        checks.extend(sockets::admin(config));
    }
    checks
}

fn speaks_kafka(config: &Config) -> bool {
    config.sources.iter().any(|source| source.enable && matches!(source.params, SourceParams::Kafka(_)))
        || config.sinks.iter().any(|sink| sink.enable && matches!(sink.params, SinkParams::Kafka(_)))
}

/// Whether a source is looked at from outside only: our engine listens for it, or to bind it would make a file.
fn stays_alone(source: &SourceConfig, running: Option<&Running>) -> bool {
    sockets::listens(source)
        .is_some_and(|(_, addr, _)| running.is_some() || matches!(addr, ListenAddr::Unix(_)))
}

fn untried(source: &SourceConfig) -> Check {
    let subject = format!("source '{}'", source.key);
    Check::ok(subject, "a unix socket: to bind it would make a file, so only a start tries it")
}

/// The step that failed, or all of them in one line.
fn told(trial: &Trial, config: &Config) -> Vec<Check> {
    let side = if trial.side == Side::Source { "source" } else { "sink" };
    let subject = format!("{side} '{}'", trial.key);
    let failed = trial.steps.iter().find_map(|step| step.outcome.as_ref().err());
    let mut check = match failed {
        Some(finding) => Check::of(subject, finding.clone()),
        None => {
            let found: Vec<&str> =
                trial.steps.iter().filter_map(|step| step.outcome.as_deref().ok()).collect();
            Check::ok(subject, found.join("; "))
        }
    };
    if check.place.is_none() && failed.is_some() {
        check.place = place(trial, config);
    }
    if check.code == Some(Code::WP101) && follows(trial, config) {
        check.verdict = Verdict::Warn;
        check = check.note("mode = \"tail\": it is waited for, and read when it comes");
    }
    let slow = trial.steps.iter().find(|step| step.took > Duration::from_secs(1));
    if let Some(step) = slow {
        check = check.note(format!("{} took {:.1} s", step.name, step.took.as_secs_f64()));
    }
    vec![check]
}

/// Whether it is a source that follows its files.
fn follows(trial: &Trial, config: &Config) -> bool {
    let tails = |source: &&SourceConfig| matches!(&source.params, SourceParams::File(file) if file.mode == Mode::Tail);
    trial.side == Side::Source && config.sources.iter().filter(tails).any(|source| *source.key == *trial.key)
}

fn place(trial: &Trial, config: &Config) -> Option<Place> {
    match trial.side {
        Side::Source => config.sources.iter().find(|s| *s.key == *trial.key).map(|s| s.place.clone()),
        Side::Sink => config.sinks.iter().find(|s| *s.key == *trial.key).map(|s| s.place.clone()),
    }
}
