//! Where a connection says who it is before its bytes count: the PROXY header, then the TLS handshake.
//!
//! Pure but for TLS's clock: bytes and connections in, decisions out. Those who wait here are bounded by
//! [`GUESTS_MAX`] a shard: when one more comes, the one that has waited longest has to leave, so that handshakes that
//! never end cannot keep others out. It never waits for a sink: a handshake goes on while records are held back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::io::stream::{Closed, Conn};
use crate::source::proxy::{HEADER_BYTES_MAX, Proxied, parse};
use crate::tls::server::Server;
use crate::tls::session::{Fault, Session};

/// Connections that may be on their way in, on a shard.
pub(super) const GUESTS_MAX: usize = 512;

/// What became of a connection's bytes.
#[derive(Debug)]
pub(super) enum Step {
    /// More are needed.
    Waits,
    /// It is in. Its records begin at `from`.
    Enters {
        /// Who it speaks for.
        peer: Option<SocketAddr>,
        /// Its keys, under TLS.
        session: Option<Box<Session>>,
        /// Bytes that belonged to the entrance.
        from: usize,
    },
    /// It cannot come in.
    Leaves {
        /// Who it speaks for.
        peer: Option<SocketAddr>,
        /// What is wrong with it.
        why: String,
    },
}

/// The entrance of a source on a shard.
#[derive(Debug)]
pub(super) struct Entrance {
    proxied: bool,
    tls: Option<Arc<Server>>,
    /// By the connection's slot.
    guests: Vec<Option<Guest>>,
    count: usize,
    /// Who came when; some have left since.
    order: VecDeque<Conn>,
}

#[derive(Debug)]
struct Guest {
    conn: Conn,
    peer: Option<SocketAddr>,
    /// What came of a PROXY header that is not whole.
    header: Option<Vec<u8>>,
    session: Option<Box<Session>>,
}

impl Entrance {
    /// An entrance, if connections have to pass one.
    pub(super) fn new(proxied: bool, tls: Option<Arc<Server>>) -> Option<Self> {
        let passes = proxied || tls.is_some();
        passes.then(|| Self { proxied, tls, guests: Vec::new(), count: 0, order: VecDeque::new() })
    }

    /// A connection comes; another one may have to leave for it.
    pub(super) fn arrive(
        &mut self,
        conn: Conn,
        peer: Option<SocketAddr>,
    ) -> Option<(Conn, Option<SocketAddr>)> {
        let waits = |guests: &[Option<Guest>], conn: Conn| {
            guests
                .get(conn.slot())
                .is_some_and(|guest| guest.as_ref().is_some_and(|guest| guest.conn == conn))
        };
        while self.order.front().is_some_and(|first| !waits(&self.guests, *first)) {
            self.order.pop_front();
        }
        let leaves = if self.count < GUESTS_MAX { None } else { self.order.pop_front() };
        let leaves = leaves.and_then(|longest| Some((longest, self.depart(longest)?.peer)));
        let slot = conn.slot();
        if self.guests.len() <= slot {
            self.guests.resize_with(slot + 1, || None);
        }
        let header = self.proxied.then(Vec::new);
        self.guests[slot] = Some(Guest { conn, peer, header, session: None });
        self.count += 1;
        self.order.push_back(conn);
        leaves
    }

    /// Bytes of a connection; nothing when it does not wait here. What is to be sent goes into `reply`.
    pub(super) fn bytes(&mut self, conn: Conn, segment: &mut [u8], reply: &mut Vec<u8>) -> Option<Step> {
        let guest = self.guests.get_mut(conn.slot())?.as_mut()?;
        let step = guest.step(self.tls.as_deref(), segment, reply);
        if !matches!(step, Step::Waits) {
            self.depart(conn);
        }
        Some(step)
    }

    /// A connection ended; if it waited here, whose it was and what there is to say about that.
    pub(super) fn ended(&mut self, conn: Conn, how: Closed) -> Option<(Option<SocketAddr>, Option<String>)> {
        let guest = self.depart(conn)?;
        let stage = if guest.header.is_some() { "PROXY header" } else { "TLS handshake" };
        let silent = guest.header.as_ref().is_none_or(Vec::is_empty) && guest.session.is_none();
        let said = match how {
            Closed::Late => Some(format!("its {stage} did not come in time")),
            Closed::Failed(kind) => Some(format!("{kind} within its {stage}")),
            Closed::Unread => Some("it does not read its answers".to_owned()),
            Closed::Idle | Closed::ByPeer | Closed::ByUs => {
                // Whoever looks whether the port is open says nothing.
                (!silent).then(|| format!("it ended within its {stage}"))
            }
        };
        Some((guest.peer, said))
    }

    fn depart(&mut self, conn: Conn) -> Option<Guest> {
        let gone = self.guests.get_mut(conn.slot())?.take_if(|guest| guest.conn == conn)?;
        self.count -= 1;
        Some(gone)
    }
}

impl Guest {
    fn step(&mut self, tls: Option<&Server>, segment: &mut [u8], reply: &mut Vec<u8>) -> Step {
        let mut from = 0;
        if let Some(header) = &mut self.header {
            let before = header.len();
            let wanted = (HEADER_BYTES_MAX - before).min(segment.len());
            header.extend_from_slice(&segment[..wanted]);
            match parse(header) {
                Proxied::More => return Step::Waits,
                Proxied::Wrong(why) => return Step::Leaves { peer: self.peer, why: why.to_owned() },
                Proxied::Header { len, peer } => {
                    self.header = None;
                    self.peer = peer.or(self.peer);
                    from = len - before;
                }
            }
        }
        let Some(tls) = tls else {
            return Step::Enters { peer: self.peer, session: None, from };
        };
        match self.shake(tls, &mut segment[from..], reply) {
            Ok(None) => Step::Waits,
            Ok(Some(used)) => {
                Step::Enters { peer: self.peer, session: self.session.take(), from: from + used }
            }
            Err(fault) => Step::Leaves { peer: self.peer, why: format!("TLS: {fault}") },
        }
    }

    fn shake(
        &mut self,
        tls: &Server,
        segment: &mut [u8],
        reply: &mut Vec<u8>,
    ) -> Result<Option<usize>, Fault> {
        if segment.is_empty() {
            return Ok(None);
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Box::new(tls.session()?)),
        };
        session.shake(segment, reply)
    }
}
