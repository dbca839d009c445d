//! `source list`, `status`, `reload` and `stop`: commands to the engine that runs on a configuration's data folder.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::config::Loaded;
use serde_json::Value;

use super::{DONE, FAILED, configuration};
use crate::commands::start::ending;
use crate::control::{self, NoAnswer};
use crate::printer::{Printer, Style};
use crate::progress::{self, bytes, count, duration, waited};
use crate::remarks;
use crate::table::{Align, Table};

/// How much longer than its own limit for a drain an engine may take to be gone.
const BEYOND_DRAIN: Duration = Duration::from_secs(10);
/// How long an engine's drain may take where its configuration cannot say.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reload may take: what stops is drained, and what was held back goes on.
const RELOAD_MAX: Duration = Duration::from_secs(60);

/// Shows the sources and sinks.
pub fn list(config: &Path, as_json: bool, printer: &Printer) -> u8 {
    shown(config, as_json, printer, |health| {
        format!(
            "{}\n{}",
            sources(health).render(printer.out_paint()),
            sinks(health).render(printer.out_paint())
        )
    })
}

/// Shows how the engine is as a whole.
pub fn status(config: &Path, as_json: bool, printer: &Printer) -> u8 {
    shown(config, as_json, printer, |health| {
        let overall = health["overall"].as_str().unwrap_or("unknown");
        let style = if overall == "healthy" { Style::Green } else { Style::Yellow };
        let rows = [
            ("state", printer.out_paint().text(style, overall)),
            ("process", number(health, "pid").to_string()),
            ("version", health["version"].as_str().unwrap_or_default().to_owned()),
            (
                "running for",
                duration(Duration::from_secs_f64(health["uptime_seconds"].as_f64().unwrap_or(0.0).max(0.0))),
            ),
            ("records in", count(number(health, "records_in"))),
            ("bytes in", bytes(number(health, "bytes_in"))),
            ("lag", bytes(number(health, "lag_bytes"))),
            ("errors", count(number(health, "errors"))),
            ("remarks", remarks(health)),
            ("memory", memory(health)),
            ("waiting", waiting(health)),
            ("troubles", sentences(health, "troubles")),
            ("leaving", sentences(health, "leaving")),
            ("alerts", alerts(health)),
        ];
        let shown = rows.iter().filter(|(_, value)| !value.is_empty());
        shown.map(|(name, value)| format!("{name:<13}{value}\n")).collect()
    })
}

/// Where an engine is reached, and how it ends.
struct Reached {
    data_dir: PathBuf,
    drain_timeout: Duration,
    log_dir: PathBuf,
}

/// How an engine is reached that runs on a configuration, also where that has been broken since it was started.
fn reached(config: &Path, printer: &Printer) -> Option<Reached> {
    if let Some(Loaded { config, .. }) = configuration::load(config, printer) {
        let (data_dir, drain_timeout) = (config.engine.data_dir.clone(), config.engine.drain_timeout);
        return Some(Reached { data_dir, drain_timeout, log_dir: config.log.dir.clone() });
    }
    let folder = config.parent().unwrap_or(Path::new("."));
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let data_dir = folder.join(written(&text, "data_dir").unwrap_or("data"));
    if !control::is_running(&data_dir) {
        return None;
    }
    printer.note(&format!("the engine that runs in {} is asked all the same", data_dir.display()));
    Some(Reached { data_dir, drain_timeout: DRAIN_TIMEOUT, log_dir: folder.join("logs") })
}

/// The text behind `name =` in a configuration that does not load.
fn written<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.trim_start().strip_prefix(name)?.trim_start().strip_prefix('=');
    let quoted = text.lines().find_map(value)?.trim_start();
    let quote = quoted.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    quoted[1..].split(quote).next()
}

