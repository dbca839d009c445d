//! Makes records of what connections bring: PROXY header, framing, and the way into the engine, one item at a time.
//!
//! Invariants: what a connection sent before its end is framed before its end, and what it left unfinished is a record;
//! unfinished records of all connections together stay within the source's receive budget: beyond it the largest is cut
//! by policy and counted. It waits only in the inlet, so a connection is never half worked up while another one is.

use std::net::SocketAddr;
use std::rc::Rc;

use super::StreamRules;
use super::consumer::Item;
use crate::batch::Span;
use crate::frame::{Carried, Counts, Framer, Rules};
use crate::io::bufring::Lease;
use crate::io::stream::{Closed, Conn, Streams};
use crate::metrics::Reason;
use crate::source::desk::Queue;
use crate::source::inlet::{Framed, Inlet};
use crate::source::proxy::{HEADER_BYTES_MAX, Proxied, parse};
use crate::source::seldom::Seldom;

/// See above.
pub(super) struct Worker {
    inlet: Inlet,
    streams: Rc<Streams>,
    queue: Rc<Queue<Item>>,
    framing: Rules,
    proxied: bool,
    /// By the connection's slot.
    connections: Vec<Option<Connection>>,
    records: Vec<Span>,
    /// Bytes received, by which positions go.
    received: u64,
    /// Memory in the carries, and how much it may be.
    carried_bytes: usize,
    carried_bytes_max: usize,
    broken: Seldom,
    cut: Seldom,
}

struct Connection {
    framer: Framer,
    peer: Option<SocketAddr>,
    /// What came of a PROXY header that is not whole.
    header: Option<Vec<u8>>,
}

