//! Kafka, in and out, against a real broker ([`broker`]) that the tests start by themselves.
//!
//! ```text
//! cargo test -p wpgen --test kafka                             with a Kafka of their own, for which they need Java and Maven
//! KAFKA_BROKERS=host:9092 cargo test -p wpgen --test kafka     ... with this one, where that is enough
//! WPGEN_KAFKA_FAULTS=50 cargo test ... --test kafka seeded     that many seeded runs of kill -9
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bench;
mod broker;
mod cli;
mod cluster;
mod diagnosis;
mod endings;
mod exactly;
mod failover;
mod faults;
mod flow;
mod front;
#[allow(dead_code, reason = "a part of what the other tests use")]
#[path = "../harness.rs"]
mod harness;
#[path = "../leftovers.rs"]
mod leftovers;
mod load;
mod oracle;
mod papers;
mod places;
mod rescue;
mod stage;

/// What the harness asks about io_uring: these tests take whatever the machine has.
mod fallback {
    /// The word as it is.
    pub fn io(wanted: &str) -> &str {
        wanted
    }
}
