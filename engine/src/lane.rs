//! A lane: the way of one source's records to one sink, on one shard.
//!
//! It owns the open batches (one an outlet), the credit that bounds how many batches of this source are out at this
//! sink, and what the sink takes of the source. A source without credit waits here, and only that source: every other
//! lane has credit of its own. Where the engine has no memory for another batch it waits for that in the same way. It
//! knows no file and no socket.
//!
//! A source's [`Lanes`] change while it runs: a reload adds lanes and ends them. A lane that has ended takes nothing
//! more; what waits for its credit goes to the lane that took its place, or on without it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::batch::{Batch, LaneId, Origin, Run, SinkId, Ticket};
use crate::memory::{Charge, Share};
use crate::metrics::{Reason, SourceCounters};
use crate::shard::Shard;
use crate::sink::format::{Format, encode};
use crate::sink::route::{Sink, Where};
use crate::source::part::Surroundings;
use crate::source::stop::Stop;

/// Batches of one source that may be out at one sink, on one shard: a sync covers half of them while the other half is
/// filled and written. Measured into a file, TCP at full speed: of 16 the source had to wait for the disk, which costs
/// more than the batches (15 to 25 ns a message); 40 no longer fit into the cache that a core shares (30 ns more).
pub const CREDIT_BATCHES: u32 = 24;
/// A wait that lasts is counted this often.
const WAIT_STEP: Duration = Duration::from_millis(250);
/// Inputs of a source that may hold read memory at once, on one shard: what it can keep from others while a sink takes
/// nothing.
const TURNS: usize = 4;
/// Outlets with an open batch at once; beyond it the oldest is sealed early.
const OPEN_MAX: usize = 16;

/// The way of one source's records to one sink.
pub struct Lane {
    id: LaneId,
    sink: Arc<dyn Sink>,
    counters: Arc<SourceCounters>,
    takes: Where,
    share: Arc<Share>,
    credit: Cell<u32>,
    free: Notify,
    /// Whether the last batch was not opened for want of memory, not of credit.
    short: Cell<bool>,
    /// Memory that was waited for, for the next batch.
    granted: Cell<Option<Charge>>,
    encoding: RefCell<Encoding>,
    end: RefCell<End>,
}

/// Whether a lane still takes records.
enum End {
    /// It does.
    Open,
    /// It does not; the lane in its place does, if there is one.
    Ended(Option<Rc<Lane>>),
}

struct Encoding {
    /// `None` for a sink that only counts.
    format: Option<Format>,
    open: Vec<Open>,
    /// The mark of the origin seen last, and its outlet; `None` where the sink does not take it.
    last: Option<(u64, Option<u32>)>,
    /// Inputs whose records the sink already has up to a position, from before a restart.
    have: HashMap<u64, u64>,
}

struct Open {
    batch: Box<Batch>,
    /// The second of receipt, where the outlet's path has a date; else 0.
    epoch: i64,
}

impl Lane {
    /// A lane with full credit.
    pub fn new(
        id: LaneId,
        sink: Arc<dyn Sink>,
        takes: Where,
        counters: Arc<SourceCounters>,
        share: Arc<Share>,
    ) -> Self {
        let encoding =
            Encoding { format: sink.format(), open: Vec::new(), last: None, have: sink.positions_before() };
        Self {
            id,
            sink,
            counters,
            takes,
            share,
            credit: Cell::new(CREDIT_BATCHES),
            free: Notify::new(),
            short: Cell::new(false),
            granted: Cell::new(None),
            encoding: RefCell::new(encoding),
            end: RefCell::new(End::Open),
        }
    }

