//! `rescue = true`: a sink that is away, kill -9 meanwhile, and everything in order when it is back.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::cli::run;
use crate::fallback;
use crate::harness::{Started, status, until, until_ok};

/// Bytes of a line and its newline.
pub const LINE: usize = 100;
/// A segment of the rescue, and what may be in a sink's hands: what may come twice after a crash.
const REPEATED_MAX: usize = (8 << 20) / LINE + 16 * (1 << 20) / LINE;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A file that is followed, and a sink with these lines of TOML.
fn configure(folder: &Path, io: &str, sink: &str) {
    let io = fallback::io(io);
    let config = format!(
        "[engine]\nworkers = 1\nio = \"{io}\"\n[admin]\nlisten = \"\"\n\
         [[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"in.log\" }}\n\
         [[sinks]]\nkey = \"out\"\nrescue = true\n{sink}\n"
    );
    std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
}

fn tcp(port: u16, rest: &str) -> String {
    format!(
        "connect = \"tcp_sink\"\n{rest}\nparams = {{ addr = \"127.0.0.1:{port}\", reconnect_min = \"20ms\", \
         reconnect_max = \"100ms\" }}"
    )
}

/// Appends numbered lines.
pub fn write(folder: &Path, numbers: std::ops::Range<usize>) {
    let mut text = String::new();
    for number in numbers {
        writeln!(text, "{number:0width$}", width = LINE - 1).unwrap();
    }
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("in.log")).unwrap();
    std::io::Write::write_all(&mut &file, text.as_bytes()).unwrap();
}

fn figures(folder: &Path) -> (Value, Value) {
    let mut status = status(folder);
    (status["sources"][0].take(), status["sinks"][0].take())
}

/// Waits until the source has all lines acknowledged.
fn await_acknowledged(folder: &Path, lines: usize) {
    until_ok("all lines are acknowledged", || {
        let (source, sink) = figures(folder);
        if source["delivered"] == lines { Ok(()) } else { Err(format!("{source} {sink}")) }
    });
}

/// Waits until the checkpoint says so, too.
pub fn await_checkpoint(folder: &Path, lines: usize) {
    let position = format!("\"position\":{}", lines * LINE);
    until("the checkpoint has it", || {
        std::fs::read_to_string(folder.join("data/checkpoint")).is_ok_and(|text| text.contains(&position))
    });
}

fn await_empty(folder: &Path) {
    until_ok("the rescue is empty", || {
        let rescue = figures(folder).1["rescue"].take();
        if rescue["bytes"] == 0 { Ok(()) } else { Err(rescue) }
    });
    assert_eq!(std::fs::read_dir(folder.join("data/rescue/out")).unwrap().count(), 0);
}

fn kill(engine: Started) {
    engine.signal(libc::SIGKILL);
    engine.end();
}

/// A peer that reads whatever comes, over any number of connections, until it is told to end.
pub struct Peer {
    lines: Arc<Mutex<Vec<usize>>>,
    is_slow: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (lines, is_slow, ending) =
            (Arc::<Mutex<Vec<usize>>>::default(), Arc::<AtomicBool>::default(), Arc::default());
        let (its_lines, its_slow, its_ending) =
            (Arc::clone(&lines), Arc::clone(&is_slow), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            while !AtomicBool::load(&its_ending, Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        read_lines(&mut stream, &its_lines, &its_slow);
                    }
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)), // the peer's pace
                }
            }
        });
        Self { lines, is_slow, ending, thread: Some(thread) }
    }

    /// Takes its time, or not.
    fn set_slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Release);
    }

    fn await_lines(&self, lines: usize) {
        until("some came", || self.lines.lock().unwrap().len() >= lines);
    }

    pub fn lines(&self) -> Vec<usize> {
        self.lines.lock().unwrap().clone()
    }

    pub fn await_last(&self, number: usize) {
        until("the last line came", || self.lines.lock().unwrap().last() == Some(&number));
    }

    pub fn end(mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads a connection to its end; a line that is not whole is no line.
fn read_lines(stream: &mut impl Read, lines: &Mutex<Vec<usize>>, is_slow: &AtomicBool) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        if is_slow.load(Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(5)); // the peer's pace
        }
        let Ok(n @ 1..) = stream.read(&mut buffer) else { return };
        bytes.extend_from_slice(&buffer[..n]);
        let whole = bytes.len() / LINE * LINE;
        let numbers = bytes[..whole].chunks_exact(LINE).map(number);
        lines.lock().unwrap().extend(numbers);
        bytes.drain(..whole);
    }
}