impl Worker {
    /// A worker of a source's part.
    pub(super) fn new(
        inlet: Inlet,
        rules: &StreamRules,
        streams: Rc<Streams>,
        queue: Rc<Queue<Item>>,
    ) -> Self {
        Self {
            inlet,
            streams,
            queue,
            framing: rules.framing,
            proxied: rules.proxied,
            connections: Vec::new(),
            records: Vec::new(),
            received: 0,
            carried_bytes: 0,
            carried_bytes_max: rules.options.budget_bytes.max(rules.framing.record_bytes_max),
            broken: Seldom::default(),
            cut: Seldom::default(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) async fn work(mut self) {
        let queue = Rc::clone(&self.queue);
        while let Some(item) = queue.next().await {
            match item {
                Item::Open(conn, peer) => self.open(conn, peer),
                Item::Bytes(conn, lease) => self.bytes(conn, lease).await,
                Item::Close(conn, how) => self.close(conn, how).await,
            }
        }
        self.inlet.close();
    }

    fn open(&mut self, conn: Conn, peer: Option<SocketAddr>) {
        let slot = conn.slot();
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        debug_assert!(self.connections[slot].is_none(), "a slot is free before it is used again");
        let header = self.proxied.then(Vec::new);
        self.connections[slot] = Some(Connection { framer: Framer::new(self.framing), peer, header });
    }

    async fn bytes(&mut self, conn: Conn, lease: Lease) {
        let base = self.received;
        self.received += lease.len() as u64;
        self.inlet.around().counters.bytes.add(lease.len() as u64);
        let Some(start) = self.behind_header(conn, &lease) else { return };
        self.frame(conn, &lease, start, base).await;
        if self.carried_bytes > self.carried_bytes_max {
            self.cut_largest().await;
        }
    }

    /// Where in the segment the records begin; `None` while the PROXY header is not whole.
    fn behind_header(&mut self, conn: Conn, segment: &[u8]) -> Option<usize> {
        let connection = self.connections.get_mut(conn.slot())?.as_mut()?;
        let Some(header) = &mut connection.header else { return Some(0) };
        let before = header.len();
        let wanted = (HEADER_BYTES_MAX - before).min(segment.len());
        header.extend_from_slice(&segment[..wanted]);
        match parse(header) {
            Proxied::More => None,
            Proxied::Header { len, peer } => {
                connection.header = None;
                connection.peer = peer.or(connection.peer);
                self.streams.set_deadline(conn, None);
                self.streams.set_interactive(conn, false);
                Some(len - before)
            }
            Proxied::Wrong(why) => {
                let peer = connection.peer;
                self.connections[conn.slot()] = None;
                self.streams.close(conn);
                self.broke(peer, why, 1);
                None
            }
        }
    }

    /// Frames a segment from `start` on and hands the records in.
    async fn frame(&mut self, conn: Conn, segment: &[u8], start: usize, base: u64) {
        let Self { connections, records, inlet, .. } = self;
        let Some(Some(connection)) = connections.get_mut(conn.slot()) else { return };
        let Connection { framer, peer, .. } = connection;
        let (peer, held) = (*peer, framer.held_bytes());
        let mut next = start;
        while next < segment.len() {
            let step = framer.feed(segment, next, records);
            if let Some(carried) = step.carried {
                give_carried(inlet, framer.carry(), carried, peer, base + carried.upto as u64).await;
            }
            let count = records.len() as u64;
            if count > 0 {
                let upto = base + step.upto as u64;
                let framed = Framed {
                    bytes: segment,
                    records,
                    peers: &mut Vec::new(),
                    peer,
                    verbatim: step.verbatim,
                    base,
                    upto,
                };
                inlet.give(framed).await;
            }
            inlet.pace(count + u64::from(step.carried.is_some())).await;
            next = step.next;
        }
        framer.release();
        let (counts, now_held) = (framer.take_counts(), framer.held_bytes());
        self.carried_bytes = self.carried_bytes + now_held - held;
        if counts != Counts::default() {
            self.count(&counts, peer);
        }
    }

    async fn close(&mut self, conn: Conn, how: Closed) {
        let Some(Some(mut connection)) = self.connections.get_mut(conn.slot()).map(Option::take) else {
            return;
        };
        let (peer, upto) = (connection.peer, self.received);
        self.carried_bytes -= connection.framer.held_bytes();
        while let Some(carried) = connection.framer.finish() {
            give_carried(&mut self.inlet, connection.framer.carry(), carried, peer, upto).await;
        }
        let counts = connection.framer.take_counts();
        self.count(&counts, peer);
        let header = connection.header.is_some_and(|header| !header.is_empty());
        match how {
            Closed::Failed(kind) => self.broke(peer, &kind.to_string(), 1),
            Closed::Late => self.broke(peer, "its PROXY header did not come in time", 1),
            Closed::Unread => self.broke(peer, "it does not read its answers", 1),
            Closed::Idle | Closed::ByPeer | Closed::ByUs if header => {
                self.broke(peer, "it ended within its PROXY header", 1);
            }
            Closed::Idle | Closed::ByPeer | Closed::ByUs => {}
        }
    }

    /// Ends the largest unfinished record by policy, so that there is memory for the others.
    #[cold]
    async fn cut_largest(&mut self) {
        while self.carried_bytes > self.carried_bytes_max {
            let size = |connection: &&mut Connection| connection.framer.held_bytes();
            let Some(largest) = self.connections.iter_mut().flatten().max_by_key(size) else { return };
            let (held, peer) = (largest.framer.held_bytes(), largest.peer);
            let given = largest.framer.cut();
            if let Some(carried) = given {
                give_carried(&mut self.inlet, largest.framer.carry(), carried, peer, self.received).await;
            }
            largest.framer.release();
            let (counts, left) = (largest.framer.take_counts(), largest.framer.held_bytes());
            self.carried_bytes = self.carried_bytes + left - held;
            self.count(&counts, peer);
            if left >= held {
                return;
            }
            if let Some(times) = self.cut.happened(1) {
                log::warn!(
                    target: "wpgen::net",
                    "source '{}': [WP306] unfinished records hold the whole tcp_recv_bytes; the largest is cut ({times} \
                     since this was said last)", self.inlet.key()
                );
            }
        }
    }

    fn count(&mut self, counts: &Counts, peer: Option<SocketAddr>) {
        let counters = &self.inlet.around().counters;
        counters.truncated.add(counts.truncated);
        counters.split.add(counts.cuts);
        self.inlet.drop_records(Reason::TooLong, counts.dropped);
        counters.misframed.add(counts.malformed);
        self.broke(
            peer,
            "a frame does not begin as its framing demands; it is taken as a line",
            counts.malformed,
        );
        self.broke(peer, "it ended within a counted frame; what came of it is a record", counts.unfinished);
    }

    /// A connection did so often what it should not.
    fn broke(&self, peer: Option<SocketAddr>, how: &str, times: u64) {
        if times == 0 {
            return;
        }
        self.inlet.around().counters.errors.add(times);
        if let Some(times) = self.broken.happened(times) {
            let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
            log::warn!(
                target: "wpgen::net",
                "source '{}': connection{from}: {how} ({times} such since this was said last)", self.inlet.key()
            );
        }
    }
}

/// Hands in a record that lies in a carry.
async fn give_carried(
    inlet: &mut Inlet,
    bytes: &[u8],
    carried: Carried,
    peer: Option<SocketAddr>,
    upto: u64,
) {
    let Carried { span, verbatim, .. } = carried;
    let base = upto.saturating_sub(bytes.len() as u64);
    let mut records = vec![span];
    inlet
        .give(Framed { bytes, records: &mut records, peers: &mut Vec::new(), peer, verbatim, base, upto })
        .await;
}
