//! Listening sockets and what comes in on them: one thread, one runtime, one read buffer.

use std::cell::RefCell;
use std::fs;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{LocalSet, spawn_local};

use super::Received;
use super::tally::{Limits, Tally};
use crate::bench::clock;
use crate::bench::target::Target;
use crate::bench::trial::queues;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// What is asked for as a datagram socket's buffer; the system's limit may be lower.
const DATAGRAM_BUFFER: usize = 64 << 20;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Datagrams that are read before others have their turn.
const DATAGRAMS_A_TURN: usize = 256;
/// How often is looked whether it is enough.
const LOOK: Duration = Duration::from_millis(20);

/// A socket that listens.
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// UDP.
    Udp(std::net::UdpSocket),
    /// A unix socket, and the file that is removed with it.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Bound {
    /// Binds.
    pub fn new(listen: &Target) -> io::Result<Self> {
        match listen {
            Target::Tcp(address) => {
                let socket = bind(address, Type::STREAM)?;
                socket.listen(BACKLOG)?;
                Ok(Self::Tcp(socket.into()))
            }
            Target::Udp(address) => bind(address, Type::DGRAM).map(|socket| Self::Udp(socket.into())),
            Target::Unix(path) => unix(path),
            // Whoever decrypts is what is measured: a source of wpgen, for example, and the file it writes.
            Target::Tls(_) => Err(io::Error::new(
                ErrorKind::Unsupported,
                "bench speaks TLS as a sender only; let a program with TLS write a file, and follow that: file:PATH",
            )),
            Target::File(_) => Err(io::Error::new(ErrorKind::InvalidInput, "a file does not listen")),
            Target::Kafka { .. } => Err(io::Error::new(
                ErrorKind::Unsupported,
                "let a source read the topic into a file, and follow that: file:PATH",
            )),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        let shown =
            |address: io::Result<SocketAddr>| address.map_or_else(|e| e.to_string(), |a| a.to_string());
        match self {
            Self::Tcp(listener) => format!("tcp://{}", shown(listener.local_addr())),
            Self::Udp(socket) => format!("udp://{}", shown(socket.local_addr())),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

fn bind(address: &str, kind: Type) -> io::Result<Socket> {
    let none = || io::Error::new(ErrorKind::NotFound, "the name has no address");
    let address = address.to_socket_addrs()?.next().ok_or_else(none)?;
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    } else {
        // The system's limit may be lower; then drops come earlier, and are told.
        let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket that nobody listens on any more is in the way; anything else is not ours to remove.
fn unix(path: &Path) -> io::Result<Bound> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Bound::Unix(listener, path.to_owned()))
}

/// Receives until it is enough.
pub fn receive(bound: Bound, tally: Tally, limits: Limits) -> Result<Received, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot wait for sockets: {e}"))?;
    let desk = Rc::new(RefCell::new(Desk { tally, buffer: vec![0; READ_BYTES] }));
    let local = LocalSet::new();
    let (path, port) = match &bound {
        Bound::Unix(_, path) => (Some(path.clone()), None),
        Bound::Udp(socket) => (None, socket.local_addr().ok().map(|address| address.port())),
        Bound::Tcp(_) => (None, None),
    };
    let drops = local.block_on(&runtime, async {
        let failed = Rc::new(RefCell::new(None));
        let (its_desk, its_failed) = (Rc::clone(&desk), Rc::clone(&failed));
        spawn_local(async move {
            if let Err(e) = listen(bound, its_desk).await {
                its_failed.replace(Some(format!("cannot receive: {e}")));
            }
        });
        let began = Instant::now();
        while failed.borrow().is_none() && !limits.reached(&desk.borrow().tally, began) {
            tokio::time::sleep(LOOK).await;
        }
        let drops = port.map_or(0, queues::drops);
        failed.take().map_or(Ok(drops), Err)
    });
    drop(local);
    path.into_iter().for_each(|path| drop(fs::remove_file(path)));
    let desk = Rc::into_inner(desk).ok_or("a connection is still open")?;
    Ok(Received { tally: desk.into_inner().tally, kernel_drops: drops? })
}

/// What all connections share.
struct Desk {
    tally: Tally,
    buffer: Vec<u8>,
}

async fn listen(bound: Bound, desk: Rc<RefCell<Desk>>) -> io::Result<()> {
    match bound {
        Bound::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                if let Some((socket, _)) = accepted(listener.accept().await)? {
                    spawn_local(stream(socket, Rc::clone(&desk)));
                }
            }
        }
        Bound::Unix(listener, _) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                if let Some((socket, _)) = accepted(listener.accept().await)? {
                    spawn_local(stream(socket, Rc::clone(&desk)));
                }
            }
        }
        Bound::Udp(socket) => datagrams(&tokio::net::UdpSocket::from_std(socket)?, &desk).await,
    }
}

/// A connection that ended before it was accepted says nothing about the next one.
fn accepted<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == ErrorKind::ConnectionAborted => Ok(None),
        other => other.map(Some),
    }
}

/// One connection to its end; one that breaks just ends.
async fn stream(mut socket: impl AsyncRead + Unpin, desk: Rc<RefCell<Desk>>) {
    let mut kept = Vec::new();
    let mut going = true;
    while going {
        going = poll_fn(|context| {
            let desk = &mut *desk.borrow_mut();
            let old = kept.len();
            if desk.buffer.len() < old + READ_BYTES {
                desk.buffer.resize(old + READ_BYTES, 0);
            }
            desk.buffer[..old].copy_from_slice(&kept);
            let mut room = ReadBuf::new(&mut desk.buffer[old..old + READ_BYTES]);
            let result = std::task::ready!(Pin::new(&mut socket).poll_read(context, &mut room));
            let ended = result.is_err() || room.filled().is_empty();
            let whole = old + room.filled().len();
            let bytes = &desk.buffer[..whole];
            let done = desk.tally.take(bytes, old, ended, clock::now_ns());
            kept.clear();
            kept.extend_from_slice(&bytes[done..]);
            Poll::Ready(!ended)
        })
        .await;
    }
}

async fn datagrams(socket: &tokio::net::UdpSocket, desk: &RefCell<Desk>) -> io::Result<()> {
    loop {
        socket.readable().await?;
        for _ in 0..DATAGRAMS_A_TURN {
            let desk = &mut *desk.borrow_mut();
            match socket.try_recv(&mut desk.buffer) {
                Ok(n) => {
                    desk.tally.take(&desk.buffer[..n], 0, true, clock::now_ns());
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        tokio::task::yield_now().await;
    }
}
