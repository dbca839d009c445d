//! Real connections into a whole engine, on both backends.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::tz::TimeZone;

use super::*;
use crate::frame::{Framing, Oversize};
use crate::io::sockopt;
use crate::lane::CREDIT_BATCHES;
use crate::pool::ARENA_BYTES;
use crate::sink::format::Format;
use crate::source::headers::HeaderRules;
use crate::source::playground::{BACKENDS, Keep, SHARDS, drain, start, until};
use crate::source::syslog::{HeaderMode, OnBadMessage};
use crate::syslog::YearPolicy;

pub(super) fn rules(framing: Framing) -> StreamRules {
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
        framing: Rules {
            framing,
            prefer_newline: false,
            oversize: Oversize::Truncate,
            record_bytes_max: 1 << 16,
        },
        options: StreamOptions { budget_bytes: 1 << 20, ..StreamOptions::default() },
        allow: Vec::new(),
        proxied: false,
        tls: None,
    }
}

fn syslog_rules(mode: HeaderMode, on_bad: OnBadMessage) -> StreamRules {
    let headers = HeaderRules { mode, on_bad, zone: TimeZone::UTC, year: YearPolicy::Inferred };
    let mut rules = rules(Framing::Auto);
    rules.inlet.headers = Some(headers);
    rules
}

pub(super) fn source(rules: StreamRules) -> (Arc<StreamSource>, SocketAddr) {
    let at = Address::Inet("127.0.0.1:0".parse().unwrap());
    let source = StreamSource::new(rules, Listening::bind(&at, SHARDS, None).unwrap());
    let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
    (Arc::new(source), at)
}

/// How long whoever stops a source says to wait.
const STOP_MAX: Duration = Duration::from_secs(30);

fn send(at: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

#[test]
fn bursts_of_senders_that_close_at_once_arrive_whole_and_in_order() {
    for backend in BACKENDS {
        for (connections, messages) in [(1, 60_000u32), (64, 1500)] {
            let (source, at) = source(rules(Framing::Newline));
            let sink = Keep::new(0, Format::Raw);
            let engine = start(backend, &[(source, Arc::clone(&sink))]);
            let senders: Vec<_> = (0..connections)
                .map(|who| {
                    std::thread::spawn(move || {
                        let text = |i: u32| format!("{who} {i} {}\n", "x".repeat(i as usize % 400));
                        let bytes: String = (0..messages).map(text).collect();
                        drop(send(at, bytes.as_bytes()));
                    })
                })
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let all = connections as usize * messages as usize;
            until("all are there", || sink.len() == all);
            let figures = drain(engine);
            assert_eq!((figures[0].records_in, figures[0].errors), (all as u64, 0));
            let mut next = vec![0u32; connections as usize];
            for record in sink.records() {
                let mut words = record.split(' ').map(str::parse::<u32>);
                let (who, i) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
                assert_eq!(i, next[who as usize], "{backend:?} connection {who}");
                next[who as usize] += 1;
            }
        }
    }
}

#[test]
fn octet_frames_cut_at_every_byte_are_the_same_records() {
    let text: &[u8] = b"17 <34>a\nb in a frame5 <35>c<36>2018 01 30 line\n9 <37>rest";
    let records = ["a\nb in a frame", "c", "2018 01 30 line", "rest"];
    // The first count is wrong on purpose in no byte: it is the length of what follows.
    let text = [b"18 <34>a\nb in a frame".as_slice(), &text[21..]].concat();
    for backend in BACKENDS {
        let (source, at) = source(syslog_rules(HeaderMode::Strip, OnBadMessage::Pass));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        for cut in 0..=text.len() {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&text[..cut]).unwrap();
            if cut % 4 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            stream.write_all(&text[cut..]).unwrap();
            drop(stream);
            until("four more", || sink.len() >= 4 * (cut + 1));
            assert_eq!(sink.records()[4 * cut..], records, "{backend:?} cut at {cut}");
        }
        drain(engine);
    }
}

