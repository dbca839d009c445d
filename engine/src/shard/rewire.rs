//! What a reload changes on a shard, between two turns: lanes come and go, and a sink that nobody feeds is closed.
//!
//! Nothing is lost: a lane that ends sends what it has open and stays known until its batches are home; a sink is closed
//! behind the last batch of the last lane, on every shard, and gone when its owners have ended.
//!
//! A sink may have an heir, which begins with what the old one cannot deliver soon. Until that is clear the heir's batches
//! wait, so that order is kept.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Shard;
use crate::batch::SinkId;
use crate::lane::{Lane, Lanes};
use crate::memory::Share;
use crate::metrics::SourceCounters;
use crate::sink::route::{Sink, Where};

/// The outlet of a sink that has one, as all have that can have an heir.
const ONLY_OUTLET: u32 = 0;
/// What a sink delivers within this time is its, not its heir's.
const GRACE: Duration = Duration::from_secs(1);

/// A sink on its way out, on all shards.
pub struct Leaving {
    /// The sink.
    pub sink: Arc<dyn Sink>,
    /// Who has what it does not deliver.
    heir: Option<Arc<dyn Sink>>,
    /// Shards on which lanes to it are not home yet.
    lanes_left: AtomicUsize,
    /// Shards on which its owners have not ended.
    owners_left: AtomicUsize,
    gone: Mutex<bool>,
    is_gone: Condvar,
}

impl Leaving {
    /// A sink that leaves so many shards. An heir must have been made known with [`Shard::add_heir`].
    pub fn new(sink: Arc<dyn Sink>, heir: Option<Arc<dyn Sink>>, shards: usize) -> Arc<Self> {
        let (lanes_left, owners_left) = (AtomicUsize::new(shards), AtomicUsize::new(shards));
        Arc::new(Self {
            sink,
            heir,
            lanes_left,
            owners_left,
            gone: Mutex::default(),
            is_gone: Condvar::new(),
        })
    }

    /// Whether everything it was given is settled and it is closed.
    pub fn is_gone(&self) -> bool {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is gone; `false` when the time is over first.
    pub fn wait(&self, until: Instant) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let at_most = until.saturating_duration_since(Instant::now());
        let waited = self.is_gone.wait_timeout_while(gone, at_most, |gone| !*gone);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn set_gone(&self) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.is_gone.notify_all();
    }
}

impl Shard {
    /// A source begins to run here: its lanes, one a route.
    pub fn add_source(
        &self,
        source: u64,
        routes: &[(Arc<dyn Sink>, Where)],
        counters: &Arc<SourceCounters>,
        share: &Arc<Share>,
    ) -> Lanes {
        let lanes = routes.iter().map(|(sink, takes)| self.new_lane(sink, takes, counters, share));
        let lanes = Lanes::new(lanes, Arc::clone(counters), Arc::clone(share));
        self.sources.borrow_mut().insert(source, lanes.clone());
        lanes
    }

    /// A source has ended here, and everything of it is settled.
    pub fn remove_source(&self, source: u64) {
        if let Some(lanes) = self.sources.borrow_mut().remove(&source) {
            lanes.now().iter().for_each(|lane| self.remove_lane(lane));
        }
    }

    fn lanes_of(&self, source: u64) -> Option<Lanes> {
        self.sources.borrow().get(&source).cloned()
    }

    fn new_lane(
        &self,
        sink: &Arc<dyn Sink>,
        takes: &Where,
        counters: &Arc<SourceCounters>,
        share: &Arc<Share>,
    ) -> Rc<Lane> {
        let (counters, share) = (Arc::clone(counters), Arc::clone(share));
        self.add_lane(|id| Lane::new(id, Arc::clone(sink), takes.clone(), counters, share))
    }

    /// From the next run on, `sink` takes of a source what `takes` says; where `before` took of it, it does no more.
    pub fn connect(
        self: &Rc<Self>,
        source: u64,
        sink: &Arc<dyn Sink>,
        takes: &Where,
        before: Option<SinkId>,
    ) {
        // A source that has ended here sends nothing more.
        let Some(lanes) = self.lanes_of(source) else { return };
        let lane = self.new_lane(sink, takes, lanes.counters(), lanes.share());
        match before.and_then(|before| lanes.end(self, before, Some(&lane))) {
            Some(ended) => self.forget_when_idle(ended),
            None => lanes.add(lane),
        }
    }

    /// A sink takes nothing more of a source.
    pub fn disconnect(self: &Rc<Self>, source: u64, sink: SinkId) {
        if let Some(ended) = self.lanes_of(source).and_then(|lanes| lanes.end(self, sink, None)) {
            self.forget_when_idle(ended);
        }
    }