    /// Its number on the shard.
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// The sink at its end.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.sink
    }

    /// Whether it looks at parsed headers whatever the source makes of them: to choose records, or to write a header.
    pub fn wants_headers(&self) -> bool {
        self.takes.each_record()
            || matches!(self.sink.format(), Some(Format::Syslog5424 | Format::Syslog3164))
    }

    /// The source's counters on this shard.
    pub fn counters(&self) -> &SourceCounters {
        &self.counters
    }

    /// Whether all its batches are home and none is open.
    pub fn is_idle(&self) -> bool {
        self.credit.get() == CREDIT_BATCHES
    }

    /// Takes every record of the run, waiting for credit and memory where there is none.
    pub async fn push(self: &Rc<Self>, shard: &Shard, run: &Run<'_>, ticket: &Ticket) {
        let mut lane = Rc::clone(self);
        let mut from = 0;
        loop {
            let next = match &*lane.end.borrow() {
                End::Open => None,
                End::Ended(Some(next)) => Some(Rc::clone(next)),
                End::Ended(None) => return,
            };
            if let Some(next) = next {
                lane = next;
                continue;
            }
            from = lane.try_push(shard, run, from, ticket);
            if from >= run.records.len() {
                // What was waited for and not needed in the end is for others.
                lane.granted.take();
                return;
            }
            if lane.short.take() { lane.remembered(shard).await } else { lane.credited().await }
        }
    }

    /// It takes nothing more; `next` takes its place. What is open is sent.
    fn end(&self, shard: &Shard, next: Option<Rc<Lane>>) {
        *self.end.borrow_mut() = End::Ended(next);
        self.seal(shard);
        self.free.notify_waiters();
    }

    /// Waits for credit. Counted in steps, so that a wait is told while it lasts: a sink that blocks for an hour is
    /// what somebody who asks wants to hear of.
    async fn credited(&self) {
        loop {
            let since = Instant::now();
            let came = tokio::time::timeout(WAIT_STEP, self.free.notified()).await.is_ok();
            self.waited(since);
            if came {
                return;
            }
        }
    }

    /// Waits for memory, in one line with all sources on all shards.
    async fn remembered(&self, shard: &Shard) {
        let _wanted = shard.want_memory();
        let mut batch = std::pin::pin!(self.share.batch());
        loop {
            let since = Instant::now();
            let came = tokio::time::timeout(WAIT_STEP, &mut batch).await;
            self.waited(since);
            match came {
                Ok(charge) => return self.granted.set(Some(charge)),
                Err(_) if matches!(*self.end.borrow(), End::Ended(_)) => return,
                Err(_) => {}
            }
        }
    }

    fn waited(&self, since: Instant) {
        self.counters.sink_wait_ns.add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes records from `from` on while there is credit; returns the first one not taken.
    pub fn try_push(&self, shard: &Shard, run: &Run<'_>, mut from: usize, ticket: &Ticket) -> usize {
        let mut encoding = self.encoding.borrow_mut();
        let encoding = &mut *encoding;
        from = from.max(encoding.already_there(run, ticket));
        let Some(outlet) = encoding.outlet(run.origin, &self.takes, &*self.sink) else {
            return run.records.len();
        };
        if encoding.format.is_none() {
            if from < run.records.len() {
                self.count(run, from);
            }
            return run.records.len();
        }
        while from < run.records.len() {
            let Some(at) = self.open_batch(shard, encoding, outlet, run.received_ns) else {
                return from;
            };
            from = self.encode(shard, encoding, at, run, from, ticket);
        }
        from
    }

    /// A counting sink has the records at once.
    fn count(&self, run: &Run<'_>, from: usize) {
        let taken = self.takes.count(run, from);
        self.sink.counted(taken, (run.records.last().map_or(0, |l| l.end) - run.records[from].start).into());
    }

    fn open_batch(&self, shard: &Shard, encoding: &mut Encoding, outlet: u32, now_ns: i64) -> Option<usize> {
        let epoch = if self.sink.seals_each_second() { now_ns.div_euclid(1_000_000_000) } else { 0 };
        if let Some(at) = encoding.open.iter().position(|o| o.batch.outlet == outlet) {
            if encoding.open[at].epoch == epoch {
                return Some(at);
            }
            let open = encoding.open.remove(at);
            shard.send_out(open.batch, &*self.sink);
        }
        let batch = (self.credit.get() > 0).then(|| self.take_batch(shard));
        let Some(Some(mut batch)) = batch else {
            self.short.set(batch.is_some());
            // A batch that is not full holds the credit the next outlet needs: it goes now.
            if !encoding.open.is_empty() {
                let open = encoding.open.remove(0);
                shard.send_out(open.batch, &*self.sink);
            }
            return None;
        };
        if encoding.open.len() >= OPEN_MAX {
            let open = encoding.open.remove(0);
            shard.send_out(open.batch, &*self.sink);
        }
        self.credit.set(self.credit.get() - 1);
        batch.home = shard.id();
        batch.lane = self.id;
        batch.sink = self.sink.id();
        batch.outlet = outlet;
        batch.arena.clear_with_head(self.sink.head_for_next(outlet));
        encoding.open.push(Open { batch, epoch });
        shard.lingering();
        Some(encoding.open.len() - 1)
    }

    /// An empty batch, if there is memory for one.
    fn take_batch(&self, shard: &Shard) -> Option<Box<Batch>> {
        shard.take_batch(|| self.granted.take().or_else(|| self.share.try_batch()))
    }

    fn encode(
        &self,
        shard: &Shard,
        encoding: &mut Encoding,
        at: usize,
        run: &Run<'_>,
        from: usize,
        ticket: &Ticket,
    ) -> usize {
        let Some(format) = encoding.format else { return run.records.len() };
        let batch = &mut *encoding.open[at].batch;
        let keep = |i: usize| self.takes.record(run, i);
        let keep: Option<&dyn Fn(usize) -> bool> = if self.takes.each_record() { Some(&keep) } else { None };
        let ends = self.sink.wants_ends().then_some(&mut batch.ends);
        let done = encode(format, run, from, keep, &mut batch.arena, self.takes.batches.bytes, ends);
        if done.next > from {
            let upto = run.position_after(done.next - 1);
            shard.settle().attach(ticket);
            batch.tickets.push(Ticket { upto, records: done.records, ..*ticket });
            batch.records += done.records;
            batch.oldest_ns = batch.oldest_ns.min(run.received_ns);
            batch.charge_growth();
        }
        if done.next < run.records.len()
            || batch.arena.len() >= self.takes.batches.bytes
            || batch.tickets.len() >= TICKETS_MAX
        {
            let open = encoding.open.remove(at);
            shard.send_out(open.batch, &*self.sink);
        }
        done.next
    }

    /// How long an open batch waits for more.
    pub fn linger(&self) -> Duration {
        self.takes.batches.linger
    }

    /// Sends what has waited for long enough at `now_ns`; returns how many stay open. What is from later is from before
    /// the clock was set back.
    pub fn seal_older(&self, shard: &Shard, now_ns: i64) -> usize {
        let linger_ns = i64::try_from(self.linger().as_nanos()).unwrap_or(i64::MAX);
        let ages = now_ns.saturating_sub(linger_ns)..=now_ns;
        let mut encoding = self.encoding.borrow_mut();
        let mut i = 0;
        while i < encoding.open.len() {
            let batch = &encoding.open[i].batch;
            let waits = *ages.start() < batch.oldest_ns && batch.oldest_ns <= *ages.end();
            if !waits || batch.records == 0 {
                let open = encoding.open.remove(i);
                shard.send_out(open.batch, &*self.sink);
            } else {
                i += 1;
            }
        }
        encoding.open.len()
    }

    /// Sends everything that is open.
    pub fn seal(&self, shard: &Shard) {
        self.seal_older(shard, i64::MIN);
    }

    /// A batch of this lane came home.
    pub fn credit_back(&self) {
        debug_assert!(self.credit.get() < CREDIT_BATCHES, "a batch comes home once");
        self.credit.set(self.credit.get() + 1);
        self.free.notify_waiters();
    }
}

