//! Senders: they keep one CPU busy, and count what the kernel took.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::config::tls::{TlsConnect, TlsVersion};
use engine::config::types::OneOrMany;
use engine::tls::client::{Client, portion};

use crate::message::{MESSAGE_BYTES, Messages};

/// Datagrams of one call.
const DATAGRAMS: usize = 64;
/// Plaintext of a record of TLS, at most.
const RECORD_BYTES: usize = 16 << 10;
/// The kernel's send buffer of a datagram socket.
const SEND_BUFFER: i32 = 8 << 20;

/// Where messages go.
#[derive(Clone, Debug)]
pub enum To {
    Tcp(SocketAddr),
    /// With the authority that is trusted.
    Tls(SocketAddr, PathBuf),
    Unix(PathBuf),
    Udp(SocketAddr),
}

/// How they are sent.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Connections, each in its turn.
    pub connections: usize,
    /// Messages of one write. Datagrams: more than one is for the kernel to cut (UDP_SEGMENT).
    pub each: usize,
    /// Messages a second at most, in millions.
    pub at_most: Option<f64>,
}

impl How {
    /// As fast as the kernel takes them.
    pub const fn new(connections: usize, each: usize) -> Self {
        Self { connections, each, at_most: None }
    }
}

enum Socket {
    Stream(Box<dyn Write + Send>),
    Datagram(UdpSocket),
}

/// Connected, with messages at hand.
pub struct Sender {
    messages: Messages,
    how: How,
    sockets: Vec<Socket>,
    turn: usize,
    sent: u64,
}

impl Sender {
    /// Connects.
    pub fn new(messages: Messages, to: &To, how: How) -> Self {
        let sockets = (0..how.connections).map(|_| connect(to, how).expect("the receiver takes connections"));
        Self { messages, how, sockets: sockets.collect(), turn: 0, sent: 0 }
    }

    /// Sends at least `count` messages; how many were sent in all since it was made.
    pub fn send(&mut self, count: u64) -> u64 {
        let (start, before) = (Instant::now(), self.sent);
        while self.sent < before + count {
            self.step();
            if let Some(millions) = self.how.at_most {
                let due = Duration::from_secs_f64((self.sent - before) as f64 / (millions * 1e6));
                while start.elapsed() < due {
                    std::hint::spin_loop();
                }
            }
        }
        self.sent
    }

    /// One write, or one call for many datagrams.
    pub fn step(&mut self) {
        let count = match &self.sockets[self.turn] {
            Socket::Datagram(_) if self.how.each == 1 => DATAGRAMS,
            _ => self.how.each,
        };
        let bytes = self.messages.from(self.sent, count);
        self.sent += match &mut self.sockets[self.turn] {
            Socket::Stream(stream) => {
                stream.write_all(bytes).expect("the receiver takes bytes");
                (bytes.len() / MESSAGE_BYTES) as u64
            }
            Socket::Datagram(socket) if self.how.each == 1 => send_each(socket, bytes),
            Socket::Datagram(socket) => {
                let sent = socket.send(bytes).expect("the kernel takes datagrams");
                (sent / MESSAGE_BYTES) as u64
            }
        };
        self.turn = (self.turn + 1) % self.sockets.len();
    }
}

/// A stream that is encrypted, a write at a time.
struct Encrypted {
    session: rustls::ClientConnection,
    socket: TcpStream,
    sealed: Vec<u8>,
}

impl Encrypted {
    fn shake(mut socket: TcpStream, ca: &Path) -> io::Result<Self> {
        let said = |finding: engine::diagnosis::Diagnostic| io::Error::other(finding.message);
        let (cert, key, server_name) = (None, None, None);
        let versions = OneOrMany(vec![TlsVersion::V13]);
        let trust = TlsConnect { ca: Some(ca.to_owned()), cert, key, server_name, versions };
        let mut session =
            Client::open(&trust).and_then(|client| client.session("localhost")).map_err(said)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self { session, socket, sealed: Vec::new() })
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let next = at + portion(&bytes[at..], RECORD_BYTES);
            self.session.writer().write_all(&bytes[at..next])?;
            while self.session.wants_write() {
                self.session.write_tls(&mut self.sealed)?;
            }
            at = next;
        }
        self.socket.write_all(&self.sealed)?;
        self.sealed.clear();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.session.send_close_notify();
        // A receiver that does not listen to the end changes nothing.
        let _ = self.session.write_tls(&mut self.socket);
    }
}

fn connect(to: &To, how: How) -> io::Result<Socket> {
    Ok(match to {
        To::Tcp(at) => {
            let stream = TcpStream::connect(at)?;
            stream.set_nodelay(true)?;
            Socket::Stream(Box::new(stream))
        }
        To::Tls(at, ca) => Socket::Stream(Box::new(Encrypted::shake(TcpStream::connect(at)?, ca)?)),
        To::Unix(path) => Socket::Stream(Box::new(UnixStream::connect(path)?)),
        To::Udp(at) => {
            let socket = UdpSocket::bind(("127.0.0.1", 0))?;
            socket.connect(at)?;
            set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER);
            if how.each > 1 {
                let cut = set(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, MESSAGE_BYTES as i32);
                assert!(cut, "the kernel cuts datagrams");
            }
            Socket::Datagram(socket)
        }
    })
}

/// Sets an integer option; whether the kernel took it.
pub fn set(fd: &impl AsRawFd, level: i32, option: i32, value: i32) -> bool {
    let (value, length) = (&raw const value, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the pointer and the length describe an integer that lives through the call.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.cast(), length) == 0 }
}

/// A datagram for each message, with one call; how many the kernel took.
fn send_each(socket: &UdpSocket, bytes: &[u8]) -> u64 {
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; DATAGRAMS];
    // SAFETY: all zeroes is a valid header of plain integers and null pointers.
    let mut headers: [libc::mmsghdr; DATAGRAMS] = unsafe { std::mem::zeroed() };
    let parts = bytes.chunks_exact(MESSAGE_BYTES).zip(&mut vectors).zip(&mut headers);
    let mut count = 0;
    for ((message, vector), header) in parts {
        *vector = libc::iovec { iov_base: message.as_ptr().cast_mut().cast(), iov_len: message.len() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the headers point to the vectors, and these to the messages; the kernel only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    assert!(sent >= 0, "the kernel takes datagrams: {}", io::Error::last_os_error());
    sent as u64
}
