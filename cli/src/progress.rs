//! How a run goes and how it went, in words: the progress line and the summary.
//!
//! Owns the formats; pure: it takes snapshots of the engine and gives text. Invariants: the progress line fits the
//! terminal; a rate is over the last seconds, not since the start; time left is told only when the job's size is known.
//! It refuses to guess.

use std::time::Duration;

use engine::status::{SinkState, SourceStatus, Status};

use crate::printer::{Paint, Style};
use crate::remarks;
use crate::table::{Align, Table};

/// Columns of the bar itself.
const BAR: usize = 24;
/// How much the newest second counts in the shown rate.
const NEWEST_WEIGHT: f64 = 0.3;

/// What the progress line remembers from one second to the next.
#[derive(Debug, Default)]
pub struct Progress {
    seen: Option<Seen>,
    records_per_s: f64,
    bytes_per_s: f64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Duration,
    records: u64,
    bytes: u64,
}

impl Progress {
    /// The line for this moment, at most `columns` wide.
    pub fn line(&mut self, status: &Status, columns: usize) -> String {
        self.see(status);
        let mut parts = Vec::new();
        if let Some(total) = status.total_bytes() {
            parts.push(bar(status.bytes_in(), total));
        }
        parts.push(format!("{} records", count(status.records_in())));
        parts.push(format!("{}/s", bytes(self.bytes_per_s as u64)));
        match status.total_bytes() {
            Some(total) => parts.extend(self.time_left(total.saturating_sub(status.bytes_in()))),
            None if status.lag_bytes() > 0 => parts.push(format!("lag {}", bytes(status.lag_bytes()))),
            None => {}
        }
        let errors = status.errors();
        if errors > 0 {
            parts.push(format!("{} errors", count(errors)));
        }
        if let Some(waiting) = waiting(status) {
            parts.push(waiting);
        }
        fit(&parts, columns)
    }

    fn see(&mut self, status: &Status) {
        let now = Seen { at: status.elapsed, records: status.records_in(), bytes: status.bytes_in() };
        let before = self.seen.replace(now).unwrap_or(Seen { at: Duration::ZERO, records: 0, bytes: 0 });
        let seconds = now.at.saturating_sub(before.at).as_secs_f64();
        if seconds < 0.05 {
            return;
        }
        let weight = if before.at.is_zero() { 1.0 } else { NEWEST_WEIGHT };
        let mix = |old: f64, new: u64| old + weight * (new as f64 / seconds - old);
        self.records_per_s = mix(self.records_per_s, now.records.saturating_sub(before.records));
        self.bytes_per_s = mix(self.bytes_per_s, now.bytes.saturating_sub(before.bytes));
    }

    fn time_left(&self, left: u64) -> Option<String> {
        (self.bytes_per_s >= 1.0 && left > 0)
            .then(|| format!("{} left", duration(Duration::from_secs_f64(left as f64 / self.bytes_per_s))))
    }
}

fn bar(done: u64, total: u64) -> String {
    let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let full = (share * BAR as f64) as usize;
    let tip = if full < BAR { ">" } else { "" };
    format!(
        "[{}{tip}{}] {:>3.0}%",
        "=".repeat(full),
        " ".repeat(BAR - full - tip.len()),
        (share * 100.0).floor()
    )
}

fn waiting(status: &Status) -> Option<String> {
    status.sinks.iter().find_map(|sink| match &sink.state {
        SinkState::Waiting(why) => Some(format!("{} waits: {why}", sink.key)),
        SinkState::Ready | SinkState::Closed => None,
    })
}

/// As many parts as fit, the first ones first; a part is shown whole or not at all.
fn fit(parts: &[String], columns: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let gap = if line.is_empty() { "" } else { "  " };
        if crate::table::width(&line) + gap.len() + crate::table::width(part) < columns {
            line.push_str(gap);
            line.push_str(part);
        }
    }
    line
}

