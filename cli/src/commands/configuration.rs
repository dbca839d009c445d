//! Loading the configuration for a command: the environment it may look at, and how its findings are shown.

use std::path::Path;

use engine::config::{Environment, Loaded, LogLevel};
use engine::diagnosis::{Diagnostics, render};
use log::LevelFilter;

use crate::printer::{Paint, Printer};

/// A variable of this process's environment; one that is not UTF-8 is none.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a configuration may ask of this process and machine.
pub fn environment() -> Environment<'static> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Environment { var: &variable, cpus }
}

/// Loads a configuration for a command that needs one; findings go to standard error.
pub fn load(path: &Path, printer: &Printer) -> Option<Loaded> {
    match engine::config::load(path, &environment()) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                printer.note(&text(&loaded.warnings, printer.err_paint()));
            }
            Some(loaded)
        }
        Err(findings) => {
            printer.line(&text(&findings, printer.err_paint()));
            None
        }
    }
}

/// `[log].level` as the log facade says it.
pub fn level(written: LogLevel) -> LevelFilter {
    match written {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}

/// Findings as a block of text, with an empty line behind it.
pub fn text(findings: &Diagnostics, paint: Paint) -> String {
    let paint = if paint.is_on() { render::Paint::Ansi } else { render::Paint::Plain };
    let mut text = String::new();
    // A String takes every write.
    let _ = render::write_all(findings, paint, &mut text);
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// `1 error, 2 warnings`
pub fn counted(findings: &Diagnostics) -> String {
    let named = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    let parts: Vec<String> = [named(findings.errors(), "error"), named(findings.warnings(), "warning")]
        .into_iter()
        .flatten()
        .collect();
    if parts.is_empty() { "no findings".to_owned() } else { parts.join(", ") }
}
