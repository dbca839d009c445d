//! UDP loses without a word; the engine finds the words: what was sent was received, or the kernel's drops are counted.

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use crate::cli::run;
use crate::harness::until;
use crate::net::{BACKENDS, By, Net};

/// Enough to fill the source's budget, its sink's credit and the kernel's buffer.
const SENT: u64 = 40_000;

fn message(n: u64) -> String {
    format!("<34>{n:08} {}", "x".repeat(1000))
}

/// The numbers of the messages, which must be the ones that were sent, in order and none twice.
fn numbers(lines: &[String]) -> Vec<u64> {
    let numbers: Vec<u64> = lines.iter().map(|line| line[4..12].parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once");
    assert!(lines.iter().zip(&numbers).all(|(line, n)| *line == message(*n)));
    numbers
}

/// A receiver that is held back, its buffer full: then it goes on, and every message is accounted for.
fn held_back(io: &str, by: By, from: &str) {
    let net = Net::stalled(io, by, "so_rcvbuf = \"64KiB\"\ntcp_recv_bytes = \"1MiB\"");
    let socket = UdpSocket::bind(from).unwrap();
    for n in 0..SENT {
        socket.send_to(message(n).as_bytes(), net.at).unwrap();
    }
    until("the kernel drops", || net.figure("kernel_drops") > 0);
    let received = || {
        let source = net.source();
        (source["records_in"].as_u64().unwrap(), source["kernel_drops"].as_u64().unwrap())
    };
    let reading = net.reader();
    until("all are accounted for", || {
        let (records, drops) = received();
        records + drops == SENT
    });
    let (records, drops) = received();
    assert!(records > 0 && drops > 0, "{records} received, {drops} dropped");
    assert_eq!(net.figure("errors"), drops, "a loss is an error");
    assert_eq!(net.source()["kernel_drops_are_a_lower_bound"], false);
    assert_eq!(numbers(&reading.lines(records as usize)).len() as u64, records);
    let list = run(net.site.folder(), &["source", "list"]).out;
    assert!(list.contains("lost in the kernel "), "{list}");
    net.engine.stop();
}

#[test]
fn udp_over_ipv4() {
    BACKENDS.into_iter().for_each(|io| held_back(io, By::Udp, "127.0.0.1:0"));
}

#[test]
fn udp_over_ipv6() {
    BACKENDS.into_iter().for_each(|io| held_back(io, By::Udp6, "[::1]:0"));
}

/// A unix datagram is refused to its sender or received: nothing is lost in between.
#[test]
fn unix_datagrams_are_refused_and_never_lost() {
    for io in BACKENDS {
        let net = Net::stalled(io, By::UnixDatagram, "tcp_recv_bytes = \"1MiB\"");
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut sent, mut refused) = (Vec::new(), 0);
        while refused < 1000 {
            let n = sent.len() as u64 + refused;
            match socket.send_to(message(n).as_bytes(), net.socket()) {
                Ok(_) => sent.push(n),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    refused += 1;
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
        let reading = net.reader();
        assert_eq!(numbers(&reading.lines(sent.len())), sent);
        assert_eq!((net.figure("records_in"), net.figure("kernel_drops")), (sent.len() as u64, 0));
        net.engine.stop();
    }
}

/// Sends several messages as one that the kernel cuts, which is what it merges again with `gro`.
fn send_merged(socket: &UdpSocket, to: SocketAddr, messages: &[String]) {
    let size = i32::try_from(messages[0].len()).unwrap();
    // SAFETY: the option is a number that lives through the call.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), 4)
    };
    assert_eq!(set, 0);
    socket.send_to(messages.concat().as_bytes(), to).unwrap();
}

#[test]
fn with_gro_what_is_counted_is_a_lower_bound_and_says_so() {
    for io in BACKENDS {
        let net = Net::stalled(io, By::Udp, "so_rcvbuf = \"64KiB\"\ntcp_recv_bytes = \"1MiB\"\ngro = true");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in (0..SENT).step_by(50) {
            let messages: Vec<String> = (n..n + 50).map(message).collect();
            send_merged(&socket, net.at, &messages);
        }
        until("the kernel drops", || net.figure("kernel_drops") > 0);
        let _reading = net.reader();
        until("what was received is delivered", || {
            let delivered = net.figure("delivered");
            delivered > 0 && net.figure("records_in") == delivered
        });
        let source = net.source();
        assert_eq!(source["kernel_drops_are_a_lower_bound"], true);
        let (records, drops) =
            (source["records_in"].as_u64().unwrap(), source["kernel_drops"].as_u64().unwrap());
        assert!(records + drops < SENT, "{records} and {drops}: the kernel counts a merged packet once");
        let status = run(net.site.folder(), &["source", "status"]).out;
        assert!(status.contains("lost in the kernel, at least "), "{status}");
        drop(net.engine);
    }
}

/// What a source's settings leave out or cut is in the log, by the name of the setting.
#[test]
fn what_settings_leave_out_is_told() {
    let long = format!("<34>{}", "x".repeat(600));
    let short = "max_message_bytes = 480\noversize = \"";
    for (by, settings, told) in [
        (By::Udp, format!("{short}drop\""), "dropped: longer than max_message_bytes"),
        (By::Tcp, format!("{short}drop\""), "dropped: longer than max_message_bytes"),
        (By::Tcp, format!("{short}truncate\""), "cut: longer than max_message_bytes"),
        (By::Udp, "rate_limit = 1".to_owned(), "dropped: more a second than rate_limit"),
        (By::Udp, "allow = [\"192.0.2.0/24\"]".to_owned(), "dropped: their senders are not in allow"),
    ] {
        let net = Net::start("auto", by, &settings);
        let mut stream = (by == By::Tcp).then(|| net.connect());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            match &mut stream {
                Some(stream) => writeln!(stream, "{long}").unwrap(),
                None => assert_eq!(socket.send_to(long.as_bytes(), net.at).unwrap(), long.len()),
            }
        }
        until("all three are counted", || net.figure("records_in") == 3);
        net.engine.signal(libc::SIGTERM);
        let ran = net.engine.end();
        assert!(
            ran.err.contains(told) && ran.err.contains("source 'app'"),
            "{by:?}, {settings}: {}",
            ran.err
        );
    }
}
