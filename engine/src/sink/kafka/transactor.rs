//! Makes transactions of the batches of all owners: a thread of its own a sink, since librdkafka's calls for transactions
//! block.
//!
//! ```text
//! owners ──> held ──> loading ──> with librdkafka ──> reported ─┐
//!             ^                                                 v
//!             └────────── aborted: all of it again <── offsets, positions, commit ──> home
//! ```
//!
//! One transaction is open at a time. It ends after an interval, with so many bytes, or when nothing more comes; it holds the
//! batches, the offsets of the groups that their records come from, and how far the files are that they come from. All of it
//! counts or none of it does. What was aborted is still here and is sent again in the next one; but not what came from a
//! partition that is another member's by now: that member reads it again.
//!
//! Invariants: a batch goes home as delivered only when its transaction is committed. Batches of one outlet are in
//! transactions in the order in which they came. When another producer has taken our transactional.id, nothing is sent any
//! more, ever: what is held stays here, and so the sources wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{Producer as _, PurgeConfig};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::lent::{self, Lent};
use super::outlets::Outlet;
use super::owner::reject;
use super::positions::{self, Positions};
use super::producer::{Reports, Shared};
use super::send::Figures;
use super::witness::Witness;
use crate::batch::{Batch, Verdict};
use crate::kafka::assigned::{Fault, Takes};
use crate::kafka::blame::fenced;
use crate::kafka::cargo::{Handed, Load, Loading, Producer, Reported, is_final};

/// A transaction of so many bytes is committed before its interval is over.
const TRANSACTION_BYTES: usize = 32 << 20;
/// How long nothing comes before a transaction is committed: longer than records wait for company on a shard.
const QUIET: Duration = Duration::from_millis(10);
/// How often a full queue of librdkafka's is tried again, should no report come.
const FULL_AGAIN: Duration = Duration::from_millis(1);
/// How often it is asked whether the transaction can still be committed, while reports are waited for: messages that are not
/// sent any more because it cannot are not reported either.
const PROBE: Duration = Duration::from_millis(100);
/// How long one call of librdkafka's blocks at most; it is called again then.
pub(super) const CALL_MAX: Duration = Duration::from_secs(5);
/// How long one may block that does not keep to that: librdkafka has been told of a coordinator of the group that is dead, and
/// waits for it, and for nothing else.
const HUNG: Duration = Duration::from_secs(10);
/// The first and the longest pause before something that failed is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A batch that comes home, and how.
pub(super) type Home = (Box<Batch>, Verdict);

/// A batch from an owner.
pub(super) struct Letter {
    pub(super) batch: Box<Batch>,
    pub(super) outlet: Arc<Outlet>,
    pub(super) home: UnboundedSender<Home>,
}

/// What transactions are made with.
pub(super) struct Works {
    pub(super) producer: Arc<Shared>,
    pub(super) figures: Arc<Figures>,
    /// Where files' positions are.
    pub(super) positions: Positions,
    /// Who reads what is committed.
    pub(super) witness: Witness,
    /// The transactional.id.
    pub(super) id: String,
    /// How long a transaction goes on.
    pub(super) interval: Duration,
    /// How long one may be open before the broker aborts it.
    pub(super) open_max: Duration,
    /// Whether the producer has been made known to the broker.
    pub(super) is_known: bool,
    /// Raised when nothing is sent any more.
    pub(super) has_stopped: Arc<AtomicBool>,
}

/// A batch that is not committed.
pub(super) struct Held {
    /// Here, or with librdkafka.
    pub(super) batch: Option<Box<Batch>>,
    pub(super) outlet: Arc<Outlet>,
    home: UnboundedSender<Home>,
    /// Records that no broker will ever take, and why.
    rejected: BTreeMap<u32, RDKafkaErrorCode>,
    /// Whether its records go one by one: a broker has refused a whole request of them for good.
    is_single: bool,
}

/// How far the open transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Whether it is committed is not known until it is said.
    Committing,
}

