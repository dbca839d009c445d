//! `bench run`: measures this engine, and another program beside it, and prints one table.
//!
//! With another program the two take turns, so that whatever else the machine does meets both; of each the median round is
//! shown, and the ratios are between these.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Refused;
use super::clock::{self, Used};
use super::message::{Format, Kind, Messages, TYPICAL_BYTES};
use super::rate::Plan;
use super::sender::Settings;
use super::target::Target;
use super::trial::{Case, Contender, Load, Measured, measure};
use super::watch::Watch;
use crate::args::{CaseChoice, Run, SinkChoice, Trust};
use crate::commands::DONE;
use crate::printer::Printer;
use crate::progress::{bytes, count};
use crate::table::{Align, Table};

/// Rounds beside another program.
const ROUNDS_AGAINST: u32 = 3;
/// Bytes of the made-up file that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A contender's median round in one case.
struct Row {
    case: Case,
    who: String,
    measured: Measured,
}

/// Measures, and gives the exit code.
pub fn run(args: &Run, printer: &Printer) -> Result<u8, Refused> {
    let mut watch = Watch::new(None)?;
    let cases = cases(args);
    let made = match (&args.file, cases.contains(&Case::File)) {
        (None, true) => Some(made_up(&args.scratch, args.messages)?),
        _ => None,
    };
    let path = args.file.clone().or_else(|| made.as_ref().map(|made| made.path().join("in.log")));
    let load = Load {
        file: path.map(counted).transpose()?,
        rate: args.rate,
        duration: args.duration,
        settings: settings(args),
        folder: args.scratch.clone(),
    };
    let mut contenders = vec![Contender::Engine { writes: args.sink == SinkChoice::File }];
    contenders.extend(args.against.clone().map(Contender::Command));
    let rounds = args.rounds.unwrap_or(if contenders.len() > 1 { ROUNDS_AGAINST } else { 1 });
    let mut rows = Vec::new();
    for case in cases {
        rows.extend(all_rounds(case, &contenders, rounds, &load, &mut watch, printer)?);
    }
    printer.result(&if args.json { format!("{:#}\n", as_json(&rows)) } else { as_text(&rows, printer) });
    Ok(watch.asked().map_or(DONE, |stop| stop.exit_code_drained()))
}

fn cases(args: &Run) -> Vec<Case> {
    let all = vec![Case::File, Case::Tcp, Case::Udp];
    if args.case.contains(&CaseChoice::All) {
        // A file of one's own is there to be read.
        return if args.file.is_some() { vec![Case::File] } else { all };
    }
    let chosen = |case: &Case| {
        args.case.iter().any(|choice| match choice {
            CaseChoice::File => *case == Case::File,
            CaseChoice::Tcp => *case == Case::Tcp,
            CaseChoice::Udp => *case == Case::Udp,
            CaseChoice::All => true,
        })
    };
    all.into_iter().filter(chosen).collect()
}

/// How messages are sent; target, plan and time are put in for each measurement.
fn settings(args: &Run) -> Settings {
    Settings {
        target: Target::Tcp(String::new()),
        plan: Plan::new(args.rate, None, None),
        until: None,
        kind: Kind::typical(Format::Rfc3164, clock::now_ns() as u32),
        message_bytes: TYPICAL_BYTES + 1,
        connections: args.connections,
        threads: args.threads,
        trust: Trust::default().connect(),
        segment: None,
    }
}