/// Tickets of one batch; many small runs seal a batch before this list grows long.
const TICKETS_MAX: usize = 4096;

impl Encoding {
    /// Index of the first record that the sink does not have from before a restart.
    fn already_there(&mut self, run: &Run<'_>, ticket: &Ticket) -> usize {
        if self.have.is_empty() {
            return 0;
        }
        let Some(&have) = self.have.get(&ticket.input) else { return 0 };
        if have < ticket.upto {
            self.have.remove(&ticket.input);
        }
        (0..run.records.len()).find(|i| run.position_after(*i) > have).unwrap_or(run.records.len())
    }

    /// The outlet for records of this origin, or `None` when the sink does not take them.
    fn outlet(&mut self, origin: &Origin, takes: &Where, sink: &dyn Sink) -> Option<u32> {
        let mark = origin.mark.number();
        if let Some((_, outlet)) = self.last.filter(|(last, _)| *last == mark) {
            return outlet;
        }
        let outlet = takes.origin(origin).then(|| sink.outlet(origin));
        self.last = Some((mark, outlet));
        outlet
    }
}

/// All lanes of one source on one shard, shared by the source's tasks there.
#[derive(Clone)]
pub struct Lanes(Rc<Routes>);

struct Routes {
    /// Replaced as a whole: a run that is under way keeps the lanes it began with.
    list: RefCell<Rc<[Rc<Lane>]>>,
    counters: Arc<SourceCounters>,
    share: Arc<Share>,
    wants_headers: Cell<bool>,
    held: Cell<bool>,
    released: Notify,
    turns: Semaphore,
    /// It was stopped while it was held: a run was refused, and so is each one after it.
    refusing: Cell<bool>,
}

