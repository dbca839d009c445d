//! Syslog over UDP and unix datagrams: one message a datagram, and nothing lost that is not counted.
//!
//! Each shard has a socket. What arrives is copied once, so that the kernel has its buffers back, and worked up on the
//! spot; while a sink has no credit it waits here, up to the source's receive budget. Beyond that the kernel's buffer
//! fills and the kernel drops; its counter is read four times a second and at the end, so that
//! `sent = received + dropped` (with `gro` the counter is a lower bound, and says so).

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::assemble::Making;
use crate::batch::Span;
use crate::config::types::Cidr;
use crate::diagnosis::Diagnostic;
use crate::io::datagram::{DatagramConsumer, DatagramCounters, DatagramOptions, DatagramSocket, Datagrams};
use crate::io::listen::Address;
use crate::io::packets::Packets;
use crate::memory::{Charge, Memory, Use};
use crate::source::desk::{Desk, Queue};
use crate::source::headers::message_len;
use crate::source::inlet::{Framed, Inlet, InletRules, Sender};
use crate::source::limited::Limited;
use crate::source::part::{Part, Source, Surroundings};
use crate::source::port::{Transport, address, explain, open_to, patiently, protocol};
use crate::source::seldom::Seldom;
use crate::source::stream::{syslog_inlet, warn_if_short};
use crate::source::syslog::{Oversize, SyslogParams};

/// How often the kernel's drop counter is read.
const DROPS_EVERY: Duration = Duration::from_millis(250);
/// The kernel's receive buffer where nothing is configured.
pub const SO_RCVBUF: u64 = 8 << 20;
/// Runs of datagrams that are kept for reuse.
const SPARE_MAX: usize = 4;
/// What waits is charged to the engine's memory in steps; the first is the part's own, however little is left.
pub const WAITING_STEP_BYTES: usize = 1 << 20;
/// What the buffers come to that the kernel fills, one page each; with `gro`, as much as it merges.
pub const RING_BYTES: usize = 1 << 20;
/// See [`RING_BYTES`].
pub const RING_BYTES_GRO: usize = 16 << 20;

/// What all parts of a source go by.
#[derive(Clone, Debug)]
pub struct DatagramRules {
    /// How records enter.
    pub inlet: InletRules,
    /// Networks whose peers may send; empty allows all.
    pub allow: Vec<Cidr>,
    /// The longest message.
    pub record_bytes_max: usize,
    /// Whether a longer one is dropped; else it is cut.
    pub drop_oversize: bool,
    /// Bytes that may wait on each shard while a sink has no credit.
    pub budget_bytes: usize,
}

/// A source of datagrams.
pub struct DatagramSource {
    rules: DatagramRules,
    address: Address,
    gro: bool,
    /// One a shard, by its number; taken when the shard's part starts.
    sockets: Mutex<Vec<Option<DatagramSocket>>>,
}

/// A syslog source over UDP or unix datagrams.
///
/// # Errors
/// An address that cannot be bound.
pub fn syslog(making: &Making<'_>, params: &SyslogParams) -> Result<Arc<dyn Source>, Diagnostic> {
    let key = &making.config.key;
    let at = address(&params.addr, params.port);
    let so_rcvbuf = Some(params.so_rcvbuf.map_or(SO_RCVBUF, |size| size.0));
    let options = DatagramOptions { address: at.clone(), so_rcvbuf, gro: params.gro };
    let bind = || {
        let sockets = DatagramSocket::bind(&options, making.shards)?;
        open_to(&at, params.permissions).map(|()| sockets)
    };
    let sockets = patiently(Transport::Datagram, &at, bind).map_err(|error| {
        explain(&format!("source '{key}'"), Transport::Datagram, &at, &error).at(making.config.place.clone())
    })?;
    if let Some(socket) = sockets.first() {
        warn_if_short(key, socket.receive_buffer());
    }
    let rules = DatagramRules {
        inlet: InletRules {
            protocol: protocol(&at, Transport::Datagram, false),
            ..syslog_inlet(making, params)
        },
        allow: params.allow.0.clone(),
        record_bytes_max: usize::try_from(params.max_message_bytes.0).unwrap_or(usize::MAX),
        drop_oversize: params.oversize == Oversize::Drop,
        budget_bytes: usize::try_from(params.tcp_recv_bytes.0).unwrap_or(usize::MAX),
    };
    Ok(Arc::new(DatagramSource::new(rules, sockets)))
}