/// A file of raw messages, in a folder that goes away.
fn made_up(within: &Path, messages: u64) -> Result<tempfile::TempDir, String> {
    let cannot = |e: std::io::Error| format!("cannot make a file in {}: {e}", within.display());
    let folder = tempfile::Builder::new().prefix("wpgen-bench-in-").tempdir_in(within).map_err(cannot)?;
    let mut file = fs::File::create(folder.path().join("in.log")).map_err(cannot)?;
    let mut made = Messages::new(Kind::typical(Format::Raw, clock::now_ns() as u32), 0);
    let mut buffer = Vec::with_capacity(WRITE_BYTES + 2 * TYPICAL_BYTES);
    let now = clock::now_ns();
    for n in 0..messages {
        made.push(now, n + 1 == messages, &mut buffer);
        if buffer.len() >= WRITE_BYTES || n + 1 == messages {
            std::io::Write::write_all(&mut file, &buffer).map_err(cannot)?;
            buffer.clear();
        }
    }
    // Whoever is measured first shall not have to share the disk with what is left to write.
    file.sync_all().map_err(cannot)?;
    Ok(folder)
}

/// A file with its lines and bytes; reading it also brings it into the page cache for all alike.
fn counted(path: PathBuf) -> Result<(PathBuf, u64, u64), String> {
    let cannot = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut file = fs::File::open(&path).map_err(cannot)?;
    let (mut lines, mut all, mut last) = (0, 0, b'\n');
    let mut buffer = vec![0; WRITE_BYTES];
    loop {
        let n = std::io::Read::read(&mut file, &mut buffer).map_err(cannot)?;
        let Some(end) = buffer[..n].last() else { break };
        last = *end;
        lines += memchr::memchr_iter(b'\n', &buffer[..n]).count() as u64;
        all += n as u64;
    }
    lines += u64::from(last != b'\n');
    let path = std::path::absolute(&path).map_err(cannot)?;
    Ok((path, lines, all))
}

/// Lets the contenders take turns; what was measured until somebody asked for the end.
fn all_rounds(
    case: Case,
    contenders: &[Contender],
    rounds: u32,
    load: &Load,
    watch: &mut Watch,
    printer: &Printer,
) -> Result<Vec<Row>, String> {
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); contenders.len()];
    'rounds: for round in 1..=rounds {
        for (contender, its) in contenders.iter().zip(&mut measured) {
            if watch.asked().is_some() {
                break 'rounds;
            }
            printer.progress(&format!("{}: {}, round {round} of {rounds}", case.name(), contender.name()));
            match measure(case, contender, load, watch, printer)? {
                Some(found) => its.push(found),
                None => break 'rounds,
            }
        }
    }
    printer.progress("");
    let row = |(contender, its): (&Contender, Vec<Measured>)| {
        median(its).map(|measured| Row { case, who: contender.name().to_owned(), measured })
    };
    Ok(contenders.iter().zip(measured).filter_map(row).collect())
}

/// The round in the middle, by messages a second.
fn median(mut rounds: Vec<Measured>) -> Option<Measured> {
    rounds.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    rounds.get(rounds.len() / 2).copied()
}

fn rate(measured: &Measured) -> f64 {
    measured.messages as f64 / measured.took.max(Duration::from_micros(1)).as_secs_f64()
}

fn cpu_for_a_million(measured: &Measured) -> f64 {
    measured.used.cpu.as_secs_f64() * 1e6 / measured.messages.max(1) as f64
}

fn as_text(rows: &[Row], printer: &Printer) -> String {
    let mut table = Table::new(&[
        ("case", Align::Left),
        ("messages/s", Align::Right),
        ("volume/s", Align::Right),
        ("CPU s/million", Align::Right),
        ("memory", Align::Right),
        ("lost", Align::Right),
        ("program", Align::Left),
    ]);
    for Row { case, who, measured } in rows {
        let volume = measured.bytes as f64 / measured.took.as_secs_f64().max(1e-6);
        table.row(vec![
            case.name().to_owned(),
            count(rate(measured) as u64),
            bytes(volume as u64),
            format!("{:.3}", cpu_for_a_million(measured)),
            bytes(measured.used.memory_peak_bytes),
            measured.lost.map_or_else(|| "?".to_owned(), count),
            who.clone(),
        ]);
    }
    let mut text = table.render(printer.out_paint());
    for (ours, theirs) in pairs(rows) {
        let (faster, cpu) = ratios(&ours.measured, &theirs.measured);
        text.push_str(&format!(
            "\n{}: wpgen takes {faster:.2} times as many messages a second, with {cpu:.2} times the CPU a message\n",
            ours.case.name()
        ));
    }
    text
}