#[test]
fn a_stalled_sink_holds_its_source_alone_and_loses_nothing() {
    for backend in BACKENDS {
        let (slow, slow_at) = source(rules(Framing::Newline));
        let mut quick = rules(Framing::Newline);
        quick.inlet.key = "quick".into();
        let (quick, quick_at) = source(quick);
        let (slow_sink, quick_sink) = (Keep::new(0, Format::Raw), Keep::new(1, Format::Raw));
        slow_sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(slow, Arc::clone(&slow_sink)), (quick, Arc::clone(&quick_sink))]);
        let flood = std::thread::spawn(move || {
            let lines: String = (0..1000).map(|i| format!("{i:0499}\n")).collect();
            let mut stream = TcpStream::connect(slow_at).unwrap();
            (0..100).for_each(|_| stream.write_all(lines.as_bytes()).unwrap());
        });
        let received = || engine.status().sources[0].bytes_in;
        let bound = (SHARDS as u64 + 2 + u64::from(CREDIT_BATCHES)) << 20;
        until("the budget is used", || received() > 4 << 20);
        for i in 0..2000 {
            drop(send(quick_at, format!("{i}\n").as_bytes()));
        }
        until("the other source goes on", || quick_sink.len() == 2000);
        assert!(!flood.is_finished(), "the sender is held back");
        assert!(received() < bound, "{} bytes", received());
        slow_sink.stalled.store(false, Ordering::Relaxed);
        flood.join().unwrap();
        until("all are there", || slow_sink.len() == 100_000);
        let figures = drain(engine);
        assert_eq!(figures[0].bytes_in, 50_000_000);
        assert!(slow_sink.records().iter().enumerate().all(|(i, r)| r.parse() == Ok(i % 1000)));
    }
}

#[test]
fn a_stop_takes_what_the_kernel_holds_and_the_unterminated_rest() {
    for backend in BACKENDS {
        let (source, at) = source(rules(Framing::Newline));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        drop(send(at, b"first\n"));
        until("it runs", || sink.len() == 1);
        let lines: String = (0..20_000).map(|i| format!("{i}\n")).collect();
        let open: Vec<_> = (0..8).map(|_| send(at, format!("{lines}rest").as_bytes())).collect();
        until("all are accepted", || engine.status().sources[0].records_in > 8);
        let figures = drain(engine);
        drop(open);
        let rests = sink.records().iter().filter(|r| *r == "rest").count();
        assert_eq!((figures[0].records_in as usize, rests), (1 + 8 * 20_001, 8), "{backend:?}");
    }
}

#[test]
fn a_stop_takes_who_waits_to_be_accepted_and_then_the_port_is_free() {
    for backend in BACKENDS {
        for round in 0..20 {
            let (source, at) = source(rules(Framing::Newline));
            let sink = Keep::new(0, Format::Raw);
            sink.stalled.store(true, Ordering::Relaxed);
            let engine = start(backend, &[(source, Arc::clone(&sink))]);
            let open = send(at, b"first\n");
            until("it runs", || engine.status().sources[0].records_in == 1);
            (0..50).for_each(|_| drop(send(at, b"late\n")));
            engine.stop_source("s", STOP_MAX);
            until("nobody listens, though what came is not delivered", || TcpStream::connect(at).is_err());
            drop(std::net::TcpListener::bind(at).unwrap());
            sink.stalled.store(false, Ordering::Relaxed);
            assert!(engine.wait(Duration::from_secs(60)));
            drop(open);
            let figures = drain(engine);
            assert_eq!((sink.len(), figures[0].errors), (51, 0), "{backend:?}, round {round}");
        }
    }
}

#[test]
fn a_proxy_header_names_the_peer_and_a_wrong_one_closes() {
    for backend in BACKENDS {
        let (source, at) = source(StreamRules { proxied: true, ..rules(Framing::Newline) });
        let sink = Keep::new(0, Format::Ndjson);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let mut stream = send(at, b"PROXY TCP4 192.0.2.1 10.0.0.1 47");
        stream.write_all(b"11 514\r\nhello\n").unwrap();
        drop(stream);
        drop(send(at, b"GET / HTTP/1.1\r\n\r\n"));
        until("both are judged", || sink.len() == 1 && engine.status().sources[0].errors == 1);
        drain(engine);
        assert!(sink.records()[0].contains("\"peer\":\"192.0.2.1:4711\""), "{:?}", sink.records());
    }
}

