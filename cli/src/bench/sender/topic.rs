//! Batches on their way into topics of Kafka.
//!
//! A batch comes home as soon as librdkafka has copied it, so that the next one can be made; what became of its messages is
//! told when the cluster has acknowledged them, or has not. Invariants: a message that was handed over is told of once; one
//! that librdkafka never reports counts as not taken when it is given up; a line that broke sends nothing more.

use std::io;
use std::time::Duration;

use engine::diagnosis::{Code, Diagnostic};
use engine::kafka::load::{DELIVERY_MAX, Load};

use super::outbox::{Batch, Home};
use super::way::{Door, Io, LINGER, Told, Way};
use crate::bench::target::Target;

/// How long one line's reports are waited for, while others may have some.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Opens the line of a connection, which is a producer with a key of its own.
pub fn open(target: &Target, brokers: &str, topic: &str, connection: u16) -> Result<Door, String> {
    let opened = Load::open(brokers, topic, connection.to_string(), target.to_string());
    opened.map(Door::Topic).map_err(|finding| format!("cannot send to {}", said(&finding)))
}

/// The topics of one thread.
pub struct Topics {
    lines: Vec<Line>,
    homes: Vec<Home>,
    /// What was given up.
    lost: Vec<Told>,
}

struct Line {
    load: Load,
    /// What is being handed over, and its next message.
    batch: Option<(Batch, usize)>,
    /// Messages that librdkafka has and has not reported.
    open: u64,
    /// Its open messages are counted: what is reported of them later would count twice.
    given_up: bool,
}

impl Topics {
    /// Topics that are open.
    pub fn new(loads: Vec<Load>) -> Self {
        let line = |load| Line { load, batch: None, open: 0, given_up: false };
        Self { lines: loads.into_iter().map(line).collect(), homes: Vec::new(), lost: Vec::new() }
    }
}

impl Way for Topics {
    fn io(&self) -> Io {
        Io::Kafka
    }

    fn is_empty(&self) -> bool {
        self.homes.is_empty() && self.lines.iter().all(|line| line.batch.is_none() && line.open == 0)
    }

    fn put(&mut self, line: usize, batch: Batch) {
        assert!(self.lines[line].batch.is_none(), "a line has one batch under way");
        self.lines[line].batch = Some((batch, 0));
        self.homes.extend(self.lines[line].hand_over(line));
    }

    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        for (at, line) in self.lines.iter_mut().enumerate() {
            line.load.poll(Duration::ZERO);
            self.homes.extend(line.hand_over(at));
        }
        if self.homes.is_empty() && !wait.is_zero() {
            match self.lines.iter().find(|line| line.open > 0) {
                Some(line) => line.load.poll(wait.min(WAIT_MAX)),
                None => std::thread::sleep(wait),
            }
        }
        Ok(())
    }

    fn homes(&mut self) -> std::vec::Drain<'_, Home> {
        self.homes.drain(..)
    }

    fn told(&mut self) -> Vec<Told> {
        let told = self.lines.iter_mut().enumerate().filter_map(|(at, line)| line.told(at));
        self.lost.drain(..).chain(told).collect()
    }

    /// librdkafka gives up by itself.
    fn patience(&self) -> Duration {
        DELIVERY_MAX + LINGER
    }

    fn cancel(&mut self) {
        for (at, line) in self.lines.iter_mut().enumerate() {
            let mut told = Told { line: at, sent: 0, sent_bytes: 0, unsent: 0, error: None };
            line.give_up(&mut told);
            self.lost.push(told);
        }
    }
}

impl Line {
    /// Hands over as much as librdkafka takes; the batch, once that is all of it or the rest is refused. In its `ends` is left
    /// what was not handed over.
    fn hand_over(&mut self, at: usize) -> Option<Home> {
        let (batch, next) = self.batch.as_mut()?;
        let error = loop {
            let Some(end) = batch.ends.get(*next).map(|end| *end as usize) else { break None };
            let start = next.checked_sub(1).map_or(0, |before| batch.ends[before] as usize);
            match self.load.send(&batch.bytes[start..end]) {
                Ok(true) => {
                    *next += 1;
                    self.open += 1;
                }
                Ok(false) => return None,
                Err(finding) => break Some(io::Error::other(said(&finding))),
            }
        };
        let (mut batch, next) = self.batch.take()?;
        batch.ends.drain(..next);
        Some(Home { line: at, batch, sent: 0, sent_bytes: 0, error })
    }

    fn told(&mut self, line: usize) -> Option<Told> {
        let seen = self.load.told();
        if self.given_up || seen.taken + seen.refused == 0 {
            return None;
        }
        self.open -= seen.taken + seen.refused;
        let error = seen.error.as_ref().map(said_late);
        let mut told = Told { line, sent: seen.taken, sent_bytes: seen.bytes, unsent: seen.refused, error };
        match seen.error.map(|finding| finding.code) {
            // What stands behind it would wait in vain, each message for its whole time.
            Some(Some(Code::WP201)) => self.give_up(&mut told),
            Some(_) => told.unsent += self.left_behind(),
            None => {}
        }
        Some(told)
    }

    /// Counts what is not acknowledged as not taken.
    fn give_up(&mut self, told: &mut Told) {
        self.load.give_up();
        let late = self.load.told();
        told.sent += late.taken;
        told.sent_bytes += late.bytes;
        let unsent = std::mem::take(&mut self.open) - late.taken + self.left_behind();
        if unsent > 0 {
            let unknown = || "librdkafka has not reported what became of them".to_owned();
            told.error.get_or_insert_with(|| late.error.as_ref().map_or_else(unknown, said_late));
        }
        told.unsent += unsent;
        self.given_up = true;
    }

    /// Drops what is not handed over yet: how many messages that is.
    fn left_behind(&mut self) -> u64 {
        self.batch.take().map_or(0, |(batch, next)| (batch.ends.len() - next) as u64)
    }
}

/// As [`said`], of messages that were under way.
fn said_late(finding: &Diagnostic) -> String {
    let unsure = match finding.code {
        Some(Code::WP201) => "; what was under way may be in the topic all the same",
        _ => "",
    };
    said(finding) + unsure
}

/// A finding in one line, with what mends it here.
fn said(finding: &Diagnostic) -> String {
    let code = finding.code.map_or(String::new(), |code| format!(" [{code}]"));
    // What a finding with a code says of it is for a source's configuration.
    let help = match finding.code {
        Some(Code::WP201) => Some("start the broker, or name a listener without TLS and SASL in --to"),
        Some(Code::WP202) => {
            Some("name a listener without TLS and SASL in --to: bench uses neither with Kafka")
        }
        Some(Code::WP203) => Some("make the topic, allow everybody to write to it, or correct --to"),
        Some(_) => None,
        None => finding.help.first().map(String::as_str),
    };
    let help = help.map_or(String::new(), |help| format!("; {help}"));
    format!("{}{code}{help}", finding.message)
}
