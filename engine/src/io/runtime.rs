//! A shard's runtime: tokio-uring where the kernel allows it, plain tokio where not; its read buffers and connections.
//!
//! Read buffers are few and bounded by the shard: a reader waits for one. They are made when the first one is needed, as
//! many as the engine's memory has room for; with io_uring they are registered with the ring while RLIMIT_MEMLOCK has
//! room (halved on refusal, then plain). For one that is held by a reader whose sink takes nothing another one comes, so
//! that the shard's other files are read on.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_uring::buf::fixed::FixedBufRegistry;

use super::file::{READ_BYTES, READ_HEAD, ReadBuffer};
use super::stream::Streams;
use crate::memory::{Charge, Memory, Use};
use crate::pool::{ALIGN, Arena};

/// Which way a shard talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring: tokio-uring for files, a raw ring for sockets.
    Uring,
    /// tokio's epoll and a few blocking threads.
    Epoll,
}

impl Backend {
    /// The configuration's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The runtime of one shard. It stays on the thread that made it.
pub enum Runtime {
    /// tokio-uring's.
    Uring(tokio_uring::Runtime),
    /// Plain tokio with a local task set.
    Epoll(tokio::runtime::Runtime, tokio::task::LocalSet),
}

impl Runtime {
    /// Sets up the runtime on this thread.
    ///
    /// # Errors
    /// What io_uring_setup or the epoll set-up said.
    pub fn new(backend: Backend) -> io::Result<Self> {
        match backend {
            Backend::Uring => {
                let mut builder = tokio_uring::uring_builder();
                builder.setup_coop_taskrun().setup_single_issuer();
                let mut config = tokio_uring::builder();
                config.entries(RING_ENTRIES).uring_builder(&builder);
                tokio_uring::Runtime::new(&config).map(Self::Uring)
            }
            Backend::Epoll => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .max_blocking_threads(BLOCKING_THREADS_MAX)
                    .build()?;
                Ok(Self::Epoll(runtime, tokio::task::LocalSet::new()))
            }
        }
    }

    /// Runs a future, and every task it spawns with `spawn_local`, until the future is done.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Uring(runtime) => runtime.block_on(future),
            Self::Epoll(runtime, local) => runtime.block_on(local.run_until(future)),
        }
    }
}

/// Submission entries of a shard's file ring: reads, writes, syncs and timers in flight together stay far below.
const RING_ENTRIES: u32 = 256;
/// Blocking threads of an epoll shard: one for each read in flight and a sync.
const BLOCKING_THREADS_MAX: usize = 8;
/// Read buffers of a shard: two files at full depth. Six of 1 MiB and head stay under the 8 MiB memlock default.
const READ_BUFFERS: usize = 6;
/// What each takes.
pub const READ_BUFFER_BYTES: usize = READ_HEAD + READ_BYTES + 2 * ALIGN;

/// The shard's handle on the kernel: its backend and its read buffers.
#[derive(Clone)]
pub struct Io {
    inner: Rc<Inner>,
}

struct Inner {
    backend: Backend,
    memory: Arc<Memory>,
    buffers: OnceCell<ReadBuffers>,
    streams: OnceCell<Rc<Streams>>,
}

/// The read buffers of a shard.
struct ReadBuffers {
    registered: Option<FixedBufRegistry<Arena>>,
    registered_count: usize,
    count: usize,
    next: Cell<usize>,
    plain: RefCell<Vec<Arena>>,
    permits: Semaphore,
    /// Stand-ins that have ended: so many buffers too many are lent.
    surplus: RefCell<Vec<Charge>>,
    _charges: Vec<Charge>,
}

