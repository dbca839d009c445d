//! One measurement: one contender, one kind of input, one load.
//!
//! A file is measured from the contender's start to its end. A network load is measured from the first message until the
//! kernel holds nothing more for the contender, so that a large socket buffer makes nobody faster.

mod contender;
mod program;
pub mod queues;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::account::{Account, Ledger};
use super::clock::Used;
use super::rate::{Plan, Rate};
use super::sender::{self, Settings};
use super::target::Target;
use super::verify;
use super::watch::Watch;
use crate::control;
use crate::printer::Printer;
use contender::Input;
pub use contender::{Contender, Site};
use program::{Ended, Program};
use queues::Protocol;

/// How long a contender may take to listen.
const LISTEN_MAX: Duration = Duration::from_secs(15);
/// How long what was sent may take to be read.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A file, read to its end
    File,
    /// Syslog over TCP
    Tcp,
    /// Syslog over UDP
    Udp,
}

impl Case {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The load of a measurement.
#[derive(Clone, Debug)]
pub struct Load {
    /// The file of the file case, its lines and its bytes.
    pub file: Option<(PathBuf, u64, u64)>,
    /// How fast messages are sent.
    pub rate: Rate,
    /// How long.
    pub duration: Duration,
    /// How; target and plan are put in for each measurement.
    pub settings: Settings,
    /// Where contenders have their folders.
    pub folder: PathBuf,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Messages that arrived.
    pub messages: u64,
    /// Messages that did not; none when nobody can know.
    pub lost: Option<u64>,
    /// Bytes that arrived, about.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// What the contender used.
    pub used: Used,
    /// What became of the messages, where the contender wrote them to a file.
    pub account: Option<Account>,
}

/// Measures one contender; none when somebody asked for the end.
pub fn measure(
    case: Case,
    contender: &Contender,
    load: &Load,
    watch: &mut Watch,
    printer: &Printer,
) -> Result<Option<Measured>, String> {
    match (case, &load.file) {
        (Case::File, Some((path, lines, bytes))) => {
            file(contender, load, (path.clone(), *lines, *bytes), watch)
        }
        (Case::File, None) => Err("a file to read is missing".to_owned()),
        (Case::Tcp, _) => network(Protocol::Tcp, contender, load, watch, printer),
        (Case::Udp, _) => network(Protocol::Udp, contender, load, watch, printer),
    }
}

fn file(
    contender: &Contender,
    load: &Load,
    (path, lines, bytes): (PathBuf, u64, u64),
    watch: &mut Watch,
) -> Result<Option<Measured>, String> {
    let site = Site::new(&load.folder)?;
    let mut program = start(&site, contender, &Input::File(path))?;
    let Some(ended) = program.wait(|| watch.asked().is_none()) else { return Ok(None) };
    if ended.code != Some(0) {
        return Err(died(contender, "failed", ended, &site));
    }
    let account = written(&site)?;
    let lost = account.map(|account| account.with_sent(lines).lost);
    Ok(Some(Measured {
        messages: lines - lost.unwrap_or(0),
        lost,
        bytes,
        took: ended.took,
        used: ended.used,
        account,
    }))
}

fn network(
    protocol: Protocol,
    contender: &Contender,
    load: &Load,
    watch: &mut Watch,
    printer: &Printer,
) -> Result<Option<Measured>, String> {
    let site = Site::new(&load.folder)?;
    let port = free_port(protocol).map_err(|e| format!("no port is free: {e}"))?;
    let Some(mut program) = listening(&site, contender, protocol, port, watch)? else { return Ok(None) };
    let settings = aimed(load, protocol, port);
    let began = Instant::now();
    let sender = sender::start(&settings)?;
    let seen = watch.until_done(&sender, printer);
    let sent = sender.join();
    if seen.stop.is_some() {
        return Ok(None);
    }
    let deadline = Instant::now() + DRAIN_MAX;
    while queues::waiting(protocol, port) > 0 && Instant::now() < deadline {
        if let Some(ended) = program.ended() {
            return Err(died(contender, "ended under load", ended, &site));
        }
        std::thread::sleep(LOOK);
    }
    let took = began.elapsed();
    let dropped = (protocol == Protocol::Udp).then(|| queues::drops(port));
    let taken = matches!(contender, Contender::Engine { .. }).then(|| taken(&site, sent.messages));
    let ended = program.end().ok_or_else(|| format!("{} does not end", contender.name()))?;
    let account = written(&site)?;
    let lost = account
        .map(|account| account.with_sent(sent.messages).lost)
        .or(taken.map(|taken| sent.messages.saturating_sub(taken)))
        .or(dropped);
    let messages = sent.messages - lost.unwrap_or(0).min(sent.messages);
    let bytes = (sent.bytes as f64 * messages as f64 / sent.messages.max(1) as f64) as u64;
    Ok(Some(Measured { messages, lost, bytes, took, used: ended.used, account }))
}

/// The load's settings, to a port on this machine.
fn aimed(load: &Load, protocol: Protocol, port: u16) -> Settings {
    let address = format!("127.0.0.1:{port}");
    let mut settings = load.settings.clone();
    settings.plan = Plan::new(load.rate, Some(load.duration.as_secs_f64()), None);
    settings.until = Some(load.duration);
    match protocol {
        Protocol::Tcp => settings.target = Target::Tcp(address),
        Protocol::Udp => {
            settings.target = Target::Udp(address);
            settings.kind.framing = None;
        }
    }
    settings
}

fn start(site: &Site, contender: &Contender, input: &Input) -> Result<Program, String> {
    let command = site.command(contender, input)?;
    Program::start(command).map_err(|e| format!("cannot start {}: {e}", contender.name()))
}

/// How a contender ended that was not to, and what it said.
fn died(contender: &Contender, how: &str, ended: Ended, site: &Site) -> String {
    let status = ended.code.map_or_else(|| "by a signal".to_owned(), |code| format!("exit status {code}"));
    let said = site.said();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("{} {how} ({status}){said}", contender.name())
}

/// Starts a contender and waits until it listens; none when somebody asked for the end.
pub fn listening(
    site: &Site,
    contender: &Contender,
    protocol: Protocol,
    port: u16,
    watch: &mut Watch,
) -> Result<Option<Program>, String> {
    let input = match protocol {
        Protocol::Tcp => Input::Tcp(port),
        Protocol::Udp => Input::Udp(port),
    };
    let mut program = start(site, contender, &input)?;
    let deadline = Instant::now() + LISTEN_MAX;
    while !queues::is_open(protocol, port) {
        if let Some(ended) = program.ended() {
            return Err(died(contender, "ended before it listened", ended, site));
        }
        if watch.asked().is_some() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{} does not listen on port $WPGEN_BENCH_PORT, which is {port}",
                contender.name()
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(Some(program))
}

/// Records that the engine has taken in; waits as long as there are more and more.
fn taken(site: &Site, sent: u64) -> u64 {
    let (mut taken, mut changed) = (0, Instant::now());
    while taken < sent && changed.elapsed() < Duration::from_secs(1) {
        let health = control::ask(&site.data(), "GET", "/api/system/health");
        let now = health.ok().and_then(|health| health["records_in"].as_u64()).unwrap_or(taken);
        if now != taken {
            (taken, changed) = (now, Instant::now());
        }
        std::thread::sleep(LOOK);
    }
    taken
}

/// The account of what a contender wrote, if it wrote.
fn written(site: &Site) -> Result<Option<Account>, String> {
    let path = site.output();
    if !path.exists() {
        return Ok(None);
    }
    let mut ledger = Ledger::default();
    verify::file(&path, &mut ledger)?;
    let account = ledger.account();
    Ok((account.connections > 0).then_some(account))
}

/// A port of this machine that nobody has right now.
pub fn free_port(protocol: Protocol) -> std::io::Result<u16> {
    let address = match protocol {
        Protocol::Tcp => std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        Protocol::Udp => std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?,
    };
    Ok(address.port())
}
