//! What is asked of a broker past wpgen: topics made, numbered messages in, and what has come out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::harness::{PATIENCE, until_ok};

/// Keys that numbered messages have, in turns.
pub const KEYS: u64 = 97;
/// The broker's own number of replicas.
const AS_THE_BROKER: i32 = -1;

/// One that no other test of this process, or of another, has.
pub fn own_name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("log_level", "0");
    config
}

fn settled<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// Makes a topic with settings of its own.
pub fn make_topic_with(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(AS_THE_BROKER));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let made = settled(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
    made.into_iter().for_each(|one| drop(one.unwrap()));
    // A producer that asks too soon is told that there is no such topic.
    crate::harness::until("the topic is there", || {
        let found = admin.inner().fetch_metadata(Some(name), Duration::from_secs(5));
        found.is_ok_and(|found| found.topics().iter().any(|t| t.partitions().len() == partitions as usize))
    });
}

/// Makes a topic.
pub fn make_topic(brokers: &str, name: &str, partitions: i32) {
    make_topic_with(brokers, name, partitions, &[]);
}

/// Takes a topic away.
pub fn delete_topic(brokers: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().unwrap();
    let gone = settled(admin.delete_topics(&[name], &AdminOptions::new())).unwrap();
    gone.into_iter().for_each(|one| drop(one.unwrap()));
}

/// The key of a numbered message.
pub fn key(number: u64) -> String {
    format!("k{}", number % KEYS)
}

/// A numbered message, of about 250 bytes.
pub fn message(number: u64) -> String {
    let letters = usize::try_from(number * 7 % 61).unwrap() + 200;
    format!("{number:012} {} {}", key(number), "x".repeat(letters))
}

/// The number of a message of ours.
///
/// # Panics
/// When it is none of ours, or cut.
pub fn number_of(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).unwrap();
    let number = text.get(..12).and_then(|digits| digits.parse().ok());
    let number = number.unwrap_or_else(|| panic!("no message of ours: {text:?}"));
    assert!(text == message(number), "changed: {text:?}");
    number
}

/// Counts messages that no broker took: whoever waits for them waits in vain.
#[derive(Default)]
struct Refused(AtomicU64);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(u64::from(delivered.is_err()), Ordering::Relaxed);
    }
}

/// Sends what a test wants.
pub struct Sender {
    producer: BaseProducer<Refused>,
    topic: String,
}

impl Sender {
    /// To a topic.
    pub fn new(brokers: &str, topic: &str) -> Self {
        let mut config = client(brokers);
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", "0");
        config.set("message.max.bytes", "20000000").set("partitioner", "murmur2_random");
        let producer = config.create_with_context(Refused::default()).unwrap();
        Self { producer, topic: topic.to_owned() }
    }

    /// One message; nothing for a key or a payload is one of Kafka's nulls.
    pub fn send(&self, key: Option<&[u8]>, payload: Option<&[u8]>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
            (record.key, record.payload) = (key, payload);
            match self.producer.send(record) {
                Ok(()) => return,
                // Its queue is full: it has to work.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{error}; {:?}", self.producer.client().fatal_error()),
            }
            assert!(Instant::now() < deadline, "the broker takes nothing");
        }
    }

    /// Numbered messages, and waits until the broker has them.
    pub fn numbers(&self, from: u64, upto: u64) {
        for number in from..upto {
            self.send(Some(key(number).as_bytes()), Some(message(number).as_bytes()));
        }
        self.flush();
    }

    /// Waits until the broker has everything.
    pub fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
        assert_eq!(self.producer.context().0.load(Ordering::Relaxed), 0, "no broker took so many");
    }
}

/// A message that has come out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
}

/// Everything of a topic, partition by partition, as far as it is committed.
pub fn all_of(brokers: &str, topic: &str) -> Vec<Found> {
    all_of_level(brokers, topic, "read_committed")
}

/// Everything of a topic, as who reads it with an `isolation.level`.
pub fn all_of_level(brokers: &str, topic: &str, level: &str) -> Vec<Found> {
    let mut config = client(brokers);
    config.set("group.id", own_name("oracle")).set("enable.auto.commit", "false");
    config.set("isolation.level", level).set("fetch.message.max.bytes", "20000000");
    let consumer: BaseConsumer = config.create().unwrap();
    let wait = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), wait).unwrap();
    let (mut ends, mut wanted) = (BTreeMap::new(), TopicPartitionList::new());
    for partition in metadata.topics()[0].partitions() {
        // A broker that has just come back does not lead yet.
        let marks = || consumer.fetch_watermarks(topic, partition.id(), wait);
        let (low, high) = until_ok("a partition has its leader", marks);
        if high > low {
            ends.insert(partition.id(), high);
            wanted.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&wanted).unwrap();
    let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while !ends.is_empty() {
        assert!(Instant::now() < deadline, "{topic} cannot be read to its end: {ends:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = match message {
                // A node of the cluster is down: the others have it all.
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)) => continue,
                message => message.unwrap(),
            };
            found.push(Found {
                partition: message.partition(),
                key: message.key().map(<[u8]>::to_vec),
                payload: message.payload().map(<[u8]>::to_vec),
            });
        }
        // Behind a transaction stands a mark that is no message, so the position counts and not the last message.
        let positions = consumer.position().unwrap();
        ends.retain(|partition, end| {
            let at = positions.find_partition(topic, *partition).map(|at| at.offset());
            !matches!(at, Some(Offset::Offset(at)) if at >= *end)
        });
    }
    found
}

/// Whether a transaction is open in a topic of one partition: what is committed ends before what is there.
pub fn is_open(brokers: &str, topic: &str) -> bool {
    // In this order: what comes in between is not taken for an open one.
    let committed = end(brokers, topic, "read_committed");
    let all = end(brokers, topic, "read_uncommitted");
    committed < all
}

