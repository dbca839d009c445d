//! Two ways to receive datagrams: a ring that fills provided buffers, and recvmmsg where io_uring is refused.
//!
//! A completion of the ring stays queued here, with its buffer, until there is room for its datagram among the
//! arrivals: so a consumer that takes nothing costs a bounded number of buffers, and the kernel counts the rest.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use io_uring::opcode;
use io_uring::types::{Fd, RecvMsgOut};
use tokio::io::unix::AsyncFd;

use super::epoll_net::{Epoll, READABLE};
use super::mmsg::{Layout, MESSAGES, Message, Messages};
use super::provided::{Mapping, Provided};
use super::ring::{Done, Ring, watched};

/// Buffers of a ring. Each has room for the longest datagram, in address space: short ones touch a page of it.
const SLOTS: u16 = 256;
/// Buffer group of the ring.
const GROUP: u16 = 1;

/// A way to receive.
pub(super) enum Way {
    Ring(Box<RingWay>),
    Epoll(Box<EpollWay>),
}

/// A multishot receive into buffers of its own.
pub(super) struct RingWay {
    // The ring is dropped first: only then is the kernel done with the memory below.
    ring: Ring,
    provided: Provided,
    memory: Mapping,
    /// How far each slot was ever filled, and the sum.
    reached: [usize; SLOTS as usize],
    touched_bytes: usize,
    slot_bytes: usize,
    /// What of a slot the kernel may fill: a longer datagram is cut as it is without a ring.
    filled_bytes_max: usize,
    /// What the kernel reads to lay out a buffer; it must not move while the receive is out.
    header: Box<libc::msghdr>,
    receiving: bool,
    done: Vec<Done>,
    /// Completions whose datagrams are not taken over yet.
    waiting: VecDeque<Done>,
}

/// recvmmsg when epoll says so.
///
/// The socket is in the set only while someone waits for it: a socket that rests would wake the shard for each datagram.
pub(super) struct EpollWay {
    set: Epoll,
    armed: bool,
    messages: Messages,
    full: bool,
}

impl Way {
    /// On a ring.
    pub(super) fn ring(fd: &impl AsFd, layout: Layout) -> io::Result<Self> {
        let ring = Ring::new()?;
        let provided = ring.register_buffers(GROUP, SLOTS)?;
        // An odd number of cache lines: payloads at equal offsets must not compete for the same ways.
        let front = 16 + layout.name + layout.control;
        let filled_bytes_max = front + layout.payload;
        let slot_bytes = filled_bytes_max.next_multiple_of(128) + 64;
        let memory = Mapping::new(usize::from(SLOTS) * slot_bytes, false)?;
        // SAFETY: all zeroes is a valid header of plain integers and null pointers.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_namelen = layout.name as u32;
        header.msg_controllen = layout.control;
        let (done, waiting) = (Vec::new(), VecDeque::new());
        let mut way = RingWay {
            ring,
            provided,
            memory,
            reached: [0; SLOTS as usize],
            touched_bytes: 0,
            slot_bytes,
            filled_bytes_max,
            header,
            receiving: false,
            done,
            waiting,
        };
        (0..SLOTS).for_each(|slot| way.give(slot));
        way.provided.store_tail();
        way.start(fd.as_fd());
        Ok(Self::Ring(Box::new(way)))
    }

    /// On epoll.
    pub(super) fn epoll(layout: Layout) -> io::Result<Self> {
        let (set, messages) = (Epoll::new()?, Messages::new(layout)?);
        Ok(Self::Epoll(Box::new(EpollWay { set, armed: false, messages, full: false })))
    }

    /// Datagrams that can be received at a time.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::Ring(_) => SLOTS.into(),
            Self::Epoll(_) => 4 * MESSAGES,
        }
    }

    /// Calls `each` with what was received while it says that there is room for more; how many receives that were.
    pub(super) fn pull(
        &mut self,
        fd: &impl AsFd,
        each: impl FnMut(Message<'_>) -> bool,
    ) -> io::Result<usize> {
        match self {
            Self::Ring(way) => way.pull(each),
            Self::Epoll(way) => {
                let received = pull_now(fd.as_fd(), &mut way.messages, each)?;
                way.full = received == MESSAGES;
                Ok(received)
            }
        }
    }

    /// What of the ring's buffers was ever filled, bytes.
    pub(super) fn touched_bytes(&self) -> usize {
        match self {
            Self::Ring(way) => way.touched_bytes,
            Self::Epoll(_) => 0,
        }
    }

    /// Whether another pull would bring more without waiting.
    pub(super) fn has_more(&mut self) -> bool {
        match self {
            Self::Ring(way) => !way.waiting.is_empty() || way.ring.has_work(),
            Self::Epoll(way) => way.full,
        }
    }

    /// Gives the kernel its buffers back and lets it receive again, if it stopped.
    pub(super) fn give_back(&mut self, fd: &impl AsFd) {
        let Self::Ring(way) = self else { return };
        way.provided.store_tail();
        if !way.receiving && way.waiting.is_empty() {
            way.start(fd.as_fd());
        }
    }

    /// Ready when there may be something to pull.
    pub(super) fn poll_bell(&mut self, fd: &impl AsFd, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Ring(way) => way.ring.poll_work(cx),
            Self::Epoll(way) => way.poll_bell(fd.as_fd(), cx),
        }
    }
}

