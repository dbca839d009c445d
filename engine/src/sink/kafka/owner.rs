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

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::outlets::Outlet;
use super::producer::Shared;
use super::send::Figures;
use crate::batch::{Batch, Verdict};
use crate::kafka::cargo::{Handed, Load, Loading, Reported, is_final};
use crate::kafka::voice::Voice;
use crate::shard::{Intake, Shard};

/// How often a full queue is tried again, should no report come of this owner's.
const FULL_AGAIN: Duration = Duration::from_millis(1);
/// The first and the longest pause before what failed is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Hands batches over until there are no more and all are reported.
pub(super) async fn own(
    shard: Rc<Shard>,
    intake: Rc<Intake>,
    outlet: Arc<Outlet>,
    producer: Arc<Shared>,
    figures: Arc<Figures>,
) {
    let (done, reported) = unbounded_channel();
    let mut owner = Owner {
        shard,
        intake,
        outlet,
        producer,
        figures,
        waiting: BTreeMap::new(),
        loading: None,
        under_way: 0,
        has_failed: false,
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
    /// Whether something failed: nothing is handed over before all that is under way is reported.
    has_failed: bool,
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
        if self.has_failed && self.under_way == 0 {
            self.again().await;
            return true;
        }
        let is_full = !self.has_failed && !self.hand_over();
        if self.under_way == 0 && self.waiting.is_empty() && self.intake.is_closed() && self.intake.is_empty()
        {
            return false;
        }
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
        }
        true
    }

    fn accept(&mut self, batch: Box<Batch>) {
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        let load = Load { turn: self.turn, ..Load::default() };
        self.waiting.insert(self.turn, (batch, load));
        self.turn += 1;
    }

    /// Hands over what the producer takes; whether that is all there is.
    fn hand_over(&mut self) -> bool {
        let producer = self.producer.now();
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
        if let Some((_, code)) = failed.first() {
            self.tell(*code);
            self.has_failed = true;
            // One that is being handed over goes again as a whole, behind this one.
            if let Some(loading) = self.loading.take() {
                loading.finish(Some(RDKafkaErrorCode::PurgeQueue));
            }
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
        self.figures.delivered(&batch);
        self.shard.send_home(batch, Verdict::Delivered);
    }

    fn tell(&self, code: RDKafkaErrorCode) {
        let topic = &self.outlet.topic;
        let what = match code {
            // It was held back, and has failed at nothing.
            RDKafkaErrorCode::PurgeQueue => return,
            code if is_final(code) => format!(
                "topic {topic}: a whole request is refused: {code}; its records go one by one now; where that happens \
                 often, batch_size in 'config' is to be below the topic's max.message.bytes"
            ),
            code => format!("topic {topic}: {code}; its records wait"),
        };
        self.producer.voice.failed(code, &what);
    }

    /// Waits, and lets what failed go again.
    async fn again(&mut self) {
        self.producer.renew_if_broken();
        let is_held_back = self.waiting.values().all(|(_, load)| load.single || load.only.is_empty());
        if !is_held_back {
            tokio::time::sleep(self.pause).await;
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
        if let Some(ticket) = ticket {
            ticket.rejected += 1;
        }
        let start = number.checked_sub(1).map_or(0, |before| batch.ends[before as usize]);
        voice.left_out(topic, batch.ends[number as usize] - start - 1, code);
    }
}
