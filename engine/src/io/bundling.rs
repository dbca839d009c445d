//! Connections whose wake-ups are bundled: their marks are set, and the tick fetches what waits below them.
//!
//! A fetch is one read, where lowering the mark and raising it again would be two options, a wake-up and a receive. It
//! runs beside a receive that is out, which is sound only while completions are made when the shard enters the ring and
//! at no other time: then all that was received before is given out when the tick runs, and what it reads comes next.
//! Where the kernel completes when it likes, no connection is raised ([`super::poller::Poller::allows_reads`]).

use super::connections::{Core, NEVER};
use super::lowat::{Lowat, Mark, TICK_NS};
use super::poller::{Kind, Token};
use super::stream::{Closed, Conn, Streams};
use super::turn::{READS, Read};

/// Connections of a shard that may be raised at a time.
const RAISED_MAX: usize = 4096;

impl Streams {
    /// Fetches what waits at raised connections, if it is time, and lowers those where it is not worth it.
    pub(super) fn fetch_raised(&self) {
        let mut raised = {
            let core = &mut *self.core.borrow_mut();
            // Out of step, the next turn takes what was received first; it follows at once.
            if core.now_ns < core.tick_ns || !core.poller.is_in_step() {
                return;
            }
            std::mem::take(&mut core.raised)
        };
        raised.retain(|conn| self.fetch(*conn));
        let core = &mut *self.core.borrow_mut();
        raised.append(&mut core.raised);
        core.tick_ns = if raised.is_empty() { NEVER } else { core.now_ns + TICK_NS };
        core.raised = raised;
    }

    /// Fetches what waits at one connection; whether it stays raised.
    fn fetch(&self, conn: Conn) -> bool {
        let token = Token { kind: Kind::Receive, slot: conn.slot, generation: conn.generation };
        let mut fetched = 0;
        for _ in 0..READS {
            match self.read(token) {
                // To the end: the first read may open the window of a sender that waits for it with the rest.
                Read::Bytes { bytes, .. } => fetched += bytes,
                // The end of a stream wakes the receive that is out, whatever the mark. A full source is not silent.
                Read::Nothing | Read::Ended(0) => break,
                Read::Withheld => return self.core.borrow_mut().stays_raised(conn, u32::MAX),
                Read::Ended(error) => {
                    let kind = std::io::Error::from_raw_os_error(error).kind();
                    self.core.borrow_mut().close(conn.slot, Closed::Failed(kind));
                    return false;
                }
            }
        }
        self.core.borrow_mut().stays_raised(conn, fetched)
    }
}

impl Core {
    /// A wake-up of the connection brought so many bytes: its mark follows.
    pub(super) fn bundle(&mut self, token: Token, bytes: u32) {
        let (now_ns, raised) = (self.now_ns, self.raised.len());
        let Some(connection) = self.by_token(token) else { return };
        let mark = connection.lowat.received(bytes, now_ns);
        if mark == Mark::Keep {
            return;
        }
        if !connection.ticked && raised >= RAISED_MAX {
            // As many as may wait do; this one goes on waking for each message.
            connection.lowat = Lowat::new(true);
            return;
        }
        let listed = std::mem::replace(&mut connection.ticked, true);
        self.counters.marks_set += u64::from(self.conns[token.slot as usize].set_mark(mark));
        if !listed {
            self.raised.push(Conn { slot: token.slot, generation: token.generation });
            self.tick_ns = self.tick_ns.min(now_ns + TICK_NS);
        }
    }

    /// What the tick fetched of a connection decides whether it stays in the list.
    fn stays_raised(&mut self, conn: Conn, fetched: u32) -> bool {
        let Some(connection) = self.get(conn) else { return false };
        let mark = connection.lowat.fetched(fetched);
        connection.ticked = connection.lowat.is_raised();
        let (set, ticked) = (connection.set_mark(mark), connection.ticked);
        self.counters.marks_set += u64::from(set);
        ticked
    }
}
