//! Readiness for sockets where io_uring is refused: an epoll set of our own that the runtime waits for.
//!
//! Level-triggered: what a turn leaves unread is reported again in the next one. A descriptor has one entry whatever
//! it is watched for; the caller's token comes back with each event.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;

use super::ring::watched;

/// Events taken in one call.
const EVENTS: usize = 256;

/// What a descriptor is watched for.
pub(super) const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
/// Room for more bytes to send.
pub(super) const WRITABLE: u32 = libc::EPOLLOUT as u32;

/// A set of watched descriptors.
pub(super) struct Epoll {
    set: AsyncFd<OwnedFd>,
    watched: HashMap<RawFd, u32>,
    events: Box<[libc::epoll_event; EVENTS]>,
}

impl Epoll {
    /// An empty set, within a runtime.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by no one else.
        let set = watched(unsafe { OwnedFd::from_raw_fd(fd) })?;
        let none = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self { set, watched: HashMap::new(), events: Box::new([none; EVENTS]) })
    }

    /// Watches a descriptor for `what` too.
    pub(super) fn add(&mut self, fd: BorrowedFd<'_>, what: u32, token: u64) -> io::Result<()> {
        let before = self.watched.get(&fd.as_raw_fd()).copied().unwrap_or(0);
        self.change(fd.as_raw_fd(), before, before | what, token)
    }

    /// Watches a descriptor for `what` no longer.
    pub(super) fn remove(&mut self, fd: BorrowedFd<'_>, what: u32, token: u64) {
        let before = self.watched.get(&fd.as_raw_fd()).copied().unwrap_or(0);
        if let Err(error) = self.change(fd.as_raw_fd(), before, before & !what, token) {
            log::debug!("a descriptor left the epoll set with {error}");
        }
    }

    fn change(&mut self, fd: RawFd, before: u32, after: u32, token: u64) -> io::Result<()> {
        let operation = match (before, after) {
            _ if before == after => return Ok(()),
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        let mut event = libc::epoll_event { events: after, u64: token };
        // SAFETY: the event lives through the call.
        if unsafe { libc::epoll_ctl(self.set.get_ref().as_raw_fd(), operation, fd, &raw mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if after == 0 {
            self.watched.remove(&fd)
        } else {
            self.watched.insert(fd, after)
        };
        Ok(())
    }

    /// Calls `each` with the token and the state of every ready descriptor, without waiting; at most [`EVENTS`].
    pub(super) fn take(&mut self, mut each: impl FnMut(u64, u32)) -> io::Result<()> {
        let set = self.set.get_ref().as_raw_fd();
        // SAFETY: the kernel writes at most EVENTS events to an array of that length.
        let n = unsafe { libc::epoll_wait(set, self.events.as_mut_ptr(), EVENTS as i32, 0) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        for event in &self.events[..n as usize] {
            each(event.u64, event.events);
        }
        Ok(())
    }

    /// Ready when the set may have something to take.
    pub(super) fn poll_bell(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.set.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

/// Receives what is there, without waiting.
pub(super) fn receive_now(fd: BorrowedFd<'_>, into: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `into`, which the kernel only writes.
    let n = unsafe { libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
}

/// Whether a connection waits to be accepted.
pub(super) fn has_waiting(listening: BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd { fd: listening.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call; it does not wait.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready == 1 && asked.revents & libc::POLLIN != 0
}

/// Accepts a connection that waits.
pub(super) fn accept_now(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: without an address to write to, a system call without pointers.
    let new = unsafe {
        libc::accept4(fd.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by no one else.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}