#[test]
fn bad_messages_pass_with_a_tag_or_are_dropped_and_counted() {
    let text = b"<34>good\nbad\n<191>fine\n<192>worse\n";
    for (on_bad, passed) in [(OnBadMessage::Pass, 4), (OnBadMessage::Drop, 2)] {
        let (source, at) = source(syslog_rules(HeaderMode::Parse, on_bad));
        let sink = Keep::new(0, Format::Ndjson);
        let engine = start(BACKENDS[0], &[(source, Arc::clone(&sink))]);
        drop(send(at, text));
        until("all are judged", || sink.len() == passed && engine.status().sources[0].records_in == 4);
        let figures = drain(engine);
        let records = sink.records();
        let marked = records.iter().filter(|r| r.contains("\"syslog_malformed\":\"true\"")).count();
        if on_bad == OnBadMessage::Pass {
            assert_eq!(marked, 2, "{records:?}");
            assert!(
                records[1].contains("\"data\":\"bad\"") && records[3].contains("\"data\":\"<192>worse\"")
            );
        } else {
            assert_eq!((marked, &figures[0].dropped[..]), (0, &[("malformed".to_owned(), 2)][..]));
        }
        assert!(records[0].contains("\"data\":\"good\""), "{records:?}");
    }
}

#[test]
fn a_stop_takes_what_the_kernel_holds_when_its_sink_takes_it_however_late() {
    const LINE_BYTES: u64 = 100;
    const BUDGET_BYTES: u64 = 64 << 10;
    // A short time is that of whoever waits; peers that go on are heard for a part of it.
    for (backend, at_most) in BACKENDS.into_iter().flat_map(|it| [(it, STOP_MAX), (it, 2 * ASK), (it, LOOK)])
    {
        let mut rules = rules(Framing::Newline);
        rules.options.budget_bytes = BUDGET_BYTES as usize;
        let at = Address::Inet("127.0.0.1:0".parse().unwrap());
        let listening = Listening::bind(&at, SHARDS, Some(8 << 20)).unwrap();
        // More than a stalled sink is given and the source holds, by less than the kernel does.
        let kernel_bytes = listening.receive_buffer().granted_bytes / 4;
        let given = u64::from(CREDIT_BATCHES) * ARENA_BYTES as u64;
        let lines = (given + BUDGET_BYTES + kernel_bytes) / LINE_BYTES;
        let source = StreamSource::new(rules, listening);
        let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(Arc::new(source), Arc::clone(&sink))]);
        let text: String = (0..lines).map(|i| format!("{i:099}\n")).collect();
        let sender = send(at, text.as_bytes());
        until("the kernel has said that it has all of them", || {
            sockopt::unacknowledged(sender.as_fd()).unwrap() == 0
        });
        drop(sender);
        engine.stop_source("s", at_most);
        assert!(!engine.wait(2 * LAST_BYTES), "it waits for its sink longer than for peers that go on");
        let status = &engine.status().sources[0];
        let (unread, taken) = (status.unread_bytes, status.records_in * LINE_BYTES);
        assert!(unread > kernel_bytes / 2, "{unread} bytes are known to wait, in the kernel and here");
        // A record that is about to be given may count twice.
        let all = lines * LINE_BYTES;
        assert!((all..all + BUDGET_BYTES).contains(&(unread + taken)), "{unread} and {taken} of {all}");
        sink.stalled.store(false, Ordering::Relaxed);
        assert!(engine.wait(Duration::from_secs(60)));
        let figures = drain(engine);
        let left = (sink.len() as u64, figures[0].errors, figures[0].unread_bytes);
        assert_eq!(left, (lines, 0, 0), "{backend:?}");
    }
}

#[test]
fn a_stop_hears_a_peer_out_that_is_in_the_middle() {
    const LINES: usize = 400_000;
    for backend in BACKENDS {
        let at = Address::Inet("127.0.0.1:0".parse().unwrap());
        let listening = Listening::bind(&at, SHARDS, Some(1 << 20)).unwrap();
        let source = Arc::new(StreamSource::new(rules(Framing::Newline), listening));
        let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let sender = std::thread::spawn(move || {
            let text: String = (0..LINES).map(|i| format!("{i:099}\n")).collect();
            send(at, text.as_bytes()).shutdown(std::net::Shutdown::Write).unwrap();
        });
        until("it came to the middle", || engine.status().sources[0].records_in > 10_000);
        engine.stop_source("s", STOP_MAX);
        assert!(!sender.is_finished(), "it has not sent all of it");
        sink.stalled.store(false, Ordering::Relaxed);
        assert!(engine.wait(Duration::from_secs(60)));
        sender.join().unwrap();
        let figures = drain(engine);
        assert_eq!((sink.len(), figures[0].errors), (LINES, 0), "{backend:?}");
    }
}

