//! Hands the batches of one outlet on one shard to the producer, in order, and sends each home when it is reported.
//!
//! ```text
//! intake ──> waiting ──> loading ──> with librdkafka ──> home
//!               ^                          │
//!               └──── some records failed ─┘
//! ```
//!
//! All of it together is what the lanes' credit lets out, and no more. When librdkafka's queue is full, the loading keeps its
//! place and goes on at the next report; the shard never waits. What failed goes again when everything that was under way is
//! reported, in the order of the batches, so that a message overtakes others of its input only where some of those failed.
//!
//! Where a rescue stands in front and the cluster takes nothing for long ([`Patience`]), everything is taken back from
//! librdkafka, and when all of it is reported it is given back in order. What came from disk stays with librdkafka: it is on
//! disk still. Of a batch that goes back all records are sent again, also those that a broker had.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::outlets::Outlet;
use super::patience::{ENDING, Patience};
use super::producer::Shared;
use super::replays::Replays;
use super::send::Figures;
use crate::batch::{Batch, Ticket, Verdict};
use crate::kafka::cargo::{Handed, Load, Loading, Reported, is_final};
use crate::kafka::voice::Voice;
use crate::shard::{Intake, Shard};

/// How often a full queue is tried again, should no report come of this owner's.
const FULL_AGAIN: Duration = Duration::from_millis(1);
/// The first and the longest pause before what failed is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// With a rescue: how often it is asked whether anything is delivered.
const TICK: Duration = Duration::from_secs(1);

/// Hands batches over until there are no more and all are reported.
pub(super) async fn own(
    shard: Rc<Shard>,
    intake: Rc<Intake>,
    outlet: Arc<Outlet>,
    producer: Arc<Shared>,
    figures: Arc<Figures>,
) {
    let (done, reported) = unbounded_channel();
    let patience = Patience::new(producer.linger(), Instant::now());
    let mut owner = Owner {
        shard,
        intake,
        outlet,
        producer,
        figures,
        waiting: BTreeMap::new(),
        loading: None,
        under_way: 0,
        only_here: 0,
        replays: Replays::new(),
        number: 0,
        has_failed: false,
        is_down: false,
        patience,
        turn: 0,
        pause: PAUSE_MIN,
        done,
        reported,
    };
    while owner.turn().await {}
    owner.intake.ended();
}

struct Owner {
    shard: Rc<Shard>,
    intake: Rc<Intake>,
    outlet: Arc<Outlet>,
    producer: Arc<Shared>,
    figures: Arc<Figures>,
    /// Batches to be handed over, by their turns.
    waiting: BTreeMap<u64, (Box<Batch>, Load)>,
    loading: Option<Loading>,
    /// Batches that are loading or not reported.
    under_way: usize,
    /// Batches here that are not on disk as well.
    only_here: usize,
    /// Those that are.
    replays: Replays<Box<Batch>>,
    /// The number of the producer that has what is under way.
    number: u64,
    /// Whether something failed: nothing is handed over before all that is under way is reported.
    has_failed: bool,
    /// Whether everything was taken back from librdkafka, for the rescue.
    is_down: bool,
    patience: Patience,
    /// The next batch's turn.
    turn: u64,
    pause: Duration,
    done: UnboundedSender<Reported>,
    reported: UnboundedReceiver<Reported>,
}

impl Owner {
    /// One step; `false` when all is done.
    async fn turn(&mut self) -> bool {
        while let Some(batch) = self.intake.try_next() {
            self.accept(batch);
        }
        while let Ok(reported) = self.reported.try_recv() {
            self.settle(reported);
        }
        self.look();
        if self.has_failed && self.under_way == 0 {
            if self.is_down || self.gives_up(Instant::now()) {
                self.give_back();
            } else {
                self.again().await;
            }
            return true;
        }
        let is_full = !self.has_failed && !self.hand_over();
        // What is in the intake now lies behind what was given back, and is the rescue's.
        if self.is_idle() && self.intake.is_closed() {
            return false;
        }
        let looks = self.intake.is_guarded() && self.under_way > 0;
        tokio::select! {
            biased;
            reported = self.reported.recv(), if self.under_way > 0 => {
                if let Some(reported) = reported {
                    self.settle(reported);
                }
            }
            batch = self.intake.next(), if !self.intake.is_closed() => {
                if let Some(batch) = batch {
                    self.accept(batch);
                }
            }
            () = tokio::time::sleep(FULL_AGAIN), if is_full => {}
            () = tokio::time::sleep(TICK), if looks => {}
        }
        true
    }

