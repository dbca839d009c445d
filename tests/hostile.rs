//! Hostile and broken senders: what broke peers. None disturbs a neighbour, takes memory beyond its bound or goes uncounted.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;

use crate::harness::{until, until_ok};
use crate::net::{BACKENDS, By, NDJSON, Net};

/// More than an engine with two shards and the default budgets needs for anything here, KiB.
const MEMORY_KIB_MAX: u64 = 160 << 10;

/// What is counted of a connection, by the names that `source status --json` has for it.
const COUNTED: [&str; 5] = ["records_in", "malformed", "misframed", "truncated", "errors"];

type Counts = [u64; COUNTED.len()];

fn counts(net: &Net) -> Counts {
    let source = net.source();
    COUNTED.map(|name| source[name].as_u64().unwrap_or_else(|| panic!("no {name} in {source}")))
}

/// What a connection sends before its end, and what is counted then.
struct Case {
    name: &'static str,
    sends: Vec<u8>,
    counted: Counts,
}

fn case(name: &'static str, sends: impl Into<Vec<u8>>, counted: Counts) -> Case {
    Case { name, sends: sends.into(), counted }
}

/// A way to put a message into a frame.
type Frame = fn(&str) -> String;

const OCTET: Frame = |text| format!("{} {text}", text.len());
const LINE: Frame = |text| format!("{text}\n");

/// Well-behaved connections that are open all the time. They speak in these frames, by turns.
struct Neighbours {
    streams: Vec<TcpStream>,
    frames: &'static [Frame],
    said: usize,
}

impl Neighbours {
    /// `hello` is what each connection begins with.
    fn of(net: &Net, hello: &[u8], frames: &'static [Frame]) -> Self {
        let greet = |mut stream: TcpStream| stream.write_all(hello).map(|()| stream);
        let streams = (0..4).map(|_| greet(net.connect()).unwrap()).collect();
        Self { streams, frames, said: 0 }
    }

    /// Each says something; how many messages that are in all.
    fn speak(&mut self) -> u64 {
        for (who, stream) in self.streams.iter_mut().enumerate() {
            for n in self.said..self.said + 10 {
                let frame = self.frames[n % self.frames.len()];
                stream.write_all(frame(&format!("<34>neighbour {who} {n}")).as_bytes()).unwrap();
            }
        }
        self.said += 10;
        10 * self.streams.len() as u64
    }

    /// Fails unless all they said is among the messages, once and in order.
    fn all_heard(&self, messages: &[String]) {
        for who in 0..self.streams.len() {
            let prefix = format!("neighbour {who} ");
            let heard: Vec<&str> = messages.iter().filter_map(|text| text.strip_prefix(&prefix)).collect();
            let said: Vec<String> = (0..self.said).map(|n| n.to_string()).collect();
            assert_eq!(heard, said, "of neighbour {who}");
        }
    }
}

/// Ends an engine that must be well, and gives the messages of its NDJSON.
fn messages(net: Net) -> Vec<String> {
    let memory = net.engine.memory_kib();
    assert!(memory < MEMORY_KIB_MAX, "{memory} KiB");
    let message = |line: &String| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        object["data"].as_str().unwrap_or_default().to_owned()
    };
    net.lines().iter().map(message).collect()
}

/// Sends each case on a connection of its own, whole and then byte by byte, beside neighbours and silent connections.
fn survives(io: &str, params: &str, mut neighbours: impl FnMut(&Net) -> Neighbours, cases: &[Case]) {
    let net = Net::with(io, By::Tcp, &format!("header_mode = \"parse\"\n{params}"), NDJSON);
    let mut neighbours = neighbours(&net);
    // One silent connection that holds up its neighbours broke others. (Where a header must come, silence is an error.)
    let silent = if params.contains("proxy") { 0 } else { 50 };
    let silent: Vec<TcpStream> = (0..silent).map(|_| net.connect()).collect();
    let mut expected = counts(&net);
    for case in cases {
        let ways = if case.sends.len() < 500 { vec![case.sends.len().max(1), 1] } else { vec![1 << 20] };
        for size in ways {
            let mut stream = net.connect();
            stream.set_nodelay(true).unwrap();
            // A connection that was found out may be closed before all is said.
            let _ = case.sends.chunks(size).try_for_each(|piece| stream.write_all(piece));
            let _ = stream.shutdown(Shutdown::Write);
            expected[0] += neighbours.speak();
            expected.iter_mut().zip(case.counted).for_each(|(sum, n)| *sum += n);
            until_ok(
                &format!("{io}, {}, {size} bytes at a time: {COUNTED:?} {expected:?}", case.name),
                || {
                    let now = counts(&net);
                    if now == expected { Ok(()) } else { Err(format!("{now:?}")) }
                },
            );
        }
    }
    let remarks = crate::cli::run(net.site.folder(), &["source", "status"]).out;
    for (name, n) in COUNTED.iter().zip(expected).skip(1).take(3).filter(|(_, n)| *n > 0) {
        assert!(remarks.contains(&format!("{name} {n}")), "{name} {n}: {remarks}");
    }
    drop(silent);
    neighbours.all_heard(&messages(net));
}

