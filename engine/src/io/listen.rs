//! Listening stream sockets, shared by the shards, and the way of a new connection to the least loaded of them.
//!
//! There is one socket for all shards, so that a shard that goes away resets no connection that waits to be accepted.
//! Each shard that takes part has a *seat*: the number of its connections, and a queue of descriptors that others
//! hand to it. Whichever shard accepts places the connection where the fewest are. A connection is counted at its seat
//! from the moment it is placed until it is closed; it keeps the seats, not the socket, so that the port is free when the
//! last shard has left.
//!
//! The shard that leaves last takes what waits to be accepted: those peers were told that they are connected, and that what
//! they sent has arrived.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use socket2::{Domain, SockAddr, Socket, Type};

use super::epoll_net::{accept_now, has_waiting};
use super::sockopt::{self, ReceiveBuffer};

/// Connections the kernel keeps until they are accepted; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Connections that may be on their way to one shard.
const HANDED_MAX: usize = 1024;
/// How long accepting may wait where the socket cannot be told not to: a tick of the kernel's clock.
const ACCEPT_MAX: Duration = Duration::from_millis(1);

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Inet(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// The kernel's form of it.
    pub(super) fn to_kernel(&self) -> io::Result<SockAddr> {
        match self {
            Self::Inet(address) => Ok((*address).into()),
            Self::Unix(path) => SockAddr::unix(path),
        }
    }

    /// The domain of its sockets.
    pub(super) fn domain(&self) -> Domain {
        match self {
            Self::Inet(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        }
    }

    /// The same address with the port that the kernel chose.
    pub(super) fn as_bound(&self, socket: &Socket) -> io::Result<Self> {
        Ok(match socket.local_addr()?.as_socket() {
            Some(bound) => Self::Inet(bound),
            None => self.clone(),
        })
    }

    /// Binds `socket` here. A unix path at which no one listens any more is taken over.
    pub(super) fn bind(&self, socket: &Socket, kind: Type) -> io::Result<()> {
        let to = self.to_kernel()?;
        match (socket.bind(&to), self) {
            (Err(error), Self::Unix(path)) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_abandoned(path, &to, kind) {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                socket.bind(&to)
            }
            (done, _) => done,
        }
    }
}

/// Whether `path` is a socket that refuses connections: its owner is gone.
fn is_abandoned(path: &Path, at: &SockAddr, kind: Type) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && Socket::new(Domain::UNIX, kind, None)
            .and_then(|socket| socket.connect(at))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A shard's place at a listening socket.
#[derive(Debug)]
pub(super) struct Seat {
    taken: AtomicBool,
    connections: AtomicU32,
    handed: ArrayQueue<OwnedFd>,
    /// The shard's task, when it waits. Not an eventfd: a ring that watches one and rings another for it loses rings
    /// (seen on Linux 6.18, where only the first of them arrives).
    waiting: Mutex<Option<Waker>>,
}

/// A seat among others, and its number.
pub(super) type Place = (Arc<[Seat]>, usize);

/// A bound socket that takes connections, and the shards' seats at it.
#[derive(Debug)]
pub struct Listening {
    socket: Socket,
    address: Address,
    receive_buffer: ReceiveBuffer,
    seats: Arc<[Seat]>,
    /// Whether some shard's ring accepts here.
    on_ring: Mutex<bool>,
}

impl Listening {
    /// Binds and listens, for `seats` shards. `so_rcvbuf` is inherited by each connection.
    pub fn bind(address: &Address, seats: usize, so_rcvbuf: Option<u64>) -> io::Result<Arc<Self>> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        if let Address::Inet(_) = address {
            socket.set_reuse_address(true)?;
            // Inherited by each connection: answers go out at once, and peers that vanished are found in the end.
            socket.set_tcp_nodelay(true)?;
            socket.set_keepalive(true)?;
        }
        let receive_buffer = sockopt::set_receive_buffer(socket.as_fd(), so_rcvbuf)?;
        address.bind(&socket, Type::STREAM)?;
        socket.listen(BACKLOG)?;
        let address = address.as_bound(&socket)?;
        let seats = (0..seats).map(|_| Seat::new()).collect();
        // Two shards that accept on epoll may be told of one connection, and the second one must not wait for another. That
        // the socket does not wait at all cannot be said where a ring accepts on it too: it would be told so at once.
        socket.set_read_timeout(Some(ACCEPT_MAX))?;
        Ok(Arc::new(Self { socket, address, receive_buffer, seats, on_ring: Mutex::new(false) }))
    }

    /// Where it listens, with the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the kernel granted of the wished receive buffer.
    pub fn receive_buffer(&self) -> ReceiveBuffer {
        self.receive_buffer
    }

    /// How many shards may take part.
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// Open connections at all seats.
    pub fn connections(&self) -> u32 {
        self.seats.iter().map(|seat| seat.connections.load(Ordering::Relaxed)).sum()
    }

    /// The seats, for a connection that is counted at one.
    pub(super) fn all_seats(&self) -> Arc<[Seat]> {
        Arc::clone(&self.seats)
    }

    /// Takes a seat; connections are handed to it from now on. Shards may differ in what they accept with.
    pub(super) fn sit(&self, seat: usize, on_epoll: bool) -> io::Result<()> {
        let mut on_ring = self.on_ring.lock().unwrap_or_else(PoisonError::into_inner);
        *on_ring |= !on_epoll;
        self.socket.set_nonblocking(!*on_ring)?;
        drop(on_ring);
        self.seats[seat].taken.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a shard sits there.
    #[cfg(test)]
    pub(super) fn is_taken(&self, seat: usize) -> bool {
        self.seats[seat].taken.load(Ordering::SeqCst)
    }

    /// Leaves a seat; what was handed to it and not yet taken goes to another one. Returns what no other shard can take, which
    /// is counted at this seat: that, and when no shard is left what waits to be accepted.
    pub(super) fn leave(&self, seat: usize) -> Vec<OwnedFd> {
        self.seats[seat].taken.store(false, Ordering::SeqCst);
        let mut left = Vec::new();
        while let Some(fd) = self.take_handed(seat) {
            self.seats[seat].closed();
            left.extend(self.place(seat, fd));
        }
        let is_last = || !self.seats.iter().any(|seat| seat.taken.load(Ordering::SeqCst));
        // Bounded: peers may connect faster than they are taken.
        while left.len() < BACKLOG as usize && is_last() && has_waiting(self.as_fd()) {
            let Ok(fd) = accept_now(self.as_fd()) else { break };
            self.seats[seat].connections.fetch_add(1, Ordering::Relaxed);
            left.push(fd);
        }
        left
    }

    /// Places a new connection; it comes back when its place is `here`.
    pub(super) fn place(&self, here: usize, mut fd: OwnedFd) -> Option<OwnedFd> {
        let load = |seat: &Seat| seat.connections.load(Ordering::Relaxed);
        loop {
            let there = (0..self.seats.len())
                .filter(|seat| self.seats[*seat].taken.load(Ordering::SeqCst))
                .min_by_key(|seat| (load(&self.seats[*seat]), *seat != here))
                .unwrap_or(here);
            let seat = &self.seats[there];
            seat.connections.fetch_add(1, Ordering::Relaxed);
            if there == here {
                return Some(fd);
            }
            if let Err(back) = seat.handed.push(fd) {
                seat.closed();
                self.seats[here].connections.fetch_add(1, Ordering::Relaxed);
                return Some(back);
            }
            if seat.taken.load(Ordering::SeqCst) {
                seat.wake();
                return None;
            }
            // It was left meanwhile, by who may not have seen what was handed to it.
            fd = self.take_handed(there)?;
            seat.closed();
        }
    }

    /// The next connection that another shard handed to this seat.
    pub(super) fn take_handed(&self, seat: usize) -> Option<OwnedFd> {
        self.seats[seat].handed.pop()
    }

    /// Whether something was handed to the seat.
    pub(super) fn has_handed(&self, seat: usize) -> bool {
        !self.seats[seat].handed.is_empty()
    }

    /// Ready when something was handed to the seat.
    pub(super) fn poll_handed(&self, seat: usize, cx: &mut Context<'_>) -> Poll<()> {
        let Seat { waiting, handed, .. } = &self.seats[seat];
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        drop(waiting);
        if handed.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Seat {
    fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            connections: AtomicU32::new(0),
            handed: ArrayQueue::new(HANDED_MAX),
            waiting: Mutex::new(None),
        }
    }

    /// A connection that was placed here is closed.
    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn wake(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn local() -> Address {
        Address::Inet(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[test]
    fn connections_go_where_the_fewest_are() {
        let listening = Listening::bind(&local(), 3, None).unwrap();
        let fd = || std::fs::File::open("/dev/null").map(OwnedFd::from).unwrap();
        listening.sit(0, true).unwrap();
        listening.sit(2, true).unwrap();
        assert!(listening.place(0, fd()).is_some());
        assert!(listening.place(0, fd()).is_none(), "seat 1 is empty, seat 2 has fewest");
        assert!(listening.take_handed(1).is_none());
        assert!(listening.place(2, fd()).is_some());
        assert_eq!(listening.connections(), 3);
        listening.leave(2);
        assert!(listening.place(0, fd()).is_some(), "no one sits at 2 any more");
    }

    #[test]
    fn who_leaves_last_takes_what_waits() {
        let listening = Listening::bind(&local(), 2, None).unwrap();
        let Address::Inet(at) = *listening.address() else { panic!("bound to a port") };
        listening.sit(0, true).unwrap();
        listening.sit(1, true).unwrap();
        let fd = || std::fs::File::open("/dev/null").map(OwnedFd::from).unwrap();
        assert!(listening.place(0, fd()).is_some());
        assert!(listening.place(0, fd()).is_none(), "handed to 1");
        let _waiting = [TcpStream::connect(at).unwrap(), TcpStream::connect(at).unwrap()];
        assert_eq!(listening.leave(1).len(), 0, "0 takes it");
        assert!(listening.take_handed(0).is_some());
        assert_eq!(listening.leave(0).len(), 2);
        assert_eq!(listening.connections(), 4);
        let seats = listening.all_seats();
        drop(listening);
        assert!(Listening::bind(&Address::Inet(at), 1, None).is_ok(), "connections do not keep the port");
        drop(seats);
    }

    #[test]
    fn accepting_never_waits_for_long_whatever_the_other_shards_accept_with() {
        for (first, second) in [(true, true), (true, false), (false, true)] {
            let listening = Listening::bind(&local(), 2, None).unwrap();
            listening.sit(0, first).unwrap();
            listening.sit(1, second).unwrap();
            let nobody = accept_now(listening.as_fd()).unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
            let waits = !listening.socket.nonblocking().unwrap();
            assert_eq!(waits, !(first && second), "a ring is not told at once that there is none");
        }
    }

    #[test]
    fn a_taken_port_is_found_and_a_stale_path_is_taken_over() {
        let first = Listening::bind(&local(), 1, None).unwrap();
        let again = Listening::bind(first.address(), 1, None).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let Address::Inet(at) = first.address() else { panic!("bound to a port") };
        TcpStream::connect(at).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = Address::Unix(folder.path().join("socket"));
        let first = Listening::bind(&path, 1, None).unwrap();
        assert_eq!(Listening::bind(&path, 1, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap());
        Listening::bind(&path, 1, None).unwrap();
    }
}
