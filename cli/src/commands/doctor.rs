//! `doctor`: every check on this machine, on a configuration, and on the engine that runs with it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::config::{Config, Loaded};
use engine::diagnosis::render;
use engine::doctor::{self, Check, Running, Subject, Verdict};
use serde_json::json;

use super::{DONE, USUAL, configuration};
use crate::control;
use crate::printer::{COLUMNS, Paint, Printer, Style};
use crate::table::wrap;

/// Exit codes of this command alone.
const WARNED: u8 = 1;
const FAILS: u8 = 2;
/// How far apart the two questions to a running engine are: what it does now is what lies between them.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long it may take to answer each.
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// Examines, and tells everything that was found.
pub fn run(config: Option<&Path>, as_json: bool, printer: &Printer) -> u8 {
    let mut subject = subject(config);
    subject.running = subject.config.as_deref().and_then(running);
    let checks = doctor::examine(&subject);
    let verdict = doctor::verdict(&checks);
    if as_json {
        printer.result(&as_json_text(&checks, verdict, subject.running.as_ref()));
    } else {
        printer.result(&as_text(&checks, printer.out_paint()));
    }
    match verdict {
        Verdict::Ok => DONE,
        Verdict::Warn => WARNED,
        Verdict::Fail => FAILS,
    }
}

/// The configuration, when one is named or there is one here; else the machine is examined alone.
fn subject(config: Option<&Path>) -> Subject {
    let path = config.unwrap_or(Path::new(USUAL));
    if config.is_none() && !path.exists() {
        return Subject::default();
    }
    match engine::config::load(path, &configuration::environment()) {
        Ok(Loaded { config, warnings }) => {
            Subject { config: Some(Arc::new(config)), findings: warnings, running: None }
        }
        Err(findings) => Subject { findings, ..Subject::default() },
    }
}

/// Asks the engine of a configuration twice, if there is one.
fn running(config: &Config) -> Option<Running> {
    let ask = || {
        let answer =
            control::answer(&config.engine.data_dir, "GET", "/api/system/health", ANSWER_MAX).ok()?;
        Some(answer["data"].clone())
    };
    let began = Instant::now();
    let before = ask()?;
    std::thread::sleep(BETWEEN.saturating_sub(began.elapsed()));
    Running::new(before, ask()?)
}

fn as_json_text(checks: &[Check], verdict: Verdict, running: Option<&Running>) -> String {
    let report = json!({
        "verdict": verdict,
        "engine": running.map(|running| json!({ "pid": running.pid() })),
        "checks": checks,
    });
    format!("{report:#}\n")
}

/// A block for each check: its verdict, what was looked at and what was found; below it causes and mends.
fn as_text(checks: &[Check], paint: Paint) -> String {
    let widest = checks.iter().map(|check| check.subject.chars().count()).max().unwrap_or(0).min(SUBJECT_MAX);
    let mut text = String::new();
    for check in checks {
        block(&mut text, check, widest, paint);
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
    text.push_str(&format!(
        "\n{} checks: {} ok, {warned} warn, {failed} fail\n",
        checks.len(),
        count(Verdict::Ok)
    ));
    if let Some(code) =
        checks.iter().filter(|check| check.verdict != Verdict::Ok).find_map(|check| check.code)
    {
        text.push_str(&format!("more about a code: wpgen explain {code}\n"));
    }
    text
}

/// Columns of what was looked at; a longer one stands out.
const SUBJECT_MAX: usize = 24;
/// Columns of a verdict with its gap.
const VERDICT: usize = 6;

fn block(text: &mut String, check: &Check, widest: usize, paint: Paint) {
    let (word, style) = match check.verdict {
        Verdict::Ok => ("ok", Style::Green),
        Verdict::Warn => ("warn", Style::Yellow),
        Verdict::Fail => ("fail", Style::Red),
    };
    let indent = VERDICT + widest + 2;
    let code = check.code.map_or_else(String::new, |code| format!("[{code}] "));
    let place = check.place.as_ref().map_or_else(String::new, |at| format!(" ({}:{})", at.file, at.line));
    let found = render::clean(&format!("{code}{}{place}", check.found));
    let head = format!(
        "{}{}{:<widest$}  ",
        paint.text(style, word),
        " ".repeat(VERDICT - word.len()),
        render::clean(&check.subject)
    );
    for (i, line) in wrap(&found, COLUMNS - indent).iter().enumerate() {
        let front = if i == 0 { head.clone() } else { " ".repeat(indent) };
        text.push_str(format!("{front}{line}").trim_end());
        text.push('\n');
    }
    let notes = check.notes.iter().map(|note| ("", Style::Dim, note));
    let help = check.help.iter().map(|help| ("mend: ", Style::Cyan, help));
    for (label, style, body) in notes.chain(help) {
        // A mend of several lines is there to be pasted: its lines stay as they are.
        for (i, part) in body.lines().enumerate() {
            let label = if i == 0 { label.to_owned() } else { " ".repeat(label.len()) };
            let within = COLUMNS - indent - label.len();
            for (j, line) in wrap(&render::clean(part), within).iter().enumerate() {
                let front = if j == 0 { paint.text(style, &label) } else { " ".repeat(label.len()) };
                text.push_str(format!("{}{front}{line}", " ".repeat(indent)).trim_end());
                text.push('\n');
            }
        }
    }
}
