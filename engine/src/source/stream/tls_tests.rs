//! TLS into a whole engine, on both backends: rustls' client and bare sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::entrance::GUESTS_MAX;
use super::tests::{rules, source};
use super::*;
use crate::frame::Framing;
use crate::lane::CREDIT_BATCHES;
use crate::pool::ARENA_BYTES;
use crate::sink::format::Format;
use crate::source::playground::{BACKENDS, Keep, SHARDS, drain, start, until};
use crate::tls::rig::Papers;

static PAPERS: LazyLock<Papers> = LazyLock::new(Papers::new);

type Client = StreamOwned<ClientConnection, TcpStream>;

fn secured(client_ca: Option<&str>) -> StreamRules {
    let tls = Some(Server::open(&PAPERS.listen(client_ca)).unwrap());
    StreamRules { tls, ..rules(Framing::Newline) }
}

fn connect(at: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(client, TcpStream::connect(at).unwrap())
}

fn goodbye(mut client: Client) {
    client.conn.send_close_notify();
    client.flush().unwrap();
    // What the server answers is taken, so that its kernel resets nothing.
    client.sock.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = client.sock.read_to_end(&mut Vec::new());
}

#[test]
fn bursts_that_close_at_once_arrive_whole_and_in_order() {
    for backend in BACKENDS {
        for version in [&TLS12, &TLS13] {
            let (source, at) = source(secured(None));
            let sink = Keep::new(0, Format::Raw);
            let engine = start(backend, &[(source, Arc::clone(&sink))]);
            let config = Arc::new(PAPERS.client(version, None));
            let (connections, messages) = (16, 4000u32);
            let senders: Vec<_> = (0..connections)
                .map(|who| {
                    let config = Arc::clone(&config);
                    std::thread::spawn(move || {
                        let text = |i: u32| format!("{who} {i} {}\n", "x".repeat(i as usize % 400));
                        let bytes: String = (0..messages).map(text).collect();
                        let mut client = connect(at, &config);
                        client.write_all(bytes.as_bytes()).unwrap();
                        client.write_all(format!("{who} {messages} rest").as_bytes()).unwrap();
                        goodbye(client);
                    })
                })
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let all = connections as usize * (messages as usize + 1);
            until("all are there", || sink.len() == all);
            let figures = drain(engine);
            assert_eq!((figures[0].records_in, figures[0].errors), (all as u64, 0), "{backend:?}");
            let mut next = vec![0u32; connections as usize];
            for record in sink.records() {
                let mut words = record.split(' ').map(str::parse::<u32>);
                let (who, i) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
                assert_eq!(i, next[who as usize], "{backend:?} {version:?} connection {who}");
                next[who as usize] += 1;
            }
        }
    }
}

#[test]
fn bytes_one_by_one_behind_a_proxy_header_are_the_same_records() {
    for backend in BACKENDS {
        let (source, at) = source(StreamRules { proxied: true, ..secured(None) });
        let sink = Keep::new(0, Format::Ndjson);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let config = Arc::new(PAPERS.client(&TLS13, None));
        let mut client = connect(at, &config);
        client.sock.set_nodelay(true).unwrap();
        client.sock.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 6514\r\n").unwrap();
        while client.conn.is_handshaking() {
            dribble(&mut client);
            if client.conn.wants_read() {
                client.conn.read_tls(&mut client.sock).unwrap();
                client.conn.process_new_packets().unwrap();
            }
        }
        client.conn.writer().write_all(b"one\ntwo\nrest").unwrap();
        client.conn.send_close_notify();
        dribble(&mut client);
        until("three are there", || sink.len() == 3);
        goodbye(client);
        let figures = drain(engine);
        assert_eq!(figures[0].errors, 0);
        let records = sink.records();
        assert!(
            records[0].contains("\"data\":\"one\"") && records[2].contains("\"data\":\"rest\""),
            "{records:?}"
        );
        assert!(records[0].contains("\"peer\":\"192.0.2.1:4711\""), "{records:?}");
    }
}

/// Sends what the client has to say in writes of one byte.
fn dribble(client: &mut Client) {
    let mut bytes = Vec::new();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut bytes).unwrap();
    }
    bytes.iter().for_each(|byte| client.sock.write_all(&[*byte]).unwrap());
}

