//! One sending thread: makes the messages that are due, hands them over, and knows what it waited for.
//!
//! Invariants: a message's time is when it was due, however late it goes out; each connection ends with a message that
//! says so; memory is one batch a connection, and what librdkafka holds. When the time is over and nothing moves any more,
//! what has not been taken is given up and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::outbox::{Batch, Home, Opened, REQUESTS_MAX, Wire};
use super::way::{self, Door, Io, LINGER, Told, Way};
use crate::bench::clock;
use crate::bench::latency::Latencies;
use crate::bench::message::Messages;
use crate::bench::rate::Share;

/// Bytes that the batches of all connections of a thread are to take together, so that they stay in the cache.
const BATCHES_BYTES: usize = 256 << 10;
/// Bytes of a batch at least and at most.
const BATCH_BYTES: (usize, usize) = (16 << 10, 128 << 10);
/// Datagrams of a batch at most.
const DATAGRAMS_MAX: usize = 64;
/// The longest nap, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(50);
/// How much longer than its time a run may take to send what was due within it.
const OVERTIME: Duration = Duration::from_millis(200);

/// What the threads of a run share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Messages that the kernel, or a cluster of Kafka, took.
    pub sent: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Somebody asks for the end.
    pub stop: AtomicBool,
}

/// What a thread has to do.
#[derive(Debug)]
pub struct Work {
    /// Its part of the plan.
    pub share: Share,
    /// When no more is made; none when a number of messages ends it.
    pub until: Option<Duration>,
    /// Its connections.
    pub lines: Vec<(Door, Messages)>,
    /// Bytes of a message, about.
    pub message_bytes: usize,
    /// What it shares with the others.
    pub shared: Arc<Shared>,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// Messages that were made and not taken.
    pub unsent: u64,
    /// A connection broke.
    pub broke: bool,
    /// From the beginning to the last message.
    pub took: Duration,
    /// Of each batch, how late its first message went out; empty at full speed.
    pub late: Latencies,
    /// Where the time went.
    pub times: Times,
    /// The first failure.
    pub error: Option<String>,
    /// What carried the messages.
    pub io: Io,
}

/// Where a thread's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// All of it.
    pub whole: Duration,
    /// It worked.
    pub busy: Duration,
    /// It wanted to work, and others had the CPU.
    pub preempted: Duration,
    /// No message was due.
    pub idle: Duration,
}

impl Times {
    /// It waited for the sockets to take more.
    pub fn blocked(&self) -> Duration {
        self.whole.saturating_sub(self.busy + self.preempted + self.idle)
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.whole += other.whole;
        self.busy += other.busy;
        self.preempted += other.preempted;
        self.idle += other.idle;
    }
}

/// Sends until the plan, the time or somebody ends it.
pub fn run(work: Work, began: Instant) -> Outcome {
    let mut sending = Sending::new(work, began);
    let error = sending.all().err().map(|e| format!("the ring: {e}"));
    let took = began.elapsed();
    sending.outbox.close();
    let (busy, preempted) = clock::thread_times();
    Outcome {
        unsent: sending.unsent,
        broke: sending.broke,
        took,
        late: sending.late,
        times: Times { whole: took, busy, preempted, idle: sending.idle },
        error: sending.error.or(error),
        io: sending.outbox.io(),
    }
}

struct Sending {
    share: Share,
    until: Option<Duration>,
    shared: Arc<Shared>,
    outbox: Box<dyn Way>,
    connections: Vec<Connection>,
    /// Connections with nothing under way, the one that waits longest first.
    free: VecDeque<usize>,
    batch_messages: usize,
    began: Instant,
    began_ns: u64,
    made: u64,
    unsent: u64,
    broke: bool,
    idle: Duration,
    late: Latencies,
    error: Option<String>,
}

struct Connection {
    messages: Messages,
    spare: Batch,
    /// Its last message was made, or it broke.
    ended: bool,
}

impl Sending {
    fn new(work: Work, began: Instant) -> Self {
        let batch_bytes = (BATCHES_BYTES / work.lines.len()).clamp(BATCH_BYTES.0, BATCH_BYTES.1);
        let mut batch_messages = (batch_bytes / work.message_bytes.max(1)).max(1);
        if let Some((Door::Wire(Opened { wire: Wire::Datagrams(together), .. }), _)) = work.lines.first() {
            // Each request takes a place in the ring.
            let requests =
                (REQUESTS_MAX / work.lines.len()).clamp(1, DATAGRAMS_MAX.div_ceil(*together).max(4));
            batch_messages = batch_messages.max(*together).min(requests * together);
        }
        let free = (0..work.lines.len()).collect();
        let (mut lines, mut connections) = (Vec::new(), Vec::new());
        for (opened, messages) in work.lines {
            lines.push(opened);
            connections.push(Connection { messages, spare: Batch::default(), ended: false });
        }
        Self {
            share: work.share,
            until: work.until,
            shared: work.shared,
            outbox: way::out_of(lines),
            connections,
            free,
            batch_messages,
            began,
            began_ns: clock::now_ns().saturating_sub(began.elapsed().as_nanos() as u64),
            made: 0,
            unsent: 0,
            broke: false,
            idle: Duration::ZERO,
            late: Latencies::new(),
            error: None,
        }
    }

    fn all(&mut self) -> std::io::Result<()> {
        while !self.is_over() {
            self.make();
            match self.nothing_due() {
                Some(pause) => {
                    // What was made goes out first, so that the pause is one.
                    self.outbox.turn(Duration::ZERO)?;
                    let asleep = Instant::now();
                    self.outbox.turn(pause)?;
                    self.idle += asleep.elapsed();
                }
                None => self.outbox.turn(NAP)?,
            }
            self.take_homes();
        }
        self.end()
    }

