//! Makes records of what connections bring: decryption, framing, and the way into the engine, one item at a time.
//!
//! Invariants: what a connection sent before its end is framed before its end, and what it left unfinished is a record;
//! unfinished records of all connections together stay within the source's receive budget, and with those of all sources
//! within what the engine sets aside for them: beyond it the largest is cut by policy and counted. It waits only in the
//! inlet, so a connection is never half worked up while another one is.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::StreamRules;
use super::backlog::Backlog;
use super::consumer::Item;
use super::trouble::Trouble;
use crate::batch::Span;
use crate::diagnosis::HELP;
use crate::escape::escape_outside_to;
use crate::frame::{Carried, Counts, Framer, Framing, Rules};
use crate::io::bufring::Lease;
use crate::io::stream::{Closed, Conn, Streams};
use crate::source::desk::Queue;
use crate::source::inlet::{Framed, Inlet, Sender};
use crate::source::remedy;
use crate::source::seldom::Seldom;
use crate::tls::session::{Session, speaks_tls};

/// What a source's unfinished records on a shard may take however much those of others do.
const CARRIED_BYTES_LEAST: usize = 64 << 10;

/// Bytes of a frame that the log shows.
const SHOWN_BYTES: usize = 80;

/// See above.
pub(super) struct Worker {
    inlet: Inlet,
    streams: Rc<Streams>,
    queue: Rc<Queue<Item>>,
    backlog: Rc<Backlog>,
    framing: Rules,
    /// By the connection's slot.
    connections: Vec<Option<Connection>>,
    records: Vec<Span>,
    /// What was decrypted last, and what is to be sent for it.
    plaintext: Vec<u8>,
    reply: Vec<u8>,
    /// Bytes to frame that were received, by which positions go.
    received: u64,
    /// Memory in the carries, and how much it may be.
    carried_bytes: usize,
    carried_bytes_max: usize,
    /// What the engine's memory was told of it.
    told_bytes: usize,
    broken: Trouble,
    cut: Seldom,
    misframed: Seldom,
}

struct Connection {
    conn: Conn,
    framer: Framer,
    peer: Option<SocketAddr>,
    /// Whom its certificate names, where clients have to show one.
    subject: Option<Arc<str>>,
    /// Its keys, under TLS.
    session: Option<Box<Session>>,
    /// Whether nothing of it was framed yet.
    fresh: bool,
}

impl Worker {
    /// A worker of a source's part.
    pub(super) fn new(
        inlet: Inlet,
        rules: &StreamRules,
        streams: Rc<Streams>,
        queue: Rc<Queue<Item>>,
        backlog: Rc<Backlog>,
    ) -> Self {
        let broken = Trouble::new(&rules.inlet.key, &inlet.around().counters);
        Self {
            inlet,
            streams,
            queue,
            backlog,
            framing: rules.framing,
            connections: Vec::new(),
            records: Vec::new(),
            plaintext: Vec::new(),
            reply: Vec::new(),
            received: 0,
            carried_bytes: 0,
            carried_bytes_max: rules.options.budget_bytes.max(rules.framing.record_bytes_max),
            told_bytes: 0,
            broken,
            cut: Seldom::default(),
            misframed: Seldom::default(),
        }
    }

    /// Works until the queue is closed and empty.
    pub(super) async fn work(mut self) {
        let queue = Rc::clone(&self.queue);
        while let Some(item) = queue.next().await {
            match item {
                Item::Open(conn, peer, session) => self.open(conn, peer, session),
                Item::Bytes(conn, lease, from) => self.bytes(conn, lease, from).await,
                Item::Close(conn, how) => self.close(conn, how).await,
                Item::Farewell => self.farewell(),
            }
        }
        self.carried_bytes = 0;
        self.is_overcarried();
        self.inlet.close();
    }

    fn open(&mut self, conn: Conn, peer: Option<SocketAddr>, session: Option<Box<Session>>) {
        let slot = conn.slot();
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        debug_assert!(self.connections[slot].is_none(), "a slot is free before it is used again");
        let framer = Framer::new(self.framing);
        let subject = session.as_ref().and_then(|session| session.subject()).map(Arc::from);
        self.connections[slot] = Some(Connection { conn, framer, peer, subject, session, fresh: true });
    }