    fn forget_when_idle(self: &Rc<Self>, lane: Rc<Lane>) {
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while !lane.is_idle() {
                shard.settled().await;
            }
            shard.remove_lane(&lane);
        });
    }

    /// Holds a source back, or lets it go on.
    pub fn hold(&self, source: u64, held: bool) {
        match self.lanes_of(source) {
            Some(lanes) if held => lanes.hold(),
            Some(lanes) => lanes.release(),
            None => {}
        }
    }

    /// Whether nothing of a source that is held is on its way: what is open is sent for that.
    pub fn is_quiet(&self, source: u64) -> bool {
        self.lanes_of(source).is_none_or(|lanes| {
            let is_still = lanes.is_still();
            lanes.seal(self);
            is_still && lanes.is_idle()
        })
    }

    /// A sink leaves: no lane feeds it any more, and when all batches of all shards are home it is closed.
    pub fn leave(self: &Rc<Self>, leaving: Arc<Leaving>) {
        let id = leaving.sink.id();
        let sources: Vec<Lanes> = self.sources.borrow().values().cloned().collect();
        for lanes in sources {
            lanes.end(self, id, None);
        }
        let lanes = self.lanes_to(id);
        if let Some(heir) = &leaving.heir {
            self.inherit(id, heir.id());
        }
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            for lane in lanes {
                while !lane.is_idle() {
                    shard.settled().await;
                }
                shard.remove_lane(&lane);
            }
            if leaving.lanes_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                for link in &**shard.links() {
                    let leaving = Arc::clone(&leaving);
                    // A shard that has ended has no owners.
                    let _ = link.orders.send(Box::new(move |shard| shard.close_sink(leaving)));
                }
            }
        });
    }

    fn lanes_to(&self, sink: SinkId) -> Vec<Rc<Lane>> {
        self.all_lanes().into_iter().filter(|lane| lane.sink().id() == sink).collect()
    }

    /// A sink that leaves has an heir, which was made known with [`Shard::add_heir`].
    pub fn inherit(self: &Rc<Self>, from: SinkId, heir: SinkId) {
        tokio::task::spawn_local(Rc::clone(self).hand_over(from, heir, self.lanes_to(from)));
    }

    /// Makes a sink known that takes another one's place. It begins to write when [`Shard::inherit`] knows what.
    pub fn add_heir(self: &Rc<Self>, sink: Arc<dyn Sink>) {
        let at = (sink.id(), ONLY_OUTLET);
        // There may be a batch for it from another shard.
        self.intakes.borrow_mut().entry(at).or_default();
        self.ownerless.borrow_mut().retain(|of| *of != at);
        self.add_sink(sink);
    }

    /// Gives an heir what the sink before it does not deliver soon, and lets it begin. That is what the sink was given, and
    /// what it inherited: it may have begun with that a moment ago, or not yet.
    async fn hand_over(self: Rc<Self>, from: SinkId, to: SinkId, mut lanes: Vec<Rc<Lane>>) {
        let intake = |sink| self.intakes.borrow().get(&(sink, ONLY_OUTLET)).cloned();
        if let Some(old) = intake(from) {
            old.until_opened().await;
        }
        lanes.extend(self.inherited.borrow_mut().remove(&from).unwrap_or_default());
        let delivered = async {
            while !lanes.iter().all(|lane| lane.is_idle()) {
                self.settled().await;
            }
        };
        let is_delivered = tokio::time::timeout(GRACE, delivered).await.is_ok();
        let Some(heir) = intake(to) else { return };
        lanes.retain(|lane| !lane.is_idle());
        if let Some(old) = intake(from).filter(|_| !is_delivered) {
            let mut batches = old.recall().await;
            batches.iter_mut().for_each(|batch| batch.sink = to);
            heir.put_first(batches.into_iter());
            self.inherited.borrow_mut().insert(to, lanes);
        }
        self.opened_intake(to, ONLY_OUTLET, &heir);
    }

    /// No batch for the sink is under way anywhere: its owners here end.
    fn close_sink(self: &Rc<Self>, leaving: Arc<Leaving>) {
        let id = leaving.sink.id();
        let shard = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let here: Vec<_> =
                shard.intakes.borrow().keys().filter(|(sink, _)| *sink == id).copied().collect();
            for key in here {
                let Some(intake) = shard.intakes.borrow().get(&key).cloned() else { continue };
                intake.close();
                intake.until_ended().await;
                shard.intakes.borrow_mut().remove(&key);
            }
            shard.sinks.borrow_mut().remove(&id);
            shard.inherited.borrow_mut().remove(&id);
            if leaving.owners_left.fetch_sub(1, Ordering::AcqRel) == 1 {
                leaving.set_gone();
            }
        });
    }
}
