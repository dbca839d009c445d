//! The table of a shard's stream connections and what the kernel was asked to do for each.
//!
//! A connection's slot stays taken until every request that names its descriptor has ended, so a completion always
//! finds the connection it is for. Starts of receives are queued and made once a turn, after buffers were published:
//! a receive that is started without a buffer ends at once.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use slab::Slab;

use super::listen::{Listening, Place};
use super::lowat::{Lowat, Mark};
use super::poller::{GENERATION_MASK, Kind, Poller, Token};
use super::sockopt;
use super::stream::{Closed, Conn, StreamConsumer, StreamCounters, StreamOptions};

/// Bytes of answers that may wait for a peer that does not read; beyond, the connection is closed.
const OUTGOING_MAX: usize = 1 << 20;
/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

pub(super) struct Source {
    pub(super) consumer: Rc<dyn StreamConsumer>,
    pub(super) options: StreamOptions,
    pub(super) account: u16,
    /// Its connections, closing ones included.
    pub(super) open: usize,
    pub(super) paused: bool,
    /// Whether its connections are read to their end.
    pub(super) ending: bool,
    /// Whether it goes once its connections have.
    pub(super) removed: bool,
    /// Whether its receives are stopped because it holds its whole budget.
    pub(super) full: bool,
    /// Whether something was given to it in this turn.
    pub(super) touched: bool,
    /// Bytes received.
    pub(super) bytes: u64,
    /// Bytes that peers were told to have arrived, and that are not taken, since `ending`.
    pub(super) cut_bytes: Rc<Cell<u64>>,
}

pub(super) struct Listener {
    pub(super) source: u32,
    pub(super) generation: u32,
    pub(super) listening: Arc<Listening>,
    pub(super) seat: usize,
    pub(super) leaving: bool,
    pub(super) accepting: bool,
    /// When accepting is tried again after a failure.
    pub(super) retry_ns: u64,
}

impl Listener {
    /// Ready when another shard handed a connection over.
    pub(super) fn poll_handed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.leaving { Poll::Pending } else { self.listening.poll_handed(self.seat, cx) }
    }
}

pub(super) struct Connection {
    pub(super) fd: OwnedFd,
    pub(super) source: u32,
    pub(super) generation: u32,
    /// Where it is counted.
    pub(super) seat: Option<Place>,
    /// Whether a receive is out, and whether its end was asked for.
    pub(super) receiving: bool,
    pub(super) stopping: bool,
    /// Whether it waits in the list of receives to start.
    pub(super) queued: bool,
    pub(super) held: bool,
    pub(super) closing: Option<Closed>,
    /// Whether it waits for room to send `outgoing`.
    pub(super) awaiting_room: bool,
    pub(super) outgoing: Vec<u8>,
    pub(super) lowat: Lowat,
    /// Whether it is in the list of raised connections.
    pub(super) ticked: bool,
    pub(super) received_ns: u64,
    /// Sweeps in a row at which it was late or idle, though it could receive.
    pub(super) overdue: u8,
    /// Whether it is closed before its end, so that what is left of it counts as cut off.
    pub(super) is_cut: bool,
    /// What the kernel held of it when that was noted, less what it has brought since.
    pub(super) owed_bytes: u64,
    pub(super) deadline_ns: u64,
}

impl Connection {
    pub(super) fn set_mark(&self, mark: Mark) -> bool {
        if let Mark::Set(bytes) = mark {
            // Without it each message wakes; nothing is lost.
            let _ = sockopt::set_lowat(self.fd.as_fd(), bytes);
        }
        mark != Mark::Keep
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((seats, seat)) = self.seat.take() {
            seats[seat].closed();
        }
    }
}

/// All state that callbacks may change.
pub(super) struct Core {
    pub(super) poller: Poller,
    pub(super) sources: Slab<Source>,
    pub(super) listeners: Slab<Listener>,
    pub(super) conns: Slab<Connection>,
    generation: u32,
    /// Connections whose receives are to start.
    pub(super) queue: Vec<u32>,
    /// Connections whose bytes the tick fetches.
    pub(super) raised: Vec<Conn>,
    /// Connections that are gone and whose consumers do not know it yet.
    pub(super) gone: Vec<(Rc<dyn StreamConsumer>, Conn, Closed)>,
    pub(super) counters: StreamCounters,
    /// The time of this turn, and when timers are due.
    pub(super) now_ns: u64,
    pub(super) tick_ns: u64,
    pub(super) sweep_ns: u64,
    /// When the last sweep was that counts as one.
    pub(super) swept_ns: u64,
}