/// The thread's own state.
pub(super) struct Transactor {
    pub(super) works: Works,
    letters: UnboundedReceiver<Letter>,
    /// In the order in which they came.
    pub(super) held: BTreeMap<u64, Held>,
    next: u64,
    /// To be handed over, in order.
    loading: VecDeque<(u64, Loading)>,
    /// Batches that are not here.
    away: usize,
    bytes: usize,
    fault: Option<Fault>,
    stage: Stage,
    began: Instant,
    last: Instant,
    probed: Instant,
    pause: Duration,
    done: UnboundedSender<Reported>,
    reported: UnboundedReceiver<Reported>,
}

/// Starts the thread; it ends when there are no owners any more, and no sink.
pub(super) fn start(key: &str, works: Works) -> std::io::Result<UnboundedSender<Letter>> {
    let (sender, letters) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = std::thread::Builder::new().name(format!("kafka-{key}"));
    thread.spawn(move || {
        runtime.block_on(Transactor::new(works, letters).run());
        // A call that hangs is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(sender)
}

impl Transactor {
    fn new(works: Works, letters: UnboundedReceiver<Letter>) -> Self {
        let (done, reported) = unbounded_channel();
        let now = Instant::now();
        Self {
            works,
            letters,
            held: BTreeMap::new(),
            next: 0,
            loading: VecDeque::new(),
            away: 0,
            bytes: 0,
            fault: None,
            stage: Stage::Open,
            began: now,
            last: now,
            probed: now,
            pause: PAUSE_MIN,
            done,
            reported,
        }
    }

    async fn run(mut self) {
        if !self.works.is_known && !self.make_known().await {
            return self.stop().await;
        }
        let mut is_kept = false;
        loop {
            if self.held.is_empty() {
                match self.letters.recv().await {
                    Some(letter) => self.accept(letter),
                    None => return,
                }
            }
            if !is_kept {
                is_kept = self.keep_identity().await;
                if !is_kept {
                    return self.stop().await;
                }
            }
            let goes_on = match self.transaction().await {
                Ok(()) => {
                    self.deliver();
                    true
                }
                Err(fault) => self.recover(fault).await,
            };
            if self.letters.is_closed() && self.letters.is_empty() && self.held.is_empty() {
                return;
            }
            if !goes_on {
                return self.stop().await;
            }
        }
    }

    fn accept(&mut self, letter: Letter) {
        let Letter { batch, outlet, home } = letter;
        let held = Held { batch: Some(batch), outlet, home, rejected: BTreeMap::new(), is_single: false };
        self.held.insert(self.next, held);
        self.next += 1;
    }

    /// Whether nobody is left who waits for anything.
    fn is_alone(&self) -> bool {
        self.letters.is_closed() && self.letters.is_empty()
    }

    /// One transaction of what is held and what comes meanwhile.
    async fn transaction(&mut self) -> Result<(), Fault> {
        let producer = self.works.producer.now();
        (self.stage, self.fault, self.bytes) = (Stage::Open, None, 0);
        self.began = Instant::now();
        self.last = self.began;
        producer.inner().begin_transaction()?;
        let turns: Vec<u64> = self.held.keys().copied().collect();
        turns.into_iter().for_each(|turn| self.load(turn));
        loop {
            let is_full = self.hand_over(&producer);
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            if self.away == 0 && self.is_time() {
                break;
            }
            if self.away > 0 && self.probed.elapsed() >= PROBE {
                self.probed = Instant::now();
                probe(&producer)?;
            }
            self.wait(is_full).await;
        }
        self.lend_offsets(&producer).await?;
        self.note_positions(&producer).await?;
        self.commit(&producer).await
    }

    /// Whether the transaction takes no more.
    fn is_time(&self) -> bool {
        !self.has_room() || self.last.elapsed() >= QUIET || self.letters.is_closed()
    }

    fn has_room(&self) -> bool {
        self.bytes < TRANSACTION_BYTES && self.began.elapsed() < self.works.interval
    }

    /// Makes messages of a held batch, unless none of it can be one.
    fn load(&mut self, turn: u64) {
        let Some(held) = self.held.get_mut(&turn) else { return };
        let Some(batch) = held.batch.take() else { return };
        self.bytes += batch.bytes().len();
        let only: Vec<u32> = match held.rejected.is_empty() {
            true => Vec::new(),
            false => (0..batch.records).filter(|number| !held.rejected.contains_key(number)).collect(),
        };
        if only.is_empty() && !held.rejected.is_empty() {
            held.batch = Some(batch);
            return;
        }
        let load = Load { only, single: held.is_single, turn };
        self.away += 1;
        self.loading.push_back((turn, Loading::new(batch, load, self.done.clone())));
    }

    /// Hands over what librdkafka takes; whether its queue is full.
    fn hand_over(&mut self, producer: &Producer<Reports>) -> bool {
        while let Some((turn, mut loading)) = self.loading.pop_front() {
            let Some(held) = self.held.get(&turn) else { continue };
            let outlet = &held.outlet;
            match loading.hand_over(producer, &outlet.topic, outlet.key.as_deref().map(str::as_bytes)) {
                Handed::All => loading.finish(None),
                Handed::Full => {
                    self.loading.push_front((turn, loading));
                    return true;
                }
                Handed::Refused(code) => {
                    let text = format!("topic {}: {code}", outlet.topic);
                    loading.finish(Some(code));
                    self.fault.get_or_insert(Fault::abort(code, text));
                    return false;
                }
            }
        }
        false
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, is_full: bool) {
        let (has_room, is_away) = (self.has_room(), self.away > 0);
        let room = self.works.interval.saturating_sub(self.began.elapsed());
        let quiet = QUIET.saturating_sub(self.last.elapsed()).min(room);
        let look = match (is_full, is_away) {
            (true, _) => FULL_AGAIN,
            (false, true) => PROBE,
            (false, false) => quiet.max(FULL_AGAIN),
        };
        tokio::select! {
            biased;
            Some(reported) = self.reported.recv(), if is_away => self.take(reported),
            letter = self.letters.recv(), if has_room && !self.letters.is_closed() => {
                if let Some(letter) = letter {
                    let turn = self.next;
                    self.accept(letter);
                    self.load(turn);
                    self.last = Instant::now();
                }
            }
            () = tokio::time::sleep(look) => {}
        }
    }

    /// A batch whose messages are all reported.
    fn take(&mut self, reported: Reported) {
        let Reported { batch, failed, rejected, turn, .. } = reported;
        self.away -= 1;
        let Some(held) = self.held.get_mut(&turn) else { return };
        held.batch = Some(batch);
        held.rejected.extend(rejected);
        let Some((_, code)) = failed.iter().find(|(_, code)| *code != RDKafkaErrorCode::PurgeQueue) else {
            return;
        };
        held.is_single |= failed.iter().any(|(_, code)| is_final(*code));
        let text = format!("topic {}: {code}", held.outlet.topic);
        self.fault.get_or_insert(Fault::abort(*code, text));
    }

    /// Puts the offsets of every group into the transaction.
    async fn lend_offsets(&mut self, producer: &Arc<Producer<Reports>>) -> Result<(), Fault> {
        for lent in lent::of(self.held.values()) {
            let lent = Arc::new(lent);
            loop {
                let (sent, producer) = (Arc::clone(&lent), Arc::clone(producer));
                let call = tokio::task::spawn_blocking(move || sent.send(&producer, CALL_MAX));
                match tokio::time::timeout(HUNG, call).await {
                    Ok(Ok(Ok(()))) => break,
                    Ok(Ok(Err(fault))) => self.again_or(fault).await?,
                    Ok(Err(ended)) => return Err(Fault::abort(RDKafkaErrorCode::Fail, ended.to_string())),
                    Err(_) => return Err(self.hung(&lent).await),
                }
            }
        }
        Ok(())
    }

    /// The call does not come back: another producer asks anew who coordinates the group, as soon as somebody does.
    async fn hung(&mut self, lent: &Lent) -> Fault {
        let group = &lent.membership.group;
        while let Err(finding) = self.works.witness.is_coordinated(lent) {
            if self.is_alone() {
                break;
            }
            self.works.producer.voice.tell(finding);
            self.rest().await;
        }
        let text =
            format!("group {group}: its coordinator was waited for in vain for {HUNG:?}, and is another one");
        Fault { code: RDKafkaErrorCode::OperationTimedOut, text, takes: Takes::Producer }
    }

    /// Puts how far files are into the transaction.
    async fn note_positions(&mut self, producer: &Producer<Reports>) -> Result<(), Fault> {
        let upto = positions::of(self.held.values());
        self.works.positions.note(producer, &upto).await
    }

    async fn commit(&mut self, producer: &Producer<Reports>) -> Result<(), Fault> {
        self.stage = Stage::Committing;
        loop {
            match producer.inner().commit_transaction(CALL_MAX) {
                Ok(()) => return Ok(()),
                Err(error) => self.again_or(error.into()).await?,
            }
        }
    }

    /// Waits, if the same can be tried again; else the fault.
    async fn again_or(&mut self, fault: Fault) -> Result<(), Fault> {
        if fault.takes != Takes::Again || self.is_alone() {
            return Err(fault);
        }
        self.works.producer.voice.failed(fault.code, &fault.text);
        self.rest().await;
        Ok(())
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The transaction is committed: all of it goes home.
    fn deliver(&mut self) {
        self.pause = PAUSE_MIN;
        self.works.producer.voice.well();
        while let Some((_, held)) = self.held.pop_first() {
            let Held { batch: Some(mut batch), outlet, home, rejected, .. } = held else {
                debug_assert!(false, "a batch that is not here");
                continue;
            };
            let (voice, figures) = (&self.works.producer.voice, &self.works.figures);
            reject(&mut batch, &outlet.topic, rejected.into_iter(), voice, figures);
            figures.delivered(&batch);
            // An owner that has ended needs none back.
            let _ = home.send((batch, Verdict::Delivered));
        }
    }

    /// What a fault takes; whether it goes on after that.
    async fn recover(&mut self, mut fault: Fault) -> bool {
        let producer = self.works.producer.now();
        if self.is_alone() {
            return false;
        }
        if fault.takes != Takes::Producer {
            self.tell(&fault);
            match self.abort(&producer).await {
                Ok(()) => {
                    self.gather(&producer).await;
                    self.leave_lost();
                    self.rest().await;
                    return true;
                }
                Err(other) => fault = other,
            }
        }
        let fault = why(&producer, fault);
        let is_overdue = self.began.elapsed() >= self.works.open_max;
        if is_fence(fault.code) && !is_overdue {
            let voice = &self.works.producer.voice;
            voice.tell(fenced(voice.who(), &self.works.id, &fault.text));
            return false;
        }
        let voice = &self.works.producer.voice;
        log::warn!(target: "wpgen::kafka", "{}: the producer is begun anew: {}", voice.who(), fault.text);
        // The broker has put out one that was silent for too long: that is over with the next one.
        if !is_fence(fault.code) {
            voice.failed(fault.code, &fault.text);
        }
        self.gather(&producer).await;
        drop(producer);
        self.begin_anew().await
    }

    /// A transaction that was aborted for what is no error of anybody's is not counted as one.
    fn tell(&self, fault: &Fault) {
        use RDKafkaErrorCode as E;
        let voice = &self.works.producer.voice;
        match fault.code {
            E::AssignmentLost | E::IllegalGeneration | E::UnknownMemberId | E::RebalanceInProgress => {
                log::info!(
                    target: "wpgen::kafka",
                    "{}: a transaction is aborted, the group shares its partitions out anew: {}", voice.who(), fault.text
                )
            }
            code => voice.failed(code, &format!("a transaction is aborted, and sent again: {}", fault.text)),
        }
    }

    async fn abort(&mut self, producer: &Producer<Reports>) -> Result<(), Fault> {
        self.unload();
        loop {
            match producer.inner().abort_transaction(CALL_MAX) {
                Ok(()) => return Ok(()),
                Err(error) => self.again_or(error.into()).await?,
            }
        }
    }

    /// No more is handed over.
    fn unload(&mut self) {
        for (_, loading) in self.loading.drain(..) {
            loading.finish(Some(RDKafkaErrorCode::PurgeQueue));
        }
    }

    /// Waits until everything that librdkafka has is reported; what is not delivered by now is not.
    async fn gather(&mut self, producer: &Producer<Reports>) {
        self.unload();
        producer.inner().purge(PurgeConfig::default().queue().inflight());
        while self.away > 0 {
            if let Some(reported) = self.reported.recv().await {
                self.take(reported);
            }
        }
        self.fault = None;
    }

    /// Gives back what came from partitions that are another member's by now.
    fn leave_lost(&mut self) {
        let is_lost = |held: &Held| held.outlet.assigned.as_ref().is_some_and(|whose| whose.0.is_lost());
        let lost: Vec<u64> =
            self.held.iter().filter(|(_, held)| is_lost(held)).map(|(turn, _)| *turn).collect();
        for turn in lost {
            let Some(Held { batch: Some(batch), home, .. }) = self.held.remove(&turn) else { continue };
            self.works.figures.batches.fetch_sub(1, Ordering::Relaxed);
            let _ = home.send((batch, Verdict::Abandoned));
        }
    }

    /// Makes another producer, which ends whatever the one before it had open, and finds out how that ended.
    async fn begin_anew(&mut self) -> bool {
        let was_committing = self.stage == Stage::Committing;
        while !self.works.producer.renew() {
            self.rest().await;
        }
        if !self.make_known().await {
            return false;
        }
        if was_committing {
            loop {
                match self.works.witness.is_committed(&self.held, &self.works.positions) {
                    Ok(true) => {
                        self.deliver();
                        break;
                    }
                    Ok(false) => break,
                    Err(_) if self.is_alone() => return false,
                    Err(finding) => self.works.producer.voice.tell(finding),
                }
                self.rest().await;
            }
        }
        self.leave_lost();
        true
    }

    /// Has a checkpoint written before the first transaction, however long it takes; `false` when nobody is left. Without one
    /// the data folder has another identity at the next start, and the sink another transactional.id: what this one had open
    /// when it was killed would then hold up who reads what is committed until the broker ends it.
    async fn keep_identity(&mut self) -> bool {
        // The keeper tells of what keeps it from that.
        while (self.works.positions.persist)().await.is_err() {
            if self.is_alone() {
                return false;
            }
            self.rest().await;
        }
        self.pause = PAUSE_MIN;
        true
    }

    /// Makes the producer known to the broker, which fences an older one of its id and ends what that had open.
    async fn make_known(&mut self) -> bool {
        loop {
            let producer = self.works.producer.now();
            let Err(error) = producer.inner().init_transactions(CALL_MAX) else {
                return true;
            };
            let fault: Fault = error.into();
            let must_renew = fault.takes == Takes::Producer;
            let fault = why(&producer, fault);
            self.works.producer.voice.failed(fault.code, &fault.text);
            drop(producer);
            if self.is_alone() {
                return false;
            }
            if must_renew {
                self.works.producer.renew();
            }
            self.rest().await;
        }
    }

    /// Nothing is sent any more. What is held is kept until nobody is left, so that no more is read than that.
    async fn stop(mut self) {
        self.works.has_stopped.store(true, Ordering::Release);
        while let Some(letter) = self.letters.recv().await {
            self.accept(letter);
        }
    }
}

/// What keeps the open transaction from being committed, if anything does. Librdkafka tells it to who begins another one, and
/// else that there is one already.
fn probe(producer: &Producer<Reports>) -> Result<(), Fault> {
    match producer.inner().begin_transaction().map_err(Fault::from) {
        Err(fault) if fault.code != RDKafkaErrorCode::State => Err(fault),
        _ => Ok(()),
    }
}

/// What the client says is wrong with it, where the fault says only that something is.
fn why(producer: &Producer<Reports>, fault: Fault) -> Fault {
    match producer.inner().client().fatal_error() {
        Some((code, text)) => Fault { code, text, ..fault },
        None => fault,
    }
}

/// Whether a producer is refused because there is a newer one of its id, or because its transaction was open for too long.
fn is_fence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(code, E::Fenced | E::ProducerFenced | E::InvalidProducerEpoch)
}
