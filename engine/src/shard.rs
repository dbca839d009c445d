//! A shard: one pinned thread with its own runtime, buffers, lanes and sink owners. Shards share nothing but mail.
//!
//! Invariants: everything here is touched by its own thread alone; a batch made here comes home here; a batch goes to
//! the owner of its outlet and to nobody else. What crosses threads goes through [`Mailbox`]es: sealed batches out,
//! batches home, and control messages. The shard knows no configuration and reads no file.

mod intake;
mod rewire;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slab::Slab;
use tokio::sync::{Notify, mpsc};

use crate::batch::{Batch, LaneId, ShardId, SinkId, Verdict};
use crate::io::Io;
use crate::lane::{Lane, Lanes};
use crate::memory::{Charge, Memory, Wanted};
use crate::pool::Pool;
use crate::queue::Mailbox;
use crate::settle::Settle;
use crate::sink::route::Sink;

pub use intake::Intake;
pub use rewire::Leaving;

/// What shards send each other.
#[derive(Debug)]
pub enum Mail {
    /// A sealed batch on its way to its outlet's owner.
    Out(Box<Batch>),
    /// A batch with a verdict on its way home.
    Home(Box<Batch>),
}

/// Work for a shard's own thread.
pub type Order = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// Letters a shard's box holds: 16 GiB of batches, each of which is charged to memory_limit as a whole.
pub const MAILBOX_LETTERS: usize = 1 << 14;
/// Batches a shard keeps for reuse: all that one sync of a lane can send home at once, and some.
const POOL_BATCHES: usize = 32;
/// How long a record waits for company when its source is idle.
pub const LINGER: Duration = Duration::from_millis(5);
/// Between two looks at what is open, at least.
const LINGER_MIN: Duration = Duration::from_millis(1);

/// How to reach a shard from any thread.
#[derive(Clone)]
pub struct ShardLink {
    /// Batches out and home.
    pub mail: Arc<Mailbox<Mail>>,
    /// Control.
    pub orders: mpsc::UnboundedSender<Order>,
}

/// The thread's own state.
pub struct Shard {
    id: ShardId,
    io: Io,
    links: Arc<[ShardLink]>,
    sinks: RefCell<HashMap<SinkId, Arc<dyn Sink>>>,
    settle: RefCell<Settle>,
    lanes: RefCell<Slab<Rc<Lane>>>,
    /// The lanes of each source that runs here, by the source's number.
    sources: RefCell<HashMap<u64, Lanes>>,
    memory: Arc<Memory>,
    pool: RefCell<Pool>,
    intakes: RefCell<HashMap<(SinkId, u32), Rc<Intake>>>,
    /// Intakes of sinks that are not known here yet.
    ownerless: RefCell<Vec<(SinkId, u32)>>,
    /// Lanes to sinks that left, of which an heir has batches, by the heir.
    inherited: RefCell<HashMap<SinkId, Vec<Rc<Lane>>>>,
    settled: Notify,
    open: Cell<bool>,
    opened: Notify,
    ending: Cell<bool>,
}

impl Shard {
    /// The state of shard `id`; called on its thread, inside its runtime.
    pub fn new(id: ShardId, io: Io, links: Arc<[ShardLink]>, memory: Arc<Memory>) -> Rc<Self> {
        Rc::new(Self {
            id,
            io,
            links,
            sinks: RefCell::default(),
            settle: RefCell::default(),
            lanes: RefCell::default(),
            sources: RefCell::default(),
            pool: RefCell::new(Pool::new(POOL_BATCHES, Arc::clone(&memory))),
            memory,
            intakes: RefCell::default(),
            ownerless: RefCell::default(),
            inherited: RefCell::default(),
            settled: Notify::new(),
            open: Cell::new(false),
            opened: Notify::new(),
            ending: Cell::new(false),
        })
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Its way to the kernel.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// All shards, itself included.
    pub fn links(&self) -> &Arc<[ShardLink]> {
        &self.links
    }

    /// The windows of its inputs.
    pub fn settle(&self) -> RefMut<'_, Settle> {
        self.settle.borrow_mut()
    }

    /// Now, in nanoseconds since the Unix epoch.
    pub fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    /// The engine's memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// An empty batch: one that lies here, or one with memory that `charge` finds.
    pub fn take_batch(&self, charge: impl FnOnce() -> Option<Charge>) -> Option<Box<Batch>> {
        self.pool.borrow_mut().take(charge)
    }

