//! Our rate and CPU beside those of `rdkafka_performance`, librdkafka's own tool, on one broker, by turns: what the engine adds.
//!
//! ```text
//! cargo test --release -p wpgen --test kafka bench -- --ignored --nocapture --test-threads=1
//! cargo test ... bench::reading                           one of the two
//! WPGEN_KAFKA_BENCH=10000000     messages of 250 bytes, in place of two million
//! WPGEN_KAFKA_TURNS=5            turns of each, whose median counts
//! ```
//!
//! Writing comes from a file in the page cache, reading goes into `blackhole`. With transactions, a file is written in some,
//! and a topic is read into another one. The tool has the settings that the engine has, and sends one message over and over.
//! It is built of the sources that the `rdkafka` crate bundles, with the libraries of this very build.
//!
//! Whoever misses a message has failed: each turn's messages are counted, and what our last turns wrote is read back, where
//! each number has to be once.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::broker::plain;
use crate::harness::{Site, Started, status};
use crate::oracle::{delete_topic, make_topic_with, own_name};

const PARTITIONS: i32 = 12;
const BYTES: usize = 250;
const MESSAGES: u64 = 2_000_000;
const TURNS: usize = 5;
/// Topics that are done with make room at once.
const PASSING: [(&str, &str); 1] = [("file.delete.delay.ms", "1000")];

