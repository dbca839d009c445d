//! `source test` and `connectors test`: real opens, each step with its outcome and time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::config::{Resolved, resolve};
use engine::diagnosis::Findings;
use engine::trial::{self, Step, Trial, Trouble};

use super::{DONE, FAILED, configuration, connectors};
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

/// Tries a connector with parameters from the command line.
pub fn connector(id: &str, typed: &[(String, String)], printer: &Printer) -> u8 {
    let (all, _) = connectors::load();
    let Some(connector) = connectors::find(&all, id, printer) else { return FAILED };
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
        Resolved::Source(params) => trial::source(params),
        Resolved::Sink(params, _) => trial::sink(params, None),
    };
    show(&[Trial { key: id.to_owned(), side: connector.side, steps }], printer)
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
    for (trial, trouble) in trials.iter().flat_map(troubles) {
        printer.result(&explained(trial, trouble, paint));
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
        Err(trouble) => ("fail", trouble.message.clone()),
    };
    let ms = format!("{:.1} ms", step.took.as_secs_f64() * 1000.0);
    vec![trial.key.clone(), step.name.to_owned(), mark.to_owned(), ms, found]
}

fn troubles(trial: &Trial) -> impl Iterator<Item = (&Trial, &Trouble)> {
    trial.steps.iter().filter_map(move |step| step.outcome.as_ref().err().map(|trouble| (trial, trouble)))
}

fn explained(trial: &Trial, trouble: &Trouble, paint: Paint) -> String {
    let mut text = format!("\n{} {}: {}\n", paint.text(Style::Red, "error:"), trial.key, trouble.message);
    for help in &trouble.help {
        text.push_str(&format!("  {} {help}\n", paint.text(Style::Cyan, "help:")));
    }
    text
}
