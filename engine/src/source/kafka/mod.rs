//! Kafka topics, as a member of a consumer group.
//!
//! ```text
//!   librdkafka's threads ──> reader: one thread a source         shards
//!                             takes messages, copies each        each partition belongs to one
//!                             into the parcel of its partition ──> deliver: records, runs, lanes
//!                             commits what is durable      <────── durable: behind the last message that every sink has
//! ```
//!
//! - `params` is what the configuration may say, `make` makes a source of it
//! - `reader` owns the consumer: takes, pauses, commits, and takes leave; `group` is what happens when the group's partitions
//!   are shared out anew
//! - `book` is what is known of partitions from run to run, and decides where one begins; `begin` asks the broker for that
//! - `partition` is what reader and shard share of one partition; `parcel` what goes from the one to the other
//! - `deliver` makes records of messages on the shard
//! - `source` is the engine's view of it
//!
//! Invariants: an offset is committed when every sink has all messages before it and a checkpoint on disk says so. Messages of a
//! partition reach the lanes in order. What waits between reader and shards is bounded ([`reader::WAITING_BYTES_MAX`]):
//! beyond it messages stay with librdkafka, which has a bound of its own, and in the end with the broker; events are served
//! all the while, so that the member stays in its group.

#[cfg(feature = "kafka")]
mod begin;
#[cfg(feature = "kafka")]
mod book;
#[cfg(feature = "kafka")]
mod deliver;
#[cfg(feature = "kafka")]
mod group;
#[cfg(feature = "kafka")]
pub mod make;
pub mod params;
#[cfg(feature = "kafka")]
mod parcel;
#[cfg(feature = "kafka")]
mod partition;
#[cfg(feature = "kafka")]
mod reader;
#[cfg(feature = "kafka")]
mod source;
#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests;

pub use params::{KafkaParams, Start};
