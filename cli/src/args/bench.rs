//! The grammar of `wpgen bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use engine::config::tls::{TlsConnect, TlsVersion};
use engine::config::types::OneOrMany;
use engine::config::units;

use crate::bench::message::{Format, Framing};
use crate::bench::rate::Rate;
use crate::bench::target::Target;

/// Load tests: of wpgen, or of any program that takes messages.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Send numbered messages at a rate
    #[command(after_help = SEND_EXAMPLES)]
    Send(Send),
    /// Receive what `bench send` sends: count it, check its numbers, measure its latency
    #[command(after_help = RECV_EXAMPLES)]
    Recv(Recv),
    /// Look for the messages of `bench send` in files that any program wrote
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Start wpgen on its own and measure it on this machine, also beside another program
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Look for the highest rate that keeps to a latency and a loss
    #[command(after_help = CAPACITY_EXAMPLES)]
    Capacity(Capacity),
}

/// Older spellings of `wpgen bench run` and `wpgen bench capacity`.
#[derive(Debug, Subcommand)]
pub enum Older {
    /// Measure how fast a file is read: an older spelling of `bench run --file`
    #[command(name = "benchmark", after_help = "Example:\n  wpgen source benchmark --file app.log")]
    Benchmark {
        /// The file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Measure many connections: an older spelling of `bench run --case tcp --connections`
    #[command(
        name = "load_test",
        after_help = "Example:\n  wpgen source load_test --concurrent 100 --duration 10s"
    )]
    LoadTest {
        /// Over how many connections
        #[arg(long, value_name = "C", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        concurrent: u16,
        /// How long
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
        duration: Duration,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Measure at a rate: an older spelling of `bench run --case tcp --rate`
    #[command(
        name = "stress_test",
        after_help = "Example:\n  wpgen source stress_test --rate 200k --duration 10s"
    )]
    StressTest {
        /// Messages a second
        #[arg(long, value_name = "RATE", default_value = "max")]
        rate: Rate,
        /// How long
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
        duration: Duration,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Look for the highest rate that holds: an older spelling of `bench capacity`
    #[command(name = "capacity_plan", after_help = "Example:\n  wpgen source capacity_plan --p99 10ms")]
    CapacityPlan(Capacity),
}

impl Older {
    /// The command as it is spelt today.
    pub fn today(self) -> Bench {
        match self {
            Self::Benchmark { file, json } => Bench::Run(Run { file: Some(file), json, ..Run::default() }),
            Self::LoadTest { concurrent: connections, duration, json } => {
                Bench::Run(Run { case: vec![CaseChoice::Tcp], connections, duration, json, ..Run::default() })
            }
            Self::StressTest { rate, duration, json } => {
                Bench::Run(Run { case: vec![CaseChoice::Tcp], rate, duration, json, ..Run::default() })
            }
            Self::CapacityPlan(capacity) => Bench::Capacity(capacity),
        }
    }
}

const SEND_EXAMPLES: &str = "\
Examples:
  wpgen bench send --to tcp://127.0.0.1:9000                       as fast as it is taken, for ten seconds
  wpgen bench send --to udp://10.0.0.1:514 --rate 50k --duration 1m
  wpgen bench send --to unix:/run/app.sock --rate ramp:1k..100k --duration 1m
  wpgen bench send --to tcp://10.0.0.1:514 --framing octet --sample app.log --connections 64
  wpgen bench send --to tls://logs.example.org:6514 --ca ca.pem --cert client.pem --key client.key
  wpgen bench send --to kafka://127.0.0.1:9092/logs --count 1000000
  wpgen bench send --to udp://10.0.0.1:514 --rate burst:5000/1s --count 100000";

const RECV_EXAMPLES: &str = "\
Examples:
  wpgen bench recv --listen tcp://0.0.0.0:9000
  wpgen bench recv --listen udp://127.0.0.1:5514 --sent 100000 --json
  wpgen bench recv --listen file:/var/log/app.log --plot latency.svg   follows a file that a program writes
  wpgen bench recv --listen tcp://127.0.0.1:9001 --pid 4711            what process 4711 in between takes

