//! The one path of every stream source: syslog and tcp, over TCP and unix sockets.
//!
//! A listener is bound when the engine is made, so that a port that is taken refuses the start. On each shard the source
//! has a part: a [`consumer`] that gets what was received, an [`entrance`] where a PROXY header and a TLS handshake are
//! taken, and a [`worker`] that decrypts and makes records. The worker runs
//! at once where the bytes arrive; when a sink has no credit it stays behind with what it has, the receive budget fills
//! up, and the source's receives stop. Nothing else on the shard notices.
//!
//! When the source is stopped it accepts no more, hears peers out that are in the middle of what they send, and ends.

mod backlog;
mod consumer;
#[cfg(test)]
mod cut_tests;
mod entrance;
mod make;
mod renewal;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod trouble;
mod worker;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::types::Cidr;
use crate::frame::Rules;
use crate::io::listen::{Address, Listening};
use crate::io::stream::{self, StreamOptions, Streams};
use crate::source::inlet::{Inlet, InletRules};
use crate::source::part::{Part, Source, Surroundings};
use crate::source::stop::Stop;
use crate::tls::server::Server;

use consumer::{Consumer, Item};
use entrance::GUESTS_MAX;
use worker::Worker;

pub use make::{syslog, syslog_inlet, tcp, warn_if_short};

/// How long peers that go on sending are heard at most, once the source is stopped and what the kernel held then is read.
const LAST_BYTES: Duration = Duration::from_secs(2);
/// Between two questions to the kernel about what connections bring.
const ASK: Duration = Duration::from_millis(100);
/// Between two looks at how many connections are left.
const LOOK: Duration = Duration::from_millis(5);
/// Looks at which nothing more has come of what the kernel held when the source was stopped, though it could, until what is left
/// of that is given up, when the time is over: bytes that no receive returns.
const LOOKS_IN_VAIN: u32 = 20;
/// Peers whose input is ended are heard for such a part of the time that they had before, and for some looks.
const LAST_WORD: u32 = 8;
const LOOKS: u32 = 4;

/// What all parts of a source go by.
#[derive(Clone, Debug)]
pub struct StreamRules {
    /// How records enter.
    pub inlet: InletRules,
    /// How they are told apart.
    pub framing: Rules,
    /// Budget and limits of connections.
    pub options: StreamOptions,
    /// Networks whose peers may connect; empty allows all.
    pub allow: Vec<Cidr>,
    /// Whether a PROXY header begins each connection.
    pub proxied: bool,
    /// What TLS is spoken with; none is plain.
    pub tls: Option<Arc<Server>>,
}

impl StreamRules {
    /// As for records, and with room for those who are on their way in: they are counted apart.
    fn receiving(&self, shards: usize) -> StreamOptions {
        let mut options = self.options;
        if self.proxied || self.tls.is_some() {
            // Twice: one that has to leave is gone a little later than the next one comes.
            let guests = u32::try_from(2 * GUESTS_MAX * shards).unwrap_or(u32::MAX);
            options.connections_max = options.connections_max.saturating_add(guests);
        }
        options
    }
}

/// How long peers that go on are heard: they take a part of a short `drain_timeout` alone.
fn hears_for(stop: &Stop) -> Duration {
    stop.at_most().map_or(LAST_BYTES, |at_most| LAST_BYTES.min(at_most / 4))
}

/// A source of streams.
pub struct StreamSource {
    rules: StreamRules,
    address: Address,
    seats: usize,
    /// Until it is stopped: then the port is free for whoever comes next, though its figures are still asked for.
    listening: Mutex<Option<Arc<Listening>>>,
    /// Connections that came through the entrance, on all shards.
    inside: Arc<AtomicU32>,
}

impl StreamSource {
    /// A source at a bound listener that has a seat for each shard.
    pub fn new(rules: StreamRules, listening: Arc<Listening>) -> Self {
        let (address, seats) = (listening.address().clone(), listening.seats());
        Self { rules, address, seats, listening: Mutex::new(Some(listening)), inside: Arc::default() }
    }

