//! What connections did that they should not: counted each time, said seldom.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::SourceCounters;
use crate::source::seldom::Seldom;

/// One kind of trouble with a source's connections.
pub(super) struct Trouble {
    key: Arc<str>,
    counters: Arc<SourceCounters>,
    seldom: Seldom,
}

impl Trouble {
    /// None yet.
    pub(super) fn new(key: &Arc<str>, counters: &Arc<SourceCounters>) -> Self {
        Self { key: Arc::clone(key), counters: Arc::clone(counters), seldom: Seldom::default() }
    }

    /// A connection did what it should not.
    pub(super) fn told(&self, peer: Option<SocketAddr>, how: &str) {
        self.told_times(peer, how, 1);
    }

    /// A connection did so often what it should not.
    pub(super) fn told_times(&self, peer: Option<SocketAddr>, how: &str, times: u64) {
        if times == 0 {
            return;
        }
        self.counters.errors.add(times);
        if let Some(times) = self.seldom.happened(times) {
            let from = peer.map_or_else(String::new, |peer| format!(" from {peer}"));
            log::warn!(
                target: "wpgen::net",
                "source '{}': connection{from}: {how} ({times} such since this was said last)", self.key
            );
        }
    }
}
