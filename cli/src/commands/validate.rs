//! `source validate`: all findings at once, without touching anything that a source or sink would.

use std::path::Path;

use engine::config::{Config, Loaded};
use engine::diagnosis::Diagnostics;
use serde_json::json;

use super::{DONE, FAILED, configuration};
use crate::printer::{Printer, Style};
use crate::table::{Align, Table};

/// Checks a configuration. The findings are the result, so they go to standard output.
pub fn run(path: &Path, verbose: bool, as_json: bool, printer: &Printer) -> u8 {
    let (loaded, findings) = match engine::config::load(path, &configuration::environment()) {
        Ok(Loaded { config, warnings }) => (Some(config), warnings),
        Err(findings) => (None, findings),
    };
    if as_json {
        printer.result(&json_text(path, loaded.is_some(), &findings));
    } else {
        printer.result(&plain_text(path, loaded.as_ref(), &findings, verbose, printer));
    }
    if loaded.is_some() { DONE } else { FAILED }
}

fn json_text(path: &Path, ok: bool, findings: &Diagnostics) -> String {
    let report = json!({
        "file": path.display().to_string(),
        "ok": ok,
        "errors": findings.errors(),
        "warnings": findings.warnings(),
        "findings": findings.all,
        "not_shown": findings.dropped,
    });
    format!("{report:#}\n")
}

fn plain_text(
    path: &Path,
    config: Option<&Config>,
    findings: &Diagnostics,
    verbose: bool,
    printer: &Printer,
) -> String {
    let paint = printer.out_paint();
    let mut text = configuration::text(findings, paint);
    let counted = configuration::counted(findings);
    match config {
        None => {
            let failed = paint.text(Style::Red, "failed");
            text.push_str(&format!("{}: {failed}: {counted}\n", path.display()));
        }
        Some(config) => {
            if verbose {
                text.push_str(&what_runs(config, printer));
            }
            let well = paint.text(Style::Green, "ok");
            let (sources, sinks) = (count(config.sources.len(), "source"), count(config.sinks.len(), "sink"));
            text.push_str(&format!("{}: {well}: {sources}, {sinks}, {counted}\n", path.display()));
        }
    }
    text
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn what_runs(config: &Config, printer: &Printer) -> String {
    let head =
        |what| [(what, Align::Left), ("connector", Align::Left), ("type", Align::Left), ("at", Align::Left)];
    let mut sources = Table::new(&[&head("source")[..], &[("goes to", Align::Left)]].concat());
    for source in &config.sources {
        let to: Vec<&str> = config
            .sinks
            .iter()
            .filter(|s| s.enable && s.sources.takes(&source.key))
            .map(|s| s.key.as_ref())
            .collect();
        let to = match (source.enable, to.is_empty()) {
            (false, _) => "(not enabled)".to_owned(),
            (true, true) => "(no sink takes it)".to_owned(),
            (true, false) => to.join(", "),
        };
        let at = format!("{}:{}", source.place.file, source.place.line);
        sources.row(vec![
            source.key.to_string(),
            source.connect.clone(),
            source.params.kind().name.into(),
            at,
            to,
        ]);
    }
    let mut sinks = Table::new(&head("sink"));
    for sink in &config.sinks {
        let at = if sink.enable {
            format!("{}:{}", sink.place.file, sink.place.line)
        } else {
            "(not enabled)".into()
        };
        sinks.row(vec![sink.key.to_string(), sink.connect.clone(), sink.params.kind().name.into(), at]);
    }
    let paint = printer.out_paint();
    format!(
        "{}\n{}\ndata folder  {}\nlog folder   {}\n\n",
        sources.render(paint),
        sinks.render(paint),
        config.engine.data_dir.display(),
        config.log.dir.display()
    )
}
