//! `memory_limit` in small: senders that fill it, a sink that stalls, and everybody served in the end.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::JoinHandle;

use crate::harness::{Started, status, until};

const MIB: u64 = 1 << 20;
/// What the engine may buffer, and what it may take beside: the program itself, its stacks, its rings.
const LIMIT: u64 = 32 * MIB;
const BESIDE: u64 = 24 * MIB;
/// Connections of each of the two sources whose sink stalls, and lines of each.
const CONNECTIONS: usize = 8;
const LINES: usize = 40_000;
/// Bytes of a line: with its newline, 16 connections bring 128 MB.
const LINE: usize = 200;

fn configure(folder: &Path, io: &str, ports: [u16; 3]) {
    let source = |key: &str, port: u16| {
        format!(
            "[[sources]]\nkey = \"{key}\"\nconnect = \"tcp_src\"\n\
             params = {{ addr = \"127.0.0.1\", port = {port}, tcp_recv_bytes = \"12MiB\" }}\n"
        )
    };
    let sink = |key: &str, sources: &str, path: &str| {
        format!(
            "[[sinks]]\nkey = \"{key}\"\nconnect = \"file_sink\"\nsources = [{sources}]\nparams = {{ path = \"{path}\" }}\n"
        )
    };
    let config = format!(
        "[engine]\nworkers = 2\nio = \"{io}\"\nmemory_limit = \"32MiB\"\n[admin]\nlisten = \"\"\n{}{}{}{}{}",
        source("one", ports[0]),
        source("two", ports[1]),
        source("free", ports[2]),
        sink("stalled", "\"one\", \"two\"", "fifo"),
        sink("file", "\"free\"", "out"),
    );
    std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
}

fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A sender that writes as fast as it is taken; each line begins with its number.
fn send(port: u16, sender: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let line = format!("{sender:02} {}\n", "x".repeat(LINE - 4));
        let lines = line.repeat(1000);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        (0..LINES / 1000).for_each(|_| stream.write_all(lines.as_bytes()).unwrap());
    })
}

/// A figure of the source with this key.
fn figure(folder: &Path, key: &str, name: &str) -> u64 {
    let status = status(folder);
    let sources = status["sources"].as_array().cloned().unwrap_or_default();
    sources.iter().find(|source| source["key"] == key).and_then(|source| source[name].as_u64()).unwrap_or(0)
}

/// Waits until nothing more is received of the two sources, because nothing more fits.
fn await_full(folder: &Path) {
    let (mut before, mut same) = (0, 0);
    until("the senders are held back", || {
        let now = figure(folder, "one", "bytes_in") + figure(folder, "two", "bytes_in");
        same = if now == before && now > 8 * MIB { same + 1 } else { 0 };
        before = now;
        same > 5
    });
}

/// Reads lines until all are there. Returns how many each sender had when half of all were read, and in the end.
fn drain(fifo: File) -> (Vec<usize>, Vec<usize>) {
    let all = 2 * CONNECTIONS * LINES;
    let (mut counts, mut half) = (vec![0; 2 * CONNECTIONS], Vec::new());
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
    }
    (half, counts)
}

#[test]
fn a_stalled_sink_fills_the_limit_and_no_more_and_nobody_starves() {
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ports = free_ports();
        configure(folder, io, ports);
        make_fifo(&folder.join("fifo"));
        // Opened for writing too, so that it opens at once and stays; nobody reads yet.
        let fifo = File::options().read(true).write(true).open(folder.join("fifo")).unwrap();
        let engine = Started::in_folder(folder);
        let senders: Vec<_> = (0..2 * CONNECTIONS).map(|n| send(ports[n / CONNECTIONS], n)).collect();
        await_full(folder);
        let used = status(folder)["memory_used_bytes"].as_u64().unwrap();
        assert!(used > LIMIT / 2, "the limit is what holds them back: {used}");
        let free = send(ports[2], 99);
        until("the source with another sink goes on", || figure(folder, "free", "delivered") == LINES as u64);
        free.join().unwrap();
        let used = status(folder)["memory_used_bytes"].as_u64().unwrap();
        assert!(used <= LIMIT, "{used} bytes are charged");
        let resident = engine.memory_kib() * 1024;
        assert!(resident < LIMIT + BESIDE, "{io}: {} MiB resident", resident / MIB);
        let (half, all) = drain(fifo);
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(all, [LINES; 2 * CONNECTIONS]);
        assert!(half.iter().all(|count| *count > 0), "{io}: half way, each sender has had a turn: {half:?}");
        until("all is given back", || status(folder)["batches_in_flight"] == 0);
        engine.stop();
    }
}
