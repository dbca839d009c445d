//! The main thread while the engine runs: signals, reloads, progress, alerts, and a word to the service manager.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use engine::admin::Refusal;
use engine::config::Config;
use engine::diagnosis::{Diagnostic, Severity};
use engine::engine::Engine;
use engine::reload::{Awaited, Reloaded};
use engine::status::Status;

use super::outside::Outside;
use crate::commands::configuration;
use crate::notify::Notify;
use crate::printer::{Paint, Printer, terminal_columns};
use crate::progress::{self, Progress};
use crate::signals::{Signal, Stop};

/// How often signals are looked for; the end of the work is noticed at once.
const TICK: Duration = Duration::from_millis(50);
/// How often the progress line is written anew, and how often alerts are looked at.
const SECOND: Duration = Duration::from_secs(1);
/// How often the service manager is told how it goes.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What the main thread is told while it runs the engine.
#[derive(Debug)]
pub enum Event {
    /// A signal came.
    Signal(Signal),
    /// Somebody outside wants the configuration read anew.
    Reload(Sender<Result<Reloaded, Refusal>>),
}

/// The watch over a running engine.
pub struct Watch<'a> {
    engine: &'a Engine,
    /// What it runs; changed by reloads.
    runs: Config,
    /// What the last reload could not open yet.
    awaited: Awaited,
    outside: &'a Outside,
    notify: &'a Notify,
    printer: &'a Printer,
    progress: Progress,
}

impl<'a> Watch<'a> {
    /// A watch over an engine that runs a configuration; everything is open.
    pub fn new(
        engine: &'a Engine,
        runs: Config,
        outside: &'a Outside,
        notify: &'a Notify,
        printer: &'a Printer,
    ) -> Self {
        outside.alerts().configure(&runs.sources);
        notify.ready();
        let (awaited, progress) = (Awaited::default(), Progress::default());
        Self { engine, runs, awaited, outside, notify, printer, progress }
    }

    /// Runs until the sources are done or a stop is asked for; gives back what runs then.
    pub fn run(mut self, queue: &Receiver<Event>) -> (Option<Stop>, Config) {
        let (mut second, mut told) = (Instant::now() + SECOND, Instant::now());
        let stop = loop {
            let patience = match self.engine.wait(TICK) {
                true if self.awaited.is_empty() => break None,
                // Nothing runs, and something is to: no end of work to be waited for.
                true => TICK,
                false => Duration::ZERO,
            };
            self.open_awaited();
            match queue.recv_timeout(patience) {
                Ok(Event::Signal(Signal::Drain(stop))) => break Some(stop),
                Ok(Event::Signal(Signal::Reopen)) => self.hang_up(),
                // Whoever asked may have gone.
                Ok(Event::Reload(answer)) => drop(answer.send(self.reload())),
                Err(_) => {}
            }
            let now = Instant::now();
            if now >= second {
                second = now + SECOND;
                self.outside.look();
                self.show_progress();
            }
            if self.notify.is_heard() && now >= told {
                told = now + STATUS_EVERY;
                self.notify.status(&in_a_line(&self.engine.status()));
            }
        };
        self.printer.progress("");
        if let Some(stop) = stop {
            log::info!(target: "wpgen::start", "{}: draining", stop.name());
            self.printer.note("stopping: delivering what was taken (once more to stop at once)");
        }
        (stop, self.runs)
    }

    fn show_progress(&mut self) {
        if self.printer.shows_progress() {
            let line = self.progress.line(&self.engine.status(), terminal_columns());
            self.printer.progress(&line);
        }
    }

    /// SIGHUP.
    fn hang_up(&mut self) {
        log::info!(target: "wpgen::start", "SIGHUP: outputs that were moved away are opened anew");
        self.engine.reopen_outputs();
        // What came of it is in the log.
        let _ = self.reload();
    }

    /// Reads the configuration anew and makes the engine run it. What comes of it is said in the log.
    fn reload(&mut self) -> Result<Reloaded, Refusal> {
        self.notify.reloading();
        let done = self.read_anew();
        self.outside.alerts().configure(&self.runs.sources);
        self.notify.ready();
        match &done {
            Ok(Reloaded { changes, findings }) => {
                log::info!(target: "wpgen::reload", "the configuration was read anew: {changes}");
                findings.iter().for_each(log_finding);
            }
            Err(Refusal::Findings(findings)) => {
                log::error!(target: "wpgen::reload", "the configuration was refused, and nothing was changed");
                findings.all.iter().for_each(log_finding);
            }
            Err(Refusal::Stopping | Refusal::GoingOn) => {}
        }
        done
    }

    /// Opens what a reload could not, once it can be.
    fn open_awaited(&mut self) {
        for Reloaded { changes, .. } in self.awaited.open(self.engine, &mut self.runs) {
            log::info!(target: "wpgen::reload", "what the last reload could not open yet is open: {changes}");
            self.outside.alerts().configure(&self.runs.sources);
        }
    }

    fn read_anew(&mut self) -> Result<Reloaded, Refusal> {
        let next = engine::config::load(&self.runs.file, &configuration::environment());
        let next = next.map_err(Refusal::Findings)?;
        next.warnings.all.iter().for_each(log_finding);
        self.engine.begin_reload(&next.config);
        let done = self.awaited.reload(self.engine, &mut self.runs, &next.config);
        let done = done.map_err(Refusal::Findings)?;
        self.engine.end_reload(&next.config);
        Ok(done)
    }
}

/// A finding in one line of the log.
fn log_finding(finding: &Diagnostic) {
    let level = match finding.severity {
        Severity::Error => log::Level::Error,
        Severity::Warning => log::Level::Warn,
    };
    let code = finding.code.map_or_else(String::new, |code| format!("[{code}] "));
    let place = finding.place.as_ref().map_or_else(String::new, |at| format!(" ({}:{})", at.file, at.line));
    log::log!(target: "wpgen::reload", level, "{code}{}{place}", finding.message);
}

fn in_a_line(status: &Status) -> String {
    let troubles = status.troubles();
    let how = if troubles.is_empty() { "well".to_owned() } else { troubles.join("; ") };
    format!("{how}; {}", progress::sentence(status, Paint::PLAIN).trim_end())
}

/// Feeds the service manager's watchdog, from a thread of its own: a reload and a drain may take longer than it waits. It
/// is fed while every shard answers.
pub fn feed_watchdog(notify: &Arc<Notify>, outside: &Arc<Outside>) {
    let Some(limit) = notify.watchdog() else { return };
    let (notify, outside) = (Arc::clone(notify), Arc::clone(outside));
    let feed = move || loop {
        if outside.is_alive_within(limit / 4) {
            notify.alive();
        }
        std::thread::sleep(limit / 4);
    };
    if let Err(e) = std::thread::Builder::new().name("wpgen-watchdog".into()).spawn(feed) {
        log::error!(target: "wpgen::start", "no thread to feed the watchdog: {e}");
    }
}
