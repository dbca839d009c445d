//! How far files are in committed transactions: messages of a compacted topic, written in the transactions that they tell of.
//!
//! ```text
//! key    wpgen/1/IDENTITY/SINK/INPUT      IDENTITY of the data folder, the sink's key, the input's id in the checkpoint
//! value  {"version":1,"position":N}       every record that ends at byte N or before is in a committed transaction
//! ```
//!
//! The last message of a key counts, read as read_committed. It is the truth about what the sink has: at a start the lanes
//! leave out what ends at that position or before, wherever the checkpoint lets the sources begin.
//!
//! Invariants: an input's id is in the checkpoint before a position of it is committed, so that an id that is found here is
//! never given to another file; a data folder whose checkpoint is gone has another identity. A checkpoint that does not know
//! an id that is found here is an older copy, and refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::producer::Reports;
use super::transactor::{CALL_MAX, Held};
use crate::diagnosis::{Code, Diagnostic};
use crate::kafka::assigned::Fault;
use crate::kafka::blame::blame;
use crate::kafka::cargo::{Cargo, Producer};
use crate::keeper::Persist;

const VERSION: u32 = 1;
/// The broker's own number of replicas.
const AS_THE_BROKER: i32 = -1;
/// How often a full queue is tried again.
const FULL_AGAIN: Duration = Duration::from_millis(1);
/// How long reading the topic to its end may take: a transaction that another sink has left open there is in the way until
/// the broker aborts it.
const READ_MAX: Duration = Duration::from_secs(90);

/// See above.
pub(super) struct Positions {
    /// Who writes them.
    pub(super) who: String,
    /// The topic.
    pub(super) topic: String,
    /// What each key begins with.
    pub(super) prefix: String,
    /// How the topic is made.
    pub(super) admin: ClientConfig,
    /// How it is read.
    pub(super) reader: ClientConfig,
    /// Asks for a checkpoint.
    pub(super) persist: Persist,
    /// Whether the topic is there.
    pub(super) is_made: bool,
    /// Inputs whose ids are in the checkpoint on disk.
    pub(super) known: HashSet<u64>,
}

/// Why positions are not known.
pub(super) struct Unknown {
    pub(super) finding: Diagnostic,
    /// Whether it may pass by itself: who leads the topic has died, and another one is not chosen yet.
    pub(super) may_pass: bool,
}

impl From<Diagnostic> for Unknown {
    fn from(finding: Diagnostic) -> Self {
        Self { finding, may_pass: false }
    }
}

#[derive(Serialize, Deserialize)]
struct Value {
    version: u32,
    position: u64,
}

/// Whether a broker says so of what is another one's by now, or of what none has yet.
fn may_pass(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::LeaderNotAvailable
            | E::NotLeaderForPartition
            | E::ReplicaNotAvailable
            | E::UnknownTopicOrPartition
            | E::UnknownPartition
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::NotController
            | E::NotEnoughReplicas
            | E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::NotCoordinator
            // A new leader does not know yet how far its followers are.
            | E::OffsetNotAvailable
    )
}

/// What each key of a sink's positions begins with.
pub(super) fn prefix(identity: &str, sink: &str) -> String {
    format!("wpgen/{VERSION}/{identity}/{sink}/")
}

/// How far the files are that records of what is held come from.
pub(super) fn of<'a>(held: impl Iterator<Item = &'a Held>) -> BTreeMap<u64, u64> {
    let mut upto = BTreeMap::new();
    for batch in held.filter(|held| held.outlet.assigned.is_none()).filter_map(|held| held.batch.as_ref()) {
        for ticket in batch.tickets.iter().filter(|ticket| ticket.input != 0) {
            let at: &mut u64 = upto.entry(ticket.input).or_default();
            *at = ticket.upto.max(*at);
        }
    }
    upto
}

impl Positions {
    /// Puts positions into the transaction that is open.
    pub(super) async fn note(
        &mut self,
        producer: &Producer<Reports>,
        upto: &BTreeMap<u64, u64>,
    ) -> Result<(), Fault> {
        if upto.is_empty() {
            return Ok(());
        }
        let fail = |text: String| Fault::abort(RDKafkaErrorCode::Fail, text);
        if !self.is_made {
            self.make().map_err(|unknown| fail(unknown.finding.message))?;
        }
        if !upto.keys().all(|input| self.known.contains(input)) {
            (self.persist)().await.map_err(|error| fail(format!("no checkpoint can be written: {error}")))?;
            self.known.extend(upto.keys());
        }
        for (input, position) in upto {
            let key = format!("{}{input}", self.prefix);
            let value = Value { version: VERSION, position: *position };
            let value = serde_json::to_vec(&value).map_err(|error| fail(error.to_string()))?;
            self.send(producer, &key, &value).await?;
        }
        Ok(())
    }

