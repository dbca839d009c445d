//! A whole engine that writes to librdkafka's mock cluster, which speaks over real sockets.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{KafkaParams, KafkaSink};
use crate::config::types::OneOrMany;
use crate::engine::{Engine, Wired, Wiring};
use crate::frame;
use crate::io::Backend;
use crate::io::listen::{Address, Listening};
use crate::io::stream::StreamOptions;
use crate::rescue::{Kind, Rescue, Rescued};
use crate::sink::format::Format;
use crate::sink::route::{Sink, Where};
use crate::source::inlet::InletRules;
use crate::source::stream::{StreamRules, StreamSource};
use crate::status::{SinkState, Status};

const PATIENCE: Duration = Duration::from_secs(60);
const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Epoll];
type Mock = MockCluster<'static, DefaultProducerContext>;

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn sink(cluster: &Mock, config: &[(&str, &str)]) -> Arc<KafkaSink> {
    let mut params = KafkaParams {
        brokers: OneOrMany(vec![cluster.bootstrap_servers()]),
        topic: Some("logs_{source}".into()),
        key: Some("{host}".into()),
        config: Default::default(),
        transactional: false,
        transactional_id: None,
        transaction_interval: Duration::from_millis(100),
        state_topic: "wpgen-state".into(),
        format: Format::Raw,
    };
    for (name, value) in config {
        params.config.0.insert((*name).into(), (*value).into());
    }
    KafkaSink::open(0, "out", &params).unwrap()
}

/// An engine from a tcp source to `sink`, and a connection to the source.
fn start(backend: Backend, sink: Arc<dyn Sink>) -> (Engine, TcpStream) {
    let at = Address::Inet("127.0.0.1:0".parse().unwrap());
    let rules = StreamRules {
        inlet: InletRules {
            key: "s".into(),
            host: "h/1".into(),
            tags: Vec::new(),
            headers: None,
            framing: None,
            protocol: "",
            rate: None,
        },
        framing: frame::Rules {
            framing: frame::Framing::Newline,
            prefer_newline: false,
            oversize: frame::Oversize::Truncate,
            record_bytes_max: 1 << 20,
        },
        options: StreamOptions::default(),
        allow: Vec::new(),
        proxied: false,
        tls: None,
    };
    let source = StreamSource::new(rules, Listening::bind(&at, 1, None).unwrap());
    let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
    let wiring = Wiring {
        cpus: vec![None],
        backend,
        sinks: vec![sink],
        sources: vec![Wired { source: Arc::new(source), routes: vec![(0, Where::default())] }],
        keeping: None,
        next_input: Arc::new(AtomicU64::new(1)),
        memory: crate::memory::Memory::unlimited(),
    };
    (Engine::start(wiring).unwrap(), TcpStream::connect(at).unwrap())
}

/// All of the topic: keys and values, sorted.
fn read(cluster: &Mock, messages: usize) -> Vec<(String, String)> {
    let mut all = read_in_order(cluster, messages);
    all.sort();
    all
}

/// As [`read`], as they stand in the topic's one partition.
fn read_in_order(cluster: &Mock, messages: usize) -> Vec<(String, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["logs_s"]).unwrap();
    let mut all = Vec::new();
    let start = Instant::now();
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap()).into_owned();
    while all.len() < messages {
        assert!(start.elapsed() < PATIENCE, "{} of {messages}", all.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            all.push((text(message.key()), text(message.payload())));
        }
    }
    all
}

fn cluster() -> Mock {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("logs_s", 1, 1).unwrap();
    cluster
}

fn drain(engine: Engine) -> Status {
    let (settled, status) = engine.drain(PATIENCE);
    assert!(settled, "{status:?}");
    let source = &status.sources[0];
    assert_eq!(source.records_in, source.delivered + source.rejected);
    status
}

fn numbered(records: usize) -> Vec<(String, String)> {
    (0..records).map(|i| ("h/1".to_owned(), format!("{i:0100}"))).collect()
}

fn send(stream: &mut TcpStream, records: &[(String, String)]) {
    let lines: String = records.iter().map(|(_, record)| format!("{record}\n")).collect();
    stream.write_all(lines.as_bytes()).unwrap();
}

#[test]
fn every_record_is_one_message_whatever_the_queue_holds() {
    // The mock cluster keeps 5 MB of a partition.
    let records = numbered(20_000);
    for backend in BACKENDS {
        let cluster = cluster();
        let sink = sink(&cluster, &[("queue.buffering.max.messages", "1000")]);
        let (engine, mut stream) = start(backend, sink);
        send(&mut stream, &records);
        until("all are delivered", || engine.status().sinks[0].records == records.len() as u64);
        let status = drain(engine);
        assert_eq!((status.sinks[0].batches_in_flight, status.sinks[0].repeated), (0, 0));
        assert_eq!(read(&cluster, records.len()), records);
    }
}

