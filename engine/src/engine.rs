//! Life cycle: spawn the shards, wire sources to sinks by lanes, run, rewire, drain.
//!
//! The engine owns the shard threads and the list of what runs. Draining goes with the stream: sources stop, lanes seal,
//! sinks write and sync, verdicts come home, the checkpoint is written, shards end. It prints nothing and never exits.

mod aside;
pub(crate) mod drain;
mod rewire;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use self::aside::Aside;
use self::aside::Told;
use crate::batch::ShardId;
use crate::checkpoint::{Snapshot, Store};
use crate::config::units::Size;
use crate::io::runtime::Runtime;
use crate::io::{Backend, Io};
use crate::keeper::{Duty, Keeper, KeeperState};
use crate::lane::CREDIT_BATCHES;
use crate::memory::{Memory, Share};
use crate::metrics::{Counter, REASONS, Reason, SourceCounters};
use crate::pool::ARENA_BYTES;
use crate::process::{Spent, Thread, Usage};
use crate::queue::Mailbox;
use crate::rescue::Forgotten;
use crate::shard::{Leaving, MAILBOX_LETTERS, Order, Shard, ShardLink};
use crate::sink::route::{Sink, Where};
use crate::source::part::{Source, Surroundings};
use crate::source::stop::Stop;
use crate::status::{MemoryStatus, SinkStatus, SourceStatus, Status, Waits};

/// What runs: sources with the sinks each feeds, on which CPUs, over which backend.
pub struct Wiring {
    /// One shard for each CPU, pinned to it; `None` leaves the thread unpinned.
    pub cpus: Vec<Option<usize>>,
    /// The way to the kernel.
    pub backend: Backend,
    /// All sinks; a sink's id is its index.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Each source with its routes.
    pub sources: Vec<Wired>,
    /// Who keeps the checkpoint; none in a bench.
    pub keeping: Option<Keeping>,
    /// The next free identity of an input.
    pub next_input: Arc<AtomicU64>,
    /// What all of it may buffer.
    pub memory: Arc<Memory>,
}

/// The checkpoint's keeper and what it works with.
pub struct Keeping {
    /// The keeper whose `persist` the sinks have.
    pub keeper: Keeper,
    /// The open store.
    pub store: Store,
    /// The longest time between a change and its checkpoint.
    pub interval: Duration,
    /// What sources that are switched off are to go on with.
    pub aside: Aside,
}

/// A source and where its records go.
pub struct Wired {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Index of a sink, and what it takes.
    pub routes: Vec<(usize, Where)>,
}

/// A running source.
pub struct Running {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Its counters, one set a shard.
    pub counters: Vec<Arc<SourceCounters>>,
    /// Its number; another source of its key that takes its place has another one.
    number: u64,
    stop: Stop,
    parts_left: Arc<AtomicU64>,
    /// The engine has asked it to stop; a source may also stop itself.
    stopping: AtomicBool,
    /// It is configured no more, and forgotten when it has ended.
    leaving: AtomicBool,
}

impl Running {
    /// `at_most` is how long it is waited for.
    fn stop(&self, at_most: Duration) {
        self.stopping.store(true, Ordering::Release);
        self.stop.raise_within(at_most);
    }

    fn has_ended(&self) -> bool {
        self.parts_left.load(Ordering::Acquire) == 0
    }

    /// Its counters for the one that takes its place, with what the source itself had counted.
    fn bequeath(&self) -> Vec<Arc<SourceCounters>> {
        if let Some(first) = self.counters.first() {
            first.errors.add(self.source.errors());
        }
        self.counters.clone()
    }

    /// It has ended, and is to be forgotten then.
    fn is_over(&self) -> bool {
        self.leaving.load(Ordering::Acquire) && self.has_ended()
    }

    /// A part has ended, nobody asked for it, and the source has no end.
    fn has_failed(&self) -> bool {
        let left = self.parts_left.load(Ordering::Acquire);
        left < self.counters.len() as u64
            && !self.source.is_finite()
            && !self.stopping.load(Ordering::Acquire)
    }