#[test]
fn what_came_before_an_abrupt_end_is_there_and_the_end_is_counted() {
    for backend in BACKENDS {
        let (source, at) = source(secured(None));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let mut client = connect(at, &Arc::new(PAPERS.client(&TLS13, None)));
        client.write_all(b"one\ntwo\nrest").unwrap();
        client.flush().unwrap();
        client.sock.shutdown(std::net::Shutdown::Write).unwrap();
        until("three are there", || sink.len() == 3);
        until("the end is counted", || engine.status().sources[0].errors == 1);
        drop(client);
        drain(engine);
        assert_eq!(sink.records(), ["one", "two", "rest"], "{backend:?}");
    }
}

#[test]
fn a_client_that_never_reads_loses_nothing_by_closing() {
    const MESSAGES: usize = 20_000;
    for backend in BACKENDS {
        let (source, at) = source(secured(None));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let mut client = connect(at, &Arc::new(PAPERS.client(&TLS13, None)));
        let bytes: String = (0..MESSAGES).map(|i| format!("{i:0100}\n")).collect();
        client.write_all(bytes.as_bytes()).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        // Were there anything unread, its kernel would send a reset, and not what it still has.
        drop(client);
        until("all are there", || sink.len() == MESSAGES);
        assert_eq!(drain(engine)[0].errors, 0, "{backend:?}");
    }
}

#[test]
fn strangers_are_refused_and_neighbours_go_on() {
    PAPERS.make("stranger", "leaf", None);
    for backend in BACKENDS {
        let (source, at) = source(secured(Some("ca.pem")));
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let known = |version| connect(at, &Arc::new(PAPERS.client(version, Some("client"))));
        let mut neighbour = known(&TLS12);
        neighbour.write_all(b"before\n").unwrap();
        until("the neighbour is in", || sink.len() == 1);
        for own in [None, Some("stranger")] {
            let mut stranger = connect(at, &Arc::new(PAPERS.client(&TLS13, own)));
            let refused = stranger.write_all(b"x\n").and_then(|()| stranger.read(&mut [0]));
            assert!(refused.is_err(), "{backend:?} {own:?}: {refused:?}");
        }
        let mut plain = TcpStream::connect(at).unwrap();
        plain.write_all(b"<34>Oct 11 22:14:15 host su: hello\n").unwrap();
        assert_eq!(plain.read(&mut [0; 64]).unwrap_or(0), 0, "closed without TLS");
        until("each is counted", || engine.status().sources[0].errors == 3);
        neighbour.write_all(b"behind\n").unwrap();
        until("the neighbour goes on", || sink.len() == 2);
        let mut next = known(&TLS13);
        next.write_all(b"next\n").unwrap();
        until("who is known comes in", || sink.len() == 3);
        goodbye(neighbour);
        goodbye(next);
        drain(engine);
        assert_eq!(sink.records(), ["before", "behind", "next"], "{backend:?}");
    }
}

#[test]
fn handshakes_that_never_end_keep_no_one_out() {
    for backend in BACKENDS {
        let mut few = secured(None);
        few.options.connections_max = 2;
        let (source, at) = source(few);
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let config = Arc::new(PAPERS.client(&TLS13, None));
        let mut first = connect(at, &config);
        first.write_all(b"first\n").unwrap();
        until("the first is in", || sink.len() == 1);
        // More than may wait on both shards; every other one has begun to shake hands.
        let half = |i: usize| {
            let mut silent = TcpStream::connect(at).unwrap();
            if i.is_multiple_of(2) {
                silent.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            }
            silent
        };
        let silent: Vec<_> = (0..SHARDS * GUESTS_MAX + 50).map(half).collect();
        let mut second = connect(at, &config);
        second.write_all(b"second\n").unwrap();
        until("the second comes in", || sink.len() == 2);
        first.write_all(b"third\n").unwrap();
        until("the first goes on", || sink.len() == 3);
        let mut refused = connect(at, &config);
        let end = refused.write_all(b"x\n").and_then(|()| refused.read(&mut [0]));
        assert!(!matches!(end, Ok(1..)), "two are in already: {end:?}");
        until("those that left for others are counted", || engine.status().sources[0].errors >= 50);
        drop((silent, refused));
        goodbye(first);
        goodbye(second);
        drain(engine);
        assert_eq!(sink.records(), ["first", "second", "third"], "{backend:?}");
    }
}

