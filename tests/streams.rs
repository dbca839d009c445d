//! Streams at full speed: every message arrives once and in order within its connection, whenever the sender closes.
//!
//! WPGEN_MESSAGES sets how many; ten million and a release build make it the long run that the README names.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::harness::until;
use crate::net::{BACKENDS, By, Net};

/// Messages of a run where the environment names no other number.
const MESSAGES: u64 = 200_000;
/// Bytes a sender writes at once, about.
const WRITE_BYTES: usize = 256 << 10;

fn message(who: usize, n: u64) -> String {
    format!("<34>{who} {n} {}", &"x".repeat(100)[..(n * 7 % 100) as usize])
}

/// Sends `messages` and closes; the last one ends with the connection.
fn send(at: SocketAddr, who: usize, messages: u64) {
    let mut stream = TcpStream::connect(at).unwrap();
    let mut text = String::new();
    for n in 0..messages {
        text.push_str(&message(who, n));
        if n + 1 < messages {
            text.push('\n');
        }
        if text.len() > WRITE_BYTES {
            stream.write_all(text.as_bytes()).unwrap();
            text.clear();
        }
    }
    stream.write_all(text.as_bytes()).unwrap();
}

fn arrive(io: &str, connections: usize) {
    let wanted = std::env::var("WPGEN_MESSAGES").map_or(MESSAGES, |n| n.parse().unwrap());
    let net = Net::start(io, By::Tcp, "");
    // They close one after the other: each has a little more to say than the one before, and on average `each`.
    let (count, each) = (connections as u64, wanted / connections as u64);
    let shares: Vec<u64> = (0..count).map(|who| each / 2 + each * (2 * who + 1) / (2 * count)).collect();
    let begun = Instant::now();
    let senders: Vec<_> = shares
        .iter()
        .enumerate()
        .map(|(who, share)| {
            let (at, share) = (net.at, *share);
            std::thread::spawn(move || send(at, who, share))
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let sent: u64 = shares.iter().sum();
    net.await_delivered(sent);
    println!("{sent} messages over {connections} through {io}: {:.1?}", begun.elapsed());
    net.engine.stop();
    let mut next = vec![0; connections];
    for line in BufReader::new(File::open(net.site.path("out")).unwrap()).lines() {
        let line = line.unwrap();
        let who: usize = line[4..].split(' ').next().unwrap().parse().unwrap();
        assert_eq!(line, message(who, next[who]), "of connection {who} through {io}");
        next[who] += 1;
    }
    assert!(next == shares, "{next:?} of {shares:?}");
}

#[test]
fn one_connection() {
    BACKENDS.into_iter().for_each(|io| arrive(io, 1));
}

#[test]
fn sixty_four_connections() {
    BACKENDS.into_iter().for_each(|io| arrive(io, 64));
}

#[test]
fn a_limit_of_records_a_second_is_kept_by_the_record_and_not_by_the_buffer() {
    const LIMIT: f64 = 100.0;
    for io in BACKENDS {
        let net = Net::start(io, By::Tcp, "rate_limit = 100");
        let mut stream = net.connect();
        let begun = Instant::now();
        stream.write_all("<34>x\n".repeat(3000).as_bytes()).unwrap();
        until("it goes on at its pace", || {
            let received = net.figure("records_in");
            // A second's worth may come at once, and a tenth of one is taken at a time.
            let most = LIMIT * (begun.elapsed().as_secs_f64() + 1.1);
            assert!(received as f64 <= most, "{received} records through {io}, and {most} may");
            received as f64 >= 1.5 * LIMIT
        });
        net.engine.stop();
    }
}
