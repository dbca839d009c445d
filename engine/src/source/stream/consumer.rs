//! Where a source's connections and their bytes arrive: who may connect, and the way to the worker.
//!
//! What waits at the worker's desk is bounded by the receive budget, since each lease there is charged to the source, and
//! the worker hears of a connection with its first lease: who connects and goes leaves nothing there. A connection that has
//! to pass the entrance reaches the worker, and counts against `max_connections`, once it is in.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::StreamRules;
use super::backlog::Backlog;
use super::entrance::{Entrance, Step};
use super::trouble::Trouble;
use crate::config::types::Cidr;
use crate::io::bufring::Lease;
use crate::io::stream::{Closed, Conn, Refused, StreamConsumer, Streams};
use crate::source::desk::Desk;
use crate::source::part::Surroundings;
use crate::source::seldom::Seldom;
use crate::tls::session::Session;

/// How long a connection may take to say who it is.
const ENTER_WITHIN: Duration = Duration::from_secs(10);

/// What happened on a connection.
pub(super) enum Item {
    /// It brings its first bytes, or came through the entrance.
    Open(Conn, Option<SocketAddr>, Option<Box<Session>>),
    /// It brought bytes, from this one on.
    Bytes(Conn, Lease, usize),
    /// It is gone.
    Close(Conn, Closed),
    /// The source stops; the last bytes of all connections follow.
    Farewell,
}

/// A connection that has brought nothing yet.
struct Silent {
    peer: Option<SocketAddr>,
}

/// Takes what a source receives on a shard.
pub(super) struct Consumer {
    pub(super) desk: Desk<Item>,
    pub(super) backlog: Rc<Backlog>,
    /// Open ones.
    connections: Cell<usize>,
    streams: Rc<Streams>,
    around: Surroundings,
    key: Arc<str>,
    allow: Vec<Cidr>,
    entrance: Option<RefCell<Entrance>>,
    /// By slot: connections of which the worker has not heard, where there is no entrance.
    silent: RefCell<Vec<Option<Silent>>>,
    /// By slot: whether the connection came through the entrance.
    inside: RefCell<Vec<bool>>,
    /// How many did, on all shards.
    inside_count: Arc<AtomicU32>,
    connections_max: u32,
    refused: Seldom,
    entering: Trouble,
}

impl Consumer {
    /// Without a worker yet. `inside` counts for all shards.
    pub(super) fn new(
        rules: &StreamRules,
        inside: Arc<AtomicU32>,
        streams: Rc<Streams>,
        around: Surroundings,
    ) -> Rc<Self> {
        let entering = Trouble::new(&rules.inlet.key, &around.counters);
        Rc::new(Self {
            desk: Desk::default(),
            backlog: Rc::default(),
            connections: Cell::new(0),
            streams,
            around,
            key: Arc::clone(&rules.inlet.key),
            allow: rules.allow.clone(),
            entrance: Entrance::new(rules.proxied, rules.tls.clone()).map(RefCell::new),
            silent: RefCell::default(),
            inside: RefCell::default(),
            inside_count: inside,
            connections_max: rules.options.connections_max,
            refused: Seldom::default(),
            entering,
        })
    }

    /// Connections that are open, as the receiver sees them.
    pub(super) fn connections(&self) -> usize {
        self.connections.get()
    }

    fn refuse(&self, why: &str) {
        self.around.counters.errors.add(1);
        if let Some(times) = self.refused.happened(1) {
            log::warn!(
                target: "wpgen::net",
                "source '{}': connection refused: {why} ({times} since this was said last)", self.key
            );
        }
    }

    fn refuse_one_more(&self) {
        let most = self.connections_max;
        self.refuse(&format!("[WP506] Connection limit reached: max_connections = {most}"));
    }

    fn is_allowed(&self, peer: Option<SocketAddr>) -> bool {
        let Some(peer) = peer.filter(|_| !self.allow.is_empty()) else { return true };
        self.allow.iter().any(|network| network.contains(peer.ip()))
    }

    /// A connection is made that goes to the worker as it is.
    fn hush(&self, conn: Conn, peer: Option<SocketAddr>) {
        let silent = &mut *self.silent.borrow_mut();
        if silent.len() <= conn.slot() {
            silent.resize_with(conn.slot() + 1, || None);
        }
        silent[conn.slot()] = Some(Silent { peer });
    }

    /// The connection, if it has brought nothing yet; from now on it has.
    fn take_silent(&self, conn: Conn) -> Option<Silent> {
        self.silent.borrow_mut().get_mut(conn.slot())?.take()
    }