    /// Whether nothing is here.
    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    /// With a rescue: takes everything back from librdkafka when nothing is delivered for long.
    fn look(&mut self) {
        if !self.intake.is_guarded() || self.is_down || self.is_idle() {
            return;
        }
        let now = Instant::now();
        self.patience.seen(self.producer.delivered(), now);
        if self.under_way > 0 && self.gives_up(now) && self.producer.abandon(self.number) {
            let what = format!("topic {}: nothing is delivered; its records go to disk", self.outlet.topic);
            self.producer.voice.failed(RDKafkaErrorCode::OperationTimedOut, &what);
            self.is_down = true;
            self.hold_back();
        }
    }

    /// Whether a rescue is to have what is here: what it has not yet, or, when the engine drains, all.
    fn gives_up(&self, now: Instant) -> bool {
        let (is_closed, patience) = (self.intake.is_closed(), &self.patience);
        if !self.intake.is_guarded() || !is_closed && self.only_here == 0 {
            return false;
        }
        // What is taken back from librdkafka is that of all owners: failures of one are no reason for it.
        let is_failing = |long| self.under_way == 0 && patience.is_failing(long, now);
        let is_known = || self.producer.voice.trouble().is_some();
        let has_ended = || is_failing(ENDING) || patience.is_still(ENDING, now) && is_known();
        patience.is_still(patience.limit(), now) || is_failing(patience.limit()) || is_closed && has_ended()
    }

    /// Gives everything back, in order.
    fn give_back(&mut self) {
        (self.has_failed, self.is_down) = (false, false);
        self.patience.gave_up(Instant::now());
        self.only_here = 0;
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(self.replays.take().into_iter().map(|(turn, batch)| (turn, (batch, Load::default()))));
        for (mut batch, load) in all.into_values() {
            // All of it goes again: what a broker has of it, and what none takes.
            let rejected: u32 =
                batch.tickets.iter_mut().map(|ticket| std::mem::take(&mut ticket.rejected)).sum();
            if !load.only.is_empty() {
                let delivered = u64::from(batch.records - rejected) - load.only.len() as u64;
                self.figures.repeated.fetch_add(delivered, Ordering::Relaxed);
            }
            self.figures.batches.fetch_sub(1, Ordering::Relaxed);
            self.intake.give_back(batch);
        }
    }

    /// Nothing more is handed over before all that is under way is reported.
    fn hold_back(&mut self) {
        self.has_failed = true;
        if let Some(loading) = self.loading.take() {
            loading.finish(Some(RDKafkaErrorCode::PurgeQueue));
        }
    }

    fn accept(&mut self, batch: Box<Batch>) {
        if self.is_idle() {
            self.patience.begun(self.producer.delivered(), Instant::now());
        }
        match batch.returns {
            None => self.only_here += 1,
            Some(_) => self.replays.came(self.turn),
        }
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        let load = Load { turn: self.turn, ..Load::default() };
        self.waiting.insert(self.turn, (batch, load));
        self.turn += 1;
    }

    /// Hands over what the producer takes; whether that is all there is.
    fn hand_over(&mut self) -> bool {
        let (producer, number) = self.producer.numbered();
        if self.under_way > 0 && number != self.number {
            self.hold_back();
            return true;
        }
        self.number = number;
        loop {
            let Some(mut loading) = self.loading.take().or_else(|| self.next_loading()) else { return true };
            let key = self.outlet.key.as_deref().map(str::as_bytes);
            match loading.hand_over(&producer, &self.outlet.topic, key) {
                Handed::All => loading.finish(None),
                Handed::Full => {
                    self.loading = Some(loading);
                    return false;
                }
                Handed::Refused(code) => {
                    self.has_failed = true;
                    loading.finish(Some(code));
                    return true;
                }
            }
        }
    }

