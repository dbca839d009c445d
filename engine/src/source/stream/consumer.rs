//! Where a source's connections and their bytes arrive: who may connect, and the way to the worker.
//!
//! What waits at the worker's desk is bounded by the receive budget, since each lease there is charged to the source.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::StreamRules;
use crate::config::types::Cidr;
use crate::io::bufring::Lease;
use crate::io::stream::{Closed, Conn, Refused, StreamConsumer, Streams};
use crate::source::desk::Desk;
use crate::source::part::Surroundings;
use crate::source::seldom::Seldom;

/// How long a connection may take to say who it speaks for.
const PROXY_HEADER_WITHIN: Duration = Duration::from_secs(10);

/// What happened on a connection.
pub(super) enum Item {
    /// It was made.
    Open(Conn, Option<SocketAddr>),
    /// It brought bytes.
    Bytes(Conn, Lease),
    /// It is gone.
    Close(Conn, Closed),
}

/// Takes what a source receives on a shard.
pub(super) struct Consumer {
    pub(super) desk: Desk<Item>,
    /// Open ones.
    connections: Cell<usize>,
    streams: Rc<Streams>,
    around: Surroundings,
    key: Arc<str>,
    allow: Vec<Cidr>,
    proxied: bool,
    connections_max: u32,
    refused: Seldom,
}

impl Consumer {
    /// Without a worker yet.
    pub(super) fn new(rules: &StreamRules, streams: Rc<Streams>, around: Surroundings) -> Rc<Self> {
        Rc::new(Self {
            desk: Desk::default(),
            connections: Cell::new(0),
            streams,
            around,
            key: Arc::clone(&rules.inlet.key),
            allow: rules.allow.clone(),
            proxied: rules.proxied,
            connections_max: rules.options.connections_max,
            refused: Seldom::default(),
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

    fn is_allowed(&self, peer: Option<SocketAddr>) -> bool {
        let Some(peer) = peer.filter(|_| !self.allow.is_empty()) else { return true };
        self.allow.iter().any(|network| network.contains(peer.ip()))
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
        if self.proxied {
            self.streams.set_interactive(conn, true);
            self.streams.set_deadline(conn, Some(PROXY_HEADER_WITHIN));
        }
        self.connections.set(self.connections.get() + 1);
        self.desk.put(Item::Open(conn, peer));
        true
    }

    fn on_bytes(&self, conn: Conn, lease: Lease) {
        self.desk.put(Item::Bytes(conn, lease));
    }

    fn on_close(&self, conn: Conn, how: Closed) {
        self.connections.set(self.connections.get() - 1);
        self.desk.put(Item::Close(conn, how));
    }

    fn on_refused(&self, why: Refused) {
        match why {
            Refused::Limit => {
                self.refuse(&format!(
                    "[WP506] Connection limit reached: max_connections = {}",
                    self.connections_max
                ));
            }
            Refused::Accept(error) => self.refuse(&format!("the kernel cannot accept it: {error}")),
        }
    }
}
