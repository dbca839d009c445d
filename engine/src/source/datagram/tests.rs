//! Real datagrams into a whole engine, on both backends.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;

use jiff::tz::TimeZone;

use super::*;
use crate::sink::format::Format;
use crate::source::headers::HeaderRules;
use crate::source::playground::{BACKENDS, Keep, SHARDS, drain, start, until};
use crate::source::rate::Rate;
use crate::source::syslog::{HeaderMode, OnBadMessage};
use crate::syslog::YearPolicy;

fn rules(mode: HeaderMode) -> DatagramRules {
    let headers =
        HeaderRules { mode, on_bad: OnBadMessage::Pass, zone: TimeZone::UTC, year: YearPolicy::Inferred };
    DatagramRules {
        inlet: InletRules {
            key: "s".into(),
            host: "h".into(),
            tags: Vec::new(),
            headers: Some(headers),
            framing: None,
            protocol: "",
            rate: None,
        },
        allow: Vec::new(),
        record_bytes_max: 1 << 16,
        drop_oversize: false,
        budget_bytes: 1 << 20,
    }
}

fn source(rules: DatagramRules, so_rcvbuf: u64) -> (Arc<DatagramSource>, SocketAddr) {
    let address = Address::Inet("127.0.0.1:0".parse().unwrap());
    let options = DatagramOptions { address, so_rcvbuf: Some(so_rcvbuf), gro: false };
    let source = DatagramSource::new(rules, DatagramSocket::bind(&options, SHARDS).unwrap());
    let Address::Inet(at) = *source.address() else { panic!("bound to a port") };
    (Arc::new(source), at)
}

#[test]
fn what_was_sent_is_received_or_counted_as_dropped() {
    const SENT: u64 = 60_000;
    for backend in BACKENDS {
        let (source, at) = source(rules(HeaderMode::Keep), 1 << 20);
        let sink = Keep::new(0, Format::Raw);
        sink.stalled.store(true, Ordering::Relaxed);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for i in 0..SENT {
            sender.send_to(format!("<13>{i:0500}").as_bytes(), at).unwrap();
        }
        let dropped = || engine.status().sources[0].kernel_drops;
        until("the kernel drops", || dropped() > 0);
        sink.stalled.store(false, Ordering::Relaxed);
        until("all are accounted for", || engine.status().sources[0].records_in + dropped() == SENT);
        let figures = drain(engine);
        let dropped = figures[0].kernel_drops;
        assert_eq!((figures[0].errors, &figures[0].dropped[..]), (dropped, &[][..]), "{backend:?}");
        assert_eq!(figures[0].delivered + dropped, SENT);
        assert_eq!(sink.len() as u64 + dropped, SENT);
        let numbers: Vec<u64> = sink.records().iter().map(|r| r[4..].parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once");
    }
}

#[test]
fn each_datagram_is_a_message_with_its_peer() {
    for backend in BACKENDS {
        let (source, at) = source(rules(HeaderMode::Parse), 1 << 20);
        let sink = Keep::new(0, Format::Ndjson);
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for message in ["<34>one\ntwo\r\n\0", "no header", "<34>1 - host app - - - three\n"] {
            sender.send_to(message.as_bytes(), at).unwrap();
        }
        until("all are there", || sink.len() == 3);
        drain(engine);
        let records = sink.records();
        let peer = format!("\"peer\":\"{}\"", sender.local_addr().unwrap());
        assert!(records.iter().all(|record| record.contains(&peer)), "{records:?}");
        assert!(records[0].contains("\"data\":\"one\\ntwo\""), "{records:?}");
        assert!(records[1].contains("\"syslog_malformed\":\"true\""), "{records:?}");
        assert!(records[2].contains("\"data\":\"three\"") && !records[2].contains("syslog_malformed"));
    }
}

#[test]
fn limits_of_length_rate_and_peers_are_counted() {
    let mut limited = rules(HeaderMode::Strip);
    limited.record_bytes_max = 8;
    limited.drop_oversize = true;
    limited.inlet.rate = Rate::new(10).map(Arc::new);
    let mut closed = rules(HeaderMode::Strip);
    closed.allow = vec![Cidr::parse("10.0.0.0/8").unwrap()];
    closed.inlet.key = "closed".into();
    let ((limited, limited_at), (closed, closed_at)) = (source(limited, 1 << 20), source(closed, 1 << 20));
    let sinks = [Keep::new(0, Format::Raw), Keep::new(1, Format::Raw)];
    let engine = start(BACKENDS[0], &[(limited, Arc::clone(&sinks[0])), (closed, Arc::clone(&sinks[1]))]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        sender.send_to(b"<34>abcdefgh", limited_at).unwrap();
        sender.send_to(b"<34>a", limited_at).unwrap();
        sender.send_to(b"<34>a", closed_at).unwrap();
    }
    until("all are judged", || engine.status().records_in() == 60);
    let figures = drain(engine);
    assert_eq!(figures[1].dropped, [("not_allowed".to_owned(), 20)]);
    assert_eq!(figures[0].dropped[0], ("too_long".to_owned(), 20));
    assert_eq!(figures[0].dropped[1].0, "rate_limit");
    assert_eq!(sinks[0].len() as u64, 20 - figures[0].dropped[1].1);
}

#[test]
fn unix_datagrams_are_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for backend in BACKENDS {
        let options = DatagramOptions { address: Address::Unix(path.clone()), so_rcvbuf: None, gro: false };
        let sockets = DatagramSocket::bind(&options, SHARDS).unwrap();
        let sink = Keep::new(0, Format::Ndjson);
        let source = Arc::new(DatagramSource::new(rules(HeaderMode::Parse), sockets));
        let engine = start(backend, &[(source, Arc::clone(&sink))]);
        let sender = UnixDatagram::unbound().unwrap();
        for i in 0..100 {
            sender.send_to(format!("<13>{i}\n").as_bytes(), &path).unwrap();
        }
        until("all are there", || sink.len() == 100);
        drain(engine);
        assert!(sink.records().iter().enumerate().all(|(i, r)| r.contains(&format!("\"data\":\"{i}\""))));
        assert!(!sink.records()[0].contains("\"peer\""));
    }
}