    fn next_loading(&mut self) -> Option<Loading> {
        let (_, (batch, load)) = self.waiting.pop_first()?;
        self.under_way += 1;
        Some(Loading::new(batch, load, self.done.clone()))
    }

    fn settle(&mut self, reported: Reported) {
        let Reported { mut batch, failed, rejected, turn, messages } = reported;
        self.under_way -= 1;
        if !rejected.is_empty() {
            reject(
                &mut batch,
                &self.outlet.topic,
                rejected.iter().copied(),
                &self.producer.voice,
                &self.figures,
            );
        }
        if messages > rejected.len() + failed.len() {
            self.patience.well();
        }
        if let Some((_, code)) = failed.first() {
            self.tell(*code);
            // One that is being handed over goes again as a whole, behind this one.
            self.hold_back();
            let load = Load {
                single: failed.iter().any(|(_, code)| is_final(*code)),
                only: failed.into_iter().map(|(number, _)| number).collect(),
                turn,
            };
            self.waiting.insert(turn, (batch, load));
            return;
        }
        if messages > rejected.len() {
            self.pause = PAUSE_MIN;
            self.producer.voice.well();
        }
        if batch.returns.is_none() {
            self.only_here -= 1;
            return self.send_home(batch);
        }
        self.replays.delivered(turn, batch);
        while let Some(batch) = self.replays.next_home() {
            self.send_home(batch);
        }
    }

    fn send_home(&self, batch: Box<Batch>) {
        self.figures.delivered(&batch);
        self.shard.send_home(batch, Verdict::Delivered);
    }

    fn tell(&mut self, code: RDKafkaErrorCode) {
        let topic = &self.outlet.topic;
        let what = match code {
            // It was held back or taken back, and has failed at nothing.
            RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight => return,
            code if is_final(code) => format!(
                "topic {topic}: a whole request is refused: {code}; its records go one by one now; where that happens \
                 often, batch_size in 'config' is to be below the topic's max.message.bytes"
            ),
            code => {
                self.patience.failed(Instant::now());
                format!("topic {topic}: {code}; its records wait")
            }
        };
        self.producer.voice.failed(code, &what);
    }

    /// Waits, and lets what failed go again.
    async fn again(&mut self) {
        self.producer.renew_if_broken();
        let is_held_back = self.waiting.values().all(|(_, load)| load.single || load.only.is_empty());
        if !is_held_back {
            let is_closed = self.intake.is_closed();
            // When the engine drains, a rescue does not wait for a pause.
            let pause = if is_closed { self.pause.min(ENDING) } else { self.pause };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.intake.until_closed(), if self.intake.is_guarded() && !is_closed => {}
            }
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        self.has_failed = false;
    }
}

/// Counts records that no broker takes with the tickets that they belong to.
#[cold]
pub(super) fn reject(
    batch: &mut Batch,
    topic: &str,
    rejected: impl Iterator<Item = (u32, RDKafkaErrorCode)>,
    voice: &Voice,
    figures: &Figures,
) {
    for (number, code) in rejected {
        figures.rejected.fetch_add(1, Ordering::Relaxed);
        let mut first = 0;
        let ticket = batch.tickets.iter_mut().find(|ticket| {
            first += ticket.records;
            number < first
        });
        match ticket {
            Some(ticket) => ticket.rejected += 1,
            // It comes from disk, where nobody kept whose it is.
            None => batch.tickets.push(Ticket { rejected: 1, ..Ticket::default() }),
        }
        let start = number.checked_sub(1).map_or(0, |before| batch.ends[before as usize]);
        voice.left_out(topic, batch.ends[number as usize] - start - 1, code);
    }
}