    /// Somebody here waits for memory, until the guard is dropped: no shard keeps batches that lie unused.
    pub fn want_memory(&self) -> Wanted {
        let (wanted, pooled) = self.memory.want();
        if pooled {
            for link in &*self.links {
                // A shard that has ended keeps none.
                let _ = link.orders.send(Box::new(|shard| shard.pool.borrow_mut().trim()));
            }
        }
        wanted
    }

    /// Makes a sink known here. Another shard may know it already, and its first batch be here: by the mail, which does not
    /// wait for orders.
    pub fn add_sink(self: &Rc<Self>, sink: Arc<dyn Sink>) {
        let id = sink.id();
        self.sinks.borrow_mut().insert(id, Arc::clone(&sink));
        sink.started(self);
        let waiting: Vec<_> = self.ownerless.borrow_mut().extract_if(.., |of| of.0 == id).collect();
        for (id, outlet) in waiting {
            let intake = self.intakes.borrow().get(&(id, outlet)).cloned();
            if let Some(intake) = intake {
                self.opened_intake(id, outlet, &intake);
            }
        }
    }

    /// Makes a lane.
    pub fn add_lane(&self, make: impl FnOnce(LaneId) -> Lane) -> Rc<Lane> {
        let mut lanes = self.lanes.borrow_mut();
        let entry = lanes.vacant_entry();
        let id = LaneId::try_from(entry.key()).expect("lanes are sources times sinks");
        let lane = Rc::new(make(id));
        entry.insert(Rc::clone(&lane));
        lane
    }

    /// Forgets a lane whose batches are all home.
    fn remove_lane(&self, lane: &Rc<Lane>) {
        let mut lanes = self.lanes.borrow_mut();
        let at = lane.id() as usize;
        // Its number may be another one's already.
        if lanes.get(at).is_some_and(|there| Rc::ptr_eq(there, lane)) {
            lanes.remove(at);
        }
    }

    /// Sends a sealed batch to the owner of its outlet.
    pub fn send_out(&self, batch: Box<Batch>, sink: &dyn Sink) {
        if batch.records == 0 && batch.tickets.is_empty() {
            return self.settle_home(batch);
        }
        sink.sealed(batch.outlet, batch.arena.len());
        let owner = sink.owner(batch.outlet, self.id);
        if owner == self.id {
            return self.accept(batch);
        }
        let put = self.links[usize::from(owner)].mail.put(Mail::Out(batch));
        assert!(put.is_ok(), "credit bounds the mail");
    }

    /// Sends a batch home with the sink's word.
    pub fn send_home(&self, mut batch: Box<Batch>, verdict: Verdict) {
        batch.verdict = verdict;
        if batch.home == self.id {
            return self.settle_home(batch);
        }
        let home = usize::from(batch.home);
        let put = self.links[home].mail.put(Mail::Home(batch));
        assert!(put.is_ok(), "credit bounds the mail");
    }

    /// Waits until some batch came home.
    pub async fn settled(&self) {
        self.settled.notified().await;
    }

    fn settle_home(&self, mut batch: Box<Batch>) {
        if let Some(returns) = batch.returns.take() {
            // A rescue that has ended needs none back: the next start sends it again.
            let _ = returns.send(batch);
            return;
        }
        let lane = self.lanes.borrow().get(batch.lane as usize).cloned();
        for ticket in &batch.tickets {
            let moved = self.settle.borrow_mut().verdict(ticket, batch.verdict);
            if let Some(lane) = &lane {
                lane.counters().delivered.add(moved.delivered);
                lane.counters().rejected.add(moved.rejected);
            }
        }
        self.pool.borrow_mut().give(batch);
        if let Some(lane) = lane {
            lane.credit_back();
        }
        self.settled.notify_waiters();
    }

    /// Gives a batch to the owner of its outlet on this shard.
    fn accept(&self, batch: Box<Batch>) {
        self.intake(batch.sink, batch.outlet).put(batch);
    }

    /// Starts the owner of an outlet on this shard before a batch comes.
    pub fn open_intake(&self, sink: SinkId, outlet: u32) {
        self.intake(sink, outlet);
    }

    fn intake(&self, sink: SinkId, outlet: u32) -> Rc<Intake> {
        if let Some(intake) = self.intakes.borrow().get(&(sink, outlet)) {
            return Rc::clone(intake);
        }
        let intake = Rc::new(Intake::default());
        self.intakes.borrow_mut().insert((sink, outlet), Rc::clone(&intake));
        self.opened_intake(sink, outlet, &intake);
        intake
    }