impl ReadBuffers {
    /// One, and more while half of the engine's memory is left; called inside the runtime.
    fn new(backend: Backend, memory: &Arc<Memory>) -> Self {
        let is_ample = || memory.has(memory.limit_bytes() / 2);
        let for_files = |charge: Charge| charge.used_for(Use::Files);
        let another = |_| is_ample().then(|| memory.try_charge(READ_BUFFER_BYTES)).flatten().map(for_files);
        let mut charges = vec![for_files(memory.charge(READ_BUFFER_BYTES))];
        charges.extend((1..READ_BUFFERS).map_while(another));
        let count = charges.len();
        let (registered, registered_count) = match backend {
            Backend::Uring => register(count),
            Backend::Epoll => (None, 0),
        };
        Self {
            registered,
            registered_count,
            count,
            next: Cell::new(0),
            plain: RefCell::new(Vec::new()),
            permits: Semaphore::new(count),
            surplus: RefCell::new(Vec::new()),
            _charges: charges,
        }
    }
}

impl Io {
    /// Nothing is taken of `memory` before it is needed.
    pub fn new(backend: Backend, memory: Arc<Memory>) -> Self {
        let inner = Inner { backend, memory, buffers: OnceCell::new(), streams: OnceCell::new() };
        Self { inner: Rc::new(inner) }
    }

    /// The backend.
    pub fn backend(&self) -> Backend {
        self.inner.backend
    }

    /// Registered read buffers, and all of them.
    pub fn read_buffers(&self) -> (usize, usize) {
        let buffers = self.buffers();
        (buffers.registered_count, buffers.count)
    }

    /// The shard's stream connections, running from the first call on.
    ///
    /// # Errors
    /// What the kernel said to an epoll set.
    pub fn streams(&self) -> io::Result<Rc<Streams>> {
        if let Some(streams) = self.inner.streams.get() {
            return Ok(Rc::clone(streams));
        }
        let on_ring = match self.inner.backend {
            Backend::Uring => Streams::with_ring(&self.inner.memory),
            Backend::Epoll => Err(io::ErrorKind::Unsupported.into()),
        };
        let streams = on_ring.or_else(|error| {
            if self.inner.backend == Backend::Uring {
                no_ring("connections", &error);
            }
            Streams::with_epoll(&self.inner.memory)
        })?;
        let running = Rc::clone(&streams);
        tokio::task::spawn_local(async move {
            if let Err(error) = running.run().await {
                log::error!(target: "wpgen::io", "receiving from connections ended: {error}");
            }
        });
        Ok(Rc::clone(self.inner.streams.get_or_init(|| streams)))
    }

    /// A read buffer; waits while all are lent.
    pub async fn read_buffer(&self) -> ReadBuffer {
        // The semaphore lives as long as `self` and is never closed, so a refusal cannot be.
        if let Ok(permit) = self.buffers().permits.acquire().await {
            permit.forget();
        }
        self.take()
    }

    /// A read buffer when one is free at once.
    pub fn try_read_buffer(&self) -> Option<ReadBuffer> {
        self.buffers().permits.try_acquire().ok()?.forget();
        Some(self.take())
    }

    fn take(&self) -> ReadBuffer {
        let buffers = self.buffers();
        if let Some(registry) = &buffers.registered {
            let n = buffers.registered_count;
            for i in 0..n {
                let index = (buffers.next.get() + i) % n;
                if let Some(fixed) = registry.check_out(index) {
                    buffers.next.set(index + 1);
                    return ReadBuffer::fixed(fixed, self.clone());
                }
            }
        }
        let arena = buffers.plain.borrow_mut().pop();
        ReadBuffer::plain(arena.unwrap_or_else(|| Arena::new(READ_HEAD + READ_BYTES)), self.clone())
    }

    pub(super) fn give(&self, plain: Option<Arena>) {
        let buffers = self.buffers();
        buffers.plain.borrow_mut().extend(plain);
        // What was made for a stand-in is not kept.
        buffers.plain.borrow_mut().truncate(buffers.count - buffers.registered_count);
        if buffers.surplus.borrow_mut().pop().is_none() {
            buffers.permits.add_permits(1);
        }
    }

