//! Stream connections of a shard, TCP and unix: who may receive, who is held back, who ends.
//!
//! A *source* has a consumer, a receive budget and options; its connections come from listeners or are adopted. The
//! consumer gets bytes as [`Lease`]s, in order, and exactly one [`StreamConsumer::on_close`] for each connection it
//! took. What was received before a connection's end is given to it before the end, however soon the end came.
//!
//! A connection receives while nothing speaks against it: its source is neither paused nor over its budget, and the
//! connection is neither held nor closing. Consumers may call everything here from within their callbacks; a callback
//! is never called from within a call.
//!
//! Nothing here knows frames, records, sources' kinds or sinks.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::alarm::Alarm;
use super::bufring::{Buffers, Lease};
use super::connections::{Core, Listener, NEVER, Source};
use super::listen::{Listening, Place};
use super::lowat::Lowat;
use super::poller::{Event, Kind, Poller, Token};
use super::ring::Rung;
use super::sockopt;
use crate::memory::Memory;

/// A connection on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conn {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Conn {
    /// A small number, unique among the connections that are open on this shard: an index for the consumer's own table.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// A source of streams on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamSource(pub(super) u32);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed its side.
    ByPeer,
    /// [`Streams::close`] or [`Streams::remove`].
    ByUs,
    /// Nothing was received for the source's idle time.
    Idle,
    /// The deadline of [`Streams::set_deadline`] passed.
    Late,
    /// The peer does not read its answers.
    Unread,
    /// The connection failed.
    Failed(io::ErrorKind),
}

/// Why a connection was not taken.
#[derive(Debug)]
pub enum Refused {
    /// The source has all the connections it may have.
    Limit,
    /// The kernel could not accept; it is tried again shortly.
    Accept(io::Error),
}

/// Who takes the bytes of a source's connections.
pub trait StreamConsumer {
    /// A connection was made; `false` closes it without another word.
    fn on_open(&self, conn: Conn, peer: Option<SocketAddr>) -> bool;
    /// Bytes were received. Keeping the lease keeps its memory, on the source's budget.
    fn on_bytes(&self, conn: Conn, lease: Lease);
    /// The connection is gone; its slot may be reused from now on.
    fn on_close(&self, conn: Conn, how: Closed);
    /// A connection was refused before it was opened.
    fn on_refused(&self, _why: Refused) {}
    /// All that came with this wake-up has been given out.
    fn on_turn_end(&self) {}
}

/// What a source allows.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Receive memory the source may hold on this shard.
    pub budget_bytes: usize,
    /// Connections of its listeners on all shards together; more are refused.
    pub connections_max: u32,
    /// Connections that receive nothing for so long are closed.
    pub idle: Option<Duration>,
    /// Whether wake-ups for small messages may be bundled (TCP; senders that wait for no answer).
    pub bundle_wakes: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { budget_bytes: 10 << 20, connections_max: 10_000, idle: None, bundle_wakes: true }
    }
}

/// What happened on this shard since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Bytes received.
    pub bytes: u64,
    /// Completions or reads that brought them.
    pub receives: u64,
    /// Wake-ups that found something.
    pub turns: u64,
    /// Receives that ended because no buffer was free.
    pub without_buffer: u64,
    /// Connections taken.
    pub opened: u64,
    /// Connections refused.
    pub refused: u64,
    /// How often a connection's wake-up mark was set.
    pub marks_set: u64,
}

/// What TCP waits at least for an acknowledgement (TCP_RTO_MIN).
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The stream connections of a shard.
pub struct Streams {
    pub(super) core: RefCell<Core>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) alarm: Rc<Alarm>,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) started: Instant,
    pub(super) stopped: Cell<bool>,
    pub(super) is_broken: Cell<bool>,
    pub(super) breaks: Notify,
}

impl Streams {
    /// On a ring. Fails where io_uring is refused or lacks what is needed; then there is [`Streams::with_epoll`].
    pub fn with_ring(memory: &Arc<Memory>) -> io::Result<Rc<Self>> {
        Self::with(|alarm| Poller::ring(alarm, memory))
    }

    /// On epoll.
    pub fn with_epoll(memory: &Arc<Memory>) -> io::Result<Rc<Self>> {
        Self::with(|alarm| Poller::epoll(alarm, memory))
    }

