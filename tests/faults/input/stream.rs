//! Sends over TCP or a unix stream, one connection after the other; each connection is a unit of order.
//!
//! A connection that broke had a beginning that arrived: nobody can say where it ended. The last one must arrive whole.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{SockAddr, Socket, Type};

use super::pace::{Pace, Sender, Shared};
use super::{Input, Place};
use crate::message::Record;
use crate::oracle::{Must, Sent};
use crate::plan::Framing;

/// Messages of the last connection.
const LAST_WORDS: u32 = 300;
/// A connection is closed and made anew after so many.
const MESSAGES_MAX: u32 = 20_000;
/// How long a write may take before the sender looks whether it is to end.
const WRITE_MAX: Duration = Duration::from_millis(50);

/// Which source listens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Tcp,
    Unix,
    Syslog,
}

/// A sender over connections.
pub(super) struct StreamInput {
    number: u8,
    rate: u32,
    door: Door,
    framing: Framing,
    at: SockAddr,
    /// `addr` and `port` of the source.
    address: String,
    /// How many messages each connection was given; the last of them is the one with the last words.
    sender: Sender<Vec<u32>>,
}

impl StreamInput {
    pub(super) fn new(number: u8, rate: u32, door: Door, framing: Framing, place: &Place) -> Self {
        let (at, address) = match door {
            Door::Unix => {
                let path = place.folder.join(format!("i{number}.sock"));
                (SockAddr::unix(&path).unwrap(), format!("\"unix:{}\"", path.display()))
            }
            Door::Tcp | Door::Syslog => {
                let at = SocketAddr::from((place.address, Place::port(number)));
                (at.into(), format!("\"{}\", port = {}", at.ip(), at.port()))
            }
        };
        Self { number, rate, door, framing, at, address, sender: Sender::new() }
    }
}

impl Input for StreamInput {
    fn number(&self) -> u8 {
        self.number
    }

    fn source(&self) -> String {
        let (connect, more) = match self.door {
            Door::Tcp | Door::Unix => ("tcp_src", ""),
            Door::Syslog => ("syslog_tcp_src", ", header_mode = \"keep\""),
        };
        format!(
            "connect = \"{connect}\"\nparams = {{ addr = {}, framing = \"{}\", tcp_recv_bytes = \"1MiB\"{more} }}\n",
            self.address,
            self.framing.name(),
        )
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn begin(&mut self) {
        let (input, at, framing, rate) = (self.number, self.at.clone(), self.framing, self.rate);
        self.sender.begin(move |shared| {
            let mut streams = Vec::new();
            while !shared.ending.load(Ordering::Acquire) {
                match connect(&at) {
                    Ok(stream) => send(input, stream, framing, rate, &mut streams, shared),
                    Err(_) => std::thread::sleep(Duration::from_millis(3)), // its listener is not there now
                }
            }
            say_last_words(input, &at, framing, &mut streams, shared);
            streams
        });
    }

    fn written(&self) -> u64 {
        self.sender.shared.written.load(Ordering::Acquire)
    }

    fn finish(&mut self) {
        self.sender.finish();
    }

    fn sent(&self, _dropped: u64) -> Vec<Sent> {
        let streams = self.sender.result().map_or(&[][..], Vec::as_slice);
        let sent = |(stream, messages): (u16, &u32)| Sent {
            input: self.number,
            stream,
            messages: *messages,
            must: if usize::from(stream) + 1 == streams.len() { Must::All } else { Must::Prefix },
            may_turn: false,
        };
        (0..).zip(streams).map(sent).collect()
    }
}

fn connect(at: &SockAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(at.domain(), Type::STREAM, None)?;
    socket.connect(at)?;
    socket.set_write_timeout(Some(WRITE_MAX))?;
    Ok(socket)
}

/// Sends over one connection until it breaks, has had enough, or the sender ends.
fn send(
    input: u8,
    mut connection: Socket,
    framing: Framing,
    rate: u32,
    streams: &mut Vec<u32>,
    shared: &Shared,
) {
    let (number, mut pace, mut next) = (streams.len() as u16, Pace::new(rate), 0);
    streams.push(0);
    while next < MESSAGES_MAX && !shared.ending.load(Ordering::Acquire) {
        let messages = pace.next();
        let text = encode(input, number, next, messages, framing);
        next += messages;
        // Counted before it is sent: the engine never has more than was written.
        streams[usize::from(number)] = next;
        shared.written.fetch_add(messages.into(), Ordering::Release);
        if !write_all(&mut connection, &text, shared) {
            return;
        }
    }
}

/// Writes everything; `false` when the connection broke, or the sender ends while nothing is taken.
fn write_all(connection: &mut Socket, mut text: &[u8], shared: &Shared) -> bool {
    while !text.is_empty() {
        match connection.write(text) {
            Ok(n) => text = &text[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if shared.ending.load(Ordering::Acquire) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// A connection that nothing may break: the engine is up and stays.
fn say_last_words(input: u8, at: &SockAddr, framing: Framing, streams: &mut Vec<u32>, shared: &Shared) {
    let mut connection = connect(at).unwrap_or_else(|e| panic!("{at:?} does not listen: {e}"));
    connection.set_write_timeout(None).unwrap();
    shared.written.fetch_add(LAST_WORDS.into(), Ordering::Release);
    let text = encode(input, streams.len() as u16, 0, LAST_WORDS, framing);
    streams.push(LAST_WORDS);
    connection.write_all(&text).unwrap_or_else(|e| panic!("{at:?} broke though nothing happened: {e}"));
    connection.shutdown(Shutdown::Write).unwrap();
}

fn encode(input: u8, stream: u16, from: u32, messages: u32, framing: Framing) -> Vec<u8> {
    let (mut text, mut all) = (Vec::new(), Vec::new());
    for number in from..from + messages {
        text.clear();
        Record { input, stream, number }.write(&mut text);
        framing.write(&text, &mut all);
    }
    all
}
