//! What the main thread does while others send or receive: samples, the progress line, a watched process, Ctrl-C.
//!
//! Invariant: signals are blocked before the first thread starts, so a [`Watch`] is made before a sender or receiver.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::clock::{Used, used};
use super::timeline::Timeline;
use crate::printer::{Printer, terminal_columns};
use crate::progress::{bytes, count};
use crate::signals::{self, Signal, Stop};

/// How often is looked.
const TICK: Duration = Duration::from_millis(20);
/// How often the progress line is written anew.
const PROGRESS: Duration = Duration::from_secs(1);

/// Something that sends or receives.
pub trait Watched {
    /// Messages and bytes so far.
    fn so_far(&self) -> (u64, u64);
    /// Whether it is done.
    fn is_done(&self) -> bool;
    /// Asks for its end.
    fn stop(&self);
}

/// Signals, and a process that is looked at.
pub struct Watch {
    signals: Receiver<Signal>,
    process: Option<Process>,
    stop: Option<Stop>,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Messages and bytes over time.
    pub timeline: Timeline,
    /// Who asked for the end, if somebody did.
    pub stop: Option<Stop>,
    /// What the process used meanwhile.
    pub used: Option<Used>,
}

impl Watch {
    /// Takes the signals, and looks at a process if one is named.
    pub fn new(pid: Option<u32>) -> Result<Self, String> {
        let process = pid.map(Process::new).transpose()?;
        let (events, signals) = channel();
        let forwarded =
            signals::block().and_then(|blocked| blocked.forward(events, |signal| signal, |_| true));
        forwarded.map_err(|e| format!("cannot take signals: {e}"))?;
        Ok(Self { signals, process, stop: None })
    }

    /// Who has asked for the end so far.
    pub fn asked(&mut self) -> Option<Stop> {
        loop {
            match self.signals.try_recv() {
                Ok(Signal::Drain(stop)) => self.stop = Some(stop),
                Ok(Signal::Reopen) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return self.stop,
            }
        }
    }

    /// Watches until it is done, and asks for the end once when somebody wants it.
    pub fn until_done(&mut self, what: &dyn Watched, printer: &Printer) -> Seen {
        let began = Instant::now();
        let mut timeline = Timeline::new();
        let mut line = Line::new(began);
        while !what.is_done() {
            match self.signals.recv_timeout(TICK) {
                Ok(Signal::Drain(asked)) => {
                    self.stop = Some(asked);
                    what.stop();
                }
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
                Ok(Signal::Reopen) | Err(RecvTimeoutError::Timeout) => {}
            }
            let (messages, bytes) = what.so_far();
            timeline.see(began.elapsed(), messages, bytes);
            line.show(messages, bytes, printer);
            self.process.iter_mut().for_each(Process::look);
        }
        printer.progress("");
        self.process.iter_mut().for_each(Process::look);
        Seen { timeline, stop: self.stop, used: self.process.as_ref().map(Process::used) }
    }
}

/// A process that is looked at again and again, because it may be gone at the end.
struct Process {
    pid: u32,
    before: Used,
    last: Used,
}

impl Process {
    fn new(pid: u32) -> Result<Self, String> {
        let before = used(pid).ok_or_else(|| format!("--pid {pid}: there is no such process"))?;
        Ok(Self { pid, before, last: before })
    }

    fn look(&mut self) {
        if let Some(now) = used(self.pid) {
            self.last = now;
        }
    }

    fn used(&self) -> Used {
        Used { cpu: self.last.cpu.saturating_sub(self.before.cpu), ..self.last }
    }
}

/// The progress line.
struct Line {
    began: Instant,
    next: Instant,
    before: (u64, u64),
}

impl Line {
    fn new(began: Instant) -> Self {
        Self { began, next: began + PROGRESS, before: (0, 0) }
    }

    fn show(&mut self, messages: u64, volume: u64, printer: &Printer) {
        if !printer.shows_progress() || Instant::now() < self.next {
            return;
        }
        self.next += PROGRESS;
        let (rate, bytes_rate) = (messages - self.before.0, volume - self.before.1);
        self.before = (messages, volume);
        let line = format!(
            "{:>4} s  {} messages  {} messages/s  {}/s",
            self.began.elapsed().as_secs(),
            count(messages),
            count(rate),
            bytes(bytes_rate)
        );
        printer.progress(&line[..line.len().min(terminal_columns() - 1)]);
    }
}