    /// Adds up its counters over the shards.
    fn status(&self) -> SourceStatus {
        let sum =
            |of: fn(&SourceCounters) -> &Counter| self.counters.iter().map(|c| of(c).get()).sum::<u64>();
        let dropped = REASONS.iter().map(|(reason, name)| {
            let n = self.counters.iter().map(|c| c.dropped[*reason as usize].get()).sum();
            ((*name).to_owned(), n)
        });
        let (delivered, rejected) = (sum(|c| &c.delivered), sum(|c| &c.rejected));
        let dropped = dropped.filter(|(_, n)| *n > 0).collect();
        // Read last: see the law.
        let records_in = sum(|c| &c.records);
        SourceStatus {
            key: self.source.key().to_owned(),
            records_in,
            bytes_in: sum(|c| &c.bytes),
            delivered,
            rejected,
            dropped,
            malformed: sum(|c| &c.malformed),
            misframed: sum(|c| &c.misframed),
            truncated: sum(|c| &c.truncated),
            split: sum(|c| &c.split),
            kernel_drops: sum(|c| &c.kernel_drops),
            kernel_drops_are_a_lower_bound: self.source.merges_datagrams(),
            errors: sum(|c| &c.errors) + self.source.errors(),
            lag_bytes: self.source.lag_bytes(sum(|c| &c.bytes)),
            total_bytes: self.source.total_bytes(),
            done: self.has_ended(),
            failed: self.has_failed(),
            has_datagrams: self.source.has_datagrams(),
            repeats: self.source.repeats(),
            unread_bytes: sum(|c| &c.unread_bytes),
            waits: self.waits(),
            partitions: self.source.partitions(),
            trouble: self.source.trouble(),
        }
    }
}

impl Running {
    /// Of the shards where it waited longest: an average with shards that had nothing to do would hide it.
    fn waits(&self) -> Waits {
        let of =
            |c: &Arc<SourceCounters>| Waits { read_ns: c.read_wait_ns.get(), sink_ns: c.sink_wait_ns.get() };
        self.counters.iter().map(of).fold(Waits::default(), Waits::or_longer)
    }
}

/// A shard that does not answer: it hangs in a call to the kernel, or others have its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The first one.
    pub worker: ShardId,
    /// What it has done since it was asked, where the kernel says.
    pub spent: Option<Spent>,
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} was asked how far its inputs are, and does not answer", self.worker)?;
        self.spent.map_or(Ok(()), |spent| write!(f, ": {spent}"))
    }
}

/// What the keeper and the engine both see.
struct Shared {
    links: Arc<[ShardLink]>,
    /// Those of the shards.
    workers: Vec<Thread>,
    running: Mutex<Vec<Arc<Running>>>,
    sinks: Mutex<Vec<Arc<dyn Sink>>>,
    /// Sinks that are configured no more and not closed yet.
    leaving: Mutex<Vec<Arc<Leaving>>>,
    /// What sources tell of that are switched off.
    aside: Mutex<Aside>,
    /// What lay on disk for sinks that are not configured, at the start or the last reload.
    forgotten: Mutex<Vec<Forgotten>>,
    next_input: Arc<AtomicU64>,
    /// Sources started so far.
    numbers: AtomicU64,
    /// The figures of the checkpoint's keeper, once it works.
    keeper: OnceLock<Arc<KeeperState>>,
    memory: Arc<Memory>,
}

impl Shared {
    fn running(&self) -> Vec<Arc<Running>> {
        lock(&self.running).iter().filter(|r| !r.is_over()).cloned().collect()
    }

    /// One source a key: one that still drains behind its successor is counted with that.
    fn newest(&self) -> Vec<Arc<Running>> {
        let running = self.running();
        let is_newest = |r: &&Arc<Running>| {
            !running.iter().any(|other| other.source.key() == r.source.key() && other.number > r.number)
        };
        running.iter().filter(is_newest).cloned().collect()
    }