pub fn number(line: &[u8]) -> usize {
    std::str::from_utf8(&line[..LINE - 1]).unwrap().parse().unwrap()
}

/// All lines are there, the first time in their order; how many came again.
pub fn repeated(lines: &[usize], count: usize) -> usize {
    let mut next = 0;
    for line in lines {
        assert!(*line <= next, "line {next} is missing before line {line}");
        next = next.max(line + 1);
    }
    assert_eq!(next, count, "all lines");
    lines.len() - count
}

#[test]
fn what_a_peer_that_is_away_cannot_take_survives_kill_9_and_is_sent_first_and_in_order() {
    const LINES: usize = 300_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let port = free_port();
        configure(folder, io, &tcp(port, ""));
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        await_acknowledged(folder, LINES);
        await_checkpoint(folder, LINES);
        let rescue = figures(folder).1["rescue"].take();
        assert!(rescue["bytes"].as_u64().unwrap() >= (LINES * LINE) as u64, "{rescue}");
        kill(engine);
        let engine = Started::in_folder(folder);
        write(folder, LINES..LINES + 1000);
        await_acknowledged(folder, 1000);
        let peer = Peer::listen(port);
        peer.await_last(LINES + 999);
        await_empty(folder);
        write(folder, LINES + 1000..LINES + 2000);
        peer.await_last(LINES + 1999);
        engine.stop();
        let again = repeated(&peer.lines(), LINES + 2000);
        assert!(again <= REPEATED_MAX, "{again} lines came again");
        peer.end();
    }
}

#[test]
fn a_full_rescue_holds_its_sources_back_and_loses_nothing() {
    const LINES: usize = 400_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let port = free_port();
        configure(folder, io, &tcp(port, "rescue_bytes = \"10MiB\""));
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        until("the rescue is full", || figures(folder).1["rescue"]["full"] == true);
        let (source, sink) = figures(folder);
        assert!(source["delivered"].as_u64().unwrap() < LINES as u64, "{source}");
        assert!(sink["rescue"]["bytes"].as_u64().unwrap() <= 10 << 20, "{sink}");
        assert_eq!(status(folder)["overall"], "degraded");
        let peer = Peer::listen(port);
        peer.await_last(LINES - 1);
        await_empty(folder);
        await_acknowledged(folder, LINES);
        engine.stop();
        assert_eq!(repeated(&peer.lines(), LINES), 0, "nobody was killed");
        peer.end();
    }
}

#[test]
fn a_peer_that_comes_and_goes_under_an_engine_that_is_killed_gets_every_line() {
    const LINES: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    configure(folder, "auto", &tcp(port, ""));
    let mut got = Vec::new();
    for round in 0..6 {
        write(folder, round * LINES / 6..(round + 1) * LINES / 6);
        let engine = Started::in_folder(folder);
        if round % 2 == 0 {
            until("some is on disk", || figures(folder).1["rescue"]["bytes"].as_u64() > Some(0));
        } else {
            let peer = Peer::listen(port);
            until("some came", || !peer.lines().is_empty());
            kill(engine);
            got.extend(peer.lines());
            peer.end();
            continue;
        }
        kill(engine);
    }
    let engine = Started::in_folder(folder);
    let peer = Peer::listen(port);
    until("all came", || peer.lines().contains(&(LINES - 1)) || got.contains(&(LINES - 1)));
    await_empty(folder);
    engine.stop();
    got.extend(peer.lines());
    peer.end();
    let mut seen = vec![false; LINES];
    got.iter().for_each(|line| seen[*line] = true);
    assert_eq!(seen.iter().position(|seen| !seen), None, "a line is missing");
}

