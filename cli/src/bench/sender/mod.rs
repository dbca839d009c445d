//! Sends messages at a rate over connections, with one or more threads.
//!
//! [`start`] opens everything and begins; whoever started it watches the counters, may stop it, and [`Sender::join`]s.

mod connect;
mod outbox;
mod tls;
#[cfg(feature = "kafka")]
mod topic;
mod way;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::config::tls::TlsConnect;

use super::latency::Latencies;
use super::message::{Kind, Messages};
use super::rate::{Plan, Share};
use super::target::Target;
pub use way::Io;
pub use worker::Times;
use worker::{Outcome, Shared, Work};

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// When.
    pub plan: Plan,
    /// When no more is made.
    pub until: Option<Duration>,
    /// How the messages look.
    pub kind: Kind,
    /// Bytes of a message, framing included, about.
    pub message_bytes: usize,
    /// Over how many connections.
    pub connections: u16,
    /// With how many threads.
    pub threads: u16,
    /// Whom a connection with TLS trusts, and who we are.
    pub trust: TlsConnect,
    /// Bytes of each message, when the kernel is to cut them from large buffers.
    pub segment: Option<u16>,
}

/// A run under way.
#[derive(Debug)]
pub struct Sender {
    threads: Vec<JoinHandle<Outcome>>,
    shared: Arc<Shared>,
    plan: Plan,
}

/// How a run went.
#[derive(Debug)]
pub struct Sent {
    /// Messages that the kernel took, or a cluster of Kafka acknowledged.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that were made and not taken; after a failure, all that were to be sent and were not.
    pub unsent: u64,
    /// A connection broke, so that the failure, and no rate, ended what it sent.
    pub broke: bool,
    /// From the beginning to the last message.
    pub took: Duration,
    /// How late messages went out; empty at full speed.
    pub late: Latencies,
    /// Where the threads' time went, added up.
    pub times: Times,
    /// The first failure.
    pub error: Option<String>,
    /// What carried the messages.
    pub io: Io,
}

/// Opens all connections and begins.
pub fn start(settings: &Settings) -> Result<Sender, String> {
    let threads = settings.threads.clamp(1, settings.connections.max(1));
    let shared = Arc::new(Shared::default());
    let mut works = Vec::new();
    for which in 0..threads {
        let share = Share { plan: settings.plan, which: which.into(), of: threads.into() };
        let mut lines = Vec::new();
        for connection in (which..settings.connections).step_by(threads.into()) {
            let opened = connect::open(&settings.target, connection, &settings.trust, settings.segment)?;
            lines.push((opened, Messages::new(settings.kind.clone(), connection)));
        }
        let (until, message_bytes) = (settings.until, settings.message_bytes);
        works.push(Work { share, until, lines, message_bytes, shared: Arc::clone(&shared) });
    }
    let began = Instant::now();
    let spawn = |work| {
        std::thread::Builder::new().name("bench-send".to_owned()).spawn(move || worker::run(work, began))
    };
    let threads = works.into_iter().map(spawn).collect::<Result<Vec<_>, _>>();
    let threads = threads.map_err(|e| format!("cannot start a thread: {e}"))?;
    Ok(Sender { threads, shared, plan: settings.plan })
}

impl Sender {
    /// Messages and bytes so far.
    pub fn so_far(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }

    /// Asks for the end; what is under way is still sent.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Whether all threads are done.
    pub fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end.
    pub fn join(self) -> Sent {
        let mut sent = Sent {
            messages: 0,
            bytes: 0,
            unsent: 0,
            broke: false,
            took: Duration::ZERO,
            late: Latencies::new(),
            times: Times::default(),
            error: None,
            io: Io::Uring,
        };
        for thread in self.threads {
            match thread.join() {
                Ok(outcome) => sent.add(outcome),
                Err(_) => sent.error = Some("a sending thread panicked".to_owned()),
            }
        }
        sent.messages = self.shared.sent.load(Ordering::Relaxed);
        sent.bytes = self.shared.bytes.load(Ordering::Relaxed);
        if let (Some(count), Some(_)) = (self.plan.count(), &sent.error) {
            sent.unsent = count.saturating_sub(sent.messages);
        }
        sent
    }
}

impl Sent {
    fn add(&mut self, outcome: Outcome) {
        self.unsent += outcome.unsent;
        self.broke |= outcome.broke;
        self.took = self.took.max(outcome.took);
        self.late.merge(&outcome.late);
        self.times.add(&outcome.times);
        self.error = self.error.take().or(outcome.error);
        if self.io != Io::Plain {
            self.io = outcome.io;
        }
    }
}