    fn listening(&self) -> MutexGuard<'_, Option<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens, with the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn receive(&self, around: Surroundings) {
        let Some(listening) = self.listening().clone() else { return };
        let streams = match around.shard.io().streams() {
            Ok(streams) => streams,
            Err(error) => return self.cannot_receive(&around, &error),
        };
        let inlet = Inlet::new(around.clone(), &self.rules.inlet);
        let inside = Arc::clone(&self.inside);
        let consumer = Consumer::new(&self.rules, inside, Rc::clone(&streams), around.clone());
        let queue = Rc::clone(consumer.desk.queue());
        let backlog = Rc::clone(&consumer.backlog);
        let worker = Worker::new(inlet, &self.rules, Rc::clone(&streams), queue, backlog);
        consumer.desk.employ(Box::pin(worker.work()));
        let options = self.rules.receiving(self.seats);
        let source = streams.add(options, Rc::clone(&consumer) as _);
        let seat = usize::from(around.shard.id());
        let receiving = async {
            match streams.listen(source, listening, seat) {
                Ok(()) => {
                    tokio::select! {
                        () = around.stop.raised() => {}
                        () = streams.broken() => {
                            let error = std::io::Error::other("the kernel has refused to go on; see the log");
                            self.cannot_receive(&around, &error);
                            around.stop.raise();
                        }
                    }
                    self.listening().take();
                }
                Err(error) => self.cannot_receive(&around, &error),
            }
            streams.stop_listening(source);
            consumer.desk.put(Item::Farewell);
            self.take_last(&streams, source, &consumer, &around).await;
            consumer.backlog.kernel.set(0);
            let cut = streams.cut_bytes(source);
            streams.remove(source);
            while consumer.connections() > 0 && !streams.is_broken() {
                tokio::time::sleep(LOOK).await;
            }
            if streams.is_broken() {
                streams.abandon(source);
            }
            self.tell_cut(cut.get(), streams.is_broken(), &around);
            consumer.desk.close();
        };
        let renewing = async {
            if let Some(tls) = self.rules.tls.as_ref().filter(|_| seat == 0) {
                renewal::watch(tls, &self.rules.inlet.key, &around).await;
            }
        };
        // A source that drains shares its counters with the one that has taken its place.
        let told = Cell::new(0);
        let tell = |unread: u64| around.counters.unread_bytes.add(unread.wrapping_sub(told.replace(unread)));
        tokio::select! {
            // What the kernel holds is known by the receiving, so that goes first.
            biased;
            _ = async { tokio::join!(receiving, consumer.desk.ended(), renewing) } => tell(0),
            () = async {
                around.stop.raised().await;
                loop {
                    tell(consumer.backlog.bytes());
                    tokio::time::sleep(LOOK).await;
                }
            } => {}
        }
    }

    /// Takes what the kernel holds of each connection, for peers were told that it has arrived, and what is on its way behind it.
    /// However long a sink has no room for it, whoever stops the source says how long it is waited for; only peers that go on
    /// sending are cut off here.
    async fn take_last(
        &self,
        streams: &Streams,
        source: stream::StreamSource,
        consumer: &Consumer,
        around: &Surroundings,
    ) {
        self.hear_out(streams, source, consumer, &around.stop, true).await;
        streams.end_receiving(source);
        self.hear_out(streams, source, consumer, &around.stop, false).await;
    }

    /// Tells what peers were told to have arrived and is not taken.
    fn tell_cut(&self, bytes: u64, is_broken: bool, around: &Surroundings) {
        if bytes == 0 {
            return;
        }
        around.counters.errors.add(1);
        let key = &self.rules.inlet.key;
        match is_broken {
            true => log::error!(
                target: "wpgen::net",
                "source '{key}': the kernel has refused to go on with its connections: {bytes} bytes that it holds of them are \
                 lost; peers that can are to send them again"
            ),
            false => log::warn!(
                target: "wpgen::net",
                "source '{key}' was stopped: {bytes} bytes that its peers sent last are not taken"
            ),
        }
    }

    /// Waits until all connections are closed, or silent where that is enough, or their peers have gone on for too long.
    async fn hear_out(
        &self,
        streams: &Streams,
        source: stream::StreamSource,
        consumer: &Consumer,
        stop: &Stop,
        is_silence_enough: bool,
    ) {
        let kernel = &consumer.backlog.kernel;
        streams.note_owed(source);
        let mut owed = streams.owed_bytes(source);
        kernel.set(owed);
        let (mut asked, mut unread) = (Instant::now(), owed);
        let (mut received, mut in_vain) = (streams.received_bytes(source), 0);
        let part = if is_silence_enough { 1 } else { LAST_WORD };
        // Since when peers go on, but for the time in which nothing could be received.
        let (mut since, mut withheld, mut looked) = (asked, Duration::ZERO, asked);
        // A connection may still come from a ring that was accepting.
        let goes_on = || !streams.is_broken() && (consumer.connections() > 0 || !streams.is_deaf(source));
        while goes_on() {
            tokio::time::sleep(LOOK).await;
            kernel.set(unread.saturating_sub(streams.received_bytes(source) - received));
            // What had come before counts for no peer as going on.
            let before = std::mem::replace(&mut owed, streams.owed_bytes(source));
            let (now, time) = (Instant::now(), hears_for(stop));
            let passed = now - std::mem::replace(&mut looked, now);
            if owed < before {
                (since, in_vain) = (now, 0);
            } else if !streams.is_withheld(source) {
                in_vain += 1;
            } else if !is_silence_enough && withheld < time / 2 {
                // They go on, for our window opens late: what was told to have arrived behind their end is read.
                withheld += passed;
                since += passed;
            }
            let is_over = now - since >= (time / part).max(LOOKS * LOOK);
            if is_over && (owed == 0 || in_vain >= LOOKS_IN_VAIN) {
                return;
            }
            if asked.elapsed() < ASK {
                continue;
            }
            asked = Instant::now();
            let heard = std::mem::replace(&mut received, streams.received_bytes(source));
            unread = streams.unread_bytes(source);
            kernel.set(unread);
            let is_silent = heard == received && unread == 0;
            if is_silence_enough && is_silent && !streams.may_bring_more(source) {
                return;
            }
        }
    }

    fn cannot_receive(&self, around: &Surroundings, error: &std::io::Error) {
        around.counters.errors.add(1);
        log::error!(
            target: "wpgen::net",
            "source '{}': cannot receive on {}: {error}", self.rules.inlet.key, self.address
        );
    }
}

impl Source for StreamSource {
    fn key(&self) -> &str {
        &self.rules.inlet.key
    }

    fn opened(&self) -> Vec<String> {
        match &self.address {
            address @ Address::Inet(_) if self.rules.tls.is_some() => vec![format!("tls {address}")],
            address @ Address::Inet(_) => vec![format!("tcp {address}")],
            address @ Address::Unix(_) => vec![format!("{address} (stream)")],
        }
    }

    fn buffer_bytes(&self) -> u64 {
        self.rules.options.budget_bytes as u64
    }

    fn repeats(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, around: Surroundings) -> Part {
        Box::pin(async move { self.receive(around).await })
    }
}
