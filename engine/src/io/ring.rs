//! A ring of the kernel's for sockets, beside the runtime's own: multishot receives need what the runtime's lacks.
//!
//! The ring is entered by its shard alone. Deferred task work, the cheapest mode, runs only when that thread enters
//! with GETEVENTS; what tells it to do so is an eventfd, on which the runtime waits as on any descriptor. (To wait for
//! the ring's own descriptor instead would hang: it becomes readable only once the work is done.) So a turn is: read
//! the eventfd, enter, take the completions.
//!
//! Set up down a ladder, because kernels and sandboxes differ: deferred task work, cooperative, plain. What the ring
//! can do is found by doing it once on a socket pair. Where a rung or a test fails in a way that says io_uring is
//! refused, the caller takes epoll.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::provided::{Mapping, Provided};

/// Submissions that are collected before the ring is entered.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit before the kernel has to keep them apart.
const COMPLETIONS: u32 = 4096;
/// IORING_ENTER_GETEVENTS: run deferred work and post its completions.
const GETEVENTS: u32 = 1;
/// Pieces of deferred work that the kernel does when the ring is entered, where there are as many: 20 on Linux 6.18
/// (IO_LOCAL_TW_DEFAULT_MAX in io_uring.c), older ones do all of it. Less than half of that, for each request may have a
/// piece in what is left and come up again behind it.
const WORK_AT_A_TIME: usize = 8;
/// Buffer group of the set-up test.
const TEST_GROUP: u16 = u16::MAX;
/// How long the set-up test waits for its one byte.
const TEST_WAIT: Timespec = Timespec::new().sec(1);
/// How long a ring that goes away waits for its requests to end.
const CANCEL_WAIT: Timespec = Timespec::new().sec(1);

/// The rung on which a ring was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Completions are made when the shard asks for them.
    Deferred,
    /// Completions are made when the shard enters the kernel for anything.
    Cooperative,
    /// Completions interrupt the shard.
    Plain,
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// What the request was tagged with.
    pub(super) token: u64,
    /// Its result; negative is an errno.
    pub(super) result: i32,
    flags: u32,
}

impl Done {
    /// Whether the request goes on.
    pub(super) fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The first buffer that was filled.
    pub(super) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// A ring and its bell.
pub(super) struct Ring {
    io: IoUring,
    /// Requests that the queue had no room for, in order; empty unless that is full. Bounded by what is out of each
    /// descriptor: a receive or an accept, a wait for room, their ends.
    kept: VecDeque<squeue::Entry>,
    bell: AsyncFd<File>,
    rung: Rung,
    bundles: bool,
    /// Requests that were pushed and whose last completion was not taken.
    out: usize,
    /// Whether the hint of deferred work stands though there is none: see [`Ring::enter`].
    hint_is_stale: bool,
}

impl Ring {
    /// Sets up a ring for the calling thread, within its runtime.
    pub(super) fn new() -> io::Result<Self> {
        let (mut io, rung) = set_up()?;
        let bundles = test_receives(&mut io)?;
        let bell = event_counter()?;
        io.submitter().register_eventfd(bell.as_raw_fd())?;
        let bell = watched(bell)?;
        Ok(Self { io, kept: VecDeque::new(), bell, rung, bundles, out: 0, hint_is_stale: false })
    }

    /// How it was set up.
    pub(super) fn rung(&self) -> Rung {
        self.rung
    }

    /// Whether one completion may fill several buffers.
    pub(super) fn bundles(&self) -> bool {
        self.bundles
    }

    /// Registers an empty ring of buffers.
    pub(super) fn register_buffers(&self, group: u16, entries: u16) -> io::Result<Provided> {
        Provided::register(&self.io, group, entries)
    }

