//! Stands between the lanes and one owner of a sink: passes on what the owner takes, and keeps what it gives back.
//!
//! Order is kept by one rule: while anything is on disk, what comes goes behind it. The owner has at most
//! [`REPLAYS_MAX`] batches from disk at a time; one it gives back is still on disk, and is offered again.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::Rescue;
use super::backlog::Backlog;
use super::format::Content;
use super::watch::{Attempt, Watch};
use crate::batch::{Batch, SinkId, Verdict};
use crate::shard::{Intake, Shard};
use crate::sink::route::Sink;
use crate::status::SinkState;

/// Batches from disk that an owner may have.
const REPLAYS_MAX: usize = 4;
/// Between two attempts to write to a disk that says no, or to files that are full, and to delete what is delivered.
const AGAIN: Duration = Duration::from_millis(500);

/// See above.
pub(super) struct Guard {
    shard: Rc<Shard>,
    outlet: (SinkId, u32),
    sink: Arc<dyn Sink>,
    rescue: Arc<Rescue>,
    watch: Arc<Watch>,
    outer: Rc<Intake>,
    inner: Rc<Intake>,
    /// `None` while it is used on a blocking thread.
    backlog: Option<Backlog>,
    /// What is to be written, oldest first.
    waiting: VecDeque<Box<Batch>>,
    /// What the owner gave back of what came from disk.
    again: VecDeque<Box<Batch>>,
    /// Batches from disk that the owner has.
    out: usize,
    /// Whether one of those was abandoned: what comes home behind it does not count.
    is_abandoned: bool,
    home: (UnboundedSender<Box<Batch>>, UnboundedReceiver<Box<Batch>>),
    /// Nothing is written before this.
    not_before: Option<Instant>,
    /// When to look again whether what is delivered can be deleted, or a trouble is over.
    look_at: Option<Instant>,
}

impl Guard {
    pub(super) fn new(
        shard: &Rc<Shard>,
        (sink, outlet): (Arc<dyn Sink>, u32),
        rescue: Arc<Rescue>,
        outer: Rc<Intake>,
        inner: Rc<Intake>,
        backlog: Backlog,
    ) -> Self {
        Self {
            shard: Rc::clone(shard),
            outlet: (sink.id(), outlet),
            sink,
            watch: rescue.watch(),
            rescue,
            outer,
            inner,
            backlog: Some(backlog),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            out: 0,
            is_abandoned: false,
            home: unbounded_channel(),
            not_before: None,
            look_at: None,
        }
    }

    /// Works until the engine drains and nothing is left that is not in the sink or on disk.
    pub(super) async fn run(mut self) {
        loop {
            self.work().await;
            if self.outer.is_closed() && self.outer.is_empty() && self.waiting.is_empty() {
                break;
            }
            if self.is_still() {
                self.wait().await;
            }
        }
        // What came from disk is there still: the next start sends it.
        for batch in self.inner.take_all().into_iter().filter(|batch| batch.returns.is_none()) {
            self.inner.put(batch);
        }
        self.inner.close();
        while !(self.inner.has_ended() && self.waiting.is_empty()) {
            self.wait().await;
            self.take_back();
            self.write().await;
        }
        while let Ok(batch) = self.home.1.try_recv() {
            self.came_home(batch).await;
        }
        self.look_at = None;
        self.forget_delivered().await;
        self.note_sent().await;
        self.outer.ended();
    }

    async fn work(&mut self) {
        self.take_back();
        self.forget_delivered().await;
        self.tell();
        if self.passes() {
            self.tell_end();
            while let Some(batch) = self.outer.try_next() {
                self.inner.put(batch);
            }
            return;
        }
        while let Some(batch) = self.outer.try_next() {
            self.waiting.push_back(batch);
        }
        self.write().await;
        self.replay().await;
        if self.backlog.as_ref().is_none_or(Backlog::is_empty) {
            // Nothing could be kept: the owner tries again, at its own pace.
            self.waiting.drain(..).for_each(|batch| self.inner.put(batch));
        }
    }

    /// Whether what comes goes to the owner as it is.
    fn passes(&self) -> bool {
        self.waiting.is_empty() && self.backlog.as_ref().is_none_or(Backlog::is_empty)
    }

    /// Whether there is nothing to do before something happens.
    fn is_still(&self) -> bool {
        self.not_before.is_some() || self.waiting.is_empty()
    }

    /// Takes what the owner gave back, and behind it what it was given and has not taken.
    fn take_back(&mut self) {
        let returned = self.inner.take_returned();
        if returned.is_empty() {
            return;
        }
        let behind = self.inner.take_all();
        let mut first: VecDeque<Box<Batch>> = VecDeque::new();
        for batch in returned.into_iter().chain(behind) {
            if batch.returns.is_some() {
                self.out -= 1;
                self.again.push_back(batch);
            } else {
                first.push_back(batch);
            }
        }
        first.append(&mut self.waiting);
        self.waiting = first;
    }

    /// Writes what waits, as far as it may; what is on disk is delivered, as far as its source goes.
    async fn write(&mut self) {
        let now = Instant::now();
        if self.waiting.is_empty() || self.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.not_before = None;
        let Some(mut backlog) = self.backlog.take() else { return };
        let batches = std::mem::take(&mut self.waiting);
        let (backlog, batches, (kept, appended)) = blocking(move || {
            let appended = backlog.append(batches.iter().map(|batch| content(batch)));
            (backlog, batches, appended)
        })
        .await;
        self.backlog = Some(backlog);
        self.waiting = batches;
        for batch in self.waiting.drain(..kept) {
            self.rescue.kept(&batch);
            self.shard.send_home(batch, Verdict::Delivered);
        }
        match appended {
            Ok(()) => {
                self.rescue.well(&self.watch, Attempt::Writing);
                self.rescue.set_full(&self.watch, !self.waiting.is_empty());
            }
            Err(error) => self.rescue.failed(&self.watch, Attempt::Writing, &error),
        }
        if !self.waiting.is_empty() {
            self.rescue.refused();
            self.not_before = Some(Instant::now() + AGAIN);
        }
        self.tell();
    }

