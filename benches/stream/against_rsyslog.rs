//! The same work by rsyslog: what its whole process takes for a message, and what ours does, in alternation.
//!
//! rsyslog gets what its manual has for speed: imptcp; imudp, which takes datagrams in batches; a ruleset that parses
//! and discards, or writes to a file. Its own counters (impstats) say how many messages came.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::clock::{self, Meter, SENDER_CPU, on_cpu, process_ns};
use crate::message::Messages;
use crate::receiver::{PATIENCE, Receiver, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};
use crate::table::{Run, Table};

/// How often rsyslog's counters are looked at, and written by it.
const LOOK: Duration = Duration::from_millis(100);

struct Work {
    ours: &'static str,
    theirs: &'static str,
    udp: bool,
    to_file: bool,
    how: How,
    messages: u64,
    /// How many times less CPU a message ours may take.
    times_less: Option<f64>,
}

const WORK: [Work; 5] = [
    Work {
        ours: "tcp, large writes: wpgen",
        theirs: "tcp, large writes: rsyslog imptcp",
        udp: false,
        to_file: false,
        how: How::new(1, 256),
        messages: 1_000_000,
        times_less: Some(8.0),
    },
    Work {
        ours: "tcp, a send each: wpgen",
        theirs: "tcp, a send each: rsyslog imptcp",
        udp: false,
        to_file: false,
        how: How::new(1, 1),
        messages: 500_000,
        times_less: None,
    },
    Work {
        ours: "tcp, a send each, 64 conn.: wpgen",
        theirs: "tcp, a send each, 64 conn.: rsyslog imptcp",
        udp: false,
        to_file: false,
        how: How::new(64, 1),
        messages: 500_000,
        times_less: None,
    },
    Work {
        ours: "tcp, large writes, into a file: wpgen",
        theirs: "tcp, large writes, into a file: rsyslog imptcp",
        udp: false,
        to_file: true,
        how: How::new(1, 256),
        messages: 1_000_000,
        times_less: None,
    },
    Work {
        ours: "udp: wpgen",
        theirs: "udp: rsyslog imudp",
        udp: true,
        to_file: false,
        how: How::new(1, 1),
        messages: 300_000,
        times_less: Some(2.0),
    },
];

/// Measures both, `runs` times in alternation; nothing where there is no rsyslog.
pub fn measure(runs: usize, part: u64) -> Option<Table> {
    Command::new("rsyslogd").arg("-v").stdout(Stdio::null()).status().ok()?;
    let mut table = Table::default();
    for _ in 0..runs {
        for work in &WORK {
            table.add(work.theirs, None, work.by_rsyslog(work.messages / part));
            table.add(work.ours, None, work.by_wpgen(work.messages / part));
        }
    }
    Some(table)
}

/// How many times less ours takes.
pub fn print_ratios(table: &Table) {
    for work in &WORK {
        if let (Some(ours), Some(theirs)) = (table.ns(work.ours), table.ns(work.theirs)) {
            let target = work.times_less.map_or_else(String::new, |times| format!(" (target: {times})"));
            println!("{}: {:.1} times less than rsyslog{target}", work.ours, theirs / ours);
        }
    }
}

impl Work {
    fn sender(&self, at: SocketAddr) -> Sender {
        let (to, last) = if self.udp { (To::Udp(at), b'.') } else { (To::Tcp(at), b'\n') };
        Sender::new(Messages::new(last, false), &to, self.how)
    }

    fn by_wpgen(&self, messages: u64) -> Run {
        let at = free_port(self.udp);
        let source =
            syslog_source("s", at, if self.udp { "udp" } else { "tcp" }, ", header_mode = \"parse\"");
        let sink = if self.to_file {
            sink("f", "file_sink", "*", "path = \"./out\"")
        } else {
            sink("b", "blackhole_sink", "*", "")
        };
        let receiver = Receiver::start(&(source + &sink));
        let mut sender = self.sender(at);
        let meter = Meter::start(std::process::id());
        let (sent, sender_ns) = on_cpu(SENDER_CPU, || sender.send(messages));
        let lost = receiver.watch.account_for(sent, true);
        let took = meter.stop(sender_ns);
        drop(sender);
        receiver.end();
        Run { took, messages: sent - lost, lost }
    }

    fn by_rsyslog(&self, messages: u64) -> Run {
        let at = free_port(self.udp);
        let rsyslog = Rsyslog::start(self, at);
        let mut sender = self.sender(at);
        let meter = Meter::start(rsyslog.pid());
        let (sent, _) = on_cpu(SENDER_CPU, || sender.send(messages));
        rsyslog.is_quiet();
        let took = meter.stop(0);
        drop(sender);
        let received = rsyslog.received();
        assert!(received <= sent && (self.udp || received == sent), "{received} of {sent}");
        Run { took, messages: received, lost: sent - received }
    }
}

/// A running rsyslogd on the receiver's CPU.
struct Rsyslog {
    child: Child,
    folder: tempfile::TempDir,
}

impl Rsyslog {
    fn start(work: &Work, at: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the bench");
        let file = folder.path().join("rsyslog.conf");
        fs::write(&file, configuration(folder.path(), work, at)).expect("room for a configuration");
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(&file).arg("-i").arg(folder.path().join("pid"));
        // Its threads inherit where the one runs that starts it.
        let (child, _) = on_cpu(clock::RECEIVER_CPU, || command.spawn().expect("rsyslogd starts"));
        let rsyslog = Self { child, folder };
        let start = Instant::now();
        while !rsyslog.listens(work, at) {
            assert!(start.elapsed() < PATIENCE, "rsyslogd listens");
            std::thread::sleep(LOOK);
        }
        rsyslog.is_quiet();
        rsyslog
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its port is taken.
    fn listens(&self, work: &Work, at: SocketAddr) -> bool {
        if work.udp { UdpSocket::bind(at).is_err() } else { TcpStream::connect(at).is_ok() }
    }

    /// Waits until it has nothing to do.
    fn is_quiet(&self) {
        let start = Instant::now();
        loop {
            let before = process_ns(self.pid());
            std::thread::sleep(2 * LOOK);
            // What its counters and timers take is far below this.
            if process_ns(self.pid()) - before < 1_000_000 {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "rsyslogd comes to rest");
        }
    }

    /// Messages that it says have come.
    fn received(&self) -> u64 {
        let file = self.folder.path().join("stats");
        // The counters that are written next are the last ones.
        let written = || fs::metadata(&file).map_or(0, |meta| meta.len());
        let (before, start) = (written(), Instant::now());
        while written() == before {
            assert!(start.elapsed() < PATIENCE, "rsyslogd writes its counters");
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(LOOK);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let submitted = text.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once("\"submitted\": ")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        submitted.expect("rsyslogd counts what came")
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, work: &Work, at: SocketAddr) -> String {
    let folder = folder.display();
    let module = if work.udp { "imudp" } else { "imptcp" };
    let buffer = if work.udp { " rcvbufSize=\"8m\"" } else { "" };
    let action =
        if work.to_file { format!("action(type=\"omfile\" file=\"{folder}/out\")") } else { "stop".into() };
    format!(
        r#"global(workDirectory="{folder}")
module(load="impstats" interval="1" format="json" log.syslog="off" log.file="{folder}/stats")
module(load="{module}")
action(type="omfile" file="/dev/null")
ruleset(name="r") {{ {action} }}
input(type="{module}" address="{}" port="{}" ruleset="r"{buffer})
"#,
        at.ip(),
        at.port()
    )
}
