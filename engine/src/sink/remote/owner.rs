//! Writes batches to a link, in order, and sends each home when the peer has acknowledged all of it.
//!
//! ```text
//! intake ──> waiting ──> the connection ──> unacknowledged ──> home
//!               ^                                  │
//!               └──────── it broke ────────────────┘
//! ```
//!
//! Both queues together hold what the lanes' credit lets out, and no more. Where a rescue stands in front, they are given
//! back when no address can be connected to, or the peer takes nothing for long; where another sink takes this one's place,
//! when the shard says so. There is no event for an acknowledgement: the kernel is asked after each write, and while only
//! waiting, ever less often.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::link::Link;
use super::wire::Wire;
use crate::batch::{Batch, Verdict};
use crate::shard::{Intake, Shard};
use crate::sink::framing::{frame, is_framed, line_ends};

/// The first and the longest time between two questions what is acknowledged.
const TICK_MIN: Duration = Duration::from_millis(1);
const TICK_MAX: Duration = Duration::from_millis(100);
/// Without any acknowledgement for so long, status says that the sink waits.
const STALLED: Duration = Duration::from_secs(2);
/// With a rescue, a peer that has acknowledged nothing for so long counts as down.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// Writes batches until there are no more.
pub(super) async fn own(shard: Rc<Shard>, intake: Rc<Intake>, link: Link) {
    let mut owner = Owner {
        shard,
        intake,
        link,
        waiting: VecDeque::new(),
        unacknowledged: VecDeque::new(),
        front: Front::default(),
        acknowledged: 0,
        begun: Instant::now(),
        progress: Instant::now(),
        tick: TICK_MIN,
        is_leaving: false,
        is_down: false,
    };
    while owner.turn().await {}
    owner.link.finish().await;
    owner.intake.ended();
}

/// How far the first waiting batch is written.
#[derive(Default)]
struct Front {
    begun: bool,
    /// Whether the bytes to write are in `framed`, not the batch's own.
    is_copy: bool,
    framed: Vec<u8>,
    at: usize,
}

/// A batch that is written.
struct Written {
    batch: Box<Batch>,
    /// The position on the connection behind its last byte.
    upto: u64,
    bytes: usize,
}

struct Owner {
    shard: Rc<Shard>,
    intake: Rc<Intake>,
    link: Link,
    waiting: VecDeque<Box<Batch>>,
    unacknowledged: VecDeque<Written>,
    front: Front,
    /// The position that the peer has acknowledged.
    acknowledged: u64,
    /// When the connection was made.
    begun: Instant,
    /// When the acknowledged position last moved, or there began to be something that could move it.
    progress: Instant,
    tick: Duration,
    /// Whether nothing more is written to this connection: there is a better one, once all is acknowledged.
    is_leaving: bool,
    /// Whether what is here is for the rescue.
    is_down: bool,
}

impl Owner {
    /// One step; `false` when all is done.
    async fn turn(&mut self) -> bool {
        while let Some(batch) = self.intake.try_next() {
            self.take(batch);
        }
        if self.intake.is_recalled() {
            self.give_all_back();
        }
        if self.is_done() {
            return false;
        }
        if self.link.wire.is_none() {
            if self.is_idle() {
                tokio::select! {
                    batch = self.intake.next() => if let Some(batch) = batch { self.take(batch) },
                    () = self.intake.until_recalled() => {}
                }
            } else {
                self.open().await;
            }
            return true;
        }
        if let Err(error) = self.advance() {
            self.broken(error);
        } else if !self.is_done() {
            // What a rescue replays may be the last there is, and come home only now: nobody would wake the owner again.
            self.wait().await;
        }
        true
    }