    async fn send(&self, producer: &Producer<Reports>, key: &str, value: &[u8]) -> Result<(), Fault> {
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, Cargo::none()).key(key.as_bytes()).payload(value);
        loop {
            match producer.inner().send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error.into()),
            }
            tokio::time::sleep(FULL_AGAIN).await;
        }
    }

    /// Makes the topic, if there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn make(&mut self) -> Result<(), Unknown> {
        let failed = |code, text: &str| self.unknown(code, &format!("making topic {}: {text}", self.topic));
        let of = |error: &KafkaError| {
            failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), &error.to_string())
        };
        // Who may not make topics may have been given one. A consumer makes none by asking.
        let asking: BaseConsumer = self.reader.create().map_err(|error| of(&error))?;
        let known = asking.fetch_metadata(Some(&self.topic), CALL_MAX).map_err(|error| of(&error))?;
        if known.topics().iter().any(|topic| !topic.partitions().is_empty()) {
            self.is_made = true;
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = self.admin.create().map_err(|error| of(&error))?;
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(AS_THE_BROKER))
            .set("cleanup.policy", "compact");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| failed(RDKafkaErrorCode::Fail, &error.to_string()))?;
        let options = AdminOptions::new().request_timeout(Some(CALL_MAX)).operation_timeout(Some(CALL_MAX));
        // A runtime blocks no other's thread.
        let answers = std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(admin.create_topics([&topic], &options))).join()
        });
        let answers = answers.map_err(|_| failed(RDKafkaErrorCode::Fail, "its thread has ended"))?;
        for answer in answers.map_err(|error| of(&error))? {
            match answer {
                Ok(topic) => log::info!(target: "wpgen::kafka", "{}: made topic {topic}", self.who),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failed(code, &code.to_string())),
            }
        }
        self.is_made = true;
        Ok(())
    }

    /// Reads the positions that are committed.
    ///
    /// # Errors
    /// Why they cannot be known.
    pub(super) fn read(&self) -> Result<HashMap<u64, u64>, Unknown> {
        let of = |error: KafkaError| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            self.unknown(code, &format!("reading topic {}: {error}", self.topic))
        };
        let consumer: BaseConsumer = self.reader.create().map_err(of)?;
        let until = Instant::now() + READ_MAX;
        let mut ends = self.ends().map_err(of)?;
        let mut wanted = TopicPartitionList::new();
        for partition in ends.keys() {
            wanted.add_partition_offset(&self.topic, *partition, Offset::Beginning).map_err(of)?;
        }
        consumer.assign(&wanted).map_err(of)?;
        let mut found = HashMap::new();
        while !ends.is_empty() {
            if Instant::now() >= until {
                let text = format!("reading topic {} to its end took longer than {READ_MAX:?}", self.topic);
                return Err(self.unknown(RDKafkaErrorCode::OperationTimedOut, &text));
            }
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.map_err(of)?;
                self.found(message.key(), message.payload(), &mut found)?;
            }
            // A mark that ends a transaction is no message, so the position counts.
            let at = consumer.position().map_err(of)?;
            ends.retain(|partition, end| {
                let at = at.find_partition(&self.topic, *partition).map(|at| at.offset());
                !matches!(at, Some(Offset::Offset(at)) if at >= *end)
            });
        }
        Ok(found)
    }

    fn unknown(&self, code: RDKafkaErrorCode, text: &str) -> Unknown {
        let finding = blame(&self.who, code, text);
        Unknown { may_pass: may_pass(code) || finding.code == Some(Code::WP201), finding }
    }

    /// The partitions of the topic that are not empty, and where they end. Not where what is committed ends: behind another
    /// sink's transaction that is still open there may be positions of ours.
    fn ends(&self) -> Result<HashMap<i32, i64>, KafkaError> {
        let mut all = self.reader.clone();
        let consumer: BaseConsumer = all.set("isolation.level", "read_uncommitted").create()?;
        let until = Instant::now() + CALL_MAX;
        let partitions = loop {
            let metadata = consumer.fetch_metadata(Some(&self.topic), CALL_MAX)?;
            let topic = metadata.topics().first();
            let partitions: Vec<i32> =
                topic.map(|topic| topic.partitions().iter().map(|p| p.id()).collect()).unwrap_or_default();
            // One that was just made is not known to every broker at once.
            if !partitions.is_empty() {
                break partitions;
            }
            if Instant::now() >= until {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut ends = HashMap::new();
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(&self.topic, partition, CALL_MAX)?;
            if high > low {
                ends.insert(partition, high);
            }
        }
        Ok(ends)
    }

    fn found(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        found: &mut HashMap<u64, u64>,
    ) -> Result<(), Diagnostic> {
        let key =
            key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.strip_prefix(&self.prefix));
        let Some(input) = key.and_then(|input| input.parse::<u64>().ok()) else { return Ok(()) };
        let Some(value) = value else {
            found.remove(&input);
            return Ok(());
        };
        match serde_json::from_slice::<Value>(value) {
            Ok(Value { version: VERSION, position }) => {
                found.insert(input, position);
                Ok(())
            }
            _ => {
                let shown = crate::escape::escape_outside_to(value, 80);
                let message = format!(
                    "{}: topic {}: the position of input {input} is none of version {VERSION}: {shown}",
                    self.who, self.topic
                );
                Err(Diagnostic::plain(message)
                    .help("a newer wpgen has written it: start that one, or name another 'state_topic'"))
            }
        }
    }
}