    /// The source stops: TLS clients are told that nothing will be sent to them, so that they can tell it from a cut.
    fn farewell(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            let Some(session) = &mut connection.session else { continue };
            session.farewell(&mut self.reply);
            self.streams.send(connection.conn, &self.reply);
            self.reply.clear();
        }
    }

    async fn bytes(&mut self, conn: Conn, lease: Lease, from: usize) {
        self.backlog.begin(lease.len() - from);
        self.take(conn, lease, from).await;
        self.backlog.done();
    }

    async fn take(&mut self, conn: Conn, mut lease: Lease, from: usize) {
        let Some(Some(connection)) = self.connections.get_mut(conn.slot()) else { return };
        if connection.session.is_some() {
            self.decrypt(conn, &mut lease[from..]).await;
        } else {
            if std::mem::take(&mut connection.fresh) && speaks_tls(&lease[from..]) {
                let peer = connection.peer;
                self.broken.told(peer, SPEAKS_TLS);
            }
            self.frame(conn, &lease, from).await;
        }
        if self.is_overcarried() {
            self.cut_largest().await;
        }
    }

    /// Whether unfinished records take too much: those of this source alone, or of all sources, with some of them here.
    fn is_overcarried(&mut self) -> bool {
        let (before, now) = (self.told_bytes, self.carried_bytes);
        self.told_bytes = now;
        let over = self.inlet.around().shard.memory().carry(before, now);
        now > self.carried_bytes_max || over && now > CARRIED_BYTES_LEAST
    }

    /// Frames what a TLS connection sent, some records at a time, so that they are framed while they are in the cache.
    async fn decrypt(&mut self, conn: Conn, ciphertext: &mut [u8]) {
        let mut used = 0;
        loop {
            let Some(Some(Connection { session: Some(session), peer, .. })) =
                self.connections.get_mut(conn.slot())
            else {
                return;
            };
            let peer = *peer;
            let (mut plaintext, mut reply) =
                (std::mem::take(&mut self.plaintext), std::mem::take(&mut self.reply));
            let step = session.read(&mut ciphertext[used..], &mut plaintext, &mut reply);
            let is_over = session.is_ended() || step.is_err();
            if !reply.is_empty() {
                self.streams.send(conn, &reply);
                reply.clear();
            }
            self.frame(conn, &plaintext, 0).await;
            plaintext.clear();
            (self.plaintext, self.reply) = (plaintext, reply);
            if let Err(fault) = &step {
                self.broken.told(peer, &format!("TLS: {fault}"));
            }
            if is_over {
                self.finish(conn).await;
                return self.streams.close(conn);
            }
            let step = step.unwrap_or(0);
            self.backlog.framed(step);
            used += step;
            if used == ciphertext.len() {
                return;
            }
        }
    }

    /// Frames a segment from `start` on and hands the records in.
    async fn frame(&mut self, conn: Conn, segment: &[u8], start: usize) {
        let base = self.received;
        self.received += segment.len() as u64;
        self.inlet.around().counters.bytes.add((segment.len() - start) as u64);
        let Self { connections, records, inlet, backlog, .. } = self;
        let Some(Some(connection)) = connections.get_mut(conn.slot()) else { return };
        let Connection { framer, peer, subject, session, .. } = connection;
        let sender = Sender { peer: *peer, subject: subject.as_ref() };
        let (peer, held, carried) = (*peer, framer.held_bytes(), framer.unfinished_bytes());
        let (mut next, mut told) = (start, start);
        // Records count as such when they are given. What was decrypted is told by its ciphertext.
        let is_told = session.is_none();
        let mut tell = |upto: usize| {
            if is_told {
                backlog.framed(upto.saturating_sub(std::mem::replace(&mut told, upto)));
            }
        };
        while next < segment.len() {
            let step = framer.feed(segment, next, records);
            if let Some(carried) = step.carried {
                give_carried(inlet, framer.carry(), carried, sender, base + carried.upto as u64).await;
            }
            inlet.pace(u64::from(step.carried.is_some())).await;
            let at_once = inlet.at_once();
            let mut give = async |records: &mut Vec<Span>, upto: usize| {
                let (count, peers, upto) = (records.len() as u64, &mut Vec::new(), base + upto as u64);
                let verbatim = step.verbatim;
                inlet.give(Framed { bytes: segment, records, peers, sender, verbatim, base, upto }).await;
                inlet.pace(count).await;
            };
            if records.len() > at_once {
                let all = std::mem::take(records);
                for (i, some) in all.chunks(at_once).enumerate() {
                    records.clear();
                    records.extend_from_slice(some);
                    let behind = all.get((i + 1) * at_once).map_or(step.upto, |next| next.start as usize);
                    tell(behind);
                    give(records, behind).await;
                }
            } else if !records.is_empty() {
                tell(step.upto);
                give(records, step.upto).await;
            }
            next = step.next;
            tell(next);
        }
        backlog.carries(carried, framer.unfinished_bytes());
        framer.release();
        let (counts, now_held) = (framer.take_counts(), framer.held_bytes());
        self.carried_bytes = self.carried_bytes + now_held - held;
        if counts != Counts::default() {
            self.count(&counts, peer);
            self.tell_misframed(&counts, &segment[start..], base + start as u64, peer);
        }
    }

    /// A connection ended; what it left unfinished becomes a record.
    async fn finish(&mut self, conn: Conn) -> Option<Connection> {
        let mut connection = self.connections.get_mut(conn.slot())?.take()?;
        let (peer, upto) = (connection.peer, self.received);
        self.carried_bytes -= connection.framer.held_bytes();
        self.backlog.carries(connection.framer.unfinished_bytes(), 0);
        let sender = Sender { peer, subject: connection.subject.as_ref() };
        let mut left = Vec::new();
        while let Some(carried) = connection.framer.finish() {
            let bytes = connection.framer.carry();
            left.extend_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES)]);
            give_carried(&mut self.inlet, bytes, carried, sender, upto).await;
        }
        let counts = connection.framer.take_counts();
        self.count(&counts, peer);
        self.tell_misframed(&counts, &left, upto.saturating_sub(left.len() as u64), peer);
        Some(connection)
    }

    async fn close(&mut self, conn: Conn, how: Closed) {
        let Some(Connection { peer, session, .. }) = self.finish(conn).await else { return };
        match how {
            Closed::Failed(kind) => self.broken.told(peer, &kind.to_string()),
            Closed::Unread => self.broken.told(peer, "it does not read its answers"),
            Closed::Idle | Closed::Late | Closed::ByUs => {}
            Closed::ByPeer => {
                // When the source stops, it is we who end the stream.
                if let Some(session) = session.filter(|_| !self.inlet.around().stop.is_raised()) {
                    self.broken.told(peer, &cut_off(&session));
                }
            }
        }
    }

    /// Ends the largest unfinished record by policy, so that there is memory for the others.
    #[cold]
    async fn cut_largest(&mut self) {
        while self.is_overcarried() {
            let size = |connection: &&mut Connection| connection.framer.held_bytes();
            let Some(largest) = self.connections.iter_mut().flatten().max_by_key(size) else { return };
            let (held, peer) = (largest.framer.held_bytes(), largest.peer);
            self.backlog.carries(largest.framer.unfinished_bytes(), 0);
            let given = largest.framer.cut();
            if let Some(carried) = given {
                let sender = Sender { peer, subject: largest.subject.as_ref() };
                give_carried(&mut self.inlet, largest.framer.carry(), carried, sender, self.received).await;
            }
            largest.framer.release();
            self.backlog.carries(0, largest.framer.unfinished_bytes());
            let (counts, left) = (largest.framer.take_counts(), largest.framer.held_bytes());
            self.carried_bytes = self.carried_bytes + left - held;
            self.count(&counts, peer);
            if left >= held {
                return;
            }
            if let Some(times) = self.cut.happened(1) {
                log::warn!(
                    target: "wpgen::net",
                    "source '{}': [WP306] buffer overflow at high traffic: unfinished records hold the whole tcp_recv_bytes, or \
                     their part of memory_limit; the largest is cut ({times} since this was said last){HELP}raise \
                     tcp_recv_bytes, or lower max_message_bytes where no record is that long", self.inlet.key()
                );
            }
        }
    }

    /// Says what did not begin as framing demands, and what would take it.
    fn tell_misframed(&mut self, counts: &Counts, segment: &[u8], base: u64, peer: Option<SocketAddr>) {
        if counts.malformed == 0 {
            return;
        }
        if self.framing.framing != Framing::Octet {
            let cut = "it ended within the length of a frame; those bytes are no record";
            return self.broken.told_times(peer, cut, counts.malformed);
        }
        self.inlet.around().counters.errors.add(counts.malformed);
        let Some(times) = self.misframed.happened(counts.malformed) else { return };
        let is_syslog = self.inlet.is_syslog();
        let (at, remedy) = remedy::of_frames(segment, self.framing, is_syslog);
        let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
        let shown = escape_outside_to(&segment[at..], SHOWN_BYTES);
        let remedy = remedy.map_or_else(String::new, |remedy| format!("{HELP}{remedy}"));
        let what = if is_syslog { "Parse error in syslog message" } else { "Parse error" };
        log::warn!(
            target: "wpgen::net",
            "source '{}': [WP304] {what}{from}: the frame at byte {} does not begin with an octet count, as framing = \
             \"octet\" demands: {shown}; it is taken as a line ({times} such frames){remedy}",
            self.inlet.key(),
            base + at as u64,
        );
    }

    fn count(&mut self, counts: &Counts, peer: Option<SocketAddr>) {
        let counters = &self.inlet.around().counters;
        let limited = self.inlet.limited();
        limited.cut(counts.truncated);
        limited.too_long(counts.dropped);
        counters.split.add(counts.cuts);
        counters.misframed.add(counts.malformed);
        let unfinished = "it ended within a counted frame; what came of it is a record";
        self.broken.told_times(peer, unfinished, counts.unfinished);
    }
}

/// What a client does that speaks TLS to a port without.
const SPEAKS_TLS: &str =
    "[WP304] it speaks TLS, which this port does not; switch TLS on here with 'tls', or off at the client";

/// A TLS stream ended without its farewell: whoever cut it may have cut off records.
fn cut_off(session: &Session) -> String {
    match session.unread() {
        0 => "TLS: it ended without close_notify; what came is taken, whether it is all cannot be known"
            .to_owned(),
        n => format!("TLS: it ended within a record, of which {n} bytes came and cannot be decrypted"),
    }
}

/// Hands in a record that lies in a carry.
async fn give_carried(inlet: &mut Inlet, bytes: &[u8], carried: Carried, sender: Sender<'_>, upto: u64) {
    let Carried { span, verbatim, .. } = carried;
    let base = upto.saturating_sub(bytes.len() as u64);
    let mut records = vec![span];
    inlet
        .give(Framed { bytes, records: &mut records, peers: &mut Vec::new(), sender, verbatim, base, upto })
        .await;
}
