//! `memory_limit`: senders that fill it, a sink that stalls, and everybody served in the end.
//!
//! In small; WPGEN_STALL_SECONDS makes it the long run that the README names: 64 senders, 1 GB, a limit of 128 MiB, and a
//! sink that stands still for so long.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fallback;
use crate::harness::{Started, status, until};
use crate::net::BACKENDS;

const MIB: u64 = 1 << 20;
/// Bytes of a line.
const LINE: usize = 200;

/// How large it all is.
struct Shape {
    limit: u64,
    /// What the engine may take beside its limit: the program itself, its stacks, its rings.
    beside: u64,
    /// Sources that share the stalled sink, and senders of each.
    sources: usize,
    connections: usize,
    /// Lines of each sender.
    lines: usize,
    /// How long the sink stands still once the senders are held back.
    stall: Duration,
}

/// 16 connections that bring 128 MB.
const SMALL: Shape = Shape {
    limit: 32 * MIB,
    beside: 32 * MIB,
    sources: 2,
    connections: 8,
    lines: 40_000,
    stall: Duration::ZERO,
};

impl Shape {
    fn asked() -> Self {
        let seconds = std::env::var("WPGEN_STALL_SECONDS").ok().map(|text| text.parse().unwrap());
        let long = |seconds| Self {
            limit: 128 * MIB,
            beside: 32 * MIB,
            sources: 4,
            connections: 16,
            lines: 80_000,
            stall: Duration::from_secs(seconds),
        };
        seconds.map_or(SMALL, long)
    }

    fn senders(&self) -> usize {
        self.sources * self.connections
    }

    fn configure(&self, folder: &Path, io: &str, ports: &[u16]) {
        let source = |(n, port): (usize, &u16)| {
            format!(
                "[[sources]]\nkey = \"s{n}\"\nconnect = \"tcp_src\"\n\
                 params = {{ addr = \"127.0.0.1\", port = {port}, tcp_recv_bytes = \"12MiB\" }}\n"
            )
        };
        let sink = |key: &str, sources: &str, path: &str| {
            format!(
                "[[sinks]]\nkey = \"{key}\"\nconnect = \"file_sink\"\nsources = [{sources}]\nparams = {{ path = \"{path}\" }}\n"
            )
        };
        let sources: String = ports.iter().enumerate().map(source).collect();
        let stalled: Vec<String> = (0..self.sources).map(|n| format!("\"s{n}\"")).collect();
        let io = fallback::io(io);
        let config = format!(
            "[engine]\nworkers = 2\nio = \"{io}\"\nmemory_limit = {}\n[admin]\nlisten = \"\"\n{sources}{}{}",
            self.limit,
            sink("stalled", &stalled.join(", "), "fifo"),
            sink("file", &format!("\"s{}\"", self.sources), "out"),
        );
        std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
    }
}

fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

fn free_ports(n: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// A sender that writes as fast as it is taken; each line begins with its number.
fn send(port: u16, sender: usize, lines: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let line = format!("{sender:02} {}\n", "x".repeat(LINE - 4));
        let text = line.repeat(1000);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        (0..lines / 1000).for_each(|_| stream.write_all(text.as_bytes()).unwrap());
    })
}

/// A figure of the source with this number.
fn figure(folder: &Path, source: usize, name: &str) -> u64 {
    let status = status(folder);
    let sources = status["sources"].as_array().cloned().unwrap_or_default();
    let key = format!("s{source}");
    sources.iter().find(|source| source["key"] == key).and_then(|source| source[name].as_u64()).unwrap_or(0)
}

/// Waits until nothing more is received of the sources, because nothing more fits.
fn await_full(folder: &Path, shape: &Shape) {
    let (mut before, mut same) = (0, 0);
    until("the senders are held back", || {
        let now = (0..shape.sources).map(|n| figure(folder, n, "bytes_in")).sum();
        same = if now == before && now > shape.limit / 4 { same + 1 } else { 0 };
        before = now;
        same > 5
    });
}

/// Reads lines until all are there. Returns how many each sender had when half of all were read, and in the end, and the
/// most that the engine held meanwhile.
fn drain(fifo: File, shape: &Shape, engine: &Started) -> (Vec<usize>, Vec<usize>, u64) {
    let all = shape.senders() * shape.lines;
    let (mut counts, mut half, mut most) = (vec![0; shape.senders()], Vec::new(), 0);
    let mut reader = BufReader::with_capacity(1 << 16, fifo);
    let mut line = Vec::new();
    for n in 0..all {
        line.clear();
        reader.read_until(b'\n', &mut line).unwrap();
        assert_eq!(line.len(), LINE, "line {n} is whole");
        counts[std::str::from_utf8(&line[..2]).unwrap().parse::<usize>().unwrap()] += 1;
        if n == all / 2 {
            half.clone_from(&counts);
        }
        if n % 10_000 == 0 {
            most = most.max(resident(engine));
        }
    }
    (half, counts, most)
}

fn resident(engine: &Started) -> u64 {
    engine.memory_kib() * 1024
}

/// The most that was resident while the sink stood still.
fn stand_still(engine: &Started, stall: Duration) -> u64 {
    let (until, mut most) = (Instant::now() + stall, resident(engine));
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100)); // the pace of looking
        most = most.max(resident(engine));
    }
    most
}

#[test]
fn a_stalled_sink_fills_the_limit_and_no_more_and_nobody_starves() {
    let shape = Shape::asked();
    for io in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ports = free_ports(shape.sources + 1);
        shape.configure(folder, io, &ports);
        make_fifo(&folder.join("fifo"));
        // Opened for writing too, so that it opens at once and stays; nobody reads yet.
        let fifo = File::options().read(true).write(true).open(folder.join("fifo")).unwrap();
        let engine = Started::in_folder(folder);
        let senders = 0..shape.senders();
        let senders: Vec<_> = senders.map(|n| send(ports[n / shape.connections], n, shape.lines)).collect();
        await_full(folder, &shape);
        let used = status(folder)["memory_used_bytes"].as_u64().unwrap();
        assert!(used > shape.limit / 2, "the limit is what holds them back: {used}");
        let free = send(ports[shape.sources], 99, shape.lines);
        until("the source with another sink goes on", || {
            figure(folder, shape.sources, "delivered") == shape.lines as u64
        });
        free.join().unwrap();
        let stalled = stand_still(&engine, shape.stall);
        let used = status(folder)["memory_used_bytes"].as_u64().unwrap();
        assert!(used <= shape.limit, "{used} bytes are charged");
        let (half, all, draining) = drain(fifo, &shape, &engine);
        println!(
            "{io}: {} MiB resident while it stood still, {} MiB while it drained",
            stalled / MIB,
            draining / MIB
        );
        println!("{io}: lines of each sender when half of all were there: {half:?}");
        let most = stalled.max(draining);
        assert!(most < shape.limit + shape.beside, "{io}: {} MiB resident", most / MIB);
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(all, vec![shape.lines; shape.senders()]);
        assert!(half.iter().all(|count| *count > 0), "{io}: half way, each sender has had a turn: {half:?}");
        until("all is given back", || status(folder)["batches_in_flight"] == 0);
        engine.stop();
    }
}
