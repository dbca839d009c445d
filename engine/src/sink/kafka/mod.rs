//! Kafka topics: an idempotent producer, of which every message is reported before its batch counts as delivered.
//!
//! A record is one message, without the newline that ends it. Messages go to the topic, and have the key, that the sink's
//! templates give for their origin; each topic and key is an outlet, with an owner on each shard that has records for it. All
//! of them share one producer. A batch is handed to librdkafka where it lies, and comes home when each of its messages is
//! acknowledged; what a broker does not take waits, and is tried again for ever. A message that no broker will ever take (too
//! large, invalid) is left out, counted as rejected, and told.
//!
//! With `transactional`, batches go to one thread a sink instead, which makes transactions of them: those hold the offsets of
//! the groups, or the positions of the files, that the records come from, so that for who reads `read_committed` each record
//! is there once, whoever is killed when. Sources that cannot repeat (UDP, TCP) may feed it as well; theirs is at least once
//! from the moment of receipt, as ever.
//!
//! - `params` is what the configuration may say
//! - `send` is the engine's view of the sink
//! - `owner` hands batches over, in order, and sends them home
//! - `outlets` numbers topics and keys
//! - `forward` is the owner of a transactional sink's outlet, `transactor` makes the transactions, of which `lent` has the
//!   offsets and `positions` the files; `witness` tells how one ended that nobody saw end
//! - `producer` is the producer all owners share, and its successor where it breaks

#[cfg(feature = "kafka")]
mod forward;
#[cfg(feature = "kafka")]
mod lent;
#[cfg(feature = "kafka")]
mod outlets;
#[cfg(feature = "kafka")]
mod owner;
pub mod params;
#[cfg(feature = "kafka")]
mod patience;
#[cfg(feature = "kafka")]
mod positions;
#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod replays;
#[cfg(feature = "kafka")]
mod send;
#[cfg(test)]
#[cfg(feature = "kafka")]
mod tests;
#[cfg(feature = "kafka")]
mod transactor;
#[cfg(feature = "kafka")]
mod witness;

pub use params::KafkaParams;
#[cfg(feature = "kafka")]
pub use send::{Footing, KafkaSink};
