//! The way out of one thread's messages: through the kernel, or through librdkafka.

use std::io;
use std::time::Duration;

use super::outbox::{Batch, Home, Opened, Outbox};
#[cfg(feature = "kafka")]
use super::topic::Topics;

/// How long nothing may move at the end, until what is left is given up.
pub const LINGER: Duration = Duration::from_secs(5);

/// What carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring.
    Uring,
    /// Plain writes: io_uring is refused here.
    Plain,
    /// librdkafka, into a topic of Kafka.
    #[cfg(feature = "kafka")]
    Kafka,
}

impl Io {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Plain => "plain",
            #[cfg(feature = "kafka")]
            Self::Kafka => "librdkafka",
        }
    }
}

/// What one connection's messages go into.
#[derive(Debug)]
pub enum Door {
    /// A socket or a file.
    Wire(Opened),
    /// A topic of Kafka.
    #[cfg(feature = "kafka")]
    Topic(engine::kafka::load::Load),
}

/// What became of messages of a connection after their batch had come home.
#[derive(Debug)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "the kernel tells all when a batch comes home"))]
pub struct Told {
    /// The connection.
    pub line: usize,
    /// Messages that were taken.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages that were not.
    pub unsent: u64,
    /// Why not: the connection is broken.
    pub error: Option<String>,
}

/// See above. Each message is counted once: in the batch that comes home, or, where that says nothing of it, in what is told
/// later.
pub trait Way {
    /// What carries the messages.
    fn io(&self) -> Io;

    /// Whether nothing is under way.
    fn is_empty(&self) -> bool;

    /// Sends a batch on a line that has none under way.
    fn put(&mut self, line: usize, batch: Batch);

    /// Lets it work, and waits at most so long for a batch to come home.
    fn turn(&mut self, wait: Duration) -> io::Result<()>;

    /// The batches that came home since the last call.
    fn homes(&mut self) -> std::vec::Drain<'_, Home>;

    /// What else became known since the last call.
    fn told(&mut self) -> Vec<Told> {
        Vec::new()
    }

    /// How long nothing may move at the end, until what is left is given up.
    fn patience(&self) -> Duration {
        LINGER
    }

    /// Gives up what has not been taken; it comes home with an error, or is told.
    fn cancel(&mut self);

    /// Says goodbye where that is the way of a line, once nothing is under way.
    fn close(&mut self) {}
}

/// A way for the calling thread. All doors of a thread are of one kind.
pub fn out_of(doors: Vec<Door>) -> Box<dyn Way> {
    let mut wires = Vec::new();
    #[cfg(feature = "kafka")]
    let mut topics = Vec::new();
    for door in doors {
        match door {
            Door::Wire(opened) => wires.push(opened),
            #[cfg(feature = "kafka")]
            Door::Topic(load) => topics.push(load),
        }
    }
    #[cfg(feature = "kafka")]
    if !topics.is_empty() {
        return Box::new(Topics::new(topics));
    }
    Box::new(Outbox::new(wires))
}
