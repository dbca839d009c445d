//! `bench recv`: a receiver, its watcher, its report.

use super::Refused;
use super::account::Account;
use super::plot;
use super::receiver::{self, Limits, Received};
use super::report::Report;
use super::watch::Watch;
use crate::args::Recv;
use crate::commands::{DONE, FAILED};
use crate::printer::Printer;
use crate::progress::count;

/// Receives, and gives the exit code.
pub fn run(args: &Recv, printer: &Printer) -> Result<u8, Refused> {
    let mut watch = Watch::new(args.pid)?;
    let limits = Limits { count: args.count, duration: args.duration, idle: args.idle };
    let receiver = receiver::start(&args.listen, limits)?;
    printer.note(&format!("listening on {}", receiver.address()));
    let seen = watch.until_done(&receiver, printer);
    let (_, bytes) = super::watch::Watched::so_far(&receiver);
    let received = receiver.join()?;
    let mut report = report(&received, bytes, args.sent);
    if let Some(used) = seen.used {
        report.used(used, received.tally.ledger.account().received);
    }
    plot::save(args.output.plot.as_deref(), &seen.timeline, Some(&received.tally.latencies))?;
    report.print(args.output.json, printer);
    let account = received.tally.ledger.account();
    // Without a number that was sent, what is missing is a measurement and no failure.
    let is_short = args.sent.is_some_and(|sent| !account.with_sent(sent).is_complete());
    let code = if is_short { FAILED } else { DONE };
    Ok(seen.stop.map_or(code, |stop| stop.exit_code_drained()))
}

/// What came, how fast and how late.
pub fn report(received: &Received, bytes: u64, sent: Option<u64>) -> Report {
    let account = received.tally.ledger.account();
    let mut report = Report::default();
    accounts(&mut report, account, sent);
    let took = received.tally.took().as_secs_f64();
    // The first message only starts the clock.
    report.rate(account.received.saturating_sub(1), bytes, took);
    report.latencies(&received.tally.latencies);
    if received.kernel_drops > 0 {
        let text = format!(
            "{} datagrams did not fit its buffer (net.core.rmem_max): this receiver was the limit",
            count(received.kernel_drops)
        );
        report.add("dropped", text, "kernel_drops", received.kernel_drops);
    }
    report
}

/// What became of the messages.
pub fn accounts(report: &mut Report, account: Account, sent: Option<u64>) {
    let account = sent.map_or(account, |sent| account.with_sent(sent));
    report.messages("sent", account.sent());
    report.messages("received", account.received);
    report.messages("lost", account.lost);
    report.messages("duplicated", account.duplicated);
    report.messages("reordered", account.reordered);
    report.messages("corrupted", account.corrupted);
    report.messages("connections", account.connections);
    let open = account.connections - account.ended;
    report.field("connections_without_end", open);
    if open > 0 && sent.is_none() {
        report.add(
            "note",
            format!(
                "the end of {} did not come: what is missing there is not known; --sent tells it",
                connections(open)
            ),
            "end_is_known",
            false,
        );
    }
}

fn connections(n: u64) -> String {
    if n == 1 { "a connection".to_owned() } else { format!("{} connections", count(n)) }
}
