//! A whole engine that writes to real connections, on both backends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Instant;

use super::link::jittered;
use super::*;
use crate::engine::{Engine, Wired, Wiring};
use crate::io::Backend;
use crate::io::listen::{Address, Listening};
use crate::io::stream::StreamOptions;
use crate::sink::route::Where;
use crate::source::inlet::InletRules;
use crate::source::stream::{StreamRules, StreamSource};

/// More than the kernel takes for a connection.
const RECORDS: usize = 400_000;
/// Bytes of a record and its newline.
const RECORD: usize = 61;
const PATIENCE: Duration = Duration::from_secs(60);
/// For peers that refuse us, on a machine where they may be slow at it.
pub(super) const PATIENT_PROBATION: Duration = Duration::from_secs(5);

fn rules(framing: crate::frame::Framing) -> StreamRules {
    StreamRules {
        inlet: InletRules {
            key: "s".into(),
            host: "h".into(),
            tags: Vec::new(),
            headers: None,
            framing: None,
            protocol: "",
            rate: None,
        },
        framing: crate::frame::Rules {
            framing,
            prefer_newline: false,
            oversize: crate::frame::Oversize::Truncate,
            record_bytes_max: 1 << 16,
        },
        options: StreamOptions::default(),
        allow: Vec::new(),
        proxied: false,
        tls: None,
    }
}

/// An engine from a tcp source to `sink`, and the source's address.
pub(super) fn start(
    backend: Backend,
    framing: crate::frame::Framing,
    sink: &Arc<Remote>,
) -> (Engine, SocketAddr) {
    let at = Address::Inet("127.0.0.1:0".parse().unwrap());
    let source = StreamSource::new(rules(framing), Listening::bind(&at, 1, None).unwrap());
    let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
    let wiring = Wiring {
        cpus: vec![None],
        backend,
        sinks: vec![Arc::clone(sink) as Arc<dyn Sink>],
        sources: vec![Wired { source: Arc::new(source), routes: vec![(0, Where::default())] }],
        keeping: None,
        next_input: Arc::new(AtomicU64::new(1)),
        memory: crate::memory::Memory::unlimited(),
    };
    (Engine::start(wiring).unwrap(), at)
}

pub(super) fn settings(framing: Framing, format: Format, peers: &[SocketAddr]) -> Settings {
    Settings {
        key: "out".into(),
        format,
        framing,
        addresses: peers.iter().map(SocketAddr::to_string).collect(),
        tls: None,
        connect_timeout: Duration::from_secs(5),
        pause_min: Duration::from_millis(1),
        pause_max: Duration::from_millis(20),
        probation: PROBATION,
    }
}

fn remote(framing: Framing, format: Format, peers: &[SocketAddr]) -> Arc<Remote> {
    Remote::new(0, settings(framing, format, peers))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// An address on which nobody listens.
pub(super) fn nobody() -> SocketAddr {
    listen().1
}

/// Numbered lines, written to `at`.
pub(super) fn send(at: SocketAddr, records: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let lines: String = (0..records).map(|i| format!("{i:060}\n")).collect();
        TcpStream::connect(at).unwrap().write_all(lines.as_bytes()).unwrap();
    })
}

/// The numbers of whole lines.
fn numbers(bytes: &[u8]) -> Vec<usize> {
    let whole = bytes.chunks_exact(RECORD);
    whole.map(|line| std::str::from_utf8(&line[..RECORD - 1]).unwrap().parse().unwrap()).collect()
}

pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that the kernel has for a reader.
fn unread(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one integer, into `bytes`.
    assert_eq!(unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    usize::try_from(bytes).unwrap()
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn what_a_broken_connection_had_not_acknowledged_is_written_again() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let (server, live) = listen();
        let sink = remote(Framing::Newline, Format::Raw, &[nobody(), live]);
        let (engine, at) = start(backend, crate::frame::Framing::Newline, &sink);
        let sender = send(at, RECORDS);
        let (mut first, _) = server.accept().unwrap();
        // More than a batch, which is delivered as a whole.
        let mut seen = vec![0; 2_000_000];
        first.read_exact(&mut seen).unwrap();
        // The peer stops reading: its kernel takes what it has room for, and no more.
        until(
            "it waits",
            || matches!(sink.status().state, SinkState::Waiting(why) if why.contains("takes no more")),
        );
        let acknowledged = (seen.len() + unread(&first)) / RECORD;
        let delivered = usize::try_from(sink.status().records).unwrap();
        assert!(delivered > 0 && delivered <= acknowledged, "{delivered} of {acknowledged}");
        reset(first);
        let reader = std::thread::spawn(move || {
            let (mut second, mut rest) = (server.accept().unwrap().0, Vec::new());
            second.read_to_end(&mut rest).unwrap();
            rest
        });
        sender.join().unwrap();
        until("all is delivered", || sink.status().records == RECORDS as u64);
        let (settled, status) = engine.drain(PATIENCE);
        assert!(settled, "{status:?}");
        assert!(numbers(&seen).iter().enumerate().all(|(i, n)| i == *n));
        let rest = numbers(&reader.join().unwrap());
        assert!(rest[0] <= acknowledged && rest[0] >= delivered, "{} {delivered} {acknowledged}", rest[0]);
        assert!(rest.windows(2).all(|pair| pair[1] == pair[0] + 1) && rest.last() == Some(&(RECORDS - 1)));
        let status = sink.status();
        assert!(status.errors >= 2 && status.repeated > 0 && status.state == SinkState::Ready, "{status:?}");
        assert_eq!((status.batches_in_flight, status.bytes), (0, (RECORDS * RECORD) as u64));
    }
}

#[test]
fn a_peer_that_closed_is_found_before_anything_is_written_to_it() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let (server, live) = listen();
        let sink = remote(Framing::Newline, Format::Raw, &[live]);
        let (engine, at) = start(backend, crate::frame::Framing::Newline, &sink);
        let mut sender = TcpStream::connect(at).unwrap();
        for round in 1..=5 {
            sender.write_all(format!("{round}\n").as_bytes()).unwrap();
            let (mut peer, _) = server.accept().unwrap();
            let mut got = [0; 8];
            let n = peer.read(&mut got).unwrap();
            assert_eq!(got[..n], *format!("{round}\n").as_bytes());
            until("it is delivered", || sink.status().records == round);
            // Closed in order, with nothing on its way: no failure, and nothing is lost or written twice.
            drop(peer);
        }
        assert!(engine.drain(PATIENCE).0);
        assert_eq!((sink.status().errors, sink.status().repeated), (0, 0));
    }
}

#[test]
fn a_peer_that_takes_the_connection_and_hangs_up_is_passed_over() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let ((refusing, first), (server, second)) = (listen(), listen());
        let settings = settings(Framing::Newline, Format::Raw, &[first, second]);
        let sink = Remote::new(0, Settings { probation: PATIENT_PROBATION, ..settings });
        let (engine, at) = start(backend, crate::frame::Framing::Newline, &sink);
        TcpStream::connect(at).unwrap().write_all(b"1\n2\n").unwrap();
        let (mut peer, _) = refusing.accept().unwrap();
        // Its kernel has acknowledged the records, and it has even read them.
        peer.read_exact(&mut [0; 4]).unwrap();
        reset(peer);
        let (mut peer, _) = server.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = String::new();
            peer.read_to_string(&mut got).map(|_| got)
        });
        until("it is delivered", || sink.status().records == 2);
        assert!(engine.drain(PATIENCE).0);
        assert_eq!(reader.join().unwrap().unwrap(), "1\n2\n");
        assert_eq!((sink.status().repeated, sink.status().errors), (2, 1));
    }
}

