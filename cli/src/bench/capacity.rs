//! `bench capacity`: the highest rate at which messages are written in time and none too many are lost.
//!
//! A trial sends at one rate and follows the file that the program writes. It holds when the sender kept the rate, 99 % of
//! the messages stood in the file within the asked time after they were due, and no more than the asked share is missing.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Refused;
use super::clock;
use super::latency::show;
use super::message::{Format, Kind, TYPICAL_BYTES};
use super::rate::{Plan, Rate};
use super::receiver::{self, Limits};
use super::search::Search;
use super::sender::{self, Sent, Settings};
use super::target::Target;
use super::trial::queues::Protocol;
use super::trial::{Contender, Site, free_port, listening};
use super::watch::Watch;
use crate::args::{Capacity, Network, Trust};
use crate::commands::{DONE, FAILED};
use crate::printer::Printer;
use crate::progress::count;
use crate::table::{Align, Table};

/// How long the last messages of a trial may take to be written: long enough that what a busy machine only delays is
/// late and not lost.
const IDLE: Duration = Duration::from_secs(5);
/// A rate counts as kept when at least this share of it was sent.
const KEPT: f64 = 0.99;

/// What a trial found.
#[derive(Clone, Debug)]
struct Trial {
    rate: f64,
    sent_rate: f64,
    p99_ns: u64,
    lost_percent: f64,
    /// Why it does not hold.
    failed: Option<String>,
}

/// Searches, and gives the exit code.
pub fn run(args: &Capacity, printer: &Printer) -> Result<u8, Refused> {
    let mut watch = Watch::new(None)?;
    let (mut search, mut trials) = (Search::new(), Vec::new());
    while let Some(rate) = search.next()
        && let Some(trial) = trial(args, rate, &mut watch, printer)?
    {
        let verdict = trial.failed.as_deref().unwrap_or("holds");
        printer.note(&format!("{} messages/s: p99 {}, {verdict}", count(rate as u64), show(trial.p99_ns)));
        search.tried(rate, trial.failed.is_none());
        trials.push(trial);
    }
    let found = trials.iter().filter(|t| t.failed.is_none()).max_by(|a, b| a.rate.total_cmp(&b.rate));
    printer.result(&match args.json {
        true => format!("{:#}\n", as_json(found, &trials)),
        false => as_text(found, &trials, printer),
    });
    Ok(match (watch.asked(), search.found()) {
        (Some(stop), _) => stop.exit_code_drained(),
        (None, Some(_)) => DONE,
        (None, None) => FAILED,
    })
}

/// One rate, tried on the named program, or on an engine that is started for it; none when somebody asked for the end.
fn trial(args: &Capacity, rate: f64, watch: &mut Watch, printer: &Printer) -> Result<Option<Trial>, String> {
    if let (Some(to), Some(out)) = (&args.to, &args.out) {
        return sent_and_followed(args, rate, to.clone(), out, watch, printer);
    }
    let protocol = match args.case {
        Network::Tcp => Protocol::Tcp,
        Network::Udp => Protocol::Udp,
    };
    let site = Site::new(&args.scratch)?;
    let port = free_port(protocol).map_err(|e| format!("no port is free: {e}"))?;
    let engine = listening(&site, &Contender::Engine { writes: true }, protocol, port, watch)?;
    let Some(_engine) = engine else { return Ok(None) };
    let address = format!("127.0.0.1:{port}");
    let to = if protocol == Protocol::Tcp { Target::Tcp(address) } else { Target::Udp(address) };
    sent_and_followed(args, rate, to, &site.output(), watch, printer)
}

fn sent_and_followed(
    args: &Capacity,
    rate: f64,
    to: Target,
    out: &Path,
    watch: &mut Watch,
    printer: &Printer,
) -> Result<Option<Trial>, String> {
    let kind = Kind::typical(Format::Rfc3164, clock::now_ns() as u32);
    let limits = Limits { count: None, duration: Some(args.trial + 2 * IDLE), idle: IDLE };
    let follower = receiver::follow_file(out, limits, Some(kind.run))?;
    let sender = sender::start(&settings(args, rate, to, kind))?;
    watch.until_done(&sender, printer);
    let sent = sender.join();
    if let Some(error) = &sent.error {
        return Err(format!("cannot send: {error}"));
    }
    watch.until_done(&follower, printer);
    let received = follower.join()?;
    if watch.asked().is_some() {
        return Ok(None);
    }
    let account = received.tally.ledger.account().with_sent(sent.messages);
    let p99_ns = received.tally.latencies.percentile_ns(99.0);
    Ok(Some(judged(args, rate, &sent, account.lost, p99_ns)))
}

fn settings(args: &Capacity, rate: f64, target: Target, kind: Kind) -> Settings {
    let kind = Kind { framing: kind.framing.filter(|_| !target.keeps_apart()), ..kind };
    Settings {
        target,
        plan: Plan::new(Rate::Fixed(rate), Some(args.trial.as_secs_f64()), None),
        until: Some(args.trial),
        kind,
        message_bytes: TYPICAL_BYTES + 1,
        connections: args.connections,
        threads: args.threads,
        trust: Trust::default().connect(),
        segment: None,
    }
}

fn judged(args: &Capacity, rate: f64, sent: &Sent, lost: u64, p99_ns: u64) -> Trial {
    let sent_rate = sent.messages as f64 / sent.took.as_secs_f64().max(1e-9);
    let lost_percent = 100.0 * lost as f64 / sent.messages.max(1) as f64;
    let failed = if sent_rate < rate * KEPT {
        Some(format!("only {} messages/s could be sent", count(sent_rate as u64)))
    } else if lost_percent > args.loss {
        Some(format!("{} messages lost", count(lost)))
    } else if u128::from(p99_ns) > args.p99.as_nanos() {
        Some("too late".to_owned())
    } else {
        None
    };
    Trial { rate, sent_rate, p99_ns, lost_percent, failed }
}

fn as_text(found: Option<&Trial>, trials: &[Trial], printer: &Printer) -> String {
    let mut table = Table::new(&[
        ("messages/s", Align::Right),
        ("p99", Align::Right),
        ("lost", Align::Right),
        ("", Align::Left),
    ]);
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    for trial in sorted {
        table.row(vec![
            count(trial.rate as u64),
            show(trial.p99_ns),
            format!("{:.3} %", trial.lost_percent),
            trial.failed.clone().unwrap_or_else(|| "holds".to_owned()),
        ]);
    }
    let verdict = match found {
        Some(trial) => {
            format!("capacity: {} messages/s, p99 {}", count(trial.rate as u64), show(trial.p99_ns))
        }
        None => "no rate holds".to_owned(),
    };
    format!("{}\n{verdict}\n", table.render(printer.out_paint()))
}

fn as_json(found: Option<&Trial>, trials: &[Trial]) -> Value {
    let trial = |trial: &Trial| {
        json!({
            "messages_per_s": trial.rate,
            "sent_per_s": trial.sent_rate,
            "p99_ns": trial.p99_ns,
            "lost_percent": trial.lost_percent,
            "holds": trial.failed.is_none(),
            "why": trial.failed,
        })
    };
    json!({
        "capacity_per_s": found.map(|found| found.rate),
        "p99_ns": found.map(|found| found.p99_ns),
        "trials": trials.iter().map(trial).collect::<Vec<_>>(),
    })
}
