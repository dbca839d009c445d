//! Sends datagrams, one socket after the other; each socket is a unit of order.
//!
//! Any datagram may be lost while the engine is down. Those of the last socket are sent while it is up: they arrive, or
//! the kernel has counted them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::pace::{Pace, Sender, Shared};
use super::{Input, Place};
use crate::message::Record;
use crate::oracle::{Must, Sent};

/// Messages of the last socket.
const LAST_WORDS: u32 = 200;
/// A socket is replaced after so many.
const MESSAGES_MAX: u32 = 3000;

/// A sender over UDP.
pub(super) struct DatagramInput {
    number: u8,
    rate: u32,
    at: SocketAddr,
    /// How many messages each socket sent.
    sender: Sender<Vec<u32>>,
}

impl DatagramInput {
    pub(super) fn new(number: u8, rate: u32, place: &Place) -> Self {
        let at = (place.address, Place::port(number)).into();
        Self { number, rate, at, sender: Sender::new() }
    }
}

impl Input for DatagramInput {
    fn number(&self) -> u8 {
        self.number
    }

    fn source(&self) -> String {
        format!(
            "connect = \"syslog_udp_src\"\nparams = {{ addr = \"{}\", port = {}, header_mode = \"keep\", tcp_recv_bytes = \"1MiB\" }}\n",
            self.at.ip(),
            self.at.port(),
        )
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn begin(&mut self) {
        let (input, at, rate) = (self.number, self.at, self.rate);
        self.sender.begin(move |shared| {
            let (mut streams, mut pace) = (Vec::new(), Pace::new(rate));
            while !shared.ending.load(Ordering::Acquire) {
                let socket = UdpSocket::bind((at.ip(), 0)).unwrap();
                let (number, mut next) = (streams.len() as u16, 0);
                while next < MESSAGES_MAX && !shared.ending.load(Ordering::Acquire) {
                    let messages = pace.next();
                    send(input, &socket, at, number, next..next + messages, shared);
                    next += messages;
                }
                streams.push(next);
            }
            let socket = UdpSocket::bind((at.ip(), 0)).unwrap();
            for from in (0..LAST_WORDS).step_by(20) {
                send(input, &socket, at, streams.len() as u16, from..from + 20, shared);
                std::thread::sleep(Duration::from_millis(1)); // the sender's pace
            }
            streams.push(LAST_WORDS);
            streams
        });
    }

    fn written(&self) -> u64 {
        self.sender.shared.written.load(Ordering::Acquire)
    }

    fn finish(&mut self) {
        self.sender.finish();
    }

    fn sent(&self, dropped: u64) -> Vec<Sent> {
        let streams = self.sender.result().map_or(&[][..], Vec::as_slice);
        let sent = |(stream, messages): (u16, &u32)| Sent {
            input: self.number,
            stream,
            messages: *messages,
            must: if usize::from(stream) + 1 == streams.len() { Must::AllBut(dropped) } else { Must::Any },
            may_turn: false,
        };
        (0..).zip(streams).map(sent).collect()
    }
}

fn send(
    input: u8,
    socket: &UdpSocket,
    at: SocketAddr,
    stream: u16,
    numbers: std::ops::Range<u32>,
    shared: &Shared,
) {
    for number in numbers {
        let mut text = Vec::new();
        Record { input, stream, number }.write(&mut text);
        shared.written.fetch_add(1, Ordering::Release);
        // Nobody listens while the engine is down: that is what this source may lose.
        let _ = socket.send_to(&text, at);
    }
}
