//! The grammar of `wpgen bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueHint};
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
}

const SEND_EXAMPLES: &str = "\
Examples:
  wpgen bench send --to tcp://127.0.0.1:9000                       as fast as it is taken, for ten seconds
  wpgen bench send --to udp://10.0.0.1:514 --rate 50k --duration 1m
  wpgen bench send --to unix:/run/app.sock --rate ramp:1k..100k --duration 1m
  wpgen bench send --to tcp://10.0.0.1:514 --framing octet --sample app.log --connections 64
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

/// `bench send`
#[derive(Debug, Args)]
pub struct Send {
    /// Where to: udp://HOST:PORT, tcp://HOST:PORT, unix:PATH or file:PATH
    #[arg(long, value_name = "TARGET")]
    pub to: Target,
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
    /// End after so many messages
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

fn duration(text: &str) -> Result<Duration, String> {
    let read = units::parse_duration(text).filter(|duration| !duration.is_zero());
    read.ok_or_else(|| "expected a time with its unit, for example 30s, 500ms or 5m".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let read = units::Size::parse(text).map(units::Size::bytes).filter(|bytes| *bytes <= 1 << 20);
    read.ok_or_else(|| "expected a number of bytes up to 1MiB, for example 256 or 4k".to_owned())
}