impl DatagramSource {
    /// A source over sockets that are bound to one address.
    pub fn new(rules: DatagramRules, sockets: Vec<DatagramSocket>) -> Self {
        let first = sockets.first().expect("a socket for the first shard at least");
        let (address, gro) = (first.address().clone(), first.gro());
        Self { rules, address, gro, sockets: Mutex::new(sockets.into_iter().map(Some).collect()) }
    }

    /// Where it is bound, with the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn socket(&self, shard: usize) -> Option<DatagramSocket> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).get_mut(shard)?.take()
    }

    async fn receive(&self, around: Surroundings) {
        // A unix path has one socket, on the first shard; the others have nothing to do and have not failed.
        let Some(socket) = self.socket(around.shard.id().into()) else {
            return around.stop.raised().await;
        };
        let consumer = Rc::new(Consumer::new(&self.rules, &socket, around.clone()));
        let inlet = Inlet::new(around.clone(), &self.rules.inlet);
        consumer.desk.employ(Box::pin(work(
            inlet,
            Rc::clone(&consumer.store),
            Rc::clone(consumer.desk.queue()),
        )));
        let taker = Rc::clone(&consumer) as Rc<dyn DatagramConsumer>;
        let opened = Datagrams::new(around.shard.io().backend(), socket, taker);
        let datagrams = match opened {
            Ok(datagrams) => datagrams,
            Err(error) => return self.failed(&around, &error),
        };
        consumer.store.wake_on_room(Rc::clone(&datagrams));
        let mut ring_bytes = if self.gro { RING_BYTES_GRO } else { RING_BYTES };
        let mut ring = around.shard.memory().charge(ring_bytes).used_for(Use::Datagrams);
        let mut losses = Losses::new(self, around.clone());
        let stopping = async {
            let mut tick = tokio::time::interval(DROPS_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = around.stop.raised() => break,
                    _ = tick.tick() => {
                        losses.count(&datagrams);
                        // Datagrams longer than a page take more of the buffers, which they keep.
                        let touched_bytes = (RING_BYTES + datagrams.touched_bytes()).min(RING_BYTES_GRO);
                        while ring_bytes < touched_bytes {
                            ring.grow(WAITING_STEP_BYTES);
                            ring_bytes += WAITING_STEP_BYTES;
                        }
                    }
                }
            }
            consumer.last.set(true);
            datagrams.stop();
        };
        let receiving = async {
            if let Err(error) = Rc::clone(&datagrams).run().await {
                self.failed(&around, &error);
                around.stop.raise();
            }
            consumer.desk.close();
        };
        tokio::join!(stopping, receiving, consumer.desk.ended());
        losses.count(&datagrams);
        consumer.store.wake_no_one();
    }

    fn failed(&self, around: &Surroundings, error: &std::io::Error) {
        around.counters.errors.add(1);
        log::error!(
            target: "wpgen::net",
            "source '{}': cannot receive on {}: {error}", self.rules.inlet.key, self.address
        );
    }
}

impl Source for DatagramSource {
    fn key(&self) -> &str {
        &self.rules.inlet.key
    }

    fn has_datagrams(&self) -> bool {
        true
    }

    fn repeats(&self) -> bool {
        false
    }

    fn merges_datagrams(&self) -> bool {
        self.gro
    }

