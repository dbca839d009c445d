//! `source test` and `connectors test`: real opens, each step with its outcome and time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::config::{Resolved, resolve};
use engine::diagnosis::{Diagnostic, Findings};
use engine::trial::{self, Step, Trial};

use super::{DONE, FAILED, USUAL, configuration, connectors};
use crate::printer::{Paint, Printer, Style};
use crate::table::{Align, Table};

/// How long all trials together may take.
const AT_MOST: Duration = Duration::from_secs(10);

/// Tries all sources and sinks of a configuration, or one source.
pub fn sources(path: &Path, only: Option<&str>, printer: &Printer) -> u8 {
    let Some(loaded) = configuration::load(path, printer) else { return FAILED };
    let config = Arc::new(loaded.config);
    if let Some(key) = only
        && !config.sources.iter().any(|s| *s.key == *key)
    {
        printer.error(&format!("there is no source '{key}' in {}", path.display()));
        let keys: Vec<&str> = config.sources.iter().map(|s| s.key.as_ref()).collect();
        printer.help(&format!("its sources: {}", keys.join(", ")));
        return FAILED;
    }
    show(&trial::run(&config, only, AT_MOST), printer)
}

/// Tries a connector with parameters from the command line; without any, as the configuration here uses it.
pub fn connector(id: &str, typed: &[(String, String)], printer: &Printer) -> u8 {
    let (all, _) = connectors::load();
    let Some(connector) = connectors::find(&all, id, printer) else { return FAILED };
    if let Some(trials) = as_used_here(id).filter(|_| typed.is_empty()) {
        return show(&trials, printer);
    }
    let mut findings = Findings::new();
    let Some(resolved) = resolve(connector, &connectors::overrides(connector, typed), &mut findings) else {
        let mut found = findings.finish();
        if let Some(first) = found.all.first_mut().filter(|_| typed.is_empty()) {
            first.help.push(format!("with parameters: wpgen connectors test --id {id} --params key=value"));
        }
        printer.line(&configuration::text(&found, printer.err_paint()));
        return FAILED;
    };
    let steps = match &resolved {
        Resolved::Source(params) => trial::source(params, &trial::Others::default()),
        Resolved::Sink(params, _) => trial::sink(params, None, &trial::Others::default()),
    };
    show(&[Trial { key: id.to_owned(), side: connector.side, steps }], printer)
}

/// Tries every source and sink of the configuration here that is made from a connector; nothing where none is.
fn as_used_here(id: &str) -> Option<Vec<Trial>> {
    let loaded = engine::config::load(Path::new(USUAL), &configuration::environment()).ok()?;
    let mut config = loaded.config;
    config.sources.retain(|source| source.connect == id);
    config.sinks.retain(|sink| sink.connect == id);
    let trials = trial::run(&Arc::new(config), None, AT_MOST);
    (!trials.is_empty()).then_some(trials)
}

fn show(trials: &[Trial], printer: &Printer) -> u8 {
    let paint = printer.out_paint();
    let mut table = Table::new(&[
        ("name", Align::Left),
        ("step", Align::Left),
        ("", Align::Left),
        ("time", Align::Right),
        ("found", Align::Left),
    ]);
    for trial in trials {
        for step in &trial.steps {
            table.row(row(trial, step));
        }
    }
    printer.result(&table.render(paint));
    for (trial, found) in trials.iter().flat_map(troubles) {
        printer.result(&explained(trial, found, paint));
    }
    let failed = trials.iter().filter(|t| !t.is_well()).count();
    let verdict = match failed {
        0 => paint.text(Style::Green, "all well"),
        n => paint.text(Style::Red, &format!("{n} of {} failed", trials.len())),
    };
    printer.result(&format!("\n{verdict}\n"));
    if failed == 0 { DONE } else { FAILED }
}

fn row(trial: &Trial, step: &Step) -> Vec<String> {
    let (mark, found) = match &step.outcome {
        Ok(found) => ("ok", found.clone()),
        Err(found) => ("fail", titled(found)),
    };
    let ms = format!("{:.1} ms", step.took.as_secs_f64() * 1000.0);
    vec![trial.key.clone(), step.name.to_owned(), mark.to_owned(), ms, found]
}

fn troubles(trial: &Trial) -> impl Iterator<Item = (&Trial, &Diagnostic)> {
    trial.steps.iter().filter_map(move |step| step.outcome.as_ref().err().map(|found| (trial, found)))
}

fn explained(trial: &Trial, found: &Diagnostic, paint: Paint) -> String {
    let mut text = format!("\n{} {}: {}\n", paint.text(Style::Red, "error:"), trial.key, titled(found));
    for note in &found.notes {
        text.push_str(&format!("  {} {note}\n", paint.text(Style::Bold, "note:")));
    }
    for help in &found.help {
        text.push_str(&format!("  {} {help}\n", paint.text(Style::Cyan, "help:")));
    }
    text
}

/// The message, behind its code.
fn titled(found: &Diagnostic) -> String {
    found.code.map_or_else(|| found.message.clone(), |code| format!("[{code}] {}", found.message))
}