#[test]
fn the_first_address_is_gone_back_to() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let (first, (second, second_at)) = (nobody(), listen());
        let sink = remote(Framing::Newline, Format::Raw, &[first, second_at]);
        let (engine, at) = start(backend, crate::frame::Framing::Newline, &sink);
        let mut sender = TcpStream::connect(at).unwrap();
        let mut sent = 0;
        let mut send = || {
            sent += 1;
            sender.write_all(format!("{sent}\n").as_bytes()).unwrap();
            sent
        };
        send();
        let (mut substitute, _) = second.accept().unwrap();
        until("the substitute has it", || sink.status().records == 1);
        let first = TcpListener::bind(first).unwrap();
        first.set_nonblocking(true).unwrap();
        let mut proper = loop {
            let so_far = send();
            until("it is delivered", || sink.status().records == so_far);
            match first.accept() {
                Ok((proper, _)) => break proper,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        };
        // One more, for the last one may have gone the old way while the new one was being made.
        let all = send();
        until("it is delivered", || sink.status().records == all);
        let reader = std::thread::spawn(move || {
            let mut got = String::new();
            substitute.read_to_string(&mut got).unwrap();
            proper.set_nonblocking(false).unwrap();
            proper.read_to_string(&mut got).unwrap();
            got
        });
        assert!(engine.drain(PATIENCE).0);
        let wanted: String = (1..=all).map(|n| format!("{n}\n")).collect();
        assert_eq!(reader.join().unwrap(), wanted);
        assert_eq!(sink.status().repeated, 0);
    }
}

#[test]
fn octet_counted_rfc_5424_arrives() {
    let (server, live) = listen();
    let sink = remote(Framing::Octet, Format::Syslog5424, &[live]);
    let (engine, at) = start(Backend::Epoll, crate::frame::Framing::Octet, &sink);
    TcpStream::connect(at).unwrap().write_all(b"11 hello\nworld").unwrap();
    let (mut peer, _) = server.accept().unwrap();
    let mut got = vec![0; 3];
    peer.read_exact(&mut got).unwrap();
    let length: usize = String::from_utf8(got).unwrap().trim().parse().unwrap();
    let mut got = vec![0; length];
    peer.read_exact(&mut got).unwrap();
    let text = String::from_utf8(got).unwrap();
    assert!(text.starts_with("<13>1 ") && text.ends_with(" h s - - - hello\nworld"), "{text}");
    let ended = std::thread::spawn(move || peer.read_to_end(&mut Vec::new()));
    assert!(engine.drain(PATIENCE).0);
    ended.join().unwrap().unwrap();
}

#[test]
fn a_newline_within_a_record_does_not_make_two_of_it() {
    let (server, live) = listen();
    let sink = remote(Framing::Newline, Format::Raw, &[live]);
    let (engine, at) = start(Backend::Uring, crate::frame::Framing::Octet, &sink);
    TcpStream::connect(at).unwrap().write_all(b"5 a\nb\n\n2 cd").unwrap();
    let (mut peer, _) = server.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = String::new();
        peer.read_to_string(&mut got).map(|_| got)
    });
    until("it is delivered", || sink.status().records == 2);
    assert!(engine.drain(PATIENCE).0);
    assert_eq!(reader.join().unwrap().unwrap(), "a#012b#012#012\ncd\n");
}

#[test]
fn addresses_get_the_port_they_lack() {
    for (address, whole) in [
        ("logs.example.org", "logs.example.org:514"),
        ("logs.example.org:6514", "logs.example.org:6514"),
        ("10.0.0.1", "10.0.0.1:514"),
        ("::1", "[::1]:514"),
        ("[::1]", "[::1]:514"),
        ("[::1]:99", "[::1]:99"),
    ] {
        assert_eq!(with_port(address, 514), whole);
        let host = whole.rsplit_once(':').unwrap().0;
        assert_eq!(host_of(whole), host.trim_start_matches('[').trim_end_matches(']'));
    }
}

#[test]
fn a_pause_is_shortened_by_half_at_most() {
    for ms in [1, 100, 30_000] {
        let pause = Duration::from_millis(ms);
        assert!((pause / 2..=pause).contains(&jittered(pause)));
    }
}