    /// Queues a request for the next [`Ring::enter`]. Where the kernel takes none of a full queue now, as without memory, it
    /// comes a turn later.
    ///
    /// # Safety
    ///
    /// What the request points to must live until its last completion.
    pub(super) unsafe fn push(&mut self, request: &squeue::Entry) {
        self.out += 1;
        // SAFETY: passed on to the caller.
        if self.kept.is_empty() && unsafe { self.io.submission().push(request) }.is_ok() {
            return;
        }
        self.kept.push_back(request.clone());
        let queued = self.io.submission().len() as u32;
        // No deferred work here: who reads a socket directly must have taken all that is received of it.
        // SAFETY: no argument is passed along, and queued requests are sound by the contract above.
        let submitted = unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
        if let Err(error) = submitted
            && !is_passing(&error)
        {
            log::error!("the socket ring takes no requests: {error}");
        }
        self.queue_kept();
    }

    fn queue_kept(&mut self) {
        let mut queue = self.io.submission();
        // SAFETY: sound by the contract of `push`.
        while self.kept.front().is_some_and(|request| unsafe { queue.push(request) }.is_ok()) {
            self.kept.pop_front();
        }
    }

    /// Queues the end of all requests on a descriptor.
    pub(super) fn push_cancel(&mut self, fd: RawFd, token: u64) {
        let request = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build().user_data(token);
        // SAFETY: the request points to nothing.
        unsafe { self.push(&request) };
    }