    fn opened_intake(&self, id: SinkId, outlet: u32, intake: &Rc<Intake>) {
        let sink = self.sinks.borrow().get(&id).cloned();
        let Some(sink) = sink else { return self.ownerless.borrow_mut().push((id, outlet)) };
        intake.opened();
        let (intake, me) = (Rc::clone(intake), SELF.with(|s| s.borrow().clone()));
        if let Some(me) = me {
            sink.start_owner(&me, outlet, intake);
        }
    }

    /// Some lane opened a batch: it is sealed after the time of its sink if nothing fills it.
    pub fn lingering(&self) {
        if !self.open.replace(true) {
            self.opened.notify_one();
        }
    }

    /// Seals what every lane has open.
    pub fn seal_all(&self) {
        for lane in self.all_lanes() {
            lane.seal(self);
        }
    }

    fn all_lanes(&self) -> Vec<Rc<Lane>> {
        self.lanes.borrow().iter().map(|(_, lane)| Rc::clone(lane)).collect()
    }

    /// Closes the intakes: owners end when they have written what they were given.
    pub fn close_intakes(&self) {
        for intake in self.intakes.borrow().values() {
            intake.close();
        }
    }

    /// This order is the last one: [`Shard::run`] returns.
    pub fn end(&self) {
        self.ending.set(true);
    }

    /// Owners that have not ended yet.
    pub fn owners(&self) -> usize {
        self.intakes.borrow().values().filter(|i| !i.has_ended()).count()
    }

    /// Runs the shard's own tasks until the orders end: mail, linger, control.
    pub async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        SELF.with(|s| *s.borrow_mut() = Some(Rc::clone(&self)));
        let postman = tokio::task::spawn_local(postman(Rc::clone(&self)));
        let sealer = tokio::task::spawn_local(sealer(Rc::clone(&self)));
        while !self.ending.get() {
            let Some(order) = orders.recv().await else { break };
            order(&self);
        }
        postman.abort();
        sealer.abort();
        SELF.with(|s| s.borrow_mut().take());
    }
}

thread_local! {
    /// The shard of this thread, for owners that are started by the first batch.
    static SELF: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

async fn postman(shard: Rc<Shard>) {
    let mail = Arc::clone(&shard.links[usize::from(shard.id)].mail);
    loop {
        match mail.take().await {
            Mail::Out(batch) => shard.accept(batch),
            Mail::Home(batch) => shard.settle_home(batch),
        }
    }
}

async fn sealer(shard: Rc<Shard>) {
    loop {
        shard.opened.notified().await;
        while shard.open.replace(false) {
            let lingers = shard.all_lanes().iter().map(|lane| lane.linger()).min();
            tokio::time::sleep(lingers.unwrap_or(LINGER).max(LINGER_MIN)).await;
            let now_ns = shard.now_ns();
            let open: usize = shard.all_lanes().iter().map(|lane| lane.seal_older(&shard, now_ns)).sum();
            if open > 0 {
                shard.open.set(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Backend;
    use crate::pool::Arena;
    use crate::sink::format::Format;
    use crate::source::playground::Keep;

    #[test]
    fn a_batch_that_comes_before_its_sink_is_known_has_an_owner_when_it_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (orders, ordered) = mpsc::unbounded_channel();
            let links: Arc<[ShardLink]> = Arc::new([ShardLink { mail: Arc::new(Mailbox::new(8)), orders }]);
            let memory = Memory::unlimited();
            let io = Io::new(Backend::Epoll, Arc::clone(&memory));
            let shard = Shard::new(0, io, Arc::clone(&links), memory);
            tokio::task::spawn_local(Rc::clone(&shard).run(ordered));
            let keep = Keep::new(7, Format::Raw);
            let mut batch = Box::new(Batch::new(Arena::new(8)));
            batch.arena.extend(b"early\n");
            (batch.sink, batch.records, batch.ends) = (7, 1, vec![6]);
            assert!(links[0].mail.put(Mail::Out(batch)).is_ok());
            while shard.ownerless.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            shard.add_sink(Arc::clone(&keep) as Arc<dyn Sink>);
            while keep.len() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(keep.records(), ["early"]);
            assert!(shard.ownerless.borrow().is_empty());
        });
    }
}