#[test]
fn a_file_that_cannot_be_opened_gets_everything_when_it_can_and_after_kill_9() {
    const LINES: usize = 100_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // Where the output's folder should be there is a file.
        std::fs::write(folder.join("out"), "").unwrap();
        configure(folder, io, "connect = \"file_sink\"\nparams = { path = \"out/{source}.log\" }");
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        await_acknowledged(folder, LINES);
        await_checkpoint(folder, LINES);
        kill(engine);
        let engine = Started::in_folder(folder);
        std::fs::remove_file(folder.join("out")).unwrap();
        await_empty(folder);
        write(folder, LINES..LINES + 1000);
        await_acknowledged(folder, 1000);
        engine.stop();
        let out = std::fs::read(folder.join("out/app.log")).unwrap();
        let lines: Vec<usize> = out.chunks_exact(LINE).map(number).collect();
        assert_eq!(repeated(&lines, LINES + 1000), 0, "{io}");
    }
}

#[test]
fn a_stop_while_the_peer_is_away_keeps_everything_and_is_no_failure() {
    const LINES: usize = 100_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let port = free_port();
        configure(folder, io, &tcp(port, ""));
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        until("some is on disk", || figures(folder).1["rescue"]["records"].as_u64() > Some(0));
        engine.stop();
        let engine = Started::in_folder(folder);
        let peer = Peer::listen(port);
        peer.await_last(LINES - 1);
        await_empty(folder);
        engine.stop();
        assert_eq!(repeated(&peer.lines(), LINES), 0, "nobody was killed");
        peer.end();
    }
}