    fn opened(&self) -> Vec<String> {
        match &self.address {
            address @ Address::Inet(_) if self.gro => vec![format!("udp {address} with gro")],
            address @ Address::Inet(_) => vec![format!("udp {address}")],
            address @ Address::Unix(_) => vec![format!("{address} (datagrams)")],
        }
    }

    fn buffer_bytes(&self) -> u64 {
        self.rules.budget_bytes as u64
    }

    fn run(self: Arc<Self>, around: Surroundings) -> Part {
        Box::pin(async move { self.receive(around).await })
    }
}

/// Datagrams of one wake-up, copied.
#[derive(Default)]
struct Copied {
    bytes: Vec<u8>,
    records: Vec<Span>,
    peers: Vec<SocketAddr>,
    verbatim: bool,
}

/// Memory for what waits, and who is to be told when there is room again.
struct Store {
    memory: Arc<Memory>,
    waiting_bytes: Cell<usize>,
    /// A step each; never none.
    charges: RefCell<Vec<Charge>>,
    spare: RefCell<Vec<Copied>>,
    receiver: RefCell<Option<Rc<Datagrams>>>,
}

impl Store {
    fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            waiting_bytes: Cell::new(0),
            charges: RefCell::new(vec![memory.charge(WAITING_STEP_BYTES).used_for(Use::Datagrams)]),
            spare: RefCell::default(),
            receiver: RefCell::default(),
        }
    }

    /// Whether so many bytes may wait, as far as the engine's memory goes.
    fn has_room(&self, bytes: usize) -> bool {
        let charges = &mut *self.charges.borrow_mut();
        while charges.len() * WAITING_STEP_BYTES < bytes {
            let Some(charge) = self.memory.try_charge(WAITING_STEP_BYTES) else { return false };
            charges.push(charge.used_for(Use::Datagrams));
        }
        true
    }

    fn wake_on_room(&self, datagrams: Rc<Datagrams>) {
        *self.receiver.borrow_mut() = Some(datagrams);
    }

    fn wake_no_one(&self) {
        self.receiver.borrow_mut().take();
    }

    fn take(&self) -> Copied {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// A run is worked up.
    fn give(&self, mut copied: Copied) {
        let waiting = self.waiting_bytes.get() - copied.bytes.len();
        self.waiting_bytes.set(waiting);
        self.charges.borrow_mut().truncate(waiting.div_ceil(WAITING_STEP_BYTES).max(1));
        copied.bytes.clear();
        copied.records.clear();
        copied.peers.clear();
        let spare = &mut *self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(copied);
        }
        if let Some(receiver) = &*self.receiver.borrow() {
            receiver.resume();
        }
    }
}

/// Hands in runs of datagrams until there are no more.
async fn work(mut inlet: Inlet, store: Rc<Store>, queue: Rc<Queue<Copied>>) {
    let mut received = 0u64;
    while let Some(mut copied) = queue.next().await {
        let base = received;
        received += copied.bytes.len() as u64;
        let admitted = inlet.admit(copied.records.len() as u64) as usize;
        copied.records.truncate(admitted);
        copied.peers.truncate(admitted);
        if admitted > 0 {
            let framed = Framed {
                bytes: &copied.bytes,
                records: &mut copied.records,
                peers: &mut copied.peers,
                sender: Sender::default(),
                verbatim: copied.verbatim,
                base,
                upto: received,
            };
            inlet.give(framed).await;
        }
        store.give(copied);
    }
    inlet.close();
}

/// Takes a shard's datagrams.
struct Consumer {
    desk: Desk<Copied>,
    store: Rc<Store>,
    around: Surroundings,
    rules: DatagramRules,
    limited: Limited,
    has_peers: bool,
    /// Whether the source ends: what is received is taken whatever the budget.
    last: Cell<bool>,
}

