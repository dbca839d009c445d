//! Life cycle: spawn the shards, wire sources to sinks by lanes, run, drain.
//!
//! The engine owns the shard threads and the list of what runs. Draining goes with the stream: sources stop, lanes seal,
//! sinks write and sync, verdicts come home, the checkpoint is written, shards end. It prints nothing and never exits.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::batch::ShardId;
use crate::io::runtime::Runtime;
use crate::io::{Backend, Io};
use crate::lane::{Lane, Lanes};
use crate::metrics::SourceCounters;
use crate::queue::Mailbox;
use crate::shard::{MAILBOX_LETTERS, Order, Shard, ShardLink};
use crate::sink::route::{Sink, Where};
use crate::source::part::{Source, Surroundings};
use crate::source::stop::Stop;

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
    stop: Stop,
}

/// A running engine. Dropping it without [`Engine::drain`] abandons what is in flight.
pub struct Engine {
    shards: Vec<Thread>,
    links: Arc<[ShardLink]>,
    running: Vec<Running>,
    sinks: Vec<Arc<dyn Sink>>,
    parts: Arc<Parts>,
    started: Instant,
}

struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
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
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
    }

    /// Waits until no part runs; `false` when the time is over.
    fn wait(&self, at_most: Duration) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut shards = Vec::new();
        for ((id, cpu), orders) in (0..).zip(&wiring.cpus).zip(receivers) {
            let thread = spawn(id, *cpu, wiring.backend, Arc::clone(&links), orders)?;
            shards.push(Thread { orders: links[usize::from(id)].orders.clone(), thread });
        }
        let mut engine = Self {
            shards,
            links,
            running: Vec::new(),
            sinks: wiring.sinks,
            parts: Arc::default(),
            started: Instant::now(),
        };
        for sink in &engine.sinks {
            let sink = Arc::clone(sink);
            engine.order_all(move |shard| shard.add_sink(Arc::clone(&sink)));
        }
        for wired in wiring.sources {
            engine.start_source(wired);
        }
        Ok(engine)
    }

    /// The sources.
    pub fn running(&self) -> &[Running] {
        &self.running
    }

    /// Since when it runs.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until every source has ended by itself; `false` when the time is over first.
    pub fn wait(&self, at_most: Duration) -> bool {
        self.parts.wait(at_most)
    }

    fn start_source(&mut self, wired: Wired) {
        let stop = Stop::default();
        let counters: Vec<Arc<SourceCounters>> = self.shards.iter().map(|_| Arc::default()).collect();
        let routes: Vec<(Arc<dyn Sink>, Where)> =
            wired.routes.into_iter().map(|(i, takes)| (Arc::clone(&self.sinks[i]), takes)).collect();
        for (shard, counters) in self.shards.iter().zip(&counters) {
            self.parts.left.fetch_add(1, Ordering::AcqRel);
            let (parts, source, stop) = (Arc::clone(&self.parts), Arc::clone(&wired.source), stop.clone());
            let (routes, counters) = (routes.clone(), Arc::clone(counters));
            let order: Order = Box::new(move |shard| {
                let around = surroundings(shard, &routes, stop, counters);
                tokio::task::spawn_local(run_part(source, around, parts));
            });
            let sent = shard.orders.send(order);
            assert!(sent.is_ok(), "a shard takes orders until the engine ends it");
        }
        self.running.push(Running { source: wired.source, counters, stop });
    }

    fn order_all(&self, order: impl Fn(&Rc<Shard>) + Clone + Send + 'static) {
        for shard in &self.shards {
            let order = order.clone();
            // A shard that ended takes no orders, and needs none.
            let _ = shard.orders.send(Box::new(move |shard| order(shard)));
        }
    }

    /// How far every sink has each input with an open window.
    pub fn low_positions(&self) -> HashMap<u64, u64> {
        let (tell, told) = std::sync::mpsc::channel();
        self.order_all(move |shard| {
            let _ = tell.send(shard.settle().positions().collect::<Vec<_>>());
        });
        told.iter().take(self.shards.len()).flatten().collect()
    }

    /// Stops taking, lets the sinks have everything that was taken, ends the shards. Returns whether all of it was
    /// settled within `at_most`.
    pub fn drain(self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        for running in &self.running {
            running.stop.raise();
        }
        let mut settled = self.parts.wait(at_most);
        self.order_all(|shard| {
            shard.seal_all();
        });
        settled &= self.wait_for(until, |shard| shard.settle().is_all_idle());
        self.order_all(|shard| shard.close_intakes());
        settled &= self.wait_for(until, |shard| shard.owners() == 0);
        let Self { shards, links, .. } = self;
        drop(links);
        for shard in shards {
            let end: Order = Box::new(|shard| shard.end());
            let _ = shard.orders.send(end);
            drop(shard.orders);
            settled &= shard.thread.join().is_ok();
        }
        settled
    }

    /// Asks every shard until all say yes, or the time is over.
    fn wait_for(&self, until: Instant, condition: impl Fn(&Shard) -> bool + Clone + Send + 'static) -> bool {
        loop {
            let (tell, told) = std::sync::mpsc::channel();
            let condition = condition.clone();
            self.order_all(move |shard| {
                let _ = tell.send(condition(shard));
            });
            if told.iter().take(self.shards.len()).all(|yes| yes) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Between two questions to the shards while draining.
const POLL: Duration = Duration::from_millis(2);

fn link() -> (ShardLink, mpsc::UnboundedReceiver<Order>) {
    let (orders, receiver) = mpsc::unbounded_channel();
    (ShardLink { mail: Arc::new(Mailbox::new(MAILBOX_LETTERS)), orders }, receiver)
}

fn spawn(
    id: ShardId,
    cpu: Option<usize>,
    backend: Backend,
    links: Arc<[ShardLink]>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || {
        if let Some(cpu) = cpu {
            crate::io::affinity::pin(cpu);
        }
        let runtime = match Runtime::new(backend) {
            Ok(runtime) => runtime,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(Ok(()));
        runtime.block_on(async move {
            let shard = Shard::new(id, Io::new(backend), links);
            shard.run(orders).await;
        });
    })?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the shard's thread ended at once")))?;
    Ok(thread)
}

fn surroundings(
    shard: &Rc<Shard>,
    routes: &[(Arc<dyn Sink>, Where)],
    stop: Stop,
    counters: Arc<SourceCounters>,
) -> Surroundings {
    let lane = |(sink, takes): &(Arc<dyn Sink>, Where)| {
        shard.add_lane(|id| Lane::new(id, Arc::clone(sink), takes.clone(), Arc::clone(&counters)))
    };
    let lanes: Lanes = routes.iter().map(lane).collect();
    Surroundings { shard: Rc::clone(shard), lanes, stop, counters }
}

/// A part ends when it has read and everything it read is settled.
async fn run_part(source: Arc<dyn Source>, around: Surroundings, parts: Arc<Parts>) {
    source.run(around.clone()).await;
    for lane in &*around.lanes {
        lane.seal(&around.shard);
    }
    while !around.lanes.iter().all(|lane| lane.is_idle()) {
        around.shard.settled().await;
    }
    parts.ended();
}