    /// Submits what is queued and lets the kernel do its deferred work.
    ///
    /// The kernel hints at deferred work after it has queued it. Where we do the work between the two, the hint comes late
    /// and stands until there is other work (seen on Linux 6.18, in one of 500 tight races): whoever entered for it would
    /// do so for ever, and hold up what the other work waits for. So a hint that brings nothing counts no more until the
    /// bell rings, as it does for all work that is queued.
    ///
    /// But only a part of the work is done at a time, and for the rest there is a hint alone, no bell. And work may complete
    /// nothing: a receive that was woken for what was then read directly waits on. So it is entered for nothing as often in a
    /// row as all requests that are out could be served in.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        // That a hint is stale is found out once.
        let mut left = if self.hint_is_stale { 0 } else { self.out / WORK_AT_A_TIME };
        loop {
            let queued = self.io.submission().len() as u32;
            // SAFETY: no argument is passed along, and queued requests are sound by the contract of `push`.
            let entered = unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) };
            self.queue_kept();
            let in_vain = self.io.submission().taskrun() && self.io.completion().is_empty();
            match entered {
                Ok(_) if in_vain && left > 0 => left -= 1,
                Ok(_) => {
                    self.hint_is_stale = in_vain;
                    return Ok(());
                }
                // The next turn goes on.
                Err(error) if is_passing(&error) => {
                    self.hint_is_stale = false;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves all completions that are there to `into`.
    pub(super) fn take(&mut self, into: &mut Vec<Done>) {
        let before = into.len();
        into.extend(self.io.completion().map(|done| Done {
            token: done.user_data(),
            result: done.result(),
            flags: done.flags(),
        }));
        let ended = into[before..].iter().filter(|done| !done.goes_on()).count();
        self.out = self.out.saturating_sub(ended);
    }

    /// Ready when an [`Ring::enter`] or a [`Ring::take`] has something to do.
    ///
    /// The bell also rings for completions that were posted while the ring was entered and are taken since; those
    /// rings are swallowed here.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_work() {
            let mut ready = ready!(self.bell.poll_read_ready(cx))?;
            // The count is of no interest; reading it makes the next ring an event again.
            let _ = ready.get_inner().read(&mut [0; 8]);
            ready.clear_ready();
            self.hint_is_stale = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing can have been received that was not taken, until the ring is entered again.
    pub(super) fn is_in_step(&mut self) -> bool {
        self.rung == Rung::Deferred && self.kept.is_empty() && self.is_all_taken()
    }

    /// Whether no completion waits to be taken.
    pub(super) fn is_all_taken(&mut self) -> bool {
        let overflown = self.io.submission().cq_overflow();
        !overflown && self.io.completion().is_empty()
    }

    /// Whether something is queued, waits to be taken, or is deferred until the ring is entered.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.io.submission();
        let is_hinted = queue.taskrun() && !self.hint_is_stale;
        let queued = !queue.is_empty() || is_hinted || queue.cq_overflow();
        drop(queue);
        queued || !self.io.completion().is_empty()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel must be done with the buffers before their memory goes. Deferred work has to run for that: until
        // then a cancelled request still takes wake-ups that others wait for.
        let _ = self.io.submitter().register_sync_cancel(Some(CANCEL_WAIT), CancelBuilder::any());
        // What is queued does not begin any more.
        // SAFETY: no argument is passed along, and nothing is submitted.
        let _ = unsafe { self.io.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
    }
}

/// Whether entering failed for a reason that the next turn ends: a signal, or completions that wait to be taken.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME))
}

/// Lets the runtime wait for a descriptor of ours to be readable.
pub(super) fn watched<T: From<OwnedFd> + AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what is made from an owned descriptor owns it, so it stays open and the same until it is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// A non-blocking eventfd.
pub(super) fn event_counter() -> io::Result<File> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by no one else.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn set_up() -> io::Result<(IoUring, Rung)> {
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for rung in [Rung::Deferred, Rung::Cooperative, Rung::Plain] {
        let mut builder: Builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(COMPLETIONS);
        match rung {
            Rung::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all()
            }
            Rung::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all(),
            Rung::Plain => &mut builder,
        };
        match builder.build(SUBMISSIONS) {
            Ok(ring) => return Ok((ring, rung)),
            // An older kernel does not know the rung's flags; anything else fails on all of them.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// On which rung a ring can be set up here, and whether one completion may fill several buffers.
///
/// # Errors
/// That io_uring is refused, or lacks what sockets need.
pub fn capabilities() -> io::Result<(Rung, bool)> {
    let (mut io, rung) = set_up()?;
    let bundles = test_receives(&mut io)?;
    Ok((rung, bundles))
}

/// Receives one byte the way the shard will receive all; true when bundles work, an error when multishot does not.
fn test_receives(io: &mut IoUring) -> io::Result<bool> {
    if io.params().is_feature_recvsend_bundle() && test_receive(io, true).is_ok() {
        return Ok(true);
    }
    test_receive(io, false).map(|()| false)
}

fn test_receive(io: &mut IoUring, bundle: bool) -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut provided = Provided::register(io, TEST_GROUP, 2)?;
    let memory = Mapping::new(4096, false)?;
    for buffer in 0..2u16 {
        provided.put(buffer, memory.at(usize::from(buffer) * 2048), 2048);
    }
    provided.store_tail();
    let fd = Fd(theirs.as_raw_fd());
    let request = if bundle {
        opcode::RecvMultiBundle::new(fd, TEST_GROUP).build()
    } else {
        opcode::RecvMulti::new(fd, TEST_GROUP).build()
    };
    // SAFETY: the request points to nothing; its buffers live until the ring of buffers is unregistered below.
    unsafe { io.submission().push(&request) }.map_err(|_| io::ErrorKind::Other)?;
    ours.write_all(b"x")?;
    let first = wait_one(io)?;
    let works = first.result == 1 && first.goes_on();
    drop(ours);
    if first.goes_on() {
        wait_one(io)?;
    }
    io.submitter().unregister_buf_ring(TEST_GROUP)?;
    if works { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

fn wait_one(io: &mut IoUring) -> io::Result<Done> {
    let submitter = io.submitter();
    match submitter.submit_with_args(1, &SubmitArgs::new().timespec(&TEST_WAIT)) {
        Err(error) if !is_passing(&error) => return Err(error),
        _ => {}
    }
    let done = io.completion().next().ok_or(io::ErrorKind::TimedOut)?;
    Ok(Done { token: done.user_data(), result: done.result(), flags: done.flags() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn this_kernel_gives_a_deferred_ring_with_bundles() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ring = Ring::new().unwrap();
            assert_eq!((ring.rung(), ring.bundles()), (Rung::Deferred, true));
        });
    }

    #[test]
    fn requests_that_the_kernel_takes_only_later_come_all_and_in_order() {
        const REQUESTS: u64 = 3 * SUBMISSIONS as u64;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ring = Ring::new().unwrap();
            let request = |token| opcode::Nop::new().build().user_data(token);
            for token in 0..REQUESTS {
                if token < SUBMISSIONS.into() || token == REQUESTS - 1 {
                    // SAFETY: the request points to nothing.
                    unsafe { ring.push(&request(token)) };
                } else {
                    // As when the kernel has no memory for those before it.
                    ring.kept.push_back(request(token));
                    ring.out += 1;
                }
            }
            assert!(ring.has_work());
            let mut done = Vec::new();
            while ring.has_work() {
                ring.enter().unwrap();
                ring.take(&mut done);
            }
            assert!(done.iter().map(|done| done.token).eq(0..REQUESTS));
            assert!(ring.kept.is_empty());
        });
    }

    #[test]
    fn work_that_is_left_for_another_time_is_done_though_the_first_of_it_brings_nothing() {
        const SOCKETS: usize = 256;
        const LAST: usize = 16;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ring = Ring::new().unwrap();
            let mut provided = ring.register_buffers(TEST_GROUP, SOCKETS as u16).unwrap();
            let memory = Mapping::new(SOCKETS * 64, false).unwrap();
            (0..SOCKETS).for_each(|buffer| provided.put(buffer as u16, memory.at(buffer * 64), 64));
            provided.store_tail();
            let mut pairs: Vec<_> = (0..SOCKETS).map(|_| UnixStream::pair().unwrap()).collect();
            for (token, (ours, _)) in pairs.iter().enumerate() {
                let receive = opcode::RecvMulti::new(Fd(ours.as_raw_fd()), TEST_GROUP).build();
                // SAFETY: the request points to nothing; its buffers live longer than the ring.
                unsafe { ring.push(&receive.user_data(token as u64)) };
            }
            ring.enter().unwrap();
            for (ours, theirs) in &mut pairs {
                theirs.write_all(b"x").unwrap();
                ours.read_exact(&mut [0]).unwrap();
            }
            let mut done = Vec::new();
            std::future::poll_fn(|cx| ring.poll_work(cx)).await.unwrap();
            ring.enter().unwrap();
            // Those that were not served are up for it already: this rings no bell.
            pairs.iter_mut().skip(SOCKETS - LAST).for_each(|(_, theirs)| theirs.write_all(b"x").unwrap());
            while done.len() < LAST {
                let woken = std::future::poll_fn(|cx| ring.poll_work(cx));
                tokio::time::timeout(PATIENCE, woken).await.expect("the rest is not forgotten").unwrap();
                ring.enter().unwrap();
                ring.take(&mut done);
            }
            assert!(done.iter().all(|done| done.token >= (SOCKETS - LAST) as u64 && done.result == 1));
            drop(ring);
        });
    }

    #[test]
    fn a_hint_that_comes_late_keeps_nobody_awake_and_no_work_is_overlooked() {
        const ROUNDS: usize = 10_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ring = Ring::new().unwrap();
            // Not an eventfd: who watches one and rings another for it loses rings.
            let (mut source, mut theirs) = UnixStream::pair().unwrap();
            let fd = Fd(source.as_raw_fd());
            let request = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            // SAFETY: the request points to nothing.
            unsafe { ring.push(&request) };
            ring.enter().unwrap();
            let asked = Arc::new(AtomicUsize::new(0));
            let its_asked = Arc::clone(&asked);
            let writer = std::thread::spawn(move || {
                for round in 1..=ROUNDS {
                    while its_asked.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    theirs.write_all(b"x").unwrap();
                }
            });
            let mut done = Vec::new();
            for round in 1..=ROUNDS {
                asked.store(round, Ordering::Release);
                done.clear();
                while done.is_empty() {
                    // Every other one meets the work as it is queued; the others sleep until it is.
                    if round % 2 == 0 {
                        let woken = std::future::poll_fn(|cx| ring.poll_work(cx));
                        tokio::time::timeout(PATIENCE, woken).await.expect("the work is noticed").unwrap();
                    }
                    ring.enter().unwrap();
                    ring.take(&mut done);
                }
                source.read_exact(&mut [0]).unwrap();
                let mut entered = 0;
                while ring.has_work() {
                    ring.enter().unwrap();
                    ring.take(&mut done);
                    entered += 1;
                    assert!(entered < 1000, "round {round}: what is hinted at never comes");
                }
            }
            writer.join().unwrap();
        });
    }
}