/// What happened in all, as a table of sources, a table of sinks and one sentence; tables are at most `columns` wide.
pub fn summary(status: &Status, paint: Paint, columns: usize) -> String {
    let mut text = format!("\n{}\n", sources(&status.sources).render_within(paint, columns));
    let mut sinks = Table::new(&[
        ("sink", Align::Left),
        ("records", Align::Right),
        ("bytes out", Align::Right),
        ("errors", Align::Right),
        ("state", Align::Left),
    ]);
    let leaving = status.leaving.iter().map(|sink| (sink, true));
    for (sink, is_leaving) in status.sinks.iter().map(|sink| (sink, false)).chain(leaving) {
        let rescued = sink.rescue.as_ref().map_or(0, |rescue| rescue.records);
        let state = match &sink.state {
            _ if is_leaving => sink.owed().map_or_else(
                || "was taken out".into(),
                |owed| format!("was taken out, and has not taken {owed}"),
            ),
            _ if rescued > 0 => format!("{} wait in its rescue for the next start", count(rescued)),
            SinkState::Waiting(why) => format!("waits: {why}"),
            SinkState::Ready | SinkState::Closed if sink.repeated > 0 => {
                format!("{} sent again", count(sink.repeated))
            }
            SinkState::Closed if sink.errors == 0 => "its reader left".into(),
            SinkState::Ready | SinkState::Closed => String::new(),
        };
        sinks.row(vec![sink.key.clone(), count(sink.records), bytes(sink.bytes), count(sink.errors), state]);
    }
    text.push_str(&sinks.render_within(paint, columns));
    text.push('\n');
    text.push_str(&sentence(status, paint));
    text.extend(time(status));
    text
}

/// Runs shorter than this say nothing about what limits them.
const TELLING: Duration = Duration::from_secs(1);
/// Where more about a limit is.
pub const SEE_WP105: &str = " (WP105: `wpgen explain WP105`)";

/// Where the time went: of the source that waited longest, beside what the whole process worked.
fn time(status: &Status) -> Option<String> {
    let slowest = status.slowest().filter(|_| status.elapsed >= TELLING)?;
    let (reads, sinks) = slowest.waits.percents(status.elapsed);
    let of = if status.sources.len() > 1 { format!(" ({})", slowest.key) } else { String::new() };
    let see = if is_slowed(reads, sinks) { SEE_WP105 } else { "" };
    Some(format!("time{of}: {}; {:.1} CPUs busy{see}\n", waited(reads, sinks), status.cores_busy()))
}

/// Shares of the time that a source waited, the larger one first.
pub fn waited(reads: u64, sinks: u64) -> String {
    if sinks >= reads {
        format!("{sinks} % waiting for the sink, {reads} % for reads")
    } else {
        format!("{reads} % waiting for reads, {sinks} % for the sink")
    }
}

/// Whether waiting is what limits.
pub fn is_slowed(reads: u64, sinks: u64) -> bool {
    reads.max(sinks) >= engine::health::SLOWED_PERCENT
}

fn sources(sources: &[SourceStatus]) -> Table {
    let mut table = Table::new(&[
        ("source", Align::Left),
        ("records", Align::Right),
        ("bytes in", Align::Right),
        ("delivered", Align::Right),
        ("rejected", Align::Right),
        ("errors", Align::Right),
        ("remarks", Align::Left),
    ]);
    for source in sources {
        table.row(vec![
            source.key.clone(),
            count(source.records_in),
            bytes(source.bytes_in),
            count(source.delivered),
            count(source.rejected),
            count(source.errors),
            remarks::of_status(source),
        ]);
    }
    table
}

/// The summary's last line, alone.
pub fn sentence(status: &Status, paint: Paint) -> String {
    let out: u64 = status.sinks.iter().map(|s| s.bytes).sum();
    let seconds = status.elapsed.as_secs_f64().max(0.001);
    let errors = match status.errors() {
        0 => paint.text(Style::Green, "no errors"),
        1 => paint.text(Style::Red, "1 error"),
        n => paint.text(Style::Red, &format!("{} errors", count(n))),
    };
    format!(
        "{} records in {}: {} in, {} out, {errors}; {} records/s, {}/s\n",
        count(status.records_in()),
        duration(status.elapsed),
        bytes(status.bytes_in()),
        bytes(out),
        count((status.records_in() as f64 / seconds) as u64),
        bytes((status.bytes_in() as f64 / seconds) as u64),
    )
}