/// Where a topic of one partition ends, for who reads it with an `isolation.level`.
pub fn end(brokers: &str, topic: &str, level: &str) -> i64 {
    // Its leader may be another one by now, or not there yet; a client goes on asking the one that it knows.
    crate::harness::until_ok("its end is told", || {
        let consumer: BaseConsumer = client(brokers).set("isolation.level", level).create().unwrap();
        consumer.fetch_watermarks(topic, 0, Duration::from_secs(3)).map(|(_, end)| end)
    })
}

/// The node that leads a partition of a topic.
pub fn leader(brokers: &str, topic: &str, partition: i32) -> usize {
    let consumer: BaseConsumer = client(brokers).create().unwrap();
    crate::harness::until_ok("its leader is told", || {
        let told =
            consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).map_err(|e| e.to_string())?;
        let mut partitions = told.topics().iter().flat_map(|topic| topic.partitions());
        let found = partitions.find(|found| found.id() == partition);
        found
            .and_then(|found| usize::try_from(found.leader()).ok())
            .ok_or_else(|| "nobody leads it".to_owned())
    })
}

/// Partitions of all topics that not all of so many nodes have as it is now.
pub fn lagging(brokers: &str, nodes: usize) -> Result<Vec<String>, String> {
    let consumer: BaseConsumer = client(brokers).create().unwrap();
    let told = consumer.fetch_metadata(None, Duration::from_secs(10)).map_err(|error| error.to_string())?;
    let lags = |topic: &MetadataTopic| {
        let name = topic.name().to_owned();
        let behind = topic.partitions().iter().filter(|partition| partition.isr().len() < nodes);
        behind.map(|partition| format!("{name} {}", partition.id())).collect::<Vec<_>>()
    };
    Ok(told.topics().iter().flat_map(lags).collect())
}

/// The offsets that a group has committed in a topic, summed.
pub fn committed(brokers: &str, group: &str, topic: &str, partitions: i32) -> i64 {
    committed_each(brokers, group, topic, partitions).iter().sum()
}

/// The offset that a group has committed in each partition of a topic; 0 where it has none.
pub fn committed_each(brokers: &str, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
    let mut config = client(brokers);
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions {
        asked.add_partition(topic, partition);
    }
    let found = crate::harness::until_ok("offsets are told", || {
        consumer.committed_offsets(asked.clone(), Duration::from_secs(10))
    });
    let at = |offset| if let Offset::Offset(at) = offset { at } else { 0 };
    found.elements().iter().map(|one| at(one.offset())).collect()
}

/// Sets the offset of a group without members in each partition of a topic.
pub fn put_back(brokers: &str, group: &str, topic: &str, partitions: i32, offset: i64) {
    let mut config = client(brokers);
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    }
    crate::harness::until_ok("the group has the offsets", || consumer.commit(&list, CommitMode::Sync));
}

/// Takes a group without members away.
pub fn delete_group(brokers: &str, group: &str) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().unwrap();
    let gone = settled(admin.delete_groups(&[group], &AdminOptions::new())).unwrap();
    gone.into_iter().for_each(|one| drop(one.unwrap()));
}

/// A group: its state and its members, by id and client id.
pub fn members(brokers: &str, group: &str) -> (String, Vec<(String, String)>) {
    let consumer: BaseConsumer = client(brokers).create().unwrap();
    // A group's coordinator may be loading, or not be there yet.
    let list = crate::harness::until_ok("the group is told", || {
        consumer.fetch_group_list(Some(group), Duration::from_secs(10))
    });
    let Some(found) = list.groups().first() else { return Default::default() };
    let mut members: Vec<_> =
        found.members().iter().map(|m| (m.id().to_owned(), m.client_id().to_owned())).collect();
    members.sort();
    (found.state().to_owned(), members)
}

/// Of numbered messages `0..upto`, each is there.
///
/// # Panics
/// When one is missing, or more than `repeats_max` are there again.
pub fn all_there(numbers: &[u64], upto: u64, repeats_max: usize) {
    let mut times = vec![0_u32; usize::try_from(upto).unwrap()];
    numbers.iter().for_each(|number| times[usize::try_from(*number).unwrap()] += 1);
    let missing: Vec<usize> = (0..times.len()).filter(|n| times[*n] == 0).collect();
    let repeats = numbers.len() + missing.len() - times.len();
    assert!(
        missing.is_empty() && repeats <= repeats_max,
        "of {upto} messages {} are missing, from {:?} on; {repeats} repeats",
        missing.len(),
        missing.first()
    );
}

/// Whether the first time that each number of a key is there comes behind those in front of it.
pub fn in_key_order(numbers: &[u64]) -> bool {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    numbers.iter().filter(|number| seen.insert(**number)).all(|number| {
        let before = last.insert(number % KEYS, *number);
        before.is_none_or(|before| before < *number)
    })
}

#[test]
fn what_is_missing_repeated_changed_or_out_of_order_is_seen() {
    use std::panic::catch_unwind;
    all_there(&[0, 2, 1, 1], 3, 1);
    assert!(catch_unwind(|| all_there(&[0, 2], 3, 9)).is_err(), "1 is missing");
    assert!(catch_unwind(|| all_there(&[0, 1, 1], 2, 0)).is_err(), "1 is there twice");
    assert_eq!(number_of(message(7).as_bytes()), 7);
    assert!(catch_unwind(|| number_of(message(7).replace("xx", "xy").as_bytes())).is_err());
    assert!(in_key_order(&[0, 1, KEYS, 0, KEYS + 1]), "a repeat is no disorder");
    assert!(!in_key_order(&[KEYS, 0]));
}