impl Lanes {
    /// The lanes of a source with these counters and this share of the memory.
    pub fn new(
        lanes: impl IntoIterator<Item = Rc<Lane>>,
        counters: Arc<SourceCounters>,
        share: Arc<Share>,
    ) -> Self {
        let routes = Routes {
            list: RefCell::new(Rc::from([])),
            counters,
            share,
            wants_headers: Cell::new(false),
            held: Cell::new(false),
            released: Notify::new(),
            turns: Semaphore::new(TURNS),
            refusing: Cell::new(false),
        };
        let new = Self(Rc::new(routes));
        new.set(lanes.into_iter().collect());
        new
    }

    fn set(&self, lanes: Vec<Rc<Lane>>) {
        self.0.wants_headers.set(lanes.iter().any(|lane| lane.wants_headers()));
        *self.0.list.borrow_mut() = lanes.into();
    }

    /// The lanes there are now.
    pub fn now(&self) -> Rc<[Rc<Lane>]> {
        Rc::clone(&self.0.list.borrow())
    }

    /// The source's counters on this shard.
    pub fn counters(&self) -> &Arc<SourceCounters> {
        &self.0.counters
    }

    /// What is set aside of the engine's memory for the source.
    pub fn share(&self) -> &Arc<Share> {
        &self.0.share
    }

    /// Whether some lane looks at parsed headers whatever the source makes of them.
    pub fn wants_headers(&self) -> bool {
        self.0.wants_headers.get()
    }

    /// Waits for the turn to read: for inputs whose records are in the memory they were read into until lanes have them.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed, so a refusal cannot be.
        self.0.turns.acquire().await.ok()
    }

    /// Adds a lane: it takes part from the next run on.
    pub fn add(&self, lane: Rc<Lane>) {
        let now = self.now();
        self.set(now.iter().cloned().chain([lane]).collect());
    }

    /// Ends the lane to a sink, if there is one; `next` takes its place. The lane that ended is returned.
    pub fn end(&self, shard: &Shard, sink: SinkId, next: Option<&Rc<Lane>>) -> Option<Rc<Lane>> {
        let now = self.now();
        let ended = now.iter().find(|lane| lane.sink.id() == sink).cloned()?;
        let stay = now.iter().filter(|lane| !Rc::ptr_eq(lane, &ended));
        self.set(stay.cloned().chain(next.cloned()).collect());
        ended.end(shard, next.cloned());
        Some(ended)
    }

    /// No run begins until [`Lanes::release`]; what is under way goes on.
    pub fn hold(&self) {
        self.0.held.set(true);
    }

    /// Runs may begin again.
    pub fn release(&self) {
        self.0.held.set(false);
        self.0.released.notify_waiters();
    }

    /// Whether no run is under way.
    pub fn is_still(&self) -> bool {
        Rc::strong_count(&self.0.list.borrow()) == 1
    }

    /// Sends everything that is open.
    pub fn seal(&self, shard: &Shard) {
        self.now().iter().for_each(|lane| lane.seal(shard));
    }

    /// Whether nothing is open and nothing is out.
    pub fn is_idle(&self) -> bool {
        self.now().iter().all(|lane| lane.is_idle())
    }

    /// Waits until runs may begin. `None` when the source was stopped before that: nothing of it may be given out any
    /// more, for what comes behind a gap would be taken for all of it.
    pub async fn enter(&self, stop: &Stop) -> Option<Entered> {
        while self.0.held.get() && !self.0.refusing.get() {
            let released = self.0.released.notified();
            tokio::select! {
                () = released => {}
                () = stop.raised() => self.0.refusing.set(self.0.held.get()),
            }
        }
        (!self.0.refusing.get()).then(|| Entered(self.now()))
    }
}