    /// Messages before each connection's last one.
    fn before_the_last(&self) -> u64 {
        self.share.total().saturating_sub(self.connections.len() as u64)
    }

    fn is_over(&self) -> bool {
        self.made >= self.before_the_last() || self.is_cut_short() || self.connections.iter().all(|c| c.ended)
    }

    /// Makes what is due, as far as connections are free.
    fn make(&mut self) {
        let due = self.due();
        while self.made < due
            && let Some(line) = self.free.pop_front()
        {
            let evenly = (due - self.made).div_ceil(self.free.len() as u64 + 1);
            self.send(line, evenly.min(self.batch_messages as u64), false);
        }
    }

    fn due(&self) -> u64 {
        self.share.due(self.began.elapsed().as_secs_f64()).min(self.before_the_last())
    }

    /// How long nothing is due; none when something waits for a socket.
    fn nothing_due(&self) -> Option<Duration> {
        if self.share.plan.is_max() || self.made < self.due() {
            return None;
        }
        let next = Duration::from_secs_f64(self.share.due_at(self.made).clamp(0.0, 1e9));
        Some(next.saturating_sub(self.began.elapsed()).min(NAP))
    }

    fn send(&mut self, line: usize, count: u64, last: bool) {
        let now_ns = self.began_ns + self.began.elapsed().as_nanos() as u64;
        let connection = &mut self.connections[line];
        let mut batch = std::mem::take(&mut connection.spare);
        batch.bytes.clear();
        batch.ends.clear();
        connection.messages.at(now_ns);
        connection.ended = last;
        let paced = !self.share.plan.is_max();
        for n in self.made..self.made + count {
            let due_ns = match paced {
                // A connection's last message may go out before its time, when somebody asks for the end.
                true => (self.began_ns + (self.share.due_at(n) * 1e9) as u64).min(now_ns),
                false => now_ns,
            };
            if paced && n == self.made {
                self.late.add(due_ns, now_ns);
            }
            connection.messages.push(due_ns, last, &mut batch.bytes);
            batch.ends.push(batch.bytes.len() as u32);
        }
        self.made += count;
        self.outbox.put(line, batch);
    }

    fn take_homes(&mut self) {
        for Home { line, batch, sent, sent_bytes, error } in self.outbox.homes() {
            self.shared.sent.fetch_add(sent as u64, Ordering::Relaxed);
            self.shared.bytes.fetch_add(sent_bytes as u64, Ordering::Relaxed);
            self.unsent += (batch.ends.len() - sent) as u64;
            let connection = &mut self.connections[line];
            connection.spare = batch;
            if let Some(error) = error {
                // A refused datagram says nothing about the next one; a stream is broken.
                let broke = !matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::ENOBUFS));
                connection.ended |= broke;
                self.broke |= broke;
                self.error.get_or_insert_with(|| described(&error));
            }
            if !connection.ended {
                self.free.push_back(line);
            }
        }
        for Told { line, sent, sent_bytes, unsent, error } in self.outbox.told() {
            self.shared.sent.fetch_add(sent, Ordering::Relaxed);
            self.shared.bytes.fetch_add(sent_bytes, Ordering::Relaxed);
            self.unsent += unsent;
            if let Some(error) = error {
                self.connections[line].ended = true;
                self.free.retain(|free| *free != line);
                self.broke = true;
                self.error.get_or_insert(error);
            }
        }
    }

    /// The last message of each connection that is not broken.
    fn end(&mut self) -> std::io::Result<()> {
        let mut progress = (Instant::now(), self.moved());
        loop {
            let due = if self.is_cut_short() {
                u64::MAX
            } else {
                self.share.due(self.began.elapsed().as_secs_f64())
            };
            while self.made < due.min(self.share.total())
                && let Some(line) = self.free.pop_front()
            {
                self.send(line, 1, true);
            }
            self.outbox.turn(Duration::from_millis(1))?;
            self.take_homes();
            let left = self.made < self.share.total() && self.connections.iter().any(|c| !c.ended);
            if self.outbox.is_empty() && !left {
                return Ok(());
            }
            if progress.1 != self.moved() {
                progress = (Instant::now(), self.moved());
            } else if progress.0.elapsed() > self.patience() {
                self.outbox.cancel();
            }
        }
    }

    fn is_cut_short(&self) -> bool {
        let overtime = if self.share.plan.is_max() { Duration::ZERO } else { OVERTIME };
        self.shared.stop.load(Ordering::Relaxed)
            || self.until.is_some_and(|until| self.began.elapsed() >= until + overtime)
    }

    /// How long nothing may move at the end. Who asks for it does not want to wait.
    fn patience(&self) -> Duration {
        if self.shared.stop.load(Ordering::Relaxed) { LINGER } else { self.outbox.patience() }
    }

    /// It changes whenever something was made or taken.
    fn moved(&self) -> (u64, u64) {
        (self.made, self.shared.bytes.load(Ordering::Relaxed))
    }
}

/// What the kernel said, and of a message that is too long, how long one may be.
fn described(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => {
            "EMSGSIZE, a message is longer than a datagram may be: 65507 bytes over IPv4, 65527 over IPv6, \
             net.core.wmem_max over a unix socket"
                .to_owned()
        }
        _ => error.to_string(),
    }
}