/// wpgen and the other program, case by case.
fn pairs(rows: &[Row]) -> impl Iterator<Item = (&Row, &Row)> {
    rows.iter().zip(rows.iter().skip(1)).filter(|(ours, theirs)| ours.case == theirs.case)
}

/// Of messages a second, and of CPU a message.
fn ratios(ours: &Measured, theirs: &Measured) -> (f64, f64) {
    (rate(ours) / rate(theirs).max(1e-9), cpu_for_a_million(ours) / cpu_for_a_million(theirs).max(1e-9))
}

fn as_json(rows: &[Row]) -> Value {
    let ratio = |(ours, theirs): (&Row, &Row)| {
        let (faster, cpu) = ratios(&ours.measured, &theirs.measured);
        json!({ "case": ours.case.name(), "against": theirs.who, "messages_per_s": faster, "cpu": cpu })
    };
    json!({
        "results": rows.iter().map(row_json).collect::<Vec<_>>(),
        "ratios": pairs(rows).map(ratio).collect::<Vec<_>>(),
    })
}

fn row_json(Row { case, who, measured }: &Row) -> Value {
    let Used { cpu, memory_peak_bytes } = measured.used;
    json!({
        "case": case.name(),
        "program": who,
        "messages": measured.messages,
        "bytes": measured.bytes,
        "seconds": measured.took.as_secs_f64(),
        "messages_per_s": rate(measured),
        "cpu_s": cpu.as_secs_f64(),
        "cpu_s_per_million": cpu_for_a_million(measured),
        "memory_peak_bytes": memory_peak_bytes,
        "lost": measured.lost,
        "duplicated": measured.account.map(|account| account.duplicated),
        "corrupted": measured.account.map(|account| account.corrupted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ColorChoice;

    fn measured(messages: u64, ms: u64) -> Measured {
        Measured {
            messages,
            lost: None,
            bytes: messages * 100,
            took: Duration::from_millis(ms),
            used: Used { cpu: Duration::from_millis(ms), memory_peak_bytes: 5_000_000 },
            account: None,
        }
    }

    #[test]
    fn the_median_is_by_rate() {
        let rounds = vec![measured(100, 10), measured(100, 1000), measured(100, 50)];
        assert_eq!(median(rounds).map(|m| m.took), Some(Duration::from_millis(50)));
        assert!(median(Vec::new()).is_none());
    }

    #[test]
    fn two_programs_are_compared_case_by_case() {
        let row = |case, who: &str, ms| Row { case, who: who.to_owned(), measured: measured(1_000_000, ms) };
        let rows = [row(Case::File, "wpgen", 100), row(Case::File, "cat", 400), row(Case::Tcp, "wpgen", 100)];
        let text = as_text(&rows, &Printer::new(ColorChoice::Never, false, false));
        assert!(
            text.contains("file: wpgen takes 4.00 times as many messages a second, with 0.25 times"),
            "{text}"
        );
        assert_eq!(text.matches("wpgen takes").count(), 1);
        let json = as_json(&rows);
        assert_eq!(
            (json["results"].as_array().map(Vec::len), json["ratios"][0]["messages_per_s"].as_f64()),
            (Some(3), Some(4.0))
        );
    }

    #[test]
    fn lines_are_counted_with_the_one_that_has_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for (text, lines) in [("", 0), ("a\nb\n", 2), ("a\nb", 2)] {
            fs::write(&path, text).unwrap();
            assert_eq!(counted(path.clone()).map(|(_, n, bytes)| (n, bytes)), Ok((lines, text.len() as u64)));
        }
    }
}