#[test]
fn a_peer_that_trickles_does_not_hold_up_a_stop_beside_one_of_which_much_waits() {
    const LINES: usize = 400_000;
    for backend in BACKENDS {
        let (source, at) = source(rules(Framing::Newline));
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let sender = std::thread::spawn(move || {
            let lines: String = (0..LINES).map(|i| format!("{i:099}\n")).collect();
            send(at, lines.as_bytes())
        });
        until("it came to the middle", || engine.status().sources[0].records_in > 10_000);
        let mut stream = TcpStream::connect(at).unwrap();
        let trickle = std::thread::spawn(move || {
            while stream.write_all(b"line\n").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let lines = || sink.records().iter().filter(|record| *record == "line").count();
        engine.stop_source("s", STOP_MAX);
        sink.stalled.store(false, Ordering::Relaxed);
        assert!(engine.wait(Duration::from_secs(60)), "{backend:?}");
        trickle.join().unwrap();
        drop(sender.join().unwrap());
        drain(engine);
        assert_eq!(sink.len() - lines(), LINES, "{backend:?}");
    }
}

#[test]
fn an_urgent_byte_stays_where_it_was_sent_and_holds_up_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for (backend, is_unix) in BACKENDS.into_iter().flat_map(|backend| [(backend, false), (backend, true)]) {
        let loopback = Address::Inet("127.0.0.1:0".parse().unwrap());
        let address = if is_unix { Address::Unix(path.clone()) } else { loopback };
        let listening = Listening::bind(&address, SHARDS, None).unwrap();
        let source = Arc::new(StreamSource::new(rules(Framing::Newline), listening));
        let mut peer = match source.address() {
            Address::Inet(at) => socket2::Socket::from(TcpStream::connect(at).unwrap()),
            Address::Unix(_) => socket2::Socket::from(UnixStream::connect(&path).unwrap()),
        };
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        peer.write_all(b"line\n").unwrap();
        until("it is there", || sink.len() == 1);
        peer.send_out_of_band(b"!").unwrap();
        peer.write_all(b"behind it\nthe last").unwrap();
        until("what is behind it is there", || sink.len() == 2);
        peer.send_out_of_band(b"?").unwrap();
        engine.stop_source("s", STOP_MAX);
        assert!(engine.wait(STOP_MAX / 2), "{backend:?}");
        drain(engine);
        assert_eq!(sink.records(), ["line", "!behind it", "the last?"], "{backend:?}");
    }
}

#[test]
fn a_peer_that_goes_on_for_ever_is_cut_off_by_a_stop_and_told() {
    for backend in BACKENDS {
        let (source, at) = source(rules(Framing::Newline));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let fountain = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(at).unwrap();
            let lines = "line\n".repeat(1000);
            while stream.write_all(lines.as_bytes()).is_ok() {}
        });
        until("it flows", || sink.len() > 1000);
        engine.stop_source("s", STOP_MAX);
        assert!(engine.wait(Duration::from_secs(60)));
        fountain.join().unwrap();
        drain(engine);
    }
}

#[test]
fn peers_outside_allow_are_refused_and_limits_hold() {
    let allow = vec![Cidr::parse("10.0.0.0/8").unwrap()];
    let (closed, closed_at) = source(StreamRules { allow, ..rules(Framing::Newline) });
    let mut few = rules(Framing::Newline);
    few.inlet.key = "few".into();
    few.options.connections_max = 1;
    few.framing.record_bytes_max = 4;
    let (few, few_at) = source(few);
    let sinks = [Keep::new(0, Format::Raw), Keep::new(1, Format::Raw)];
    let engine = start(BACKENDS[0], &[(closed, Arc::clone(&sinks[0])), (few, Arc::clone(&sinks[1]))]);
    drop(send(closed_at, b"x\n"));
    let first = send(few_at, b"abcdefgh\n");
    until("the first is there", || sinks[1].len() == 1);
    drop(TcpStream::connect(few_at).unwrap());
    until("both are refused", || engine.status().sources.iter().all(|s| s.errors == 1));
    drop(first);
    drain(engine);
    assert_eq!((sinks[0].len(), sinks[1].records()), (0, vec!["abcd".to_owned()]));
}

#[test]
fn a_unix_stream_is_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for backend in BACKENDS {
        let listening = Listening::bind(&Address::Unix(path.clone()), SHARDS, None).unwrap();
        let source = Arc::new(StreamSource::new(rules(Framing::Nul), listening));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        UnixStream::connect(&path).unwrap().write_all(b"one\0two\nlines\0rest").unwrap();
        until("three are there", || sink.len() == 3);
        drain(engine);
        assert_eq!(sink.records(), ["one", "two\nlines", "rest"]);
    }
}