It ends when every connection that it heard of has ended, or nothing has come for --idle.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  wpgen bench verify out.log
  wpgen bench verify --sent 1000000 /var/log/remote/*.log

Exit code 1 when a message is missing, there twice, or changed. Another order is told and no failure.";

const RUN_EXAMPLES: &str = "\
Examples:
  wpgen bench run                                       file, TCP and UDP, one table
  wpgen bench run --case tcp --connections 64 --sink file
  wpgen bench run --file app.log                        how fast this file is read
  wpgen bench run --case file --against 'cat > /dev/null'
  wpgen bench run --case tcp --against 'syslog-ng -F -f /tmp/sng.conf'

--against starts the command in a shell, in alternation with wpgen. It finds its input in these variables:
  WPGEN_BENCH_FILE  the file, which is its standard input, too; it ends when it has read it
  WPGEN_BENCH_PORT  the port to listen on
  WPGEN_BENCH_OUT   where it may write; what is there afterwards is verified";

const CAPACITY_EXAMPLES: &str = "\
Examples:
  wpgen bench capacity                                  wpgen itself: syslog over TCP into a file
  wpgen bench capacity --p99 50ms --loss 0.1 --case udp
  wpgen bench capacity --to tcp://127.0.0.1:514 --out /var/log/remote.log      any program that writes a file

Each rate is tried on its own: the messages' latency is measured where they are written, as a reader of the file sees it.";

/// `bench send`
#[derive(Debug, Args)]
pub struct Send {
    /// Where to: udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT, unix:PATH, file:PATH or kafka://BROKERS/TOPIC, where each
    /// connection is a producer with a key of its own, so that its messages are in one partition, in order
    #[arg(long, value_name = "TARGET")]
    pub to: Target,
    /// Whom a connection with TLS trusts, and who we are
    #[command(flatten)]
    pub trust: Trust,
    /// Messages a second: 10000, 50k, 1M, max, ramp:1k..50k or burst:5000/1s
    #[arg(long, value_name = "RATE", default_value = "max")]
    pub rate: Rate,
    /// How long; ten seconds, unless --count is given
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How many messages
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub count: Option<u64>,
    /// Over how many connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// With how many threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// What the messages are like
    #[command(flatten)]
    pub messages: Messages,
    /// UDP: let the kernel cut datagrams from large buffers (UDP_SEGMENT), which is far cheaper
    #[arg(long, conflicts_with = "sample")]
    pub segment: bool,
    /// Also tell what this process takes meanwhile: CPU seconds a million messages, peak memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// How the result is shown
    #[command(flatten)]
    pub output: Output,
}

/// TLS of a sender. The receiver's certificate is always verified.
#[derive(Debug, Default, Args)]
pub struct Trust {
    /// tls://: the authorities that are trusted, a PEM file; else the system's
    #[arg(long, value_name = "PEM", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// tls://: our certificate, for receivers that ask for one
    #[arg(long, value_name = "PEM", requires = "key", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,
    /// tls://: our key
    #[arg(long, value_name = "PEM", requires = "cert", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// tls://: the name that the receiver must prove, where it is not the host of --to
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
}

impl Trust {
    /// As the engine's sinks take it.
    pub fn connect(&self) -> TlsConnect {
        TlsConnect {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            server_name: self.server_name.clone(),
            versions: OneOrMany(vec![TlsVersion::V12, TlsVersion::V13]),
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cert.is_none() && self.server_name.is_none()
    }
}

/// What messages are like.
#[derive(Debug, Args)]
pub struct Messages {
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = size)]
    pub size: usize,
    /// Send the lines of this file, then the same lines with other digits, again and again
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "size")]
    pub sample: Option<PathBuf>,
    /// How a message looks
    #[arg(long, value_enum, default_value = "rfc3164")]
    pub format: Format,
    /// How messages are kept apart in a stream
    #[arg(long, value_enum, default_value = "newline")]
    pub framing: Framing,
}

/// How a result is shown.
#[derive(Debug, Args)]
pub struct Output {
    /// Draw throughput over time, and the latencies if there are any
    #[arg(long, value_name = "OUT.SVG", value_hint = ValueHint::FilePath)]
    pub plot: Option<PathBuf>,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `bench recv`
#[derive(Debug, Args)]
pub struct Recv {
    /// Where: udp://HOST:PORT, tcp://HOST:PORT, unix:PATH, or file:PATH to follow a file
    #[arg(long, value_name = "TARGET")]
    pub listen: Target,
    /// How many messages were sent, so that those missing at the end are known, too
    #[arg(long, value_name = "N")]
    pub sent: Option<u64>,
    /// End once at least so many messages have come
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// End when nothing has come for this time, once something has
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub idle: Duration,
    /// Also tell what this process takes meanwhile: CPU seconds a million messages, peak memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// How the result is shown
    #[command(flatten)]
    pub output: Output,
}

/// `bench verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The files, in the order in which they were written; - is standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// How many messages were sent, so that those missing at the end are known, too
    #[arg(long, value_name = "N")]
    pub sent: Option<u64>,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// `bench run`
#[derive(Debug, Args)]
pub struct Run {
    /// What comes in; several with commas
    #[arg(long, value_enum, value_name = "CASE", value_delimiter = ',', default_value = "all")]
    pub case: Vec<CaseChoice>,
    /// Another program to measure on the same input, in alternation: a shell command
    #[arg(long, value_name = "COMMAND")]
    pub against: Option<String>,
    /// How often each is measured; the median is shown. Once, or three times with --against
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: Option<u32>,
    /// How long messages are sent each time
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub duration: Duration,
    /// Messages a second: 10000, 50k, 1M, max, ramp:1k..50k or burst:5000/1s
    #[arg(long, value_name = "RATE", default_value = "max")]
    pub rate: Rate,
    /// Over how many connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// With how many sending threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Read this file, instead of one that is made up
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Messages of the file that is made up
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub messages: u64,
    /// Where wpgen's records go: blackhole, or a file, which is then verified
    #[arg(long, value_enum, value_name = "SINK", default_value = "blackhole", hide_possible_values = true)]
    pub sink: SinkChoice,
    /// Where files are made
    #[arg(long, value_name = "DIR", default_value = "/tmp", value_hint = ValueHint::DirPath)]
    pub scratch: PathBuf,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            case: vec![CaseChoice::All],
            against: None,
            rounds: None,
            duration: Duration::from_secs(5),
            rate: Rate::Max,
            connections: 1,
            threads: 1,
            file: None,
            messages: 2_000_000,
            sink: SinkChoice::Blackhole,
            scratch: PathBuf::from("/tmp"),
            json: false,
        }
    }
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaseChoice {
    /// A file, read to its end
    File,
    /// Syslog over TCP
    Tcp,
    /// Syslog over UDP
    Udp,
    /// Each of them
    All,
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SinkChoice {
    /// Nowhere
    Blackhole,
    /// Into a file
    File,
}

/// `bench capacity`
#[derive(Debug, Args)]
pub struct Capacity {
    /// The latency that 99 % of the messages have to keep to
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub p99: Duration,
    /// Percent of the messages that may be lost
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub loss: f64,
    /// How messages come in, where wpgen itself is measured
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value = "tcp")]
    pub case: Network,
    /// Measure a program that runs already: where it takes messages
    #[arg(long, value_name = "TARGET", requires = "out", conflicts_with = "case")]
    pub to: Option<Target>,
    /// The file that this program writes
    #[arg(long, value_name = "FILE", requires = "to", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// How long each rate is tried
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub trial: Duration,
    /// Over how many connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// With how many sending threads
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Where wpgen's file is made
    #[arg(long, value_name = "DIR", default_value = "/tmp", value_hint = ValueHint::DirPath)]
    pub scratch: PathBuf,
    /// As JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// How messages come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// Syslog over TCP
    Tcp,
    /// Syslog over UDP
    Udp,
}

fn percent(text: &str) -> Result<f64, String> {
    let read = text.parse().ok().filter(|percent| (0.0..100.0).contains(percent));
    read.ok_or_else(|| "expected a number of percent from 0 to 100".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let read = units::parse_duration(text).filter(|duration| !duration.is_zero());
    read.ok_or_else(|| "expected a time with its unit, for example 30s, 500ms or 5m".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let read = units::Size::parse(text).map(units::Size::bytes).filter(|bytes| *bytes <= 1 << 20);
    read.ok_or_else(|| "expected a number of bytes up to 1MiB, for example 256 or 4k".to_owned())
}