/// `1,234,567`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `999 B`, `1.2 KB`, `345 MB`: powers of 1000, three digits.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for larger in ["KB", "MB", "GB", "TB", "PB", "EB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{n} B"),
        _ if value < 9.995 => format!("{value:.2} {unit}"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// `0.04 s`, `12.3 s`, `5 min 02 s`, `3 h 20 min`
pub fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{:.2} s", time.as_secs_f64()),
        1..=59 => format!("{:.1} s", time.as_secs_f64()),
        60..=3599 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::process::Usage;
    use engine::status::{SinkStatus, Waits};

    fn status(seconds: u64, records: u64, bytes_in: u64, total_bytes: Option<u64>) -> Status {
        Status {
            elapsed: Duration::from_secs(seconds),
            usage: Usage { resident_bytes: 0, cpu: Duration::from_millis(700 * seconds) },
            sources: vec![SourceStatus {
                key: "nginx".into(),
                records_in: records,
                bytes_in,
                delivered: records,
                total_bytes,
                waits: Waits { read_ns: 0, sink_ns: 710_000_000 * seconds },
                ..SourceStatus::default()
            }],
            sinks: vec![SinkStatus {
                key: "out".into(),
                records,
                bytes: 2 * bytes_in,
                ..SinkStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn numbers_read_well() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 KB"),
            (12_345, "12.3 KB"),
            (999_499, "999 KB"),
            (999_500, "1.00 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (ms, text) in
            [(40, "0.04 s"), (12_340, "12.3 s"), (302_000, "5 min 02 s"), (12_000_000, "3 h 20 min")]
        {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn a_job_with_an_end_has_a_bar_and_the_time_left() {
        let mut progress = Progress::default();
        let line = progress.line(&status(1, 1000, 25_000_000, Some(100_000_000)), 100);
        assert_eq!(line, "[======>                 ]  25%  1,000 records  25.0 MB/s  3.0 s left");
        let done = progress.line(&status(4, 4000, 100_000_000, Some(100_000_000)), 100);
        assert_eq!(done, "[========================] 100%  4,000 records  25.0 MB/s");
    }

    #[test]
    fn a_source_that_goes_on_shows_its_lag_and_errors() {
        let mut now = status(2, 10, 2000, None);
        now.sources[0].lag_bytes = 5_000_000;
        now.sources[0].errors = 3;
        now.sinks[0].state = SinkState::Waiting("disk full".into());
        let line = Progress::default().line(&now, 100);
        assert_eq!(line, "10 records  1.00 KB/s  lag 5.00 MB  3 errors  out waits: disk full");
    }

    #[test]
    fn the_line_fits_every_terminal() {
        for columns in 20..120 {
            let line = Progress::default().line(&status(1, 1 << 40, 1 << 50, Some(1 << 52)), columns);
            assert!(line.len() < columns, "{line}");
        }
    }

    #[test]
    fn a_run_tells_what_it_waited_for_when_it_was_long_enough() {
        let mut end = status(2, 1, 1, None);
        end.sources[0].waits = Waits { read_ns: 400_000_000, sink_ns: 0 };
        assert_eq!(
            time(&end).as_deref(),
            Some("time: 20 % waiting for reads, 0 % for the sink; 0.7 CPUs busy\n")
        );
        end.elapsed = Duration::from_millis(999);
        assert_eq!(time(&end), None);
    }

    #[test]
    fn the_summary_names_a_sink_that_was_taken_out() {
        let mut end = status(2, 1, 1, None);
        end.leaving = vec![SinkStatus { key: "fw".into(), batches_in_flight: 8, ..SinkStatus::default() }];
        let text = summary(&end, Paint::PLAIN, usize::MAX);
        assert!(text.contains("  was taken out, and has not taken 8 batches\n"), "{text}");
    }

    #[test]
    fn the_summary_counts_in_and_out() {
        let mut end = status(2, 5000, 600_000, None);
        end.sources[0].dropped = vec![("too_long".into(), 2)];
        let text = summary(&end, Paint::PLAIN, usize::MAX);
        assert_eq!(
            text,
            "\nsource  records  bytes in  delivered  rejected  errors  remarks\n\
             nginx     5,000    600 KB      5,000         0       0  dropped as too_long 2\n\n\
             sink  records  bytes out  errors  state\n\
             out     5,000    1.20 MB       0\n\n\
             5,000 records in 2.0 s: 600 KB in, 1.20 MB out, no errors; 2,500 records/s, 300 KB/s\n\
             time: 71 % waiting for the sink, 0 % for reads; 0.7 CPUs busy (WP105: `wpgen explain WP105`)\n"
        );
    }
}