fn asked(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

/// A turn: how long it took, and CPU time of the client's process.
#[derive(Clone, Copy)]
struct Turn {
    seconds: f64,
    cpu_seconds: f64,
}

/// A place to measure at, and how much.
struct Bench {
    brokers: String,
    messages: u64,
    tool: PathBuf,
    /// The lines to write, with the folder that they are in.
    lines: Site,
}

/// CPU time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    let ticks = words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// CPU time of all processes that have ended and were waited for, in seconds.
fn cpu_seconds_ended() -> f64 {
    // SAFETY: zeroes are a usage, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Builds `rdkafka_performance` beside the program under test.
fn build_tool() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_wpgen")).parent().unwrap();
    let built = |of: &str, file: &str| {
        let entries = std::fs::read_dir(folder.join("build")).unwrap().map(|entry| entry.unwrap());
        let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(of));
        let found = of_it.map(|entry| entry.path().join("out").join(file)).find(|path| path.exists());
        found.unwrap_or_else(|| panic!("{file} of {of} is not in {}", folder.display()))
    };
    let tool = folder.join("rdkafka_performance");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-w", "-o"]).arg(&tool).arg("-I").arg(built("rdkafka-sys-", "src"));
    gcc.arg(built("rdkafka-sys-", "examples/rdkafka_performance.c"));
    gcc.arg(built("rdkafka-sys-", "src/librdkafka.a"));
    gcc.arg(built("openssl-sys-", "openssl-build/install/lib/libssl.a"));
    gcc.arg(built("openssl-sys-", "openssl-build/install/lib/libcrypto.a"));
    gcc.arg(built("zstd-sys-", "libzstd.a")).arg(built("libz-sys-", "lib/libz.a"));
    let ran = gcc.args(["-lm", "-lpthread", "-ldl", "-lrt"]).output().expect("gcc is there");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    tool
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

/// A folder with the file `lines` of so many.
fn lines(messages: u64) -> Site {
    let site = Site::empty();
    let mut file = std::io::BufWriter::new(std::fs::File::create(site.path("lines")).unwrap());
    let mut text = String::new();
    for number in 0..messages {
        line(number, &mut text);
        writeln!(file, "{text}").unwrap();
    }
    file.flush().unwrap();
    site
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

/// Figures of a contestant.
struct Row {
    what: &'static str,
    turns: Vec<Turn>,
}

/// The median, and the median of what the others are away from it.
fn median(of: &[f64]) -> (f64, f64) {
    let middle = |mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let median = middle(of.to_vec());
    (median, middle(of.iter().map(|figure| (figure - median).abs()).collect()))
}

/// A table, of which the first row is what the others are measured by.
fn tell(what: &str, messages: u64, rows: &[Row]) {
    let turns = rows[0].turns.len();
    eprintln!(
        "\n{what}: {messages} messages of {BYTES} bytes, {PARTITIONS} partitions; median and MAD of {turns} turns"
    );
    let mut by = None;
    for Row { what, turns } in rows {
        let rates: Vec<f64> = turns.iter().map(|turn| messages as f64 / turn.seconds).collect();
        let cpu: Vec<f64> = turns.iter().map(|turn| turn.cpu_seconds * 1e9 / messages as f64).collect();
        let ((rate, rate_off), (cpu, cpu_off)) = (median(&rates), median(&cpu));
        let share = 100.0 * rate / *by.get_or_insert(rate);
        eprintln!(
            "{what:28} {rate:9.0}/s +-{rate_off:7.0} {cpu:7.0} ns CPU a message +-{cpu_off:5.0} {share:5.0} %"
        );
    }
}

impl Bench {
    fn new(brokers: String) -> Self {
        let messages = asked("WPGEN_KAFKA_BENCH", MESSAGES);
        Self { brokers, messages, tool: build_tool(), lines: lines(messages) }
    }

    fn fresh(&self, what: &str) -> String {
        let topic = own_name(what);
        make_topic_with(&self.brokers, &topic, PARTITIONS, &PASSING);
        topic
    }

    /// Messages in a topic, and marks of transactions.
    fn held(&self, topic: &str) -> u64 {
        let consumer: BaseConsumer = client(&self.brokers).create().unwrap();
        let end = |partition| consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap().1;
        u64::try_from((0..PARTITIONS).map(end).sum::<i64>()).unwrap()
    }

    /// Runs the tool, and returns its words too.
    fn tool(&self, mode: &[&str], topic: &str, settings: &[&str]) -> (Turn, String) {
        let mut tool = Command::new(&self.tool);
        tool.args(mode).args(["-t", topic, "-b", &self.brokers, "-c", &self.messages.to_string()]);
        settings.iter().for_each(|setting| {
            tool.args(["-X", setting]);
        });
        let (began, before) = (Instant::now(), cpu_seconds_ended());
        let ran = tool.output().unwrap();
        let turn = Turn { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds_ended() - before };
        let words = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert!(ran.status.success(), "{words}");
        (turn, words)
    }

    fn their_writing(&self, topic: &str) -> Turn {
        let mode = ["-P", "-q", "-s", &BYTES.to_string(), "-a", "-1"];
        let (turn, words) = self.tool(&mode, topic, &["enable.idempotence=true"]);
        assert_eq!(self.held(topic), self.messages, "{words}");
        turn
    }

    fn their_reading(&self, topic: &str) -> Turn {
        let settings = [
            "auto.offset.reset=earliest",
            "enable.auto.commit=false",
            "queued.max.messages.kbytes=16384",
            "partition.assignment.strategy=cooperative-sticky",
        ];
        let (turn, words) = self.tool(&["-G", &own_name("theirs")], topic, &settings);
        assert!(words.contains(&format!("{} messages (", self.messages)), "{words}");
        turn
    }

    fn our_writing(&self, topic: &str, more: &str) -> Turn {
        let path = self.lines.path("lines").display().to_string();
        let source = format!("connect = \"file_src\"\nparams = {{ path = \"{path}\" }}");
        engine(&configured(&source, &self.sink(topic, more)), self.messages)
    }

    fn our_reading(&self, topic: &str, sink: &str) -> Turn {
        let source = format!(
            "connect = \"kafka_src\"\nparams = {{ brokers = \"{}\", topic = \"{topic}\", group_id = \"{}\" }}",
            self.brokers,
            own_name("ours")
        );
        engine(&configured(&source, sink), self.messages)
    }

    fn sink(&self, topic: &str, more: &str) -> String {
        let brokers = &self.brokers;
        format!("connect = \"kafka_sink\"\nparams = {{ brokers = \"{brokers}\", topic = \"{topic}\"{more} }}")
    }

    /// Reads a topic back: each number is there once, and whole.
    fn is_whole(&self, topic: &str) {
        let mut config = client(&self.brokers);
        config.set("group.id", own_name("back")).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.set("isolation.level", "read_committed").create().unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let mut seen = vec![false; usize::try_from(self.messages).unwrap()];
        for taken in 0..self.messages {
            let message = consumer.poll(Duration::from_secs(30));
            let message =
                message.unwrap_or_else(|| panic!("{taken} of {} in {topic}", self.messages)).unwrap();
            let payload = message.payload().unwrap();
            let number: usize = std::str::from_utf8(&payload[..12]).unwrap().parse().unwrap();
            assert!(payload.len() == BYTES && !std::mem::replace(&mut seen[number], true), "{number} again");
        }
        let more = consumer.poll(Duration::from_secs(1)).map(|message| message.unwrap().offset());
        assert_eq!(more, None, "there are more than {} in {topic}", self.messages);
    }
}

const TRANSACTIONAL: &str = ", transactional = true";

fn turns() -> usize {
    usize::try_from(asked("WPGEN_KAFKA_TURNS", TURNS as u64)).unwrap()
}

fn rows() -> [Row; 3] {
    ["rdkafka_performance", "wpgen", "wpgen, in transactions"].map(|what| Row { what, turns: Vec::new() })
}

#[test]
#[ignore = "it measures"]
fn writing() {
    let Some(brokers) = plain() else { return };
    let bench = Bench::new(brokers);
    let (turns, mut writing) = (turns(), rows());
    for turn in 1..=turns {
        let [theirs, ours, exactly] = ["theirs", "ours", "exactly"].map(|what| bench.fresh(what));
        writing[0].turns.push(bench.their_writing(&theirs));
        writing[1].turns.push(bench.our_writing(&ours, ""));
        assert_eq!(bench.held(&ours), bench.messages);
        writing[2].turns.push(bench.our_writing(&exactly, TRANSACTIONAL));
        if turn == turns {
            bench.is_whole(&ours);
            bench.is_whole(&exactly);
        }
        [&theirs, &ours, &exactly].into_iter().for_each(|topic| delete_topic(&bench.brokers, topic));
    }
    tell("writing", bench.messages, &writing);
}

#[test]
#[ignore = "it measures"]
fn reading() {
    let Some(brokers) = plain() else { return };
    let bench = Bench::new(brokers);
    let (turns, mut reading) = (turns(), rows());
    let full = bench.fresh("full");
    bench.our_writing(&full, "");
    bench.is_whole(&full);
    for turn in 1..=turns {
        reading[0].turns.push(bench.their_reading(&full));
        reading[1].turns.push(bench.our_reading(&full, "connect = \"blackhole_sink\""));
        let exactly = bench.fresh("exactly");
        reading[2].turns.push(bench.our_reading(&full, &bench.sink(&exactly, TRANSACTIONAL)));
        if turn == turns {
            bench.is_whole(&exactly);
        }
        delete_topic(&bench.brokers, &exactly);
    }
    delete_topic(&bench.brokers, &full);
    tell("reading", bench.messages, &reading);
}