    /// One read buffer more on the shard, as long as the guard lives, in place of one that is held for long; `None` while
    /// the engine has no memory for it.
    pub fn stand_in(&self) -> Option<StandIn> {
        let charge = self.inner.memory.try_charge(READ_BUFFER_BYTES)?.used_for(Use::Files);
        self.buffers().permits.add_permits(1);
        Some(StandIn { io: self.clone(), charge: Some(charge) })
    }

    fn buffers(&self) -> &ReadBuffers {
        self.inner.buffers.get_or_init(|| ReadBuffers::new(self.inner.backend, &self.inner.memory))
    }
}

/// A read buffer more on a shard.
pub struct StandIn {
    io: Io,
    charge: Option<Charge>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let buffers = self.io.buffers();
        if buffers.permits.forget_permits(1) == 0 {
            // All are lent: the first that comes back stays.
            buffers.surplus.borrow_mut().extend(self.charge.take());
        }
    }
}

/// Says that what a shard receives comes by epoll, for want of a ring.
pub(super) fn no_ring(what: &str, error: &io::Error) {
    let worker = std::thread::current().name().unwrap_or_default().replace("shard-", "worker ");
    log::warn!(
        target: "wpgen::io",
        "{worker} receives {what} on epoll, as io_uring says: {error}; a higher memlock limit (LimitMEMLOCK= in the unit, \
         `ulimit -l`) has room for its ring"
    );
}

/// Registers as many of `count` read buffers as the memlock limit admits: all, half, a quarter, none.
fn register(mut count: usize) -> (Option<FixedBufRegistry<Arena>>, usize) {
    while count > 0 {
        let registry = FixedBufRegistry::new((0..count).map(|_| Arena::new(READ_HEAD + READ_BYTES)));
        match registry.register() {
            Ok(()) => return (Some(registry), count),
            Err(error) => {
                log::debug!(target: "wpgen::io", "registering {count} read buffers: {error}; trying fewer");
                count /= 2;
            }
        }
    }
    log::info!(target: "wpgen::io", "no registered read buffers: the memlock limit is too low (raise LimitMEMLOCK); plain reads cost about a tenth more");
    (None, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(io: &Io) -> Vec<ReadBuffer> {
        std::iter::from_fn(|| io.try_read_buffer()).collect()
    }

    #[test]
    fn a_stand_in_is_one_buffer_more_and_goes_when_all_come_back() {
        for backend in [Backend::Uring, Backend::Epoll] {
            let Ok(runtime) = Runtime::new(backend) else { continue };
            runtime.block_on(async {
                let memory = Memory::new(64 << 20);
                let io = Io::new(backend, Arc::clone(&memory));
                let mut held = free(&io);
                assert_eq!(held.len(), READ_BUFFERS);
                let least = memory.used_bytes();
                let (one, other) = (io.stand_in(), io.stand_in());
                assert!(memory.used_bytes() > least);
                held.extend(free(&io));
                assert_eq!(held.len(), READ_BUFFERS + 2);
                drop(one);
                drop(held.pop());
                assert_eq!(free(&io).len(), 0, "it took the place of the one that stood in");
                held.truncate(3);
                drop(other);
                drop(held);
                assert_eq!(free(&io).len(), READ_BUFFERS);
                assert_eq!(memory.used_bytes(), least);
                let buffers = io.buffers();
                assert_eq!(buffers.plain.borrow().len(), buffers.count - buffers.registered_count);
            });
        }
    }

    #[test]
    fn without_memory_nothing_stands_in() {
        let Ok(runtime) = Runtime::new(Backend::Epoll) else { return };
        runtime.block_on(async {
            let memory = Memory::new(READ_BUFFER_BYTES as u64 * 3 / 2);
            let io = Io::new(Backend::Epoll, memory);
            assert_eq!(free(&io).len(), 1);
            assert!(io.stand_in().is_none());
        });
    }
}