impl EpollWay {
    fn poll_bell(&mut self, fd: BorrowedFd<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.armed, true) {
            self.set.add(fd, READABLE, 0)?;
        }
        ready!(self.set.poll_bell(cx))?;
        self.set.remove(fd, READABLE, 0);
        self.armed = false;
        Poll::Ready(Ok(()))
    }
}

impl RingWay {
    fn give(&mut self, slot: u16) {
        let at = self.memory.at(usize::from(slot) * self.slot_bytes);
        self.provided.put(slot, at, self.filled_bytes_max);
    }

    fn start(&mut self, fd: BorrowedFd<'_>) {
        let request = opcode::RecvMsgMulti::new(Fd(fd.as_raw_fd()), &raw const *self.header, GROUP).build();
        // SAFETY: the header lives in a box that is dropped after the ring, which ends its requests first.
        unsafe { self.ring.push(&request) };
        self.receiving = true;
    }

    fn pull(&mut self, mut each: impl FnMut(Message<'_>) -> bool) -> io::Result<usize> {
        if self.waiting.is_empty() {
            self.ring.enter()?;
            self.ring.take(&mut self.done);
            self.waiting.extend(self.done.drain(..));
        }
        let mut received = 0;
        while let Some(done) = self.waiting.pop_front() {
            self.receiving &= done.goes_on();
            received += 1;
            let Some(slot) = done.buffer() else {
                is_passing(-done.result)?;
                continue;
            };
            self.provided.used();
            let start = self.memory.at(usize::from(slot) * self.slot_bytes);
            let bytes = done.result.max(0) as usize;
            let reached = &mut self.reached[usize::from(slot)];
            if bytes > *reached {
                self.touched_bytes += bytes - *reached;
                *reached = bytes;
            }
            // SAFETY: within the slot, which the kernel has filled and does not use again before it is given back.
            let filled =
                unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes.min(self.filled_bytes_max)) };
            let mut room = true;
            if let Ok(out) = RecvMsgOut::parse(filled, &self.header) {
                room = each(Message {
                    name: out.name_data(),
                    control: out.control_data(),
                    payload: out.payload_data(),
                    truncated: out.is_payload_truncated(),
                });
            }
            self.give(slot);
            if !room {
                break;
            }
        }
        Ok(received)
    }
}

/// A receive that ended for want of a buffer, or with the error of one datagram, is started again; one that the
/// kernel does not understand would end for ever.
fn is_passing(error: i32) -> io::Result<()> {
    match error {
        libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT => {
            Err(io::Error::from_raw_os_error(error))
        }
        _ => Ok(()),
    }
}

fn pull_now(
    fd: BorrowedFd<'_>,
    messages: &mut Messages,
    mut each: impl FnMut(Message<'_>) -> bool,
) -> io::Result<usize> {
    let received = match messages.receive(fd) {
        Ok(received) => received,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
        Err(error) => return Err(error),
    };
    // All of a call is taken over, room or not: the memory is used again by the next one.
    (0..received).for_each(|i| {
        each(messages.get(i));
    });
    Ok(received)
}

/// A rest of less than the runtime's timers can measure.
pub(super) struct Rest {
    timer: AsyncFd<File>,
}

impl Rest {
    /// A timer of the kernel's, within a runtime.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by no one else.
        let timer = watched(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))?;
        Ok(Self { timer })
    }

    /// Waits for `ns` nanoseconds, less than a second.
    pub(super) async fn wait(&mut self, ns: u64) -> io::Result<()> {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let once = libc::timespec { tv_sec: 0, tv_nsec: ns.clamp(1, 999_999_999) as libc::c_long };
        let spec = libc::itimerspec { it_interval: never, it_value: once };
        let fd = self.timer.as_raw_fd();
        // SAFETY: the specification lives through the call, which writes nothing.
        if unsafe { libc::timerfd_settime(fd, 0, &raw const spec, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut ready = self.timer.readable().await?;
        let _ = io::Read::read(&mut ready.get_inner(), &mut [0; 8]);
        ready.clear_ready();
        Ok(())
    }
}
