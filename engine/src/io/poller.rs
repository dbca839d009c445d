//! What the kernel has to say about stream sockets, the same from a ring and from epoll.
//!
//! Requests carry a [`Token`]; [`Poller::take`] turns what happened into [`Event`]s in the order in which it did. A
//! ring fills buffers itself and ends requests later than asked; epoll only says *ready* and ends them at once. That
//! difference is visible here and in nobody's code beyond [`super::turn`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::alarm::Alarm;
use super::bufring::{Buffers, HOT_BUFFERS};
use super::epoll_net::{Epoll, READABLE, WRITABLE};
use super::ring::{Done, Ring, Rung};
use crate::memory::Memory;

/// Buffer group of the stream receives.
const GROUP: u16 = 1;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of a connection.
    Receive,
    /// Room to send on a connection.
    Send,
    /// Connections of a listener.
    Accept,
    /// The end of other requests.
    Cancel,
}

/// A request's identity: its kind, the slot it belongs to, and that slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Generations wrap at 24 bits: a slot would have to be reused 16 million times while one request is out.
pub(super) const GENERATION_MASK: u32 = (1 << 24) - 1;

impl Token {
    fn pack(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.generation & GENERATION_MASK) << 32 | u64::from(self.slot)
    }

    fn unpack(token: u64) -> Self {
        let kind = match token >> 56 {
            0 => Kind::Receive,
            1 => Kind::Send,
            2 => Kind::Accept,
            _ => Kind::Cancel,
        };
        Self { kind, slot: token as u32, generation: (token >> 32) as u32 & GENERATION_MASK }
    }

    fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes were received into published buffers, from `buffer` on.
    Filled { token: Token, buffer: u16, bytes: u32, goes_on: bool },
    /// A published buffer was used for nothing.
    Unused { buffer: u16 },
    /// A request ended; `error` 0 is the end of a stream.
    Ended { token: Token, error: i32 },
    /// A connection was accepted.
    Accepted { token: Token, fd: OwnedFd, goes_on: bool },
    /// A descriptor is ready for what its token is for.
    Ready { token: Token },
    /// The peer is gone, asked or not (epoll).
    HungUp { token: Token },
}

/// A ring or an epoll set.
pub(super) enum Poller {
    Ring { ring: Box<Ring>, done: Vec<Done> },
    Epoll(Box<Epoll>),
}

impl Poller {
    /// A ring, and the buffers it fills.
    pub(super) fn ring(alarm: &Rc<Alarm>, memory: &Arc<Memory>) -> io::Result<(Self, Rc<Buffers>)> {
        let ring = Box::new(Ring::new()?);
        let provided = ring.register_buffers(GROUP, HOT_BUFFERS as u16)?;
        let buffers = Buffers::new(Some(provided), Rc::clone(alarm), Arc::clone(memory))?;
        Ok((Self::Ring { ring, done: Vec::new() }, buffers))
    }

    /// An epoll set, and the buffers to read into.
    pub(super) fn epoll(alarm: &Rc<Alarm>, memory: &Arc<Memory>) -> io::Result<(Self, Rc<Buffers>)> {
        let buffers = Buffers::new(None, Rc::clone(alarm), Arc::clone(memory))?;
        Ok((Self::Epoll(Box::new(Epoll::new()?)), buffers))
    }

    /// Whether this is epoll: then sockets must be read when they are ready, and accepting must not wait.
    pub(super) fn is_epoll(&self) -> bool {
        matches!(self, Self::Epoll(_))
    }

    /// Whether connections may be read directly, beside their receives: only where no completion is made behind the
    /// shard's back.
    pub(super) fn allows_reads(&self) -> bool {
        match self {
            Self::Ring { ring, .. } => ring.rung() == Rung::Deferred,
            Self::Epoll(_) => true,
        }
    }

    /// Whether a direct read now brings what comes next: all that was received before is taken.
    pub(super) fn is_in_step(&mut self) -> bool {
        match self {
            Self::Ring { ring, .. } => ring.is_in_step(),
            Self::Epoll(_) => true,
        }
    }

    /// Whether nothing is received that was not taken.
    pub(super) fn is_all_taken(&mut self) -> bool {
        match self {
            Self::Ring { ring, .. } => ring.is_all_taken(),
            Self::Epoll(_) => true,
        }
    }