    fn with(make: impl FnOnce(&Rc<Alarm>) -> io::Result<(Poller, Rc<Buffers>)>) -> io::Result<Rc<Self>> {
        let alarm = Rc::new(Alarm::default());
        let (poller, buffers) = make(&alarm)?;
        Ok(Rc::new(Self {
            core: RefCell::new(Core::new(poller)),
            buffers,
            alarm,
            events: RefCell::default(),
            started: Instant::now(),
            stopped: Cell::new(false),
            is_broken: Cell::new(false),
            breaks: Notify::new(),
        }))
    }

    /// Adds a source without connections.
    pub fn add(&self, options: StreamOptions, consumer: Rc<dyn StreamConsumer>) -> StreamSource {
        let account = self.buffers.open_account(options.budget_bytes);
        let core = &mut *self.core.borrow_mut();
        if options.idle.is_some() {
            core.sweep_ns = 0;
        }
        let source = Source {
            consumer,
            options,
            account,
            open: 0,
            paused: false,
            ending: false,
            cut_bytes: Rc::default(),
            removed: false,
            full: false,
            touched: false,
            bytes: 0,
        };
        self.alarm.ring();
        StreamSource(core.sources.insert(source) as u32)
    }

    /// Takes a seat at a listening socket: connections that are placed there are the source's from now on.
    pub fn listen(&self, source: StreamSource, listening: Arc<Listening>, seat: usize) -> io::Result<()> {
        let core = &mut *self.core.borrow_mut();
        listening.sit(seat, core.poller.is_epoll())?;
        let generation = core.next_generation();
        let slot = core.listeners.vacant_key() as u32;
        core.poller.accept(listening.as_fd(), Token { kind: Kind::Accept, slot, generation })?;
        core.listeners.insert(Listener {
            source: source.0,
            generation,
            listening,
            seat,
            leaving: false,
            accepting: true,
            retry_ns: NEVER,
        });
        self.alarm.ring();
        Ok(())
    }

    /// Takes no more connections from the source's listeners than wait there; those that are open stay.
    pub fn stop_listening(&self, source: StreamSource) {
        let left = self.leave_listeners(source);
        for (fd, seat) in left {
            self.tell_gone();
            self.open(source.0, fd, Some(seat));
        }
    }

    /// Whether the source's listeners are gone: until then a connection may come from them.
    pub fn is_deaf(&self, source: StreamSource) -> bool {
        !self.core.borrow().listeners.iter().any(|(_, listener)| listener.source == source.0)
    }

    /// Leaves the source's listeners; what no other shard takes from them.
    fn leave_listeners(&self, source: StreamSource) -> Vec<(OwnedFd, Place)> {
        let core = &mut *self.core.borrow_mut();
        let mut left = Vec::new();
        for (slot, listener) in &mut core.listeners {
            if listener.source == source.0 && !listener.leaving {
                listener.leaving = true;
                let place = || (listener.listening.all_seats(), listener.seat);
                left.extend(listener.listening.leave(listener.seat).into_iter().map(|fd| (fd, place())));
                let (slot, generation) = (slot as u32, listener.generation);
                let fd = listener.listening.as_fd();
                if core.poller.stop(fd, Token { kind: Kind::Accept, slot, generation }) {
                    listener.accepting = false;
                }
            }
        }
        core.listeners.retain(|_, listener| !listener.leaving || listener.accepting);
        self.alarm.ring();
        left
    }

    /// Makes a connected socket a connection of the source. The consumer's `on_open` follows.
    pub fn adopt(&self, source: StreamSource, fd: OwnedFd) -> Option<Conn> {
        self.open(source.0, fd, None)
    }