/// At an orderly end it is said on disk how far a rescue is sent.
#[test]
fn a_reload_and_a_stop_amid_sending_a_rescue_repeat_nothing() {
    const LINES: usize = 500_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let port = free_port();
        configure(folder, io, &tcp(port, ""));
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        await_acknowledged(folder, LINES);
        let peer = Peer::listen(port);
        peer.set_slow(true);
        peer.await_lines(1000);
        // The sink gets a successor, behind what it has in its hands.
        configure(folder, io, &tcp(port, "linger = \"7ms\""));
        let ran = run(folder, &["source", "reload"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let came = peer.lines().len();
        assert!(came < LINES, "the reload came amid sending");
        peer.await_lines(came + 1000);
        engine.stop();
        assert!(peer.lines().len() < LINES, "the stop came amid sending");
        peer.set_slow(false);
        let engine = Started::in_folder(folder);
        peer.await_last(LINES - 1);
        await_empty(folder);
        engine.stop();
        assert_eq!(repeated(&peer.lines(), LINES), 0, "{io}: nobody was killed");
        peer.end();
    }
}

#[test]
fn what_waits_goes_to_the_address_that_a_reload_brings_and_first() {
    const LINES: usize = 50_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        configure(folder, io, &tcp(free_port(), ""));
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        await_acknowledged(folder, LINES);
        let port = free_port();
        let peer = Peer::listen(port);
        configure(folder, io, &tcp(port, ""));
        write(folder, LINES..LINES * 2);
        let ran = run(folder, &["source", "reload"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        peer.await_last(LINES * 2 - 1);
        await_empty(folder);
        engine.stop();
        assert_eq!(repeated(&peer.lines(), LINES * 2), 0);
        peer.end();
    }
}

#[test]
fn without_a_rescue_what_a_peer_was_given_follows_to_its_new_address_in_order() {
    const LINES: usize = 300_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let without = |port| {
            configure(folder, io, &tcp(port, ""));
            let config = std::fs::read_to_string(folder.join("wpsrc.toml")).unwrap();
            let config = config.replace("rescue = true\n", "");
            // A reload waits so long for what leaves.
            let config = config.replace("[engine]\n", "[engine]\ndrain_timeout = \"3s\"\n");
            std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
        };
        without(free_port());
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        until("its source waits for the peer", || {
            let (source, sink) = figures(folder);
            sink["state"] == "waiting" && source["waited_for_sinks_percent"].as_u64() > Some(0)
        });
        // Its peer is not there either, at first: what was inherited is inherited again.
        let port = free_port();
        for port in [free_port(), port] {
            without(port);
            assert_eq!(run(folder, &["source", "reload"]).code, Some(0));
        }
        let peer = Peer::listen(port);
        peer.await_last(LINES - 1);
        await_acknowledged(folder, LINES);
        engine.stop();
        assert_eq!(repeated(&peer.lines(), LINES), 0, "nobody had any of it");
        peer.end();
    }
}

#[test]
fn what_an_heir_has_inherited_and_not_begun_with_goes_on_to_the_next_one_in_order() {
    for io in ["uring", "epoll"] {
        // Before the first heir begins, and after.
        for drain_timeout in ["50ms", "1500ms"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let without = |port| {
                configure(folder, io, &tcp(port, ""));
                let config = std::fs::read_to_string(folder.join("wpsrc.toml")).unwrap();
                let config = config.replace("rescue = true\n", "");
                let drain = format!("[engine]\ndrain_timeout = \"{drain_timeout}\"\n");
                std::fs::write(folder.join("wpsrc.toml"), config.replace("[engine]\n", &drain)).unwrap();
            };
            without(free_port());
            write(folder, 0..1000);
            let engine = Started::in_folder(folder);
            until("all of it is on its way", || figures(folder).0["records_in"] == 1000);
            let port = free_port();
            for port in [free_port(), port] {
                without(port);
                assert_eq!(run(folder, &["source", "reload"]).code, Some(0));
            }
            write(folder, 1000..2000);
            let peer = Peer::listen(port);
            peer.await_last(1999);
            await_acknowledged(folder, 2000);
            engine.stop();
            assert_eq!(repeated(&peer.lines(), 2000), 0, "nobody had any of it");
            peer.end();
        }
    }
}

#[test]
fn a_rescue_that_is_switched_off_sends_what_it_has_and_keeps_no_more() {
    const LINES: usize = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    configure(folder, "auto", &tcp(port, ""));
    write(folder, 0..LINES);
    let engine = Started::in_folder(folder);
    await_acknowledged(folder, LINES);
    let config = std::fs::read_to_string(folder.join("wpsrc.toml")).unwrap();
    std::fs::write(folder.join("wpsrc.toml"), config.replace("rescue = true", "rescue = false")).unwrap();
    assert_eq!(run(folder, &["source", "reload"]).code, Some(0));
    write(folder, LINES..LINES * 2);
    until("its sources wait", || figures(folder).0["in_flight"].as_u64() > Some(0));
    let (source, sink) = figures(folder);
    assert_eq!((&source["delivered"], &sink["rescue"]["records"]), (&LINES.into(), &LINES.into()));
    assert_eq!((&sink["rescue"]["full"], &sink["rescue"]["limit_bytes"]), (&false.into(), &0.into()));
    let peer = Peer::listen(port);
    peer.await_last(LINES * 2 - 1);
    await_empty(folder);
    engine.stop();
    assert_eq!(repeated(&peer.lines(), LINES * 2), 0);
    peer.end();
}

/// The page for Prometheus, over the socket in the data folder.
fn metrics(folder: &Path) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(folder.join("data/wpgen.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: wpgen\r\nConnection: close\r\n\r\n").unwrap();
    std::io::read_to_string(stream).unwrap()
}

#[test]
fn what_a_sink_is_owed_that_was_taken_out_is_told_and_goes_to_it_first_when_it_is_put_back() {
    const LINES: usize = 300_000;
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let port = free_port();
        let with = |sink: &str| {
            let config = format!(
                "[engine]\nworkers = 1\nio = \"{}\"\ndrain_timeout = \"200ms\"\n[admin]\nlisten = \"\"\n\
                 [[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"in.log\" }}\n\
                 [[sinks]]\nkey = \"kept\"\nconnect = \"file_sink\"\nparams = {{ path = \"kept.log\" }}\n{sink}\n",
                fallback::io(io)
            );
            std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
        };
        let out = format!("[[sinks]]\nkey = \"out\"\n{}", tcp(port, ""));
        with(&out);
        write(folder, 0..LINES);
        let engine = Started::in_folder(folder);
        until("its source waits for the peer", || {
            let status = status(folder);
            status["sinks"][1]["state"] == "waiting"
                && status["sources"][0]["waited_for_sinks_percent"].as_u64() > Some(0)
        });
        with("");
        let ran = run(folder, &["source", "reload"]);
        assert!(ran.err.contains("'out' was taken out and still writes what it was given"), "{}", ran.err);
        until("the other sink has all", || {
            std::fs::metadata(folder.join("kept.log")).is_ok_and(|file| file.len() == (LINES * LINE) as u64)
        });
        let sink = status(folder)["sinks"][1].take();
        assert_eq!((&sink["key"], &sink["state"]), (&"out".into(), &"leaving".into()), "{sink}");
        let line = format!("wpgen_sink_leaving_batches{{sink=\"out\"}} {}\n", sink["batches_in_flight"]);
        assert!(sink["batches_in_flight"].as_u64() > Some(0) && metrics(folder).contains(&line), "{sink}");
        // And once more: what was inherited is inherited again, before the first heir begins with it.
        for sink in [&*out, "", &*out] {
            with(sink);
            let ran = run(folder, &["source", "reload"]);
            let fate = if sink.is_empty() { "removed out" } else { "added out" };
            assert_eq!((ran.code, ran.out.contains(fate)), (Some(0), true), "{}{}", ran.out, ran.err);
        }
        write(folder, LINES..LINES + 1000);
        let peer = Peer::listen(port);
        peer.await_last(LINES + 999);
        await_acknowledged(folder, LINES + 1000);
        until("its older self is closed", || !metrics(folder).contains("wpgen_sink_leaving_batches"));
        engine.stop();
        let lines = peer.lines();
        let new = lines.iter().position(|line| *line == LINES).unwrap();
        assert!(new > 0 && lines[..new].iter().copied().eq(0..new), "what it was owed, once and in order");
        assert!(lines[new..].iter().copied().eq(LINES..LINES + 1000), "and what is for it since");
        peer.end();
    }
}

