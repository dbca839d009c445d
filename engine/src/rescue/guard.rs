//! Stands between the lanes and one owner of a sink: passes on what the owner takes, and keeps what it gives back.
//!
//! Order is kept by one rule: while anything is on disk, what comes goes behind it. The owner has at most
//! [`REPLAYS_MAX`] batches from disk at a time; one it gives back is still on disk, and is offered again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::Rescue;
use super::backlog::Backlog;
use super::format::Content;
use crate::batch::{Batch, SinkId, Verdict};
use crate::shard::{Intake, Shard};

/// Batches from disk that an owner may have.
const REPLAYS_MAX: usize = 4;
/// Between two attempts to write to a disk that says no, or to files that are full.
const AGAIN: Duration = Duration::from_millis(500);

/// See above.
pub(super) struct Guard {
    shard: Rc<Shard>,
    outlet: (SinkId, u32),
    rescue: Arc<Rescue>,
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
    home: (UnboundedSender<Box<Batch>>, UnboundedReceiver<Box<Batch>>),
    not_before: Option<Instant>,
}

impl Guard {
    pub(super) fn new(
        shard: &Rc<Shard>,
        outlet: (SinkId, u32),
        rescue: Arc<Rescue>,
        outer: Rc<Intake>,
        inner: Rc<Intake>,
        backlog: Backlog,
    ) -> Self {
        Self {
            shard: Rc::clone(shard),
            outlet,
            rescue,
            outer,
            inner,
            backlog: Some(backlog),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            out: 0,
            home: unbounded_channel(),
            not_before: None,
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
        self.outer.ended();
    }

    async fn work(&mut self) {
        self.take_back();
        if self.passes() {
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
        let (backlog, batches, appended) = blocking(move || {
            let appended = backlog.append(batches.iter().map(|batch| content(batch)));
            (backlog, batches, appended)
        })
        .await;
        self.backlog = Some(backlog);
        self.waiting = batches;
        match appended {
            Ok(kept) => {
                self.rescue.worked();
                self.rescue.full.store(kept < self.waiting.len(), Ordering::Relaxed);
                self.waiting.drain(..kept).for_each(|batch| self.shard.send_home(batch, Verdict::Delivered));
            }
            Err(error) => self.rescue.failed("writing", &error),
        }
        if !self.waiting.is_empty() {
            self.not_before = Some(Instant::now() + AGAIN);
        }
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
        let batch = batch.inspect_err(|error| {
            self.rescue.failed("reading", error);
            self.not_before = Some(Instant::now() + AGAIN);
        });
        let mut batch = Box::new(batch.ok()??);
        self.rescue.worked();
        batch.charge = Some(self.shard.memory().charge(batch.arena.capacity()));
        (batch.home, (batch.sink, batch.outlet)) = (self.shard.id(), self.outlet);
        batch.returns = Some(self.home.0.clone());
        Some(batch)
    }

    /// A batch from disk is in the sink, or the engine ends.
    async fn came_home(&mut self, batch: Box<Batch>) {
        self.out -= 1;
        if batch.verdict == Verdict::Abandoned {
            return;
        }
        drop(batch);
        let Some(mut backlog) = self.backlog.take() else { return };
        backlog.delivered();
        self.backlog = Some(self.forget_delivered(backlog).await);
        if self.rescue.full.load(Ordering::Relaxed) {
            self.not_before = None;
        }
    }

    /// Deletes what is delivered whole. Where a start cuts the sink's files to what the checkpoint has of them, it must
    /// have all of it first.
    async fn forget_delivered(&self, mut backlog: Backlog) -> Backlog {
        if !backlog.has_delivered() {
            return backlog;
        }
        if let Some(persist) = &self.rescue.persist
            && let Err(error) = persist().await
        {
            // It is tried again with the next batch that is delivered; until then a crash would repeat it.
            log::debug!(target: "wpgen::rescue", "keeping a delivered segment: {error}");
            return backlog;
        }
        blocking(move || {
            backlog.forget_delivered();
            backlog
        })
        .await
    }

    /// Waits until something happens.
    async fn wait(&mut self) {
        let (outer, until) = (Rc::clone(&self.outer), self.not_before);
        let again = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(batch) = self.home.1.recv() => self.came_home(batch).await,
            () = outer.changed() => {}
            () = again => self.not_before = None,
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