    pub(super) fn open(&self, source: u32, fd: OwnedFd, seat: Option<Place>) -> Option<Conn> {
        let peer = sockopt::peer(fd.as_fd());
        // Where that is refused, urgent bytes are what they are anywhere: none of the stream.
        let _ = sockopt::take_urgent_inline(fd.as_fd());
        let (consumer, conn) = {
            let core = &mut *self.core.borrow_mut();
            let Source { options, ending, .. } = core.sources[source as usize];
            if ending {
                sockopt::end_input(&fd);
            }
            // A unix stream ignores the mark; without a peer address it is one.
            let lowat = Lowat::new(options.bundle_wakes && peer.is_some() && core.poller.allows_reads());
            let conn = core.insert(fd, source, seat, lowat);
            core.counters.opened += 1;
            (Rc::clone(&core.sources[source as usize].consumer), conn)
        };
        let taken = consumer.on_open(conn, peer);
        let core = &mut *self.core.borrow_mut();
        if taken {
            core.want(conn.slot);
            self.alarm.ring();
            return Some(conn);
        }
        core.counters.refused += 1;
        core.forget(conn);
        None
    }

    /// Stops the source's receives; what was received already is still given out.
    pub fn pause(&self, source: StreamSource) {
        let core = &mut *self.core.borrow_mut();
        core.sources[source.0 as usize].paused = true;
        core.stop_source(source.0);
    }

    /// Lets a paused source receive again.
    pub fn resume(&self, source: StreamSource) {
        let core = &mut *self.core.borrow_mut();
        core.sources[source.0 as usize].paused = false;
        core.want_source(source.0);
        self.alarm.ring();
    }

    /// Stops, or starts again, the receives of one connection.
    pub fn hold(&self, conn: Conn, held: bool) {
        let core = &mut *self.core.borrow_mut();
        if let Some(connection) = core.get(conn) {
            connection.held = held;
            if held {
                core.stop(conn.slot)
            } else {
                core.want(conn.slot)
            }
            self.alarm.ring();
        }
    }

    /// Closes a connection; what is received and not yet given out is dropped. `on_close` follows in the next turn.
    pub fn close(&self, conn: Conn) {
        let core = &mut *self.core.borrow_mut();
        if core.get(conn).is_some() {
            core.close(conn.slot, Closed::ByUs);
            self.alarm.ring();
        }
    }

    /// Lets the source's connections come to their end: each closes once what the kernel holds of it is given out.
    pub fn end_receiving(&self, source: StreamSource) {
        let core = &mut *self.core.borrow_mut();
        core.sources[source.0 as usize].ending = true;
        for slot in core.slots_of(source.0) {
            let connection = &core.conns[slot as usize];
            sockopt::end_input(&connection.fd);
        }
    }

    /// Closes all connections and listeners of a source where the kernel has refused to go on: their requests are never
    /// answered.
    pub fn abandon(&self, source: StreamSource) {
        for (fd, (seats, seat)) in self.leave_listeners(source) {
            drop(fd);
            seats[seat].closed();
        }
        {
            let core = &mut *self.core.borrow_mut();
            core.listeners.retain(|_, listener| listener.source != source.0);
            let slots: Vec<u32> = core.slots_of(source.0).collect();
            for slot in slots {
                sockopt::shut_down(&core.conns[slot as usize].fd);
                let consumer = Rc::clone(&core.sources[source.0 as usize].consumer);
                core.gone.push((consumer, core.conn(slot), Closed::Failed(io::ErrorKind::Other)));
                core.discard(slot);
            }
        }
        self.tell_gone();
    }

    /// Closes all connections and listeners of a source. It is gone once the last `on_close` was called.
    pub fn remove(&self, source: StreamSource) {
        self.stop_listening(source);
        let core = &mut *self.core.borrow_mut();
        core.sources[source.0 as usize].removed = true;
        let slots: Vec<u32> = core.slots_of(source.0).collect();
        slots.into_iter().for_each(|slot| core.close(slot, Closed::ByUs));
        self.alarm.ring();
    }

    /// Sends an answer: what the peer does not take at once waits, up to 1 MiB.
    pub fn send(&self, conn: Conn, bytes: &[u8]) {
        let core = &mut *self.core.borrow_mut();
        if core.get(conn).is_some() {
            core.send(conn.slot, bytes);
            self.alarm.ring();
        }
    }

    /// Closes the connection at a time, if it may receive then, unless that is changed before: for handshakes. Checked
    /// four times a second.
    pub fn set_deadline(&self, conn: Conn, after: Option<Duration>) {
        let deadline_ns =
            after.map_or(NEVER, |after| self.elapsed_ns().saturating_add(after.as_nanos() as u64));
        let core = &mut *self.core.borrow_mut();
        if let Some(connection) = core.get(conn) {
            connection.deadline_ns = deadline_ns;
            if core.sweep_ns == NEVER {
                core.sweep_ns = 0;
                self.alarm.ring();
            }
        }
    }