#[test]
fn the_rescue_of_a_sink_that_is_renamed_is_told_until_its_key_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = free_port();
    let sink = tcp(port, "");
    configure(folder, "auto", &sink);
    write(folder, 0..5000);
    let engine = Started::in_folder(folder);
    await_acknowledged(folder, 5000);
    let config = std::fs::read_to_string(folder.join("wpsrc.toml")).unwrap();
    std::fs::write(folder.join("wpsrc.toml"), config.replace("\"out\"", "\"fw\"")).unwrap();
    let ran = run(folder, &["source", "reload"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("the sink key 'out' takes it up again"), "{}", ran.err);
    let doctor = run(folder, &["doctor", "--json"]).out;
    assert!(doctor.contains("the sink key 'out' takes it up again"), "{doctor}");
    let gauge = "wpgen_sink_rescue_forgotten_bytes{sink=\"out\"} ";
    assert!(metrics(folder).contains(gauge), "{}", metrics(folder));
    let peer = Peer::listen(port);
    configure(folder, "auto", &sink);
    let ran = run(folder, &["source", "reload"]);
    assert_eq!((ran.code, ran.err.contains("takes it up again")), (Some(0), false), "{}", ran.err);
    peer.await_last(4999);
    assert!(!metrics(folder).contains(gauge));
    engine.stop();
    peer.end();
}