fn lines(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| format!("{text}\n").into_bytes()).collect()
}

#[test]
fn counts_and_headers_that_broke_others() {
    let pris = ["<", "<>", "<192>", "<999999999999>", "<034>x", "<34", "<3 4>x", "34>x"];
    let ends = [
        "<34>",
        "<34>1",
        "<34>1 2003-10-11T22:14:15.003Z",
        "<34>1 - h a p m",
        "<34>1 - h a p m -",
        "<34>Oct 11 22:14:15",
    ];
    let unfinished =
        ["[", "[a", "[a b", "[a b=", "[a b=\"", "[a b=\"c", "[a b=\"c\\", "[a b=\"c\"", "[a b=\"c\\\"]"];
    let unfinished: Vec<String> = unfinished.iter().map(|sd| format!("<34>1 - h a p m {sd}")).collect();
    let unfinished: Vec<&str> = unfinished.iter().map(String::as_str).collect();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let cases = [
        case("nothing", "", [0; 5]),
        case("two million digits", [vec![b'7'; 2_000_000], b" <34>x\n".to_vec()].concat(), [1, 1, 0, 1, 0]),
        case("an octet count of 0", "0 <34>x\n", [1, 1, 0, 0, 0]),
        case("leading zeros", "007 <34>x\n", [1, 1, 0, 0, 0]),
        case("beyond usize", "99999999999999999999999 <34>x\n", [1, 1, 0, 0, 0]),
        case("a frame that never comes", "9999999999 <34>x", [1, 0, 0, 0, 1]),
        case(
            "a frame beyond all limits",
            [b"9999999999 <34>".to_vec(), vec![b'x'; 2 << 20]].concat(),
            [1, 0, 0, 1, 0],
        ),
        case("a count within a character", [&b"6 <34>a\xc3"[..], b"\xbc\n"].concat(), [2, 1, 0, 0, 0]),
        case("a count that ends in its PRI", "3 <34><35>x\n", [2, 2, 0, 0, 0]),
        case("wrong PRIs", lines(&pris), [8, 8, 0, 0, 0]),
        case("messages that end in their header", lines(&ends), [6, 2, 0, 0, 0]),
        case("unfinished structured data", lines(&unfinished), [9, 9, 0, 0, 0]),
        case(
            "100 000 elements",
            format!("<34>1 - h a p m {} end\n", "[a b=\"c\"]".repeat(100_000)),
            [1, 0, 0, 0, 0],
        ),
        case("every byte", [&b"<34>"[..], &all_bytes].concat(), [2, 1, 0, 0, 0]),
        case("only newlines", "\n\n\n", [3, 3, 0, 0, 0]),
    ];
    for io in BACKENDS {
        survives(io, "", |net| Neighbours::of(net, b"", &[OCTET, LINE]), &cases);
    }
}

#[test]
fn the_same_where_only_counted_frames_are_expected() {
    let cases = [
        case("a line", "<34>x\n", [1, 0, 1, 0, 1]),
        case("two million digits", [vec![b'7'; 2_000_000], b"\n".to_vec()].concat(), [1, 1, 1, 1, 1]),
        case("0, leading zeros, beyond usize", "0 <34>x\n007 <34>x\n99999999999999 <34>x\n", [3, 3, 3, 0, 3]),
        case("no space", "5<34>x\n", [1, 1, 1, 0, 1]),
        case("a frame that never comes", "9999999999 x", [1, 1, 0, 0, 1]),
    ];
    for io in BACKENDS {
        survives(io, "framing = \"octet\"", |net| Neighbours::of(net, b"", &[OCTET]), &cases);
    }
}

/// A header of version 2 for TCP over IPv4 that declares so many bytes.
fn version_2(declared: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend(declared.to_be_bytes());
    header.extend([192, 0, 2, 1, 10, 0, 0, 1, 18, 103, 2, 2]);
    header
}

#[test]
fn proxy_headers_that_never_come_are_given_up_and_hold_no_one_up() {
    let hold = |io: &'static str| {
        let net = Net::with(io, By::Tcp, "header_mode = \"parse\"\nproxy_protocol = true", NDJSON);
        let half: Vec<TcpStream> = (0..50)
            .map(|n| {
                let mut stream = net.connect();
                stream.write_all(&version_2(12)[..n % 28]).unwrap();
                stream
            })
            .collect();
        let mut neighbours = Neighbours::of(&net, b"PROXY UNKNOWN\r\n", &[OCTET, LINE]);
        let mut said = 0;
        until("they are given up", || {
            said += neighbours.speak();
            net.figure("errors") == 50
        });
        net.await_delivered(said);
        drop(half);
        neighbours.all_heard(&messages(net));
    };
    std::thread::scope(|scope| BACKENDS.iter().for_each(|io| drop(scope.spawn(|| hold(io)))));
}

