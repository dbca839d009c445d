//! The rows of the table: what is sent to what, and the CPU time it may cost.

use std::process::Command;
use std::sync::{Barrier, mpsc};

use crate::clock::{Meter, SENDER_CPU, thread_ns};
use crate::floor;
use crate::message::Messages;
use crate::receiver::{Receiver, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};
use crate::table::{Run, Table};

/// Messages of a large write: 64 000 bytes.
const LARGE: usize = 256;
/// Messages of a datagram that the kernel cuts.
const SEGMENTS: usize = 64;
/// Messages a second of such datagrams where the kernel merges them, in millions: what any receiver has time for.
const GRO_MILLIONS: f64 = 3.0;

/// What a row's receiver is.
#[derive(Clone, Copy)]
enum At {
    /// The engine over TCP, with what the source is told beside its address, and its sink.
    Tcp(&'static str, Sink),
    Tls,
    Unix,
    Udp(&'static str),
    /// Reads that only copy; streams with this SO_RCVLOWAT.
    FloorTcp(i32),
    /// The same of datagrams, merged or not.
    FloorUdp(bool),
    /// Records from memory into a file, written and synced as the file sink does.
    FloorFile,
}

#[derive(Clone, Copy)]
enum Sink {
    Blackhole,
    File(&'static str),
}

struct Row {
    name: &'static str,
    at: At,
    how: How,
    elements: bool,
    target_ns: Option<f64>,
    /// Messages of a run, in thousands.
    thousands: u64,
}

impl Row {
    /// A row of messages without structured data and without a target.
    const fn new(name: &'static str, at: At, connections: usize, each: usize, thousands: u64) -> Self {
        let how = How::new(connections, each);
        Self { name, at, how, elements: false, target_ns: None, thousands }
    }

    const fn at_most(mut self, ns: f64) -> Self {
        self.target_ns = Some(ns);
        self
    }

    /// The sender rests between calls: one that never does is faster than any receiver, and what is lost is no figure.
    const fn paced(mut self, millions: f64) -> Self {
        self.how.at_most = Some(millions);
        self
    }

    const fn with_elements(mut self) -> Self {
        self.elements = true;
        self
    }
}

const TCP: At = At::Tcp("", Sink::Blackhole);
const STRIP: At = At::Tcp(", header_mode = \"strip\"", Sink::Blackhole);
const KEEP: At = At::Tcp(", header_mode = \"keep\"", Sink::Blackhole);
const RAW: At = At::Tcp("", Sink::File("raw"));
const NDJSON: At = At::Tcp("", Sink::File("ndjson"));

const PLAIN: &str = "tcp, large writes";
const RAW_FILE: &str = "tcp, large writes, into a file, raw";
const FLOOR_FILE: &str = "floor: file, the same records from memory";
const TLS: &str = "tls, large writes";

/// The rows that say what a file costs.
pub const INTO_FILE: [&str; 3] = [FLOOR_FILE, PLAIN, RAW_FILE];

const ROWS: &[Row] = &[
    Row::new("floor: tcp, large writes, copied", At::FloorTcp(1), 1, LARGE, 4000),
    Row::new("floor: tcp, large writes, 256 conn., copied", At::FloorTcp(1), 256, LARGE, 4000),
    Row::new("floor: tcp, a send each, copied", At::FloorTcp(1), 1, 1, 500),
    Row::new("floor: tcp, a send each, 64 KiB mark", At::FloorTcp(64 << 10), 1, 1, 1000),
    Row::new("floor: tcp, a send each, 64 conn., copied", At::FloorTcp(1), 64, 1, 500),
    Row::new("floor: udp, recvmmsg", At::FloorUdp(false), 1, 1, 500),
    Row::new("floor: udp, gro, UDP_SEGMENT", At::FloorUdp(true), 1, SEGMENTS, 2000).paced(GRO_MILLIONS),
    Row::new(FLOOR_FILE, At::FloorFile, 1, LARGE, 4000),
    Row::new(PLAIN, TCP, 1, LARGE, 4000).at_most(130.0),
    Row::new("tcp, large writes, with an SD element", TCP, 1, LARGE, 4000).with_elements(),
    Row::new("tcp, large writes, header_mode = strip", STRIP, 1, LARGE, 4000),
    Row::new("tcp, large writes, header_mode = keep", KEEP, 1, LARGE, 4000),
    Row::new("tcp, large writes, 256 connections", TCP, 256, LARGE, 4000).at_most(160.0),
    Row::new("tcp, a send each", TCP, 1, 1, 1000).at_most(250.0),
    Row::new("tcp, a send each, 64 connections", TCP, 64, 1, 1000).at_most(600.0),
    Row::new(RAW_FILE, RAW, 1, LARGE, 16_000),
    Row::new("tcp, large writes, into a file, ndjson", NDJSON, 1, LARGE, 8000),
    Row::new(TLS, At::Tls, 1, LARGE, 4000),
    Row::new("unix stream, large writes", At::Unix, 1, LARGE, 4000),
    Row::new("udp", At::Udp(""), 1, 1, 500).at_most(1300.0),
    Row::new("udp, UDP_SEGMENT sender, gro off", At::Udp(""), 1, SEGMENTS, 1000),
    Row::new("udp, gro, UDP_SEGMENT sender", At::Udp(", gro = true"), 1, SEGMENTS, 2000)
        .at_most(250.0)
        .paced(GRO_MILLIONS),
];

/// Measures the rows whose names are `chosen`, `runs` times in alternation, each with `1 / part` of its messages.
pub fn measure(chosen: impl Fn(&str) -> bool, runs: usize, part: u64) -> Table {
    let mut table = Table::default();
    for _ in 0..runs {
        for row in ROWS.iter().filter(|row| chosen(row.name)) {
            table.add(row.name, row.target_ns, row.run(row.thousands * 1000 / part));
        }
    }
    table
}

/// What a file costs more than a blackhole, and how far rows are from their floors.
pub fn print_differences(table: &Table) {
    let ns = |name: &str| table.ns(name);
    for format in ["raw", "ndjson"] {
        if let (Some(into), Some(base)) = (ns(&format!("{PLAIN}, into a file, {format}")), ns(PLAIN)) {
            println!("into a file, {format}: {:.1} ns a message more (raw: target 60)", into - base);
        }
    }
    if let (Some(tls), Some(base)) = (table.per_second(TLS), table.per_second(PLAIN)) {
        println!("{TLS}: {:.0} % of the plain rate (target 50)", tls * 100.0 / base);
    }
    for (name, floor) in [
        (PLAIN, "floor: tcp, large writes, copied"),
        ("tcp, large writes, 256 connections", "floor: tcp, large writes, 256 conn., copied"),
        ("tcp, a send each", "floor: tcp, a send each, 64 KiB mark"),
        ("udp", "floor: udp, recvmmsg"),
        ("udp, gro, UDP_SEGMENT sender", "floor: udp, gro, UDP_SEGMENT"),
    ] {
        if let (Some(ns), Some(floor)) = (ns(name), ns(floor)) {
            println!("{name}: {:.2} times its floor", ns / floor);
        }
    }
}

impl Row {
    fn run(&self, messages: u64) -> Run {
        let last = if matches!(self.at, At::Udp(_)) { b'.' } else { b'\n' };
        let payload = Messages::new(last, self.elements);
        let (to, receiver) = match self.at {
            At::FloorTcp(lowat) => return floor::streams(self.how, messages, lowat),
            At::FloorUdp(gro) => return floor::datagrams(self.how, messages, gro),
            At::FloorFile => return floor::file(messages, payload.record_bytes()),
            At::Tcp(more, into) => {
                let at = free_port(false);
                (To::Tcp(at), Receiver::start(&(syslog_source("s", at, "tcp", more) + &into.sink())))
            }
            At::Udp(more) => {
                let at = free_port(true);
                (
                    To::Udp(at),
                    Receiver::start(&(syslog_source("s", at, "udp", more) + &Sink::Blackhole.sink())),
                )
            }
            At::Tls => tls_receiver(),
            At::Unix => unix_receiver(),
        };
        let exactly = !matches!(self.at, At::Udp(more) if more.contains("gro = true"));
        run(receiver, Sender::new(payload, &to, self.how), messages, exactly)
    }
}

impl Sink {
    fn sink(self) -> String {
        match self {
            Self::Blackhole => sink("b", "blackhole_sink", "*", ""),
            Self::File(format) => {
                sink("f", "file_sink", "*", &format!("path = \"./out.{format}\", format = \"{format}\""))
            }
        }
    }
}

/// A receiver with a certificate for localhost, by an authority that the sender is told.
fn tls_receiver() -> (To, Receiver) {
    let (folder, at) = (tempfile::tempdir().expect("a folder for the bench"), free_port(false));
    let make = |name: &str, more: &[&str]| {
        let new =
            ["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let out = ["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &pem];
        let made = Command::new("openssl").current_dir(folder.path()).args(new).args(out).args(more).output();
        let made = made.expect("openssl is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make("ca", &[]);
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    make("server", &[&["-CA", "ca.pem", "-CAkey", "ca.key"], &leaf[..]].concat());
    let ca = folder.path().join("ca.pem");
    let tls = ", protocol = \"tls\", tls = { cert = \"server.pem\", key = \"server.key\" }";
    let parts = syslog_source("s", at, "tcp", tls) + &Sink::Blackhole.sink();
    (To::Tls(at, ca), Receiver::start_in(folder, &parts))
}

fn unix_receiver() -> (To, Receiver) {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let path = folder.path().join("socket");
    let source = format!(
        "[[sources]]\nkey = \"s\"\nconnect = \"syslog_tcp_src\"\nparams = {{ addr = \"unix:{}\" }}\n",
        path.display()
    );
    let receiver = Receiver::start_in(folder, &(source + &Sink::Blackhole.sink()));
    (To::Unix(path), receiver)
}

/// Sends, and measures what comes after the first twentieth; every message must arrive or be counted as lost.
fn run(receiver: Receiver, mut sender: Sender, messages: u64, exactly: bool) -> Run {
    let watch = &receiver.watch;
    let (tell, told) = mpsc::channel();
    let measured = Barrier::new(2);
    let run = std::thread::scope(|scope| {
        let (sender, measured) = (&mut sender, &measured);
        let sending = scope.spawn(move || {
            engine::io::affinity::pin(SENDER_CPU);
            tell.send(sender.send(messages / 20)).expect("the bench waits for it");
            measured.wait();
            let cpu_ns = thread_ns();
            let sent = sender.send(messages);
            (sent, thread_ns() - cpu_ns)
        });
        let first = told.recv().expect("the sender begins well");
        let lost_before = watch.account_for(first, exactly);
        let before = watch.received().0;
        let meter = Meter::start(std::process::id());
        measured.wait();
        let (sent, sender_ns) = sending.join().expect("the sender ends well");
        let lost = watch.account_for(sent, exactly) - lost_before;
        let took = meter.stop(sender_ns);
        Run { took, messages: watch.received().0 - before, lost }
    });
    drop(sender);
    receiver.end();
    run
}