/// Asks for a drain and waits until the engine is gone.
pub fn stop(config: &Path, printer: &Printer) -> u8 {
    let Some(engine) = reached(config, printer) else { return FAILED };
    let pid = match control::ask(&engine.data_dir, "GET", "/api/system/health") {
        Ok(health) => number(&health, "pid"),
        Err(e) => return unreachable(e, &engine.data_dir, printer),
    };
    if let Err(e) = control::ask(&engine.data_dir, "POST", "/api/stop") {
        return unreachable(e, &engine.data_dir, printer);
    }
    let deadline = Instant::now() + engine.drain_timeout + BEYOND_DRAIN;
    while control::is_running(&engine.data_dir) {
        if Instant::now() >= deadline {
            printer.error(&format!(
                "process {pid} is still delivering after {}",
                duration(engine.drain_timeout)
            ));
            printer.help(&format!("to end it without waiting: kill -TERM {pid}, twice"));
            return FAILED;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(failings) = ending::read(&engine.data_dir, pid) else {
        printer.error(&format!("process {pid} is gone and left no word whether everything was delivered"));
        printer.help(&format!("its last lines are in {}", engine.log_dir.join("wpgen.log").display()));
        return FAILED;
    };
    printer.result(&format!("stopped process {pid}\n"));
    failings.iter().for_each(|failing| printer.error(failing));
    if failings.is_empty() { DONE } else { FAILED }
}

/// Has the engine read its configuration anew, and tells what came of it.
pub fn reload(config: &Path, printer: &Printer) -> u8 {
    // Where the engine is reached stands in a configuration that may be broken now.
    let data_dir = match engine::config::load(config, &configuration::environment()) {
        Ok(loaded) => loaded.config.engine.data_dir,
        Err(findings) => {
            printer.line(&configuration::text(&findings, printer.err_paint()));
            printer.error("the configuration does not load: nothing was changed");
            return FAILED;
        }
    };
    let answer = match control::answer(&data_dir, "POST", "/api/reload", RELOAD_MAX) {
        Ok(answer) => answer,
        Err(e) => return unreachable(e, &data_dir, printer),
    };
    let (code, data) = (answer["code"].as_u64(), &answer["data"]);
    printer.result(&changes(data));
    let findings = data["text"].as_str().unwrap_or_default();
    if !findings.is_empty() {
        printer.line(findings);
    }
    if code == Some(200) {
        return DONE;
    }
    printer.error(answer["message"].as_str().unwrap_or("refused without a reason"));
    FAILED
}

/// A line for sources and one for sinks: what became of them.
fn changes(data: &Value) -> String {
    let line = |what: &str| {
        let of = |fate: &str| {
            let keys = data[what][fate].as_array()?;
            let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
            (!keys.is_empty()).then(|| format!("{fate} {}", keys.join(", ")))
        };
        let fates: Vec<String> = ["kept", "added", "removed", "changed"].into_iter().filter_map(of).collect();
        if fates.is_empty() { String::new() } else { format!("{what:<9}{}\n", fates.join("; ")) }
    };
    format!("{}{}", line("sources"), line("sinks"))
}

/// What WP106 is about: memory in RAM, what of it is on its way to sinks, and what buffers have of memory_limit.
fn memory(health: &Value) -> String {
    let in_flight = match (number(health, "records_in_flight"), number(health, "batches_in_flight")) {
        (0, 0) => "nothing in flight".to_owned(),
        (records, 0) => format!("{} records in flight", count(records)),
        (records, batches) => format!(
            "about {} of it in {} with {} records on the way",
            bytes(number(health, "in_flight_bytes")),
            batch(batches),
            count(records)
        ),
    };
    let (used, limit) = (number(health, "memory_used_bytes"), number(health, "memory_limit_bytes"));
    format!(
        "{} resident, {in_flight}; buffers have {} of {}",
        bytes(number(health, "resident_bytes")),
        bytes(used),
        bytes(limit)
    )
}

fn batch(n: u64) -> String {
    if n == 1 { "1 batch".to_owned() } else { format!("{} batches", count(n)) }
}

/// What befell the records of each source that has something to tell.
fn remarks(health: &Value) -> String {
    let sources = health["sources"].as_array().into_iter().flatten();
    let told = sources.map(|source| (text(source, "key"), remarks::of_answer(source)));
    let told: Vec<String> =
        told.filter(|(_, said)| !said.is_empty()).map(|(key, said)| format!("{key}: {said}")).collect();
    told.join("; ")
}

/// What a list says: what keeps the engine from doing its work, or what leaves.
fn sentences(health: &Value, list: &str) -> String {
    let sentences = health[list].as_array().into_iter().flatten();
    sentences.filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// The alerts that are active.
fn alerts(health: &Value) -> String {
    let alerts = health["alerts"].as_array().into_iter().flatten();
    let row =
        |row: &Value| format!("{} {}: {}", text(row, "source"), text(row, "alert"), text(row, "message"));
    alerts.map(row).collect::<Vec<_>>().join("; ")
}

/// What WP105 is about: the source that waited longest, and for what; empty when none did.
fn waiting(health: &Value) -> String {
    let sources = health["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let percents = |s: &Value| (number(s, "waited_for_reads_percent"), number(s, "waited_for_sinks_percent"));
    let longest = sources.iter().max_by_key(|s| percents(s).0 + percents(s).1);
    let Some(longest) = longest.filter(|s| percents(s) != (0, 0)) else { return String::new() };
    let (reads, sinks) = percents(longest);
    let mut said = format!("{} spent {}", text(longest, "key"), waited(reads, sinks));
    if progress::is_slowed(reads, sinks) {
        said.push_str(progress::SEE_WP105);
    }
    said
}

fn shown(config: &Path, as_json: bool, printer: &Printer, show: impl Fn(&Value) -> String) -> u8 {
    let Some(Reached { data_dir, .. }) = reached(config, printer) else { return FAILED };
    match control::ask(&data_dir, "GET", "/api/system/health") {
        Ok(health) => {
            printer.result(&if as_json { format!("{health:#}\n") } else { show(&health) });
            DONE
        }
        Err(e) => unreachable(e, &data_dir, printer),
    }
}

fn unreachable(why: NoAnswer, data_dir: &Path, printer: &Printer) -> u8 {
    match why {
        NoAnswer::NotRunning => {
            printer.error(&format!("no engine is running on {}", data_dir.display()));
            printer.help("start one: wpgen source start");
        }
        NoAnswer::Failed(why) => {
            printer.error(&format!("the engine on {} does not answer: {why}", data_dir.display()));
        }
    }
    FAILED
}

fn sources(health: &Value) -> Table {
    let mut table = Table::new(&[
        ("source", Align::Left),
        ("state", Align::Left),
        ("records", Align::Right),
        ("bytes in", Align::Right),
        ("delivered", Align::Right),
        ("lag", Align::Right),
        ("errors", Align::Right),
        ("remarks", Align::Left),
    ]);
    for source in health["sources"].as_array().into_iter().flatten() {
        table.row(vec![
            text(source, "key"),
            text(source, "state"),
            count(number(source, "records_in")),
            bytes(number(source, "bytes_in")),
            count(number(source, "delivered")),
            bytes(number(source, "lag_bytes")),
            count(number(source, "errors") + number(source, "rejected")),
            remarks::of_answer(source),
        ]);
    }
    table
}

fn sinks(health: &Value) -> Table {
    let mut table = Table::new(&[
        ("sink", Align::Left),
        ("state", Align::Left),
        ("records", Align::Right),
        ("bytes out", Align::Right),
        ("waiting", Align::Right),
        ("errors", Align::Right),
        ("", Align::Left),
    ]);
    for sink in health["sinks"].as_array().into_iter().flatten() {
        table.row(vec![
            text(sink, "key"),
            text(sink, "state"),
            count(number(sink, "records")),
            bytes(number(sink, "bytes")),
            count(number(sink, "batches_in_flight")),
            count(number(sink, "errors")),
            reason(sink),
        ]);
    }
    table
}

/// Why a sink waits, and what waits for it on disk.
fn reason(sink: &Value) -> String {
    let (why, rescue) = (text(sink, "reason"), &sink["rescue"]);
    let records = number(rescue, "records");
    if records == 0 {
        return why;
    }
    let state = match (text(rescue, "reason"), rescue["full"].as_bool()) {
        (trouble, _) if !trouble.is_empty() => format!(" ({trouble})"),
        (_, Some(true)) => " (full)".into(),
        _ => String::new(),
    };
    let held = format!("{} records, {} in rescue{state}", count(records), bytes(number(rescue, "bytes")));
    if why.is_empty() { held } else { format!("{held}; {why}") }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}