#[test]
fn proxy_headers_that_lie() {
    let cases = [
        case("65 535 bytes in 28", version_2(0xffff), [0, 0, 0, 0, 1]),
        case(
            "fewer bytes than the addresses",
            [version_2(11), b"<34>x\n".to_vec()].concat(),
            [0, 0, 0, 0, 1],
        ),
        case("4 096 bytes that do not come", version_2(4000), [0, 0, 0, 0, 1]),
        case("half a header", &version_2(12)[..20], [0, 0, 0, 0, 1]),
        case("a line without an end", [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(), [0, 0, 0, 0, 1]),
        case("no header", "<34>x\n", [0, 0, 0, 0, 1]),
        case("a good one", [version_2(12), b"<34>x\n".to_vec()].concat(), [1, 0, 0, 0, 0]),
    ];
    for io in BACKENDS {
        let neighbours = |net: &Net| Neighbours::of(net, b"PROXY UNKNOWN\r\n", &[LINE]);
        survives(io, "proxy_protocol = true", neighbours, &cases);
    }
}

/// 64 connections leave a megabyte unfinished each, on a budget of ten on each of two shards.
#[test]
fn unfinished_messages_of_many_stay_within_the_budget() {
    for io in BACKENDS {
        let net = Net::with(io, By::Tcp, "header_mode = \"parse\"", NDJSON);
        let mut neighbours = Neighbours::of(&net, b"", &[OCTET, LINE]);
        let unfinished = [b"<34>".to_vec(), vec![b'x'; 1_000_000]].concat();
        let greedy: Vec<TcpStream> = (0..64)
            .map(|_| {
                let mut stream = net.connect();
                stream.write_all(&unfinished).unwrap();
                stream
            })
            .collect();
        let sent = (greedy.len() * unfinished.len()) as u64;
        until("all is received", || net.figure("bytes_in") >= sent);
        let memory = net.engine.memory_kib();
        assert!(memory < MEMORY_KIB_MAX, "{memory} KiB through {io}");
        assert!(net.figure("truncated") > 0, "the largest are cut");
        let heard = neighbours.speak();
        drop(greedy);
        net.await_delivered(64 + heard);
        neighbours.all_heard(&messages(net));
    }
}

/// Senders that cannot be slowed but by their windows, and a sink that takes nothing for a while.
#[test]
fn a_sink_that_stalls_holds_its_senders_back_and_loses_nothing() {
    const MESSAGES: usize = 20_000;
    for io in BACKENDS {
        let net = Net::stalled(io, By::Tcp, "");
        let senders: Vec<_> = (0..16)
            .map(|who| {
                let mut stream = net.connect();
                let text = move |n: usize| format!("<34>{who} {n} {}\n", "x".repeat(200));
                std::thread::spawn(move || {
                    (0..MESSAGES).try_for_each(|n| stream.write_all(text(n).as_bytes()))
                })
            })
            .collect();
        let mut before = 0;
        until("receiving stops", || {
            let now = net.figure("bytes_in");
            let same = now == before && now > 0;
            before = now;
            same
        });
        let all = 16 * MESSAGES as u64;
        assert!(net.figure("records_in") < all, "the budget is smaller than this");
        let memory = net.engine.memory_kib();
        assert!(memory < MEMORY_KIB_MAX, "{memory} KiB through {io}");
        let lines = net.reader().lines(16 * MESSAGES);
        senders.into_iter().for_each(|sender| sender.join().unwrap().unwrap());
        let mut next = [0; 16];
        for line in lines {
            let mut words = line[4..].split(' ').map(|word| word.parse::<usize>());
            let (who, n) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
            assert_eq!(n, next[who], "of connection {who} through {io}");
            next[who] += 1;
        }
        assert_eq!(next, [MESSAGES; 16]);
    }
}

#[test]
fn datagrams_of_every_size_and_kind() {
    for io in BACKENDS {
        let net = Net::with(io, By::Udp, "header_mode = \"parse\"", NDJSON);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let longest = format!("<34>{}", "x".repeat(65_503));
        for datagram in [
            longest.as_str(),
            "",
            "<",
            "<>",
            "<192>",
            "<999999999999>",
            "<34>",
            "17 <34>in a frame",
            "<34>last",
        ] {
            socket.send_to(datagram.as_bytes(), net.at).unwrap();
        }
        net.await_delivered(9);
        assert_eq!((net.figure("malformed"), net.figure("kernel_drops")), (6, 0));
        let messages = messages(net);
        assert!(messages.iter().any(|text| text.len() == 65_503) && messages.contains(&"last".to_owned()));
    }
}

#[test]
fn unix_datagrams_longer_than_any_of_udp_are_cut_and_counted() {
    for io in BACKENDS {
        let net = Net::start(io, By::UnixDatagram, "");
        let socket = UnixDatagram::unbound().unwrap();
        for len in [65_535, 65_536, 150_000] {
            socket.send_to(&vec![b'x'; len], net.socket()).unwrap();
        }
        net.await_delivered(3);
        until_ok("the cuts are counted", || match net.figure("truncated") {
            2 => Ok(()),
            n => Err(format!("{n} through {io}")),
        });
        assert!(net.lines().iter().all(|line| line.len() == 65_535));
    }
}