/// The lanes that a source's next runs go to; while there is one, the source is not still.
pub struct Entered(Rc<[Rc<Lane>]>);

/// Hands a run to every lane. Waits while a sink has no credit left for this source. Where no sink takes the source, or
/// anything with these tags, the input moves on and the records count as dropped.
pub async fn deliver(around: &Surroundings, entered: &Entered, slot: u32, run: &Run<'_>, upto: u64) {
    let Surroundings { shard, lanes, .. } = around;
    let records = u32::try_from(run.records.len()).expect("a run is one buffer");
    let taken = entered.0.iter().any(|lane| lane.takes.origin(run.origin));
    if !taken {
        lanes.counters().drop_records(Reason::NoSink, records.into());
    }
    let ticket = shard.settle().begin(slot, upto, if taken { records } else { 0 });
    for lane in &*entered.0 {
        lane.push(shard, run, &ticket).await;
    }
    let moved = shard.settle().sealed(&ticket);
    lanes.counters().delivered.add(moved.delivered);
    lanes.counters().rejected.add(moved.rejected);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Mark;
    use crate::memory::Memory;
    use crate::source::playground::Keep;

    #[test]
    fn an_origin_is_not_taken_for_one_that_lay_where_it_lies() {
        let origin = |name: &str| Origin {
            source: "s".into(),
            host: "h".into(),
            tags: vec![("source_name".to_owned(), name.to_owned())],
            peer: None,
            tls_subject: None,
            assignment: None,
            protocol: None,
            mark: Mark::default(),
        };
        let takes = Where { tags: vec![("source_name".to_owned(), "b.log".to_owned())], ..Where::default() };
        let sink = Keep::new(0, Format::Raw);
        let mut encoding = Encoding { format: None, open: Vec::new(), last: None, have: HashMap::new() };
        let mut place = Box::new(origin("a.log"));
        assert_eq!(encoding.outlet(&place, &takes, &*sink), None);
        *place = origin("b.log");
        assert_eq!(encoding.outlet(&place, &takes, &*sink), Some(0));
        *place = Origin { tags: Vec::new(), ..(*place).clone() };
        assert_eq!(encoding.outlet(&place, &takes, &*sink), None, "a changed clone");
    }

    #[test]
    fn a_source_that_is_stopped_while_it_is_held_gives_out_nothing_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lanes = Lanes::new([], Arc::default(), Share::new(&Memory::unlimited()));
        let stop = Stop::default();
        runtime.block_on(async {
            assert!(lanes.enter(&stop).await.is_some());
            lanes.hold();
            let (refused, ()) = tokio::join!(lanes.enter(&stop), async { stop.raise() });
            assert!(refused.is_none());
            // What comes now stands behind a gap.
            lanes.release();
            assert!(lanes.enter(&stop).await.is_none());
        });
    }

    #[test]
    fn a_source_that_is_stopped_gives_out_its_last_while_nobody_holds_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lanes = Lanes::new([], Arc::default(), Share::new(&Memory::unlimited()));
        let stop = Stop::default();
        stop.raise();
        let entered = runtime.block_on(lanes.enter(&stop));
        assert!(entered.is_some() && !lanes.is_still());
        drop(entered);
        assert!(lanes.is_still());
    }
}