impl Core {
    pub(super) fn new(poller: Poller) -> Self {
        Self {
            poller,
            sources: Slab::new(),
            listeners: Slab::new(),
            conns: Slab::new(),
            generation: 0,
            queue: Vec::new(),
            raised: Vec::new(),
            gone: Vec::new(),
            counters: StreamCounters::default(),
            now_ns: 0,
            tick_ns: NEVER,
            sweep_ns: NEVER,
            swept_ns: 0,
        }
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        self.generation
    }

    pub(super) fn insert(&mut self, fd: OwnedFd, source: u32, seat: Option<Place>, lowat: Lowat) -> Conn {
        let generation = self.next_generation();
        let received_ns = self.now_ns;
        self.sources[source as usize].open += 1;
        let slot = self.conns.insert(Connection {
            fd,
            source,
            generation,
            seat,
            receiving: false,
            stopping: false,
            queued: false,
            held: false,
            closing: None,
            awaiting_room: false,
            outgoing: Vec::new(),
            lowat,
            ticked: false,
            received_ns,
            overdue: 0,
            is_cut: false,
            owed_bytes: 0,
            deadline_ns: NEVER,
        });
        Conn { slot: slot as u32, generation }
    }

    /// An open connection that is not closing.
    pub(super) fn get(&mut self, conn: Conn) -> Option<&mut Connection> {
        let connection = self.conns.get_mut(conn.slot())?;
        (connection.generation == conn.generation && connection.closing.is_none()).then_some(connection)
    }

    /// The connection a token belongs to, closing or not.
    pub(super) fn by_token(&mut self, token: Token) -> Option<&mut Connection> {
        self.conns.get_mut(token.slot as usize).filter(|c| c.generation == token.generation)
    }

    pub(super) fn slots_of(&self, source: u32) -> impl Iterator<Item = u32> {
        self.conns.iter().filter(move |(_, c)| c.source == source).map(|(slot, _)| slot as u32)
    }

    pub(super) fn conn(&self, slot: u32) -> Conn {
        Conn { slot, generation: self.conns[slot as usize].generation }
    }

    fn token(&self, slot: u32) -> Token {
        Token { kind: Kind::Receive, slot, generation: self.conns[slot as usize].generation }
    }

    /// Whether nothing speaks against receiving.
    pub(super) fn may_receive(&self, slot: u32) -> bool {
        let connection = &self.conns[slot as usize];
        let source = &self.sources[connection.source as usize];
        !connection.held && connection.closing.is_none() && !source.paused && !source.full
    }

    /// Queues the start of a connection's receives, if nothing speaks against it.
    pub(super) fn want(&mut self, slot: u32) {
        let connection = &self.conns[slot as usize];
        if !connection.receiving && !connection.queued && self.may_receive(slot) {
            self.conns[slot as usize].queued = true;
            self.queue.push(slot);
        }
    }

    pub(super) fn want_source(&mut self, source: u32) {
        let slots: Vec<u32> = self.slots_of(source).collect();
        slots.into_iter().for_each(|slot| self.want(slot));
    }

    /// Starts the queued receives. Those that have waited longest go first: when buffers are few, the first one may take
    /// them all, and must not do so again in the next turn.
    pub(super) fn start_queued(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_by_key(|slot| self.conns.get(*slot as usize).map(|connection| connection.received_ns));
        for slot in queue {
            let Some(connection) = self.conns.get_mut(slot as usize) else { continue };
            // A slot that was reused has its own entry in the queue, or none is needed.
            let queued = std::mem::take(&mut connection.queued);
            if !queued || connection.receiving || !self.may_receive(slot) {
                continue;
            }
            let token = self.token(slot);
            let connection = &mut self.conns[slot as usize];
            match self.poller.receive(connection.fd.as_fd(), token) {
                Ok(()) => connection.receiving = true,
                Err(error) => self.close(slot, Closed::Failed(error.kind())),
            }
        }
    }

    /// Whether a connection's input was ended by us.
    pub(super) fn is_ending(&self, slot: u32) -> bool {
        self.sources[self.conns[slot as usize].source as usize].ending
    }