    /// Says that each byte counts (a handshake, an awaited answer), or that wake-ups may be bundled again.
    pub fn set_interactive(&self, conn: Conn, interactive: bool) {
        if let Some(connection) = self.core.borrow_mut().get(conn) {
            let mark = connection.lowat.set_interactive(interactive);
            connection.set_mark(mark);
        }
    }

    /// Whether the source cannot receive now, for it holds its whole budget, is paused, or there are no buffers.
    pub fn is_withheld(&self, source: StreamSource) -> bool {
        let core = self.core.borrow();
        let source = &core.sources[source.0 as usize];
        source.paused || self.buffers.is_full(source.account) || self.buffers.are_all_out()
    }

    /// Receive memory that the source holds.
    pub fn held_bytes(&self, source: StreamSource) -> usize {
        self.buffers.held_bytes(self.core.borrow().sources[source.0 as usize].account)
    }

    /// Bytes received for the source on this shard.
    pub fn received_bytes(&self, source: StreamSource) -> u64 {
        self.core.borrow().sources[source.0 as usize].bytes
    }

    /// Bytes that the kernel holds of the source's connections: their peers were told that they have arrived. Asks once for
    /// each connection.
    pub fn unread_bytes(&self, source: StreamSource) -> u64 {
        let core = self.core.borrow();
        core.slots_of(source.0).map(|slot| sockopt::unread(core.conns[slot as usize].fd.as_fd())).sum()
    }

    /// Notes what the kernel holds of each of the source's connections.
    pub fn note_owed(&self, source: StreamSource) {
        let core = &mut *self.core.borrow_mut();
        for (_, connection) in core.conns.iter_mut().filter(|(_, connection)| connection.source == source.0) {
            connection.owed_bytes = sockopt::unread(connection.fd.as_fd());
        }
    }

    /// Bytes that peers of the source were told to have arrived and that are not taken, once [`Streams::end_receiving`] was
    /// called: what was there when a connection was closed. It counts on when the source was removed.
    pub fn cut_bytes(&self, source: StreamSource) -> Rc<Cell<u64>> {
        Rc::clone(&self.core.borrow().sources[source.0 as usize].cut_bytes)
    }

    /// How much of what was noted has not been received, of connections that are still there.
    pub fn owed_bytes(&self, source: StreamSource) -> u64 {
        let core = self.core.borrow();
        core.slots_of(source.0).map(|slot| core.conns[slot as usize].owed_bytes).sum()
    }

    /// Whether bytes of the source's peers may be on their way: one has sent of late, or was read of late, which opens its
    /// window; by what its round trips take and what TCP waits at least until it sends again. Asks once for each connection.
    pub fn may_bring_more(&self, source: StreamSource) -> bool {
        let (core, now_ns) = (self.core.borrow(), self.elapsed_ns());
        let of_late = |slot: u32| {
            let connection = &core.conns[slot as usize];
            let read = Duration::from_nanos(now_ns.saturating_sub(connection.received_ns));
            // Of a unix stream all is in the kernel that was sent.
            let heard = sockopt::heard(connection.fd.as_fd()).ok();
            let (ago, round_trip) =
                heard.map_or((read, Duration::ZERO), |heard| (heard.ago, heard.round_trip));
            ago.min(read) < SENT_AGAIN_AFTER + 2 * round_trip
        };
        core.slots_of(source.0).any(of_late)
    }

    /// Open connections of the source on this shard.
    pub fn connections(&self, source: StreamSource) -> usize {
        self.core.borrow().sources[source.0 as usize].open
    }

    /// What happened since the start.
    pub fn counters(&self) -> StreamCounters {
        self.core.borrow().counters
    }

    /// The kernel's interface in use, the rung of the ring, and whether it bundles.
    pub fn describe(&self) -> (&'static str, Option<Rung>, bool) {
        self.core.borrow().poller.describe()
    }

    pub(super) fn elapsed_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}