impl Consumer {
    fn new(rules: &DatagramRules, socket: &DatagramSocket, around: Surroundings) -> Self {
        Self {
            desk: Desk::default(),
            store: Rc::new(Store::new(around.shard.memory())),
            limited: Limited::new(&rules.inlet.key, &around.counters),
            around,
            rules: rules.clone(),
            has_peers: matches!(socket.address(), Address::Inet(_)),
            last: Cell::new(false),
        }
    }

    /// Copies datagrams, without those that may not enter.
    fn copy(&self, packets: Packets<'_>, into: &mut Copied) {
        let (Some(first), Some(last)) = (packets.spans.first(), packets.spans.last()) else { return };
        let (start, end) = (first.start as usize, last.end as usize + 1);
        into.bytes.extend_from_slice(&packets.bytes[start..end]);
        into.verbatim = true;
        let (mut received, mut refused, mut too_long, mut cut) = (0, 0, 0, 0);
        for (span, peer) in packets.spans.iter().zip(packets.peers) {
            received += span.len() as u64;
            if !self.is_allowed(peer) {
                refused += 1;
                continue;
            }
            let mut len = message_len(span.of(packets.bytes));
            if len > self.rules.record_bytes_max {
                if self.rules.drop_oversize {
                    too_long += 1;
                    continue;
                }
                cut += 1;
                len = self.rules.record_bytes_max;
            }
            into.verbatim &= len == span.len();
            let start = span.start - first.start;
            into.records.push(Span { start, end: start + len as u32 });
            if self.has_peers {
                into.peers.push(*peer);
            }
        }
        into.verbatim &= into.records.len() == packets.spans.len();
        self.around.counters.bytes.add(received);
        self.limited.refused(refused);
        self.limited.too_long(too_long);
        self.limited.cut(cut);
    }

    fn is_allowed(&self, peer: &SocketAddr) -> bool {
        !self.has_peers
            || self.rules.allow.is_empty()
            || self.rules.allow.iter().any(|network| network.contains(peer.ip()))
    }
}

impl DatagramConsumer for Consumer {
    fn on_packets(&self, packets: Packets<'_>) -> usize {
        let waiting = self.store.waiting_bytes.get();
        let most = waiting + packets.bytes.len();
        let has_room = waiting < self.rules.budget_bytes && self.store.has_room(most);
        if !has_room && !self.last.get() {
            return 0;
        }
        let mut copied = self.store.take();
        self.copy(packets, &mut copied);
        self.store.waiting_bytes.set(waiting + copied.bytes.len());
        self.desk.put(copied);
        packets.spans.len()
    }
}

/// Counts what the kernel dropped, and says it; and what was cut because it is longer than any datagram of UDP.
struct Losses {
    key: Arc<str>,
    address: String,
    around: Surroundings,
    seen: DatagramCounters,
    said: Seldom,
}

impl Losses {
    fn new(source: &DatagramSource, around: Surroundings) -> Self {
        let (key, address) = (Arc::clone(&source.rules.inlet.key), source.address.to_string());
        Self { key, address, around, seen: DatagramCounters::default(), said: Seldom::default() }
    }

    fn count(&mut self, datagrams: &Datagrams) {
        let now = datagrams.counters();
        let new = now.drops - self.seen.drops;
        self.around.counters.truncated.add(now.truncated - self.seen.truncated);
        self.seen = now;
        if new == 0 {
            return;
        }
        self.around.counters.kernel_drops.add(new);
        self.around.counters.errors.add(new);
        if let Some(times) = self.said.happened(new) {
            let granted = datagrams.socket().receive_buffer().granted_bytes;
            let least = if now.drops_are_a_lower_bound { "at least " } else { "" };
            log::warn!(
                target: "wpgen::net",
                "source '{}': [WP305] messages lost on UDP {}: the kernel dropped {least}{times}; its buffer is {granted} bytes: \
                 sysctl -w net.core.rmem_max=33554432 and so_rcvbuf = \"32MiB\" take longer bursts, protocol = \"tcp\" \
                 loses none",
                self.key, self.address
            );
        }
    }
}