#[test]
fn what_no_broker_takes_is_counted_and_what_was_beside_it_arrives_once() {
    let cluster = cluster();
    // They all go in one request.
    let sink = sink(&cluster, &[("message.max.bytes", "2000"), ("linger.ms", "200")]);
    let (engine, mut stream) = start(Backend::Uring, sink);
    let mut records = numbered(30);
    let all = records.clone();
    records.insert(10, ("h/1".into(), "x".repeat(3000)));
    // The broker refuses the whole request for one message in it, which librdkafka tries twice, and then that one alone.
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refusal, refusal, refusal]);
    send(&mut stream, &records);
    until("all are decided", || {
        let source = &engine.status().sources[0];
        source.delivered + source.rejected == records.len() as u64
    });
    let status = drain(engine);
    assert_eq!((status.sources[0].rejected, status.sinks[0].records), (2, all.len() as u64 - 1));
    assert_eq!(read(&cluster, all.len() - 1), all[1..]);
}

#[test]
fn records_wait_for_a_topic_that_is_refused_and_for_a_broker_that_is_down() {
    let records = numbered(1000);
    let cluster = cluster();
    let sink = sink(&cluster, &[]);
    cluster.topic_error("logs_s", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let (engine, mut stream) = start(Backend::Epoll, sink);
    send(&mut stream, &records);
    until("it waits", || !engine.status().troubles().is_empty());
    assert_eq!(engine.status().sinks[0].records, 0);
    cluster.topic_error("logs_s", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    until("all are delivered", || engine.status().sinks[0].records == records.len() as u64);
    assert_eq!(engine.status().troubles(), Vec::<String>::new());
    cluster.broker_down(1).unwrap();
    send(&mut stream, &records);
    until("it waits", || !engine.status().troubles().is_empty());
    cluster.broker_up(1).unwrap();
    until("all are delivered", || engine.status().sinks[0].records == 2 * records.len() as u64);
    drain(engine);
    let twice: Vec<_> = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
    assert_eq!(read(&cluster, twice.len()), twice);
}

fn rescued(cluster: &Mock, folder: &Path) -> Arc<dyn Sink> {
    let rescue = Rescue::open(folder, "out", Kind::Kafka, 1 << 30, None).unwrap();
    Rescued::new(sink(cluster, &[]), rescue)
}

/// Waits until so many records are on disk, and are delivered for their source.
fn await_on_disk(engine: &Engine, records: usize, delivered: usize) {
    until("they are on disk", || {
        let status = engine.status();
        let on_disk = status.sinks[0].rescue.as_ref().map(|rescue| rescue.records);
        on_disk == Some(records as u64) && status.sources[0].delivered == delivered as u64
    });
}

fn await_sent(engine: &Engine, records: usize) {
    until("all are delivered", || engine.status().sinks[0].records == records as u64);
    until("nothing is left on disk", || {
        engine.status().sinks[0]
            .rescue
            .as_ref()
            .is_some_and(|rescue| (rescue.records, rescue.bytes) == (0, 0))
    });
}

#[test]
fn what_a_cluster_that_is_down_does_not_take_is_on_disk_and_is_sent_first_after_a_start() {
    let records = numbered(3000);
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster();
    cluster.broker_down(1).unwrap();
    let (engine, mut stream) = start(Backend::Epoll, rescued(&cluster, folder.path()));
    send(&mut stream, &records[..1000]);
    await_on_disk(&engine, 1000, 1000);
    send(&mut stream, &records[1000..2000]);
    await_on_disk(&engine, 2000, 2000);
    assert_eq!(engine.status().sinks[0].records, 0);
    // What it has from disk is with librdkafka: it is let go.
    drain(engine);
    let (engine, mut stream) = start(Backend::Epoll, rescued(&cluster, folder.path()));
    send(&mut stream, &records[2000..]);
    await_on_disk(&engine, 3000, 1000);
    cluster.broker_up(1).unwrap();
    await_sent(&engine, 3000);
    let status = drain(engine);
    assert_eq!((status.sinks[0].batches_in_flight, status.sinks[0].state.clone()), (0, SinkState::Ready));
    assert_eq!(read_in_order(&cluster, records.len()), records);
}

#[test]
fn what_a_topic_that_is_refused_does_not_take_is_on_disk_and_is_sent_when_it_is_not() {
    let records = numbered(2000);
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster();
    cluster.topic_error("logs_s", RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let (engine, mut stream) = start(Backend::Uring, rescued(&cluster, folder.path()));
    send(&mut stream, &records[..1000]);
    await_on_disk(&engine, 1000, 1000);
    send(&mut stream, &records[1000..]);
    await_on_disk(&engine, 2000, 2000);
    cluster.topic_error("logs_s", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    await_sent(&engine, 2000);
    drain(engine);
    assert_eq!(read_in_order(&cluster, records.len()), records);
}