    /// Bytes of a connection that are in the kernel.
    pub(super) fn unread(&self, slot: u32) -> u64 {
        sockopt::unread(self.conns[slot as usize].fd.as_fd())
    }

    /// Where it is counted what is not taken of what a connection's peer was told to have arrived, when its source ends.
    pub(super) fn cuts(&self, slot: u32) -> Option<Rc<Cell<u64>>> {
        let connection = &self.conns[slot as usize];
        connection.is_cut.then(|| Rc::clone(&self.sources[connection.source as usize].cut_bytes))
    }

    pub(super) fn stop(&mut self, slot: u32) {
        let token = self.token(slot);
        let connection = &mut self.conns[slot as usize];
        if connection.receiving && !connection.stopping {
            let ended = self.poller.stop_receiving(connection.fd.as_fd(), token);
            (connection.receiving, connection.stopping) = (!ended, !ended);
        }
    }

    pub(super) fn stop_source(&mut self, source: u32) {
        let slots: Vec<u32> = self.slots_of(source).collect();
        slots.into_iter().for_each(|slot| self.stop(slot));
    }

    /// Begins the end of a connection; it is over when its requests are.
    pub(super) fn close(&mut self, slot: u32, how: Closed) {
        let token = self.token(slot);
        let connection = &mut self.conns[slot as usize];
        if connection.closing.is_some() {
            return;
        }
        connection.closing = Some(how);
        // What is closed for another reason is refused.
        let source = &self.sources[connection.source as usize];
        connection.is_cut =
            source.ending && (source.removed || matches!(how, Closed::ByPeer | Closed::Failed(_)));
        if how != Closed::ByPeer {
            sockopt::shut_down(&connection.fd);
        }
        if (connection.receiving || connection.awaiting_room)
            && self.poller.stop(connection.fd.as_fd(), token)
        {
            (connection.receiving, connection.awaiting_room) = (false, false);
        }
        self.finish_if_over(slot);
    }

    /// Forgets a closing connection once none of its requests is out.
    pub(super) fn finish_if_over(&mut self, slot: u32) {
        let connection = &self.conns[slot as usize];
        let Some(how) = connection.closing else { return };
        if connection.receiving || connection.awaiting_room {
            return;
        }
        let conn = self.conn(slot);
        let source = connection.source as usize;
        self.gone.push((Rc::clone(&self.sources[source].consumer), conn, how));
        self.discard(slot);
    }

    /// Closes a connection that its consumer did not take; it hears no more of it.
    pub(super) fn forget(&mut self, conn: Conn) {
        if self.get(conn).is_some() {
            self.close(conn.slot, Closed::ByUs);
            self.gone.retain(|(_, gone, _)| *gone != conn);
        }
    }

    /// Closes the socket and frees the slot.
    pub(super) fn discard(&mut self, slot: u32) {
        if let Some(cut) = self.cuts(slot) {
            cut.set(cut.get() + self.unread(slot));
        }
        let connection = self.conns.remove(slot as usize);
        self.sources[connection.source as usize].open -= 1;
    }

    pub(super) fn send(&mut self, slot: u32, bytes: &[u8]) {
        let connection = &mut self.conns[slot as usize];
        let mut rest = bytes;
        if connection.outgoing.is_empty() {
            match sockopt::send_now(connection.fd.as_fd(), bytes) {
                Ok(n) => rest = &bytes[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The receive that is out will say what happened to the connection.
                Err(_) => return,
            }
        }
        if connection.outgoing.len() + rest.len() > OUTGOING_MAX {
            return self.close(slot, Closed::Unread);
        }
        connection.outgoing.extend_from_slice(rest);
        self.await_room(slot);
    }

    /// Sends what waits, as far as the peer takes it.
    pub(super) fn send_outgoing(&mut self, slot: u32) {
        let connection = &mut self.conns[slot as usize];
        match sockopt::send_now(connection.fd.as_fd(), &connection.outgoing) {
            Ok(n) => drop(connection.outgoing.drain(..n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => connection.outgoing.clear(),
        }
        self.await_room(slot);
    }

    fn await_room(&mut self, slot: u32) {
        let token = self.token(slot);
        let connection = &mut self.conns[slot as usize];
        if !connection.outgoing.is_empty() && !connection.awaiting_room {
            connection.awaiting_room = self.poller.await_room(connection.fd.as_fd(), token).is_ok();
        }
    }
}