    /// One set a shard for a source that starts: those of the one that had its key, so that no counter goes back.
    fn counters(&self, key: &str) -> Vec<Arc<SourceCounters>> {
        let running = self.running();
        let before = running.iter().rev().find(|running| running.source.key() == key);
        let before = before.map(|running| running.bequeath());
        before.unwrap_or_else(|| self.links.iter().map(|_| Arc::default()).collect())
    }

    fn sinks(&self) -> Vec<Arc<dyn Sink>> {
        lock(&self.sinks).clone()
    }

    fn leaving(&self) -> Vec<Arc<Leaving>> {
        let (gone, left) = {
            let mut leaving = lock(&self.leaving);
            let gone: Vec<_> = leaving.extract_if(.., |leaving| leaving.is_gone()).collect();
            (gone, leaving.clone())
        };
        if !gone.is_empty() {
            rewire::let_go(gone);
        }
        left
    }

    fn order_all(&self, order: impl Fn(&Rc<Shard>) + Clone + Send + 'static) {
        for link in &*self.links {
            let order = order.clone();
            // A shard that ended takes no orders, and needs none.
            let _ = link.orders.send(Box::new(move |shard| order(shard)));
        }
    }

    /// Asks every shard and waits for the answers until then.
    fn ask_all<T: Send + 'static>(
        &self,
        until: Instant,
        question: impl Fn(&Rc<Shard>) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Unanswered> {
        let (tell, told) = std::sync::mpsc::channel();
        let watches: Vec<_> = self.workers.iter().map(Thread::watch).collect();
        self.order_all(move |shard| {
            // Whoever asked may have gone.
            let _ = tell.send((shard.id(), question(shard)));
        });
        let mut silent: Vec<ShardId> = (0..).take(self.links.len()).collect();
        let mut answers = Vec::new();
        while !silent.is_empty() {
            match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((shard, answer)) => {
                    silent.retain(|other| *other != shard);
                    answers.push(answer);
                }
                Err(_) => {
                    let worker = silent[0];
                    return Err(Unanswered { worker, spent: watches[usize::from(worker)].spent() });
                }
            }
        }
        Ok(answers)
    }

    /// Inputs first, then what sinks have committed. An input that appeared between the two steps would be in the sinks'
    /// part alone, and read again after a crash: then both are gathered anew.
    fn snapshot(&self, until: Instant) -> Result<Snapshot, Unanswered> {
        loop {
            let next_input = self.next_input.load(Ordering::Acquire);
            let snapshot = self.gather(next_input, until)?;
            let positions = snapshot.groups.iter().flat_map(|group| &group.positions);
            if positions.clone().all(|(input, _)| *input < next_input) {
                return Ok(snapshot.without_forgotten());
            }
        }
    }

    fn gather(&self, next_input: u64, until: Instant) -> Result<Snapshot, Unanswered> {
        let (all, mut aside) = self.all_and_aside();
        let (over, running): (Vec<_>, Vec<_>) = all.into_iter().partition(|r| r.is_over());
        let low = self.ask_all(until, |shard| shard.settle().positions().collect::<Vec<_>>())?;
        let low: HashMap<u64, u64> = low.into_iter().flatten().collect();
        self.put_aside(&over, &low, &mut aside);
        aside.retain(|key| !running.iter().any(|r| r.source.key() == key));
        let mut told = Told::of(running.iter(), &low);
        told.extend(aside);
        let Told { inputs, partitions } = told;
        // What a sink that leaves has committed counts until it is closed.
        let leaving = self.leaving().into_iter().map(|leaving| Arc::clone(&leaving.sink));
        let groups = leaving.chain(self.sinks()).flat_map(|sink| sink.groups()).collect();
        let ids = inputs.iter().map(|input| input.id).chain(partitions.iter().map(|partition| partition.id));
        let next_input = ids.map(|id| id + 1).fold(next_input, u64::max);
        Ok(Snapshot { next_input, inputs, groups, partitions })
    }

    /// What leaves and is not closed; of what has a successor, what still has batches.
    fn leaving_statuses(&self, sinks: &[SinkStatus]) -> Vec<SinkStatus> {
        let leaving = self.leaving().into_iter().map(|leaving| leaving.sink.status());
        let has_successor = |key: &str| sinks.iter().any(|sink| sink.key == key);
        leaving.filter(|sink| sink.batches_in_flight > 0 || !has_successor(&sink.key)).collect()
    }

    fn status(&self, started: Instant) -> Status {
        let sinks: Vec<SinkStatus> = self.sinks().iter().map(|sink| sink.status()).collect();
        Status {
            elapsed: started.elapsed(),
            usage: Usage::now(),
            sources: self.newest().iter().map(|r| r.status()).collect(),
            leaving: self.leaving_statuses(&sinks),
            sinks,
            forgotten: lock(&self.forgotten).clone(),
            checkpoint: self.keeper.get().map(|keeper| keeper.status(started)),
            alerts: Vec::new(),
            memory: MemoryStatus {
                used_bytes: self.memory.used_bytes() as u64,
                limit_bytes: self.memory.limit_bytes() as u64,
                used_by: self.memory.used_by().map(|bytes| bytes as u64),
                carried_bytes: self.memory.carried_bytes() as u64,
            },
        }
    }

    /// Whether every shard takes an order within the time: none hangs.
    fn is_alive(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let (tell, told) = std::sync::mpsc::channel();
        self.order_all(move |_| {
            let _ = tell.send(());
        });
        let answer = || told.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok();
        self.links.iter().all(|_| answer())
    }

    /// Records that sources lost which were stopped while a sink of theirs did not run.
    fn lost(&self) -> u64 {
        let counters = self.newest().into_iter().flat_map(|running| running.counters.clone());
        counters.map(|counters| counters.dropped[Reason::SinkNotOpen as usize].get()).sum()
    }

    fn bytes(&self) -> u64 {
        self.newest().iter().flat_map(|r| &r.counters).map(|c| c.bytes.get()).sum()
    }

    /// A number that differs when a checkpoint may differ: all of it are counters that only grow, and a change of
    /// sources and sinks asks for a checkpoint.
    fn activity(&self) -> u64 {
        let counted = |c: &Arc<SourceCounters>| {
            let dropped: u64 = c.dropped.iter().map(Counter::get).sum();
            c.bytes.get() + c.records.get() + c.delivered.get() + c.rejected.get() + dropped
        };
        let sources: u64 = self
            .running()
            .iter()
            .map(|r| r.source.revision() + r.counters.iter().map(counted).sum::<u64>())
            .sum();
        let sinks = self.sinks().into_iter().map(|s| s.status());
        sources + sinks.map(|s| s.records + s.bytes + s.errors).sum::<u64>()
    }
}

