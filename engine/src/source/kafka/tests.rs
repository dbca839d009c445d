//! A whole engine that reads from librdkafka's mock cluster, which speaks over real sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::book::Book;
use super::deliver::Rules;
use super::make;
use super::params::{Encode, KafkaParams, Split, Start};
use super::source::{FAREWELL_MAX, KafkaSource};
use crate::config::types::OneOrMany;
use crate::sink::format::Format;
use crate::source::part::Source;
use crate::source::playground::{BACKENDS, Keep, SHARDS, drain, start, until};

const TOPIC: &str = "t";
const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn params(brokers: String) -> KafkaParams {
    let mut params = KafkaParams {
        brokers: OneOrMany(vec![brokers]),
        topic: OneOrMany(vec![TOPIC.into()]),
        group_id: None,
        config: Default::default(),
        start: Start::Earliest,
        create_topics: false,
        split: Split::None,
        encode: Encode::Text,
    };
    params.config.0.insert("session.timeout.ms".into(), "6000".into());
    params
}

fn source(params: &KafkaParams) -> Arc<KafkaSource> {
    let rules = Rules {
        key: "k".into(),
        host: "h".into(),
        tags: Vec::new(),
        split: params.split,
        encode: params.encode,
        spare: Arc::new(ArrayQueue::new(4)),
    };
    Arc::new(make::source(rules, params, Book::unkept("k"), SHARDS).unwrap())
}

/// Writes to partitions in turn, and waits until the cluster has it.
fn produce<'a>(brokers: &str, values: impl Iterator<Item = Option<&'a str>>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for (i, value) in values.enumerate() {
        let mut record = BaseRecord::<str, str>::to(TOPIC).partition(i as i32 % PARTITIONS).key("key");
        record.payload = value;
        let header = Header { key: "n", value: Some("v") };
        producer
            .send(record.headers(OwnedHeaders::new().insert(header)).timestamp(1_700_000_000_000))
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// The sum of what the group of source `k` has committed.
fn committed(brokers: &str) -> i64 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "k_group").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
    let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
    committed.elements().iter().map(|element| offset(element.offset())).sum()
}

#[test]
fn messages_arrive_with_what_is_known_of_them_and_are_not_read_twice() {
    for backend in BACKENDS {
        let cluster = cluster();
        let brokers = cluster.bootstrap_servers();
        produce(&brokers, [Some("a\nb"), Some(""), None].into_iter());
        let sink = Keep::new(0, Format::Ndjson);
        let engine =
            start(backend, &[(source(&params(brokers.clone())) as Arc<dyn Source>, Arc::clone(&sink))]);
        until("all are there", || sink.len() == 3);
        assert_eq!(engine.status().sources[0].partitions.len(), PARTITIONS as usize);
        let figures = drain(engine);
        assert_eq!((figures[0].records_in, figures[0].bytes_in, figures[0].delivered), (3, 3, 3));
        let mut records: Vec<serde_json::Value> =
            sink.bytes().iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
        records.sort_by_key(|record| record["meta"]["kafka_partition"].as_i64());
        let data: Vec<_> = records.iter().map(|record| record["data"].as_str().unwrap()).collect();
        assert_eq!(data, ["a\nb", "", ""]);
        let meta = &records[2]["meta"];
        let expected = serde_json::json!({
            "kafka_topic": TOPIC, "kafka_partition": 2, "kafka_offset": 0, "key": "key", "headers": {"n": "v"},
            "kafka_timestamp": "2023-11-14T22:13:20.000000000Z", "kafka_tombstone": true,
        });
        assert_eq!(meta, &expected);
        assert!(records[1]["meta"].get("kafka_tombstone").is_none());
        assert_eq!(committed(&brokers), 3, "what is delivered is committed when the engine stops");

        produce(&brokers, [Some("new")].into_iter());
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source(&params(brokers)) as Arc<dyn Source>, Arc::clone(&sink))]);
        until("the new one is there", || sink.len() > 0);
        drain(engine);
        assert_eq!(sink.records(), ["new"]);
    }
}

#[test]
fn nothing_is_committed_that_a_sink_does_not_have() {
    const MESSAGES: usize = 3000;
    for backend in BACKENDS {
        let cluster = cluster();
        let brokers = cluster.bootstrap_servers();
        let values: Vec<String> = (0..MESSAGES).map(|i| format!("{i:0100}")).collect();
        produce(&brokers, values.iter().map(|value| Some(&**value)));
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine =
            start(backend, &[(source(&params(brokers.clone())) as Arc<dyn Source>, Arc::clone(&sink))]);
        until("all are taken", || engine.status().sources[0].records_in == MESSAGES as u64);
        assert_eq!(committed(&brokers), 0);
        sink.stalled.store(false, Ordering::Relaxed);
        until("all are there", || sink.len() == MESSAGES);
        drain(engine);
        assert_eq!(committed(&brokers), MESSAGES as i64);
        let mut last = [0; PARTITIONS as usize];
        for record in sink.records() {
            let number: usize = record.parse().unwrap();
            let last = &mut last[number % PARTITIONS as usize];
            assert!(number == 0 || number >= *last, "each partition is in order");
            *last = number;
        }
    }
}

#[test]
fn a_shard_with_nothing_to_deliver_does_not_end_the_farewell_of_another_one() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    // Of one partition, which is on one shard.
    produce(&brokers, [Some("slow")].into_iter());
    let sink = Keep::new(0, Format::Raw);
    sink.stalled.store(true, Ordering::Relaxed);
    let pairs = [(source(&params(brokers.clone())) as Arc<dyn Source>, Arc::clone(&sink))];
    let engine = start(BACKENDS[0], &pairs);
    until("it is taken", || engine.status().sources[0].records_in == 1);
    let (stalled, observer) = (Arc::clone(&sink.stalled), engine.observer());
    let slow = std::thread::spawn(move || {
        std::thread::sleep(FAREWELL_MAX + Duration::from_secs(1));
        let partitions = observer.status().sources[0].partitions.len();
        stalled.store(false, Ordering::Relaxed);
        partitions
    });
    drain(engine);
    assert_eq!(slow.join().unwrap(), PARTITIONS as usize, "the group is not left before");
    assert_eq!(sink.records(), ["slow"]);
    assert_eq!(committed(&brokers), 1);
}

#[test]
fn lines_and_codes_are_taken_apart_and_bad_ones_counted() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    produce(&brokers, [Some("YQ==\nYg==\n"), Some("!"), Some("Yw")].into_iter());
    let sink = Keep::new(0, Format::Raw);
    let params = KafkaParams { split: Split::Lines, encode: Encode::Base64, ..params(brokers.clone()) };
    let engine = start(BACKENDS[0], &[(source(&params) as Arc<dyn Source>, Arc::clone(&sink))]);
    until("all are there", || engine.status().sources[0].records_in == 4 && sink.len() == 3);
    let figures = drain(engine);
    assert_eq!(figures[0].dropped, [("bad_line".to_owned(), 1)]);
    let mut records = sink.records();
    records.sort();
    assert_eq!(records, ["a", "b", "c"]);
    assert_eq!(committed(&brokers), 3, "a message that is no record is done with");
}