#[test]
fn hands_are_shaken_while_a_sink_takes_nothing() {
    for backend in BACKENDS {
        let mut roomy = secured(None);
        roomy.options.budget_bytes = 64 << 20;
        let (source, at) = source(roomy);
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let config = Arc::new(PAPERS.client(&TLS13, None));
        let text = "a line of some length, again and again and again\n";
        // More than the sink is given.
        let count = (CREDIT_BATCHES as usize + 4) * ARENA_BYTES / text.len();
        let lines = text.repeat(count);
        let mut first = connect(at, &config);
        first.write_all(lines.as_bytes()).unwrap();
        until("the worker waits", || engine.status().sources[0].waits.sink_ns > 0);
        let others: Vec<_> = (0..2 * SHARDS)
            .map(|_| {
                let mut other = connect(at, &config);
                while other.conn.is_handshaking() {
                    other.conn.complete_io(&mut other.sock).unwrap();
                }
                other
            })
            .collect();
        sink.stalled.store(false, Ordering::Relaxed);
        others.into_iter().for_each(goodbye);
        goodbye(first);
        until("all are there", || sink.len() == count);
        let figures = drain(engine);
        assert_eq!(figures[0].errors, 0, "{backend:?}");
    }
}

#[test]
fn a_renewed_certificate_is_used_for_the_next_handshake() {
    let papers = Papers::new();
    for backend in BACKENDS {
        let tls = Some(Server::open(&papers.listen(None)).unwrap());
        let (source, at) = source(StreamRules { tls, ..rules(Framing::Newline) });
        let sink = Keep::new(0, Format::Raw);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let config = Arc::new(papers.client(&TLS13, None));
        let shown = || {
            let mut client = connect(at, &config);
            client.write_all(b"hello\n").unwrap();
            let shown = client.conn.peer_certificates().map(|chain| chain[0].to_vec());
            goodbye(client);
            shown
        };
        let mut old = connect(at, &config);
        old.write_all(b"old\n").unwrap();
        let before = shown();
        // A certificate without its key: it is not used.
        papers.copy("client.pem", "server.pem");
        until("the broken pair is counted", || engine.status().sources[0].errors == 1);
        assert_eq!(shown(), before, "{backend:?}: the old pair stays in use");
        papers.make("server", "leaf", Some("ca"));
        until("the new one is shown", || shown() != before);
        old.write_all(b"still\n").unwrap();
        until("who came in before goes on", || sink.records().iter().any(|record| record == "still"));
        goodbye(old);
        let figures = drain(engine);
        assert_eq!(figures[0].errors, 1, "{backend:?}");
    }
}

#[test]
fn records_bear_the_subject_of_a_certificate_that_was_verified() {
    for backend in BACKENDS {
        for (ca, own, expected) in [
            (Some("ca.pem"), Some("client"), Some("CN=client")),
            // Nobody asks for it, so nobody verifies it.
            (None, Some("client"), None),
        ] {
            let (source, at) = source(secured(ca));
            let sink = Keep::new(0, Format::Ndjson);
            let engine = start(backend, &[(source, Arc::clone(&sink))]);
            let mut client = connect(at, &Arc::new(PAPERS.client(&TLS13, own)));
            client.write_all(b"one\nrest").unwrap();
            client.flush().unwrap();
            until("the first is there", || sink.len() == 1);
            goodbye(client);
            until("the rest is there", || sink.len() == 2);
            drain(engine);
            for record in sink.records() {
                let record: serde_json::Value = serde_json::from_str(&record).unwrap();
                assert_eq!(record["meta"]["tls_subject"].as_str(), expected, "{backend:?} {record}");
            }
        }
    }
}

#[test]
fn a_client_is_told_goodbye_when_the_source_stops_and_nothing_of_it_is_lost() {
    for backend in BACKENDS {
        for version in [&TLS12, &TLS13] {
            let (source, at) = source(secured(None));
            let sink = Keep::new(0, Format::Raw);
            let engine = start(backend, &[(source, Arc::clone(&sink))]);
            let mut client = connect(at, &Arc::new(PAPERS.client(version, None)));
            client.write_all(b"one\nunfinished").unwrap();
            client.flush().unwrap();
            until("the first is there", || sink.len() == 1);
            let draining = std::thread::spawn(move || drain(engine));
            // Zero is the end that was announced; one that was not is an error of rustls.
            assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "{backend:?} {version:?}");
            drop(client);
            let figures = draining.join().unwrap();
            assert_eq!(figures[0].errors, 0, "{backend:?} {version:?}");
            assert_eq!(sink.records(), ["one", "unfinished"], "{backend:?} {version:?}");
        }
    }
}
