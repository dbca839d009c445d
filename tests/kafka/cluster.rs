//! Three nodes of Kafka that are one cluster: each is broker and controller, and has a copy of everything. What has been
//! acknowledged is on two of them at least, so any one may be killed.
//!
//! The offsets of all groups are in one partition, and so is the state of all transactions: who leads that is the
//! coordinator.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::broker::Broker;
use crate::harness::until_ok;
use crate::oracle::{lagging, leader};

const NODES: usize = 3;
/// Small ones: three of them are on one machine.
const HEAP: &str = "-Xmx256m";
/// Where the coordinator of all groups is the leader.
pub const OF_GROUPS: &str = "__consumer_offsets";
/// Where the coordinator of all transactions is the leader.
pub const OF_TRANSACTIONS: &str = "__transaction_state";

/// A cluster.
pub struct Cluster {
    nodes: Vec<Broker>,
}

impl Cluster {
    /// The one that the tests share, one after the other, with all of its nodes up.
    pub fn shared() -> Option<MutexGuard<'static, Self>> {
        static SHARED: OnceLock<Option<Mutex<Cluster>>> = OnceLock::new();
        let started = || Broker::start_several(NODES, HEAP).map(|nodes| Mutex::new(Self { nodes }));
        let cluster = SHARED.get_or_init(started).as_ref()?;
        let cluster = cluster.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.nodes.iter().filter(|node| !node.is_up()).for_each(Broker::restart);
        cluster.await_copies();
        Some(cluster)
    }

    /// Where its nodes are.
    pub fn brokers(&self) -> String {
        self.nodes.iter().map(Broker::plain).collect::<Vec<_>>().join(",")
    }

    /// The node that leads the first partition of a topic.
    pub fn leader(&self, topic: &str) -> &Broker {
        &self.nodes[leader(&self.brokers(), topic, 0) - 1]
    }

    /// One of its nodes.
    pub fn node(&self, number: usize) -> &Broker {
        &self.nodes[number % NODES]
    }

    /// Waits until each node has caught up with everything.
    pub fn await_copies(&self) {
        until_ok("all nodes have caught up", || match lagging(&self.brokers(), NODES)? {
            behind if behind.is_empty() => Ok(()),
            behind => Err(format!("not yet in {}", behind.join(", "))),
        });
    }
}
