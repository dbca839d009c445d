//! `bench send`: a sender, its watcher, its report.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::Refused;
use super::clock;
use super::latency::show;
use super::message::{Format, Framing, Kind, shortest, text_bytes};
use super::plot;
use super::rate::Plan;
use super::report::Report;
use super::sender::{self, Io, Sent, Settings};
use super::target::Target;
use super::texts::Texts;
use super::watch::{Seen, Watch, Watched};
use crate::args::{Messages, Send};
use crate::commands::{DONE, FAILED};

use crate::printer::Printer;
use crate::progress::count;

/// How long a run takes when neither time nor number is given.
const DURATION: Duration = Duration::from_secs(10);
/// Percent of the asked rate that a sender may miss it by and still have kept it.
const RATE_TOLERANCE_PERCENT: f64 = 1.0;
/// Percent of its time that a sender waits for sockets when the receiver is the limit.
const BLOCKED_PERCENT: f64 = 10.0;

/// Sends, and gives the exit code.
pub fn run(args: &Send, printer: &Printer) -> Result<u8, Refused> {
    let settings = settings(args)?;
    let mut watch = Watch::new(args.pid)?;
    let sender = sender::start(&settings)?;
    let seen = watch.until_done(&sender, printer);
    let sent = sender.join();
    let mut report = report(&settings, &sent);
    report.field("run", format!("{:08x}", settings.kind.run));
    if let Some(used) = seen.used {
        report.used(used, sent.messages);
    }
    plot::save(args.output.plot.as_deref(), &seen.timeline, None)?;
    report.print(args.output.json, printer);
    Ok(exit_code(&sent, &seen, printer))
}

fn exit_code(sent: &Sent, seen: &Seen, printer: &Printer) -> u8 {
    if let Some(error) = &sent.error {
        printer.error(&format!("{} messages could not be sent: {error}", count(sent.unsent)));
    }
    match (&sent.error, seen.stop) {
        (_, Some(stop)) => stop.exit_code_drained(),
        (Some(_), None) => FAILED,
        (None, None) => DONE,
    }
}

fn settings(args: &Send) -> Result<Settings, Refused> {
    let until = args.duration.or((args.count.is_none()).then_some(DURATION));
    let plan = Plan::new(args.rate, until.map(|until| until.as_secs_f64()), args.count);
    let framing = match (&args.to, args.messages.framing) {
        (Target::Kafka { .. }, Framing::Octet) => {
            return Err(Refused::usage("a topic has messages, not a stream", "leave --framing octet out"));
        }
        (Target::File(_), Framing::Octet) => {
            return Err(Refused::usage("a file has lines", "leave --framing octet out"));
        }
        (to, framing) => (!to.keeps_apart()).then_some(framing),
    };
    let (kind, message_bytes) = messages(&args.messages, framing)?;
    let segment = match (args.segment, &args.to) {
        (true, Target::Udp(_)) => u16::try_from(args.messages.size).ok(),
        (true, _) => return Err(Refused::usage("--segment is for UDP", "leave --segment out")),
        (false, _) => None,
    };
    if !args.trust.is_empty() && !matches!(args.to, Target::Tls(_)) {
        let why = format!("--ca, --cert, --key and --server-name are for TLS, and {} has none", args.to);
        return Err(Refused::usage(why, "--to tls://HOST:PORT"));
    }
    let connections = args.connections;
    Ok(Settings {
        target: args.to.clone(),
        plan,
        until,
        kind,
        message_bytes,
        connections,
        threads: args.threads,
        trust: args.trust.connect(),
        segment,
    })
}