    /// A connection ended that had brought nothing.
    fn went_silently(&self, Silent { peer }: Silent, how: Closed) {
        if let Closed::Failed(kind) = how {
            self.entering.told(peer, &kind.to_string());
        }
    }

    /// A connection comes to the entrance.
    fn arrive(&self, entrance: &RefCell<Entrance>, conn: Conn, peer: Option<SocketAddr>) {
        self.streams.set_interactive(conn, true);
        self.streams.set_deadline(conn, Some(ENTER_WITHIN));
        let leaves = entrance.borrow_mut().arrive(conn, peer);
        if let Some((longest, peer)) = leaves {
            self.streams.close(longest);
            self.entering.told(peer, "too many wait to come in; the one that waited longest is closed");
        }
    }

    /// Bytes of a connection at the entrance; they come back when it is in already.
    fn step(&self, entrance: &RefCell<Entrance>, conn: Conn, mut lease: Lease) -> Option<Lease> {
        let mut reply = Vec::new();
        let Some(step) = entrance.borrow_mut().bytes(conn, &mut lease, &mut reply) else {
            return Some(lease);
        };
        if !reply.is_empty() {
            self.streams.send(conn, &reply);
        }
        match step {
            Step::Waits => {}
            Step::Leaves { peer, why } => {
                self.streams.close(conn);
                self.entering.told(peer, &why);
            }
            Step::Enters { peer, session, from } => {
                if self.enter(conn) {
                    self.desk.put(Item::Open(conn, peer, session));
                    self.hand_in(conn, lease, from);
                } else {
                    self.streams.close(conn);
                    self.refuse_one_more();
                }
            }
        }
        None
    }

    /// Hands bytes from `from` on to the worker.
    fn hand_in(&self, conn: Conn, lease: Lease, from: usize) {
        self.backlog.arrived(lease.len() - from);
        self.desk.put(Item::Bytes(conn, lease, from));
    }

    /// A connection passed the entrance; whether there is room for it.
    fn enter(&self, conn: Conn) -> bool {
        if self.inside_count.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.inside_count.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let inside = &mut *self.inside.borrow_mut();
        if inside.len() <= conn.slot() {
            inside.resize(conn.slot() + 1, false);
        }
        inside[conn.slot()] = true;
        self.streams.set_deadline(conn, None);
        self.streams.set_interactive(conn, false);
        true
    }

    /// A connection ended; whether the worker knows of it.
    fn leave(&self, entrance: &RefCell<Entrance>, conn: Conn, how: Closed) -> bool {
        if let Some((peer, said)) = entrance.borrow_mut().ended(conn, how) {
            // When the source stops, it is we who end it.
            let said = said.filter(|_| !self.around.stop.is_raised());
            said.iter().for_each(|said| self.entering.told(peer, said));
            return false;
        }
        let was_inside = self.inside.borrow_mut().get_mut(conn.slot()).is_some_and(std::mem::take);
        if was_inside {
            self.inside_count.fetch_sub(1, Ordering::Relaxed);
        }
        was_inside
    }
}

impl StreamConsumer for Consumer {
    fn on_open(&self, conn: Conn, peer: Option<SocketAddr>) -> bool {
        if !self.is_allowed(peer) {
            self.refuse(&format!(
                "'allow' does not name {}",
                peer.map_or_else(String::new, |p| p.ip().to_string())
            ));
            return false;
        }
        self.connections.set(self.connections.get() + 1);
        match &self.entrance {
            Some(entrance) => self.arrive(entrance, conn, peer),
            None => self.hush(conn, peer),
        }
        true
    }

    fn on_bytes(&self, conn: Conn, lease: Lease) {
        let lease = match &self.entrance {
            Some(entrance) => self.step(entrance, conn, lease),
            None => {
                if let Some(Silent { peer }) = self.take_silent(conn) {
                    self.desk.put(Item::Open(conn, peer, None));
                }
                Some(lease)
            }
        };
        if let Some(lease) = lease {
            self.hand_in(conn, lease, 0);
        }
    }

    fn on_close(&self, conn: Conn, how: Closed) {
        self.connections.set(self.connections.get() - 1);
        if let Some(silent) = self.take_silent(conn) {
            return self.went_silently(silent, how);
        }
        if self.entrance.as_ref().is_none_or(|entrance| self.leave(entrance, conn, how)) {
            self.desk.put(Item::Close(conn, how));
        }
    }

    fn on_refused(&self, why: Refused) {
        match why {
            Refused::Limit => self.refuse_one_more(),
            Refused::Accept(error) => self.refuse(&format!("the kernel cannot accept it: {error}")),
        }
    }
}