/// Reads a running engine's counters from any thread.
#[derive(Clone)]
pub struct Observer {
    shared: Arc<Shared>,
    started: Instant,
}

impl Observer {
    /// All counters, added up.
    pub fn status(&self) -> Status {
        self.shared.status(self.started)
    }

    /// Whether every shard takes an order within the time: none hangs.
    pub fn is_alive(&self, at_most: Duration) -> bool {
        self.shared.is_alive(at_most)
    }
}

/// A running engine. Dropping it without [`Engine::drain`] abandons what is in flight.
pub struct Engine {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    parts: Arc<Parts>,
    keeper: Option<Keeper>,
    started: Instant,
}

/// Parts of sources that run, over all shards.
#[derive(Default)]
struct Parts {
    left: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Parts {
    fn ended(&self) {
        self.left.fetch_sub(1, Ordering::AcqRel);
        let _guard = lock(&self.lock);
        self.changed.notify_all();
    }

    /// Waits until no part runs; `false` when the time is over.
    fn wait(&self, at_most: Duration) -> bool {
        let guard = lock(&self.lock);
        let left = |_: &mut ()| self.left.load(Ordering::Acquire) > 0;
        let waited = self.changed.wait_timeout_while(guard, at_most, left);
        let (_guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        self.left.load(Ordering::Acquire) == 0
    }
}

impl Engine {
    /// Spawns the shards and starts every source.
    ///
    /// # Errors
    /// A thread or a runtime that could not be set up.
    pub fn start(wiring: Wiring) -> io::Result<Self> {
        let (links, receivers): (Vec<_>, Vec<_>) = wiring.cpus.iter().map(|_| link()).unzip();
        let links: Arc<[ShardLink]> = links.into();
        let (mut threads, mut workers) = (Vec::new(), Vec::new());
        for ((id, cpu), orders) in (0..).zip(&wiring.cpus).zip(receivers) {
            let memory = Arc::clone(&wiring.memory);
            let (thread, worker) = spawn(id, *cpu, wiring.backend, Arc::clone(&links), memory, orders)?;
            threads.push(thread);
            workers.push(worker);
        }
        let shared = Arc::new(Shared {
            links,
            workers,
            running: Mutex::default(),
            sinks: Mutex::default(),
            leaving: Mutex::default(),
            aside: Mutex::default(),
            forgotten: Mutex::default(),
            next_input: wiring.next_input,
            numbers: AtomicU64::new(0),
            keeper: OnceLock::new(),
            memory: wiring.memory,
        });
        let mut engine =
            Self { threads, shared, parts: Arc::default(), keeper: None, started: Instant::now() };
        for sink in &wiring.sinks {
            engine.add_sink(Arc::clone(sink));
        }
        for wired in wiring.sources {
            let routes = wired.routes.into_iter().map(|(i, takes)| (Arc::clone(&wiring.sinks[i]), takes));
            engine.start_source(wired.source, routes.collect());
        }
        if let Some(keeping) = wiring.keeping {
            engine.keep(keeping)?;
        }
        Ok(engine)
    }

    /// All counters, added up.
    pub fn status(&self) -> Status {
        self.shared.status(self.started)
    }

    /// A view of the engine for other threads; it may outlive the engine.
    pub fn observer(&self) -> Observer {
        Observer { shared: Arc::clone(&self.shared), started: self.started }
    }

    /// One line for each thing that sources and sinks opened.
    pub fn opened(&self) -> Vec<(String, Vec<String>)> {
        let on = |buffer: u64, of: &str| {
            let (workers, each) = match self.shards() {
                1 => ("1 worker".to_owned(), ""),
                shards => (format!("{shards} workers"), " on each"),
            };
            if buffer == 0 { workers } else { format!("{workers}, buffer {}{of}{each}", Size(buffer)) }
        };
        let line = |line: String, on: &str| format!("{line}; {on}");
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for running in self.shared.running().iter() {
            let source = &running.source;
            let on = on(source.buffer_bytes(), "");
            let opened = source.opened().into_iter().map(|opened| line(opened, &on)).collect();
            all.push((source.key().to_owned(), opened));
        }
        let credit = u64::from(CREDIT_BATCHES) * ARENA_BYTES as u64;
        for sink in self.shared.sinks() {
            let on = on(credit, " for each source");
            let opened = sink.opened().into_iter().map(|opened| line(opened, &on)).collect();
            all.push((sink.status().key, opened));
        }
        all
    }

    /// Waits until every source has ended by itself; `false` when the time is over first.
    pub fn wait(&self, at_most: Duration) -> bool {
        self.parts.wait(at_most)
    }

    /// Outputs whose path names another file now are opened anew.
    pub fn reopen_outputs(&self) {
        self.shared.sinks().iter().for_each(|sink| sink.reopen());
    }

    fn keep(&mut self, keeping: Keeping) -> io::Result<()> {
        let Keeping { mut keeper, store, interval, aside } = keeping;
        *lock(&self.shared.aside) = aside;
        let shared = || Arc::clone(&self.shared);
        let (gather, bytes, activity, kept) = (shared(), shared(), shared(), shared());
        let duty = Duty {
            gather: Box::new(move || {
                let snapshot = gather.snapshot(Instant::now() + ANSWER_MAX);
                snapshot.map_err(|silent| io::Error::new(io::ErrorKind::TimedOut, silent.to_string()))
            }),
            bytes: Box::new(move || bytes.bytes()),
            activity: Box::new(move || activity.activity()),
            kept: Box::new(move |snapshot| kept.running().iter().for_each(|r| r.source.kept(snapshot))),
            interval,
        };
        keeper.start(store, duty)?;
        // It is kept once.
        let _ = self.shared.keeper.set(keeper.state());
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Starts a source that feeds these sinks. One of its key that runs already leaves the list with it.
    pub(crate) fn start_source(&self, source: Arc<dyn Source>, routes: Vec<(Arc<dyn Sink>, Where)>) {
        let stop = Stop::default();
        let links = &self.shared.links;
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let counters = self.shared.counters(source.key());
        let parts_left = Arc::new(AtomicU64::new(links.len() as u64));
        let share = Share::new(&self.shared.memory);
        for (link, counters) in links.iter().zip(&counters) {
            self.parts.left.fetch_add(1, Ordering::AcqRel);
            let (parts, source, stop) = (Arc::clone(&self.parts), Arc::clone(&source), stop.clone());
            let (routes, counters, mine) = (routes.clone(), Arc::clone(counters), Arc::clone(&parts_left));
            let share = Arc::clone(&share);
            let order: Order = Box::new(move |shard| {
                let lanes = shard.add_source(number, &routes, &counters, &share);
                let around = Surroundings { shard: Rc::clone(shard), lanes, stop, counters };
                tokio::task::spawn_local(async move {
                    run_part(source, &around).await;
                    around.shard.remove_source(number);
                    drop(around);
                    mine.fetch_sub(1, Ordering::AcqRel);
                    parts.ended();
                });
            });
            let sent = link.orders.send(order);
            assert!(sent.is_ok(), "a shard takes orders until the engine ends it");
        }
        let (stopping, leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        let running = Arc::new(Running { source, counters, number, stop, parts_left, stopping, leaving });
        let mut all = lock(&self.shared.running);
        all.retain(|r| r.source.key() != running.source.key() || !r.has_ended());
        let key = running.source.key().to_owned();
        all.push(running);
        self.shared.take_back(&key);
    }
}

/// Between two looks at whether something has happened.
const POLL: Duration = Duration::from_millis(2);
/// How long a shard may take to say how far it is: a turn takes milliseconds, a disk that is busy a second.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);

fn link() -> (ShardLink, mpsc::UnboundedReceiver<Order>) {
    let (orders, receiver) = mpsc::unbounded_channel();
    (ShardLink { mail: Arc::new(Mailbox::new(MAILBOX_LETTERS)), orders }, receiver)
}

fn spawn(
    id: ShardId,
    cpu: Option<usize>,
    backend: Backend,
    links: Arc<[ShardLink]>,
    memory: Arc<Memory>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<(JoinHandle<()>, Thread)> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || {
        if let Some(cpu) = cpu {
            crate::io::affinity::pin(cpu);
        }
        let runtime = match Runtime::new(backend) {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(Ok(Thread::current()));
        runtime.block_on(async move {
            let shard = Shard::new(id, Io::new(backend, Arc::clone(&memory)), links, memory);
            shard.run(orders).await;
        });
    })?;
    let worker = told.recv().unwrap_or_else(|_| Err(io::Error::other("the shard's thread ended at once")))?;
    Ok((thread, worker))
}

/// A part ends when it has read and everything it read is settled.
async fn run_part(source: Arc<dyn Source>, around: &Surroundings) {
    source.run(around.clone()).await;
    around.lanes.seal(&around.shard);
    while !around.lanes.is_idle() {
        around.shard.settled().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
