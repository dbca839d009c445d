//! Connections that rest: ten thousand of them cost a little memory each and no time.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::net::{BACKENDS, By, Net};

const CONNECTIONS: u64 = 10_000;
/// Those that are open before.
const FIRST: u64 = 2000;
/// Of the engine's memory, a connection.
const BYTES_MAX: u64 = 4096;
/// How long the engine's rest is measured, and how much of a core it may take.
const REST: Duration = Duration::from_secs(4);
const PERCENT_MAX: f64 = 1.0;

/// Lets this process have as many descriptors as it may; how many that are.
fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limits live through the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    limit.rlim_cur
}

/// CPU time of all threads of a process.
fn cpu(pid: i32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let ns = |task: fs::DirEntry| -> u64 {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(ns).sum())
}

fn rest(io: &str) {
    let room = raise_descriptors().saturating_sub(1000 + FIRST).max(100);
    let connections = CONNECTIONS.min(room);
    let net = Net::start(io, By::Tcp, "max_connections = 20000");
    let open = |from: u64, to: u64| -> Vec<TcpStream> {
        let speak = |n| {
            let mut stream = net.connect();
            stream.write_all(format!("<34>this is connection {n}\n").as_bytes()).unwrap();
            stream
        };
        (from..to).map(speak).collect()
    };
    // What they share is taken into use by the first ones.
    let first = open(0, FIRST);
    net.await_delivered(FIRST);
    let before = net.engine.memory_kib();
    let others = open(FIRST, FIRST + connections);
    net.await_delivered(FIRST + connections);
    let grown = net.engine.memory_kib().saturating_sub(before) * 1024 / connections;
    let started = cpu(net.engine.pid());
    std::thread::sleep(REST);
    let percent = (cpu(net.engine.pid()) - started).as_secs_f64() * 100.0 / REST.as_secs_f64();
    println!("{connections} connections that rest, {io}: {grown} bytes each, {percent:.2} % of a core");
    assert!(grown <= BYTES_MAX, "{grown} bytes a connection through {io}");
    assert!(percent < PERCENT_MAX, "{percent:.2} % of a core through {io}");
    drop((first, others));
    assert_eq!(net.lines().len() as u64, FIRST + connections);
}

#[test]
fn ten_thousand_connections_that_rest() {
    BACKENDS.into_iter().for_each(rest);
}

/// Those that wait for their turn: more than a turn of the shard sees, each with more than the source may hold for it.
const WAITING: u64 = 6000;
const LINES: u64 = 40;

/// A source that is held back lets its connections receive for a moment, again and again: what they were told to have arrived
/// is no silence of theirs.
#[test]
fn connections_that_wait_for_their_turn_are_not_idle() {
    raise_descriptors();
    for io in BACKENDS {
        let limits =
            "max_connections = 20000\ntcp_recv_bytes = \"64KiB\"\nidle_timeout = \"1s\"\nrate_limit = 20_000";
        let net = Net::start(io, By::Tcp, limits);
        let line = format!("{}\n", "x".repeat(99));
        let speak = |_| {
            let mut stream = net.connect();
            stream.write_all(line.repeat(LINES as usize).as_bytes()).unwrap();
            stream
        };
        let streams: Vec<TcpStream> = (0..WAITING).map(speak).collect();
        net.await_delivered(WAITING * LINES);
        drop(streams);
        assert_eq!(net.lines().len() as u64, WAITING * LINES, "{io}");
    }
}