    fn tell(&self) {
        self.watch.oldest(self.backlog.as_ref().and_then(Backlog::oldest_ns));
    }

    /// Nothing waits for the disk: what was wrong with it is no trouble any more, once the sink itself has none.
    fn tell_end(&mut self) {
        if !self.watch.is_noted() || self.look_at.is_some() {
            return;
        }
        if self.sink.status().state != SinkState::Ready {
            self.look_at = Some(Instant::now() + AGAIN);
            return;
        }
        self.rescue.well(&self.watch, Attempt::Writing);
        self.rescue.well(&self.watch, Attempt::Reading);
        self.rescue.set_full(&self.watch, false);
    }

    /// Gives the owner batches from disk.
    async fn replay(&mut self) {
        while self.out < REPLAYS_MAX {
            let batch = match self.again.pop_front() {
                Some(batch) => batch,
                None => match self.read().await {
                    Some(batch) => batch,
                    None => return,
                },
            };
            self.out += 1;
            self.inner.put(batch);
        }
    }

    async fn read(&mut self) -> Option<Box<Batch>> {
        let mut backlog = self.backlog.take_if(|backlog| backlog.has_unread())?;
        let (backlog, batch) = blocking(move || {
            let batch = backlog.read();
            (backlog, batch)
        })
        .await;
        self.backlog = Some(backlog);
        let mut batch = match batch {
            Ok(batch) => Box::new(batch?),
            Err(error) => {
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) {
                    self.rescue.lost(&error);
                } else {
                    self.rescue.failed(&self.watch, Attempt::Reading, &error);
                }
                self.not_before = Some(Instant::now() + AGAIN);
                return None;
            }
        };
        self.rescue.well(&self.watch, Attempt::Reading);
        batch.charge = Some(self.shard.memory().charge(batch.arena.capacity()));
        (batch.home, (batch.sink, batch.outlet)) = (self.shard.id(), self.outlet);
        batch.returns = Some(self.home.0.clone());
        Some(batch)
    }

    /// A batch from disk is in the sink, or the engine ends.
    async fn came_home(&mut self, batch: Box<Batch>) {
        self.out -= 1;
        self.is_abandoned |= batch.verdict == Verdict::Abandoned;
        if self.is_abandoned {
            return;
        }
        self.rescue.sent(&batch);
        drop(batch);
        if let Some(backlog) = &mut self.backlog {
            backlog.delivered();
        }
        self.forget_delivered().await;
        self.tell();
    }

    /// Deletes what is delivered whole. Where a start cuts the sink's files to what the checkpoint has of them, it must
    /// have all of it first.
    async fn forget_delivered(&mut self) {
        if !self.backlog.as_ref().is_some_and(Backlog::has_delivered) || self.look_at.is_some() {
            return;
        }
        if let Some(persist) = &self.rescue.persist
            && let Err(error) = persist().await
        {
            // The checkpoint tells of its trouble itself; a crash now would repeat what is delivered.
            log::debug!(target: "wpgen::rescue", "keeping a delivered segment: {error}");
            self.look_at = Some(Instant::now() + AGAIN);
            return;
        }
        let Some(mut backlog) = self.backlog.take() else { return };
        let (backlog, forgotten) = blocking(move || {
            let forgotten = backlog.forget_delivered();
            (backlog, forgotten)
        })
        .await;
        self.backlog = Some(backlog);
        if let Err(error) = forgotten {
            self.rescue.cannot_remove(&error);
            self.look_at = Some(Instant::now() + AGAIN);
        }
        // There is room now, for the next attempt to write.
        self.not_before = None;
    }

    /// Says on disk how far the oldest segment is delivered, for whoever goes on with it. The checkpoint must have what was
    /// delivered first, as in [`Guard::forget_delivered`].
    async fn note_sent(&mut self) {
        if !self.backlog.as_ref().is_some_and(Backlog::is_begun) || self.look_at.is_some() {
            return;
        }
        let noted = async {
            if let Some(persist) = &self.rescue.persist {
                persist().await?;
            }
            let Some(backlog) = self.backlog.take() else { return Ok(()) };
            blocking(move || backlog.note_sent()).await
        };
        if let Err(error) = noted.await {
            self.rescue.repeats(&error);
        }
    }

    /// Waits until something happens.
    async fn wait(&mut self) {
        let outer = Rc::clone(&self.outer);
        let until = self.not_before.into_iter().chain(self.look_at).min();
        let again = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(batch) = self.home.1.recv() => self.came_home(batch).await,
            () = outer.changed() => {}
            () = again => {
                let now = Instant::now();
                self.not_before = self.not_before.filter(|at| now < *at);
                self.look_at = self.look_at.filter(|at| now < *at);
            }
        }
    }
}

fn content(batch: &Batch) -> Content<'_> {
    Content { records: batch.records, ends: &batch.ends, bytes: batch.bytes(), oldest_ns: batch.oldest_ns }
}

/// Runs what may wait for the disk on a blocking thread, and hands a panic on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
