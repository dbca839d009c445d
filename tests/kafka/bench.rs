//! Our rate and CPU beside those of librdkafka alone, on one broker, by turns: what the engine adds.
//!
//! ```text
//! cargo test --release -p wpgen --test kafka bench -- --ignored --nocapture --test-threads=1
//! WPGEN_KAFKA_BENCH=10000000     messages of 250 bytes, in place of two million
//! WPGEN_KAFKA_TURNS=5            turns of each, whose median counts
//! ```
//!
//! Reading goes into `blackhole`, writing comes from a file in the page cache. The bare loops have the settings that the
//! engine has, and count what they take or what is acknowledged; so does the engine. Whoever misses a message has failed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::broker::plain;
use crate::harness::{Site, Started, status};
use crate::oracle::{delete_topic, make_topic, own_name};

const PARTITIONS: i32 = 12;
const BYTES: usize = 250;
const MESSAGES: u64 = 2_000_000;
const TURNS: usize = 5;

fn asked(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

/// A turn: how long it took, and CPU time of the client's process.
#[derive(Clone, Copy)]
struct Turn {
    seconds: f64,
    cpu_seconds: f64,
}

/// CPU time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    let ticks = words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// Runs something in this process.
fn here(work: impl FnOnce()) -> Turn {
    let (began, before) = (Instant::now(), cpu_seconds(std::process::id()));
    work();
    Turn { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds(std::process::id()) - before }
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn line(number: u64, into: &mut String) {
    into.clear();
    write!(into, "{number:012} ").unwrap();
    while into.len() < BYTES {
        into.push('x');
    }
}

/// Messages from nowhere into a topic.
fn bare_produce(brokers: &str, topic: &str, messages: u64) -> Turn {
    let mut config = client(brokers);
    config.set("enable.idempotence", "true");
    let producer: BaseProducer = config.create().unwrap();
    here(|| {
        let mut text = String::new();
        for number in 0..messages {
            line(number, &mut text);
            while let Err((error, _)) = producer.send(BaseRecord::<(), str>::to(topic).payload(&text)) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "{error}"
                );
                producer.poll(Duration::from_millis(1));
            }
            if number % 1000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(300)).unwrap();
    })
}

/// All messages of a topic into nothing.
fn bare_consume(brokers: &str, topic: &str, messages: u64) -> Turn {
    let mut config = client(brokers);
    config
        .set("group.id", own_name("bare"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    config
        .set("queued.max.messages.kbytes", "16384")
        .set("partition.assignment.strategy", "cooperative-sticky");
    let consumer: BaseConsumer = config.create().unwrap();
    here(|| {
        consumer.subscribe(&[topic]).unwrap();
        let mut taken = 0;
        while taken < messages {
            if let Some(message) = consumer.poll(Duration::from_secs(10)) {
                message.unwrap();
                taken += 1;
            }
        }
    })
}

/// An engine until its source has delivered everything; what it took of CPU time until then.
fn engine(site: &Site, messages: u64) -> Turn {
    let (began, engine) = (Instant::now(), Started::in_folder(site.folder()));
    loop {
        let delivered = status(site.folder())["sources"][0]["delivered"].as_u64().unwrap_or(0);
        if delivered >= messages {
            assert_eq!(delivered, messages);
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(600), "{delivered} of {messages}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds(u32::try_from(engine.pid()).unwrap());
    engine.stop();
    Turn { seconds, cpu_seconds }
}

fn configured(source: &str, sink: &str) -> Site {
    let site = Site::empty();
    let config = format!(
        "[admin]\nlisten = \"\"\n[[sources]]\nkey = \"app\"\n{source}\n[[sinks]]\nkey = \"out\"\nsources = [\"*\"]\n{sink}\n"
    );
    std::fs::write(site.path("wpsrc.toml"), config).unwrap();
    site
}

fn our_consume(brokers: &str, topic: &str, messages: u64) -> Turn {
    let source = format!(
        "connect = \"kafka_src\"\nparams = {{ brokers = \"{brokers}\", topic = \"{topic}\", group_id = \"{}\" }}",
        own_name("ours")
    );
    engine(&configured(&source, "connect = \"blackhole_sink\""), messages)
}

fn our_produce(brokers: &str, topic: &str, messages: u64) -> Turn {
    let sink =
        format!("connect = \"kafka_sink\"\nparams = {{ brokers = \"{brokers}\", topic = \"{topic}\" }}");
    let site = configured("connect = \"file_src\"\nparams = { path = \"in/a.log\" }", &sink);
    let mut file = std::io::BufWriter::new(std::fs::File::create(site.path("in/a.log")).unwrap());
    let mut text = String::new();
    for number in 0..messages {
        line(number, &mut text);
        writeln!(file, "{text}").unwrap();
    }
    file.flush().unwrap();
    engine(&site, messages)
}

fn median(of: &[Turn], figure: impl Fn(&Turn) -> f64) -> f64 {
    let mut figures: Vec<f64> = of.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn tell(what: &str, messages: u64, ours: &[Turn], bare: &[Turn]) {
    let rate = |turns| messages as f64 / median(turns, |turn| turn.seconds);
    let cpu = |turns| median(turns, |turn| turn.cpu_seconds) * 1e9 / messages as f64;
    eprintln!(
        "{what}: ours {:.0}/s, {:.0} ns CPU a message; librdkafka alone {:.0}/s, {:.0} ns: {:.0} % of its rate",
        rate(ours),
        cpu(ours),
        rate(bare),
        cpu(bare),
        100.0 * rate(ours) / rate(bare)
    );
}

#[test]
#[ignore = "it measures"]
fn bench() {
    let Some(brokers) = plain() else { return };
    let messages = asked("WPGEN_KAFKA_BENCH", MESSAGES);
    let turns = usize::try_from(asked("WPGEN_KAFKA_TURNS", TURNS as u64)).unwrap();
    let fresh = |what| {
        let topic = own_name(what);
        make_topic(&brokers, &topic, PARTITIONS);
        topic
    };
    let (mut ours, mut bare, mut full) = (Vec::new(), Vec::new(), String::new());
    for turn in 0..turns {
        if turn > 0 {
            delete_topic(&brokers, &full);
        }
        full = fresh("bare");
        bare.push(bare_produce(&brokers, &full, messages));
        let topic = fresh("ours");
        ours.push(our_produce(&brokers, &topic, messages));
        delete_topic(&brokers, &topic);
    }
    tell("writing", messages, &ours, &bare);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        bare.push(bare_consume(&brokers, &full, messages));
        ours.push(our_consume(&brokers, &full, messages));
    }
    tell("reading", messages, &ours, &bare);
}