    /// Tries to connect. With a rescue, what is here goes back when that has failed at every address.
    async fn open(&mut self) {
        let is_guarded = self.intake.is_guarded();
        let ends = is_guarded && self.intake.is_closed();
        if !ends && !self.is_down {
            tokio::select! {
                () = self.link.open() => self.anew(),
                // The rescue keeps it over the restart; nobody waits for a pause.
                () = self.intake.until_closed(), if is_guarded => {}
                () = self.intake.until_recalled() => return,
            }
            self.is_down = is_guarded && self.link.wire.is_none() && self.link.is_resting();
        }
        if ends || self.is_down {
            self.is_down = false;
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let count = self.waiting.len() as u64;
        self.link.figures.batches.fetch_sub(count, Ordering::Relaxed);
        self.waiting.drain(..).for_each(|batch| self.intake.give_back(batch));
    }

    /// Another sink has what is here; what the peer has not acknowledged of it as well.
    fn give_all_back(&mut self) {
        self.write_again();
        self.link.leave();
        self.give_back();
        self.intake.all_given_back();
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unacknowledged.is_empty()
    }

    /// Whether nothing is here, and nothing will come.
    fn is_done(&self) -> bool {
        self.is_idle() && self.intake.is_closed()
    }

    fn take(&mut self, batch: Box<Batch>) {
        if self.is_idle() {
            self.moved();
        }
        self.link.figures.batches.fetch_add(1, Ordering::Relaxed);
        self.waiting.push_back(batch);
    }

    /// A connection without a past.
    fn anew(&mut self) {
        self.acknowledged = self.link.wire.as_ref().map_or(0, Wire::written);
        self.begun = Instant::now();
        self.is_leaving = false;
        self.moved();
    }

    fn moved(&mut self) {
        self.progress = Instant::now();
        self.tick = TICK_MIN;
    }

    /// Writes what the kernel takes of one batch, and sends home what the peer has.
    fn advance(&mut self) -> io::Result<()> {
        self.is_leaving = !self.front.begun && self.link.first_is_back();
        if self.is_leaving && self.unacknowledged.is_empty() {
            self.link.change();
            self.anew();
        }
        // Before anything is written: what goes to a peer that has closed is lost on the way.
        let has_ended = self.link.wire.as_mut().map_or(Ok(false), |wire| wire.has_ended())?;
        if !has_ended && !self.is_leaving {
            self.write()?;
        }
        self.settle()?;
        if has_ended {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer has closed it"));
        }
        Ok(())
    }

    /// Writes to the first waiting batch's end, or as far as the kernel takes it.
    fn write(&mut self) -> io::Result<()> {
        let (Some(batch), Some(wire)) = (self.waiting.front(), &mut self.link.wire) else { return Ok(()) };
        let front = &mut self.front;
        if !front.begun {
            front.begun = true;
            front.at = 0;
            let framing = self.link.settings.framing;
            front.is_copy = !is_framed(framing, batch.bytes(), batch.records as usize);
            if front.is_copy {
                let ends = match batch.ends.is_empty() {
                    // It was made for a sink before this one, as lines.
                    true => &line_ends(batch.bytes()),
                    false => &batch.ends,
                };
                debug_assert_eq!(ends.len(), batch.records as usize, "the ends are asked for");
                frame(framing, batch.bytes(), ends, &mut front.framed);
            }
        }
        let bytes = if front.is_copy { &front.framed } else { batch.bytes() };
        while front.at < bytes.len() {
            match wire.write(&bytes[front.at..])? {
                0 => return Ok(()),
                n => front.at += n,
            }
        }
        if !wire.flush()? {
            return Ok(());
        }
        let (upto, bytes) = (wire.written(), bytes.len());
        front.begun = false;
        if let Some(batch) = self.waiting.pop_front() {
            self.unacknowledged.push_back(Written { batch, upto, bytes });
        }
        self.tick = TICK_MIN;
        Ok(())
    }

    /// Sends home what the peer has acknowledged, once it has shown that it stays.
    fn settle(&mut self) -> io::Result<()> {
        let Some(wire) = &self.link.wire else { return Ok(()) };
        if self.is_idle() || self.begun.elapsed() < self.link.settings.probation {
            return Ok(());
        }
        let acknowledged = wire.acknowledged()?;
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved();
            self.link.well();
        }
        while let Some(first) = self.unacknowledged.pop_front_if(|first| first.upto <= acknowledged) {
            let figures = &self.link.figures;
            figures.batches.fetch_sub(1, Ordering::Relaxed);
            figures.records.fetch_add(first.batch.records.into(), Ordering::Relaxed);
            figures.bytes.fetch_add(first.bytes as u64, Ordering::Relaxed);
            self.shard.send_home(first.batch, Verdict::Delivered);
        }
        Ok(())
    }

    /// Everything that was not acknowledged is to be written again, the batch in the middle of which it broke included.
    fn broken(&mut self, error: io::Error) {
        if self.is_idle() {
            return self.link.closed();
        }
        self.write_again();
        self.link.broken(error);
    }

    /// What the peer has not acknowledged waits again.
    fn write_again(&mut self) {
        let mut repeated = 0;
        if std::mem::take(&mut self.front.begun) && self.front.at > 0 {
            repeated += self.waiting.front().map_or(0, |batch| u64::from(batch.records));
        }
        while let Some(last) = self.unacknowledged.pop_back() {
            repeated += u64::from(last.batch.records);
            self.waiting.push_front(last.batch);
        }
        self.link.figures.repeated.fetch_add(repeated, Ordering::Relaxed);
    }

    /// Waits for whatever comes first: work, room, a word of the peer, or time to ask what is acknowledged.
    async fn wait(&mut self) {
        let Some(wire) = &self.link.wire else { return };
        let (is_idle, to_write) = (self.is_idle(), !self.waiting.is_empty() && !self.is_leaving);
        let batch = tokio::select! {
            biased;
            batch = self.intake.next(), if !self.intake.is_closed() => batch,
            () = wire.ready(to_write) => None,
            () = self.intake.until_recalled() => None,
            () = tokio::time::sleep(self.tick), if !is_idle => {
                self.ticked();
                None
            }
        };
        if let Some(batch) = batch {
            self.take(batch);
        }
    }

    fn ticked(&mut self) {
        self.tick = (self.tick * 2).min(TICK_MAX);
        if self.progress.elapsed() < STALLED {
            return;
        }
        if self.intake.is_guarded() && self.progress.elapsed() >= GIVEN_UP {
            self.is_down = true;
            self.broken(io::Error::new(io::ErrorKind::TimedOut, "the peer has taken nothing for 10 s"));
        } else if self.link.wire.as_ref().is_some_and(|wire| wire.is_dead()) {
            self.broken(io::Error::new(io::ErrorKind::TimedOut, "the peer has not answered for 30 s"));
        } else {
            self.link.stalled();
        }
    }
}