/// What the messages of a run have in common, and how long one is, about.
pub fn messages(args: &Messages, framing: Option<Framing>) -> Result<(Kind, usize), Refused> {
    let format = args.format;
    let run = (clock::now_ns() >> 10) as u32 ^ std::process::id().rotate_left(16);
    let texts = match &args.sample {
        Some(path) => {
            let cannot = |e: String| format!("cannot use the sample {}: {e}", path.display());
            let sample = fs::read(path).map_err(|e| cannot(e.to_string()))?;
            Texts::varied(&sample, format == Format::Ndjson, run.into()).map_err(cannot)?
        }
        None => {
            let bytes = text_bytes(format, args.size).ok_or_else(|| {
                Refused::usage(
                    format!("--size {} is too small: the numbers of a message need room", args.size),
                    format!(
                        "in this format a message has {} bytes, or {} and more",
                        shortest(format),
                        shortest(format) + 2
                    ),
                )
            })?;
            Texts::made_up(bytes, run.into())
        }
    };
    let message_bytes = shortest(format) + 2 + texts.bytes_mean();
    Ok((Kind { format, framing, run, texts: Arc::new(texts) }, message_bytes))
}

/// What was sent, how fast, and what kept it from being faster.
pub fn report(settings: &Settings, sent: &Sent) -> Report {
    let mut report = Report::default();
    report.field("target", settings.target.to_string());
    report.messages("sent", sent.messages);
    if sent.unsent > 0 {
        report.messages("unsent", sent.unsent);
    }
    report.rate(sent.messages, sent.bytes, sent.took.as_secs_f64());
    if let Some(asked) = settings.plan.asked() {
        report.add("asked", format!("{} messages/s", count(asked.round() as u64)), "asked_per_s", asked);
    }
    if !sent.late.is_empty() {
        let p99 = sent.late.percentile_ns(99.0);
        report.add("late", format!("p99 {} after a message was due", show(p99)), "late_p99_ns", p99);
    }
    let (limit, text) = limit(settings, sent);
    report.add("limit", text, "limit", limit);
    let share = |part: Duration| percent(part, sent.times.whole);
    report.field("busy_percent", share(sent.times.busy));
    report.field("blocked_percent", share(sent.times.blocked()));
    report.field("preempted_percent", share(sent.times.preempted));
    report.field("io", sent.io.name());
    if sent.io == Io::Plain {
        report.add("note", "io_uring is refused here: plain writes, which are slower", "io", "plain");
    }
    report
}

/// Who kept the run from being faster, in a word and in a sentence.
fn limit(settings: &Settings, sent: &Sent) -> (&'static str, String) {
    let share = |part: Duration| percent(part, sent.times.whole);
    let (busy, blocked, preempted) =
        (share(sent.times.busy), share(sent.times.blocked()), share(sent.times.preempted));
    let rate = sent.messages as f64 / sent.took.as_secs_f64().max(1e-9);
    let kept =
        settings.plan.asked().is_some_and(|asked| rate >= asked * (1.0 - RATE_TOLERANCE_PERCENT / 100.0));
    if let Some(error) = sent.error.as_ref().filter(|_| sent.broke) {
        ("error", format!("none was reached: {error}"))
    } else if kept {
        ("rate", format!("the rate that was asked for; this sender was busy {busy:.0} % of the time"))
    } else if blocked >= BLOCKED_PERCENT {
        let (whom, them) = match settings.target {
            Target::Kafka { .. } => ("librdkafka and the brokers behind it", "them"),
            _ => ("the receiver", "it"),
        };
        ("receiver", format!("{whom}: this sender waited for {them} {blocked:.0} % of the time"))
    } else if preempted >= BLOCKED_PERCENT {
        ("sender", format!("this sender's CPU: it had to leave it to others {preempted:.0} % of the time"))
    } else {
        let help = match settings.connections {
            1 => "try --connections 2 --threads 2",
            _ => "try more --threads",
        };
        ("sender", format!("this sender: it was busy {busy:.0} % of the time; {help}"))
    }
}

fn percent(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64().max(1e-9)
}

impl Watched for sender::Sender {
    fn so_far(&self) -> (u64, u64) {
        sender::Sender::so_far(self)
    }

    fn is_done(&self) -> bool {
        sender::Sender::is_done(self)
    }

    fn stop(&self) {
        sender::Sender::stop(self);
    }
}