    /// Starts to receive until the request ends.
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Self::Ring { ring, .. } => {
                let fd = Fd(fd.as_raw_fd());
                let request = if ring.bundles() {
                    opcode::RecvMultiBundle::new(fd, GROUP).build()
                } else {
                    opcode::RecvMulti::new(fd, GROUP).build()
                };
                push(ring, request, token);
                Ok(())
            }
            Self::Epoll(epoll) => epoll.add(fd, READABLE, token.pack()),
        }
    }

    /// Accepts connections until the request ends.
    pub(super) fn accept(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Self::Ring { ring, .. } => {
                let request = opcode::AcceptMulti::new(Fd(fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
                push(ring, request, token);
                Ok(())
            }
            Self::Epoll(epoll) => epoll.add(fd, READABLE, token.pack()),
        }
    }

    /// Says once when a connection takes bytes again. `token` is that of its receives.
    pub(super) fn await_room(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Self::Ring { ring, .. } => {
                let request = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build();
                push(ring, request, token.of_kind(Kind::Send));
                Ok(())
            }
            Self::Epoll(epoll) => epoll.add(fd, WRITABLE, token.pack()),
        }
    }

    /// The room that was awaited is there.
    pub(super) fn room_came(&mut self, fd: BorrowedFd<'_>, token: Token) {
        if let Self::Epoll(epoll) = self {
            epoll.remove(fd, WRITABLE, token.pack());
        }
    }

    /// Ends the receives of a connection; true when they have ended already, else an event will say so.
    pub(super) fn stop_receiving(&mut self, fd: BorrowedFd<'_>, token: Token) -> bool {
        match self {
            Self::Ring { ring, .. } => {
                let request = opcode::AsyncCancel::new(token.pack()).build();
                push(ring, request, token.of_kind(Kind::Cancel));
                false
            }
            Self::Epoll(epoll) => {
                epoll.remove(fd, READABLE, token.pack());
                true
            }
        }
    }

    /// Ends everything on a descriptor; true when it has ended already, else events will say so.
    pub(super) fn stop(&mut self, fd: BorrowedFd<'_>, token: Token) -> bool {
        match self {
            Self::Ring { ring, .. } => {
                ring.push_cancel(fd.as_raw_fd(), token.of_kind(Kind::Cancel).pack());
                false
            }
            Self::Epoll(epoll) => {
                epoll.remove(fd, READABLE | WRITABLE, token.pack());
                true
            }
        }
    }

    /// Submits what is queued and moves what happened to `into`.
    pub(super) fn take(&mut self, into: &mut Vec<Event>) -> io::Result<()> {
        match self {
            Self::Ring { ring, done } => {
                ring.enter()?;
                ring.take(done);
                done.drain(..).for_each(|done| translate(&done, into));
                Ok(())
            }
            Self::Epoll(epoll) => epoll.take(|token, state| ready(Token::unpack(token), state, into)),
        }
    }

    /// Ready when there is something to take.
    pub(super) fn poll_bell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Ring { ring, .. } => ring.poll_work(cx),
            Self::Epoll(epoll) => epoll.poll_bell(cx),
        }
    }

    /// How the ring was set up.
    pub(super) fn describe(&self) -> (&'static str, Option<Rung>, bool) {
        match self {
            Self::Ring { ring, .. } => ("ring", Some(ring.rung()), ring.bundles()),
            Self::Epoll(_) => ("epoll", None, false),
        }
    }
}

fn push(ring: &mut Ring, request: squeue::Entry, token: Token) {
    // SAFETY: none of the requests made here points to memory; the buffers they fill belong to the buffer ring.
    unsafe { ring.push(&request.user_data(token.pack())) };
}

fn translate(done: &Done, into: &mut Vec<Event>) {
    let token = Token::unpack(done.token);
    let goes_on = done.goes_on();
    match (token.kind, done.result) {
        (Kind::Cancel, _) => {}
        (Kind::Receive, bytes @ 1..) => {
            let buffer = done.buffer().expect("a multishot receive names its buffer");
            into.push(Event::Filled { token, buffer, bytes: bytes as u32, goes_on });
        }
        (Kind::Receive, error) => {
            into.extend(done.buffer().map(|buffer| Event::Unused { buffer }));
            into.push(Event::Ended { token, error: -error });
        }
        (_, error) if error < 0 => into.push(Event::Ended { token, error: -error }),
        (Kind::Accept, fd) => {
            // SAFETY: the kernel made the descriptor for this completion; no one else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            into.push(Event::Accepted { token, fd, goes_on });
        }
        (Kind::Send, _) => into.push(Event::Ready { token }),
    }
}

fn ready(token: Token, state: u32, into: &mut Vec<Event>) {
    if token.kind == Kind::Receive && state & WRITABLE != 0 {
        into.push(Event::Ready { token: token.of_kind(Kind::Send) });
    }
    if state & !WRITABLE != 0 {
        into.push(Event::Ready { token });
    }
    if token.kind == Kind::Receive && state & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
        into.push(Event::HungUp { token });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_kernel() {
        for kind in [Kind::Receive, Kind::Send, Kind::Accept, Kind::Cancel] {
            for (slot, generation) in [(0, 0), (1, 2), (u32::MAX, GENERATION_MASK)] {
                let token = Token { kind, slot, generation };
                assert_eq!(Token::unpack(token.pack()), token);
            }
        }
    }
}
