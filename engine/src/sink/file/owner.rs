//! The owner of an outlet: the one task that writes its files, in order.
//!
//! Batches come in by the intake and go home when they are durable, each once. One write is in flight at a time; a
//! sync runs beside the writes and covers what was written before it began. A batch is held until then, not only for
//! the acknowledgement: when a sync fails, the kernel may have thrown the data away, and the file is cut to its
//! committed length and written again from memory. A write that fails is tried again for ever, at the right byte; where
//! a rescue stands in front, everything that is not durable goes back to it instead, and the file to its committed length.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::output::{Kind, Output};
use super::packer::Packer;
use super::rotate;
use super::settings::{Fsync, Settings};
use super::step::BLOCK;
use super::trouble::{Attempt, Patience};
use super::writer::Job;
use crate::batch::{Batch, Verdict};
use crate::io::{Backend, IoFile};
use crate::keeper::Persist;
use crate::lane::CREDIT_BATCHES;
use crate::shard::Intake;
use crate::sink::template::Clocked;

/// Where batches go with their verdict.
pub(super) type Home = Rc<dyn Fn(Box<Batch>, Verdict)>;

/// Between two attempts to rotate a file that cannot be renamed.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// After this time without a batch, what is written is synced, whatever the interval. Longer than batches linger.
const IDLE: Duration = Duration::from_millis(10);

/// Between two attempts to have the checkpoint written.
const PERSIST_AGAIN: Duration = Duration::from_millis(100);

/// What an owner works with.
pub(super) struct Around {
    pub(super) ledger: Arc<Ledger>,
    pub(super) settings: Arc<Settings>,
    pub(super) persist: Persist,
    pub(super) backend: Backend,
    pub(super) intake: Rc<Intake>,
    pub(super) home: Home,
}

/// What a sync came to: the batches, when it failed.
type Synced = Result<(), (std::io::Error, Vec<Box<Batch>>)>;

/// The owner of an outlet.
pub(super) struct Owner {
    pub(super) around: Around,
    pub(super) patience: Patience,
    pub(super) packer: Packer,
    pub(super) current: Option<Output>,
    /// Paths opened before, the last ones: `existing = "truncate"` empties a file once.
    pub(super) opened: std::collections::VecDeque<String>,
    /// Bytes of all batches in files so far.
    pub(super) taken: u64,
    /// Whether the batch written or taken last comes again after a crash.
    pub(super) repeats: bool,
    astray: Astray,
    path: Clocked,
    /// Written to `current`, and not covered by a sync that has begun.
    unsynced: Vec<Box<Batch>>,
    syncing: Option<JoinHandle<Synced>>,
    sync_due: Option<Instant>,
    rotate_not_before: Option<Instant>,
    /// Whether a rescue is to have what is not durable.
    pub(super) is_failing: bool,
    /// A batch that was taken and is not begun yet: behind what is not durable, it is the next for the rescue.
    unwritten: Option<Box<Batch>>,
}

/// What the heads of the last batches were like.
#[derive(Default)]
struct Astray {
    /// By how much the last one was off, bytes.
    before: usize,
    /// How many in a row were off by that.
    times: u32,
    /// Batches that are not looked at: their heads are from before the ledger was put right.
    rest: u32,
}

enum Event {
    Batch(Option<Box<Batch>>),
    Synced(Result<Synced, JoinError>),
    Due,
    Reopen,
}

impl Owner {
    /// An owner that has not opened anything yet.
    pub(super) fn new(around: Around) -> Self {
        let path = Clocked::new(around.ledger.outlet.clone(), around.settings.zone.clone());
        Self {
            patience: Patience::new(Arc::clone(&around.ledger)),
            packer: Packer::new(around.settings.packing),
            current: None,
            opened: std::collections::VecDeque::new(),
            taken: 0,
            repeats: true,
            astray: Astray::default(),
            path,
            unsynced: Vec::new(),
            syncing: None,
            sync_due: None,
            rotate_not_before: None,
            is_failing: false,
            unwritten: None,
            around,
        }
    }

    /// Works until the intake is closed and empty.
    pub(super) async fn run(mut self) {
        loop {
            match self.wait().await {
                Event::Batch(Some(batch)) => self.take(batch).await,
                Event::Batch(None) => break,
                Event::Synced(synced) => self.synced(synced).await,
                Event::Due => self.begin_sync().await,
                Event::Reopen => self.reopen().await,
            }
            if self.around.intake.is_empty() && !self.is_failing {
                // Nothing follows at once: who reads the file should see all of it.
                self.flush().await;
            }
            if self.is_failing {
                self.give_back().await;
            }
            if self.wants_sync() {
                self.begin_sync().await;
            }
        }
        self.close().await;
        self.packer.wait().await;
        self.around.intake.ended();
    }

    async fn wait(&mut self) -> Event {
        let (intake, ledger) = (Rc::clone(&self.around.intake), Arc::clone(&self.around.ledger));
        // A lane that is out of credit sends nothing: then waiting for company would only hold it up.
        let due = self.sync_due.filter(|_| self.syncing.is_none()).map(|due| due.min(Instant::now() + IDLE));
        let mut timer = pin!(async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        });
        let mut batch = pin!(intake.next());
        let mut reopen = pin!(ledger.reopen.notified());
        poll_fn(|context| {
            // The sync first: an intake that is never empty must not hide that it failed.
            if let Some(syncing) = &mut self.syncing
                && let Poll::Ready(synced) = Pin::new(syncing).poll(context)
            {
                self.syncing = None;
                return Poll::Ready(Event::Synced(synced));
            }
            if reopen.as_mut().poll(context).is_ready() {
                return Poll::Ready(Event::Reopen);
            }
            if let Poll::Ready(batch) = batch.as_mut().poll(context) {
                return Poll::Ready(Event::Batch(batch));
            }
            timer.as_mut().poll(context).map(|()| Event::Due)
        })
        .await
    }

    /// Writes a batch to the file that its time of receipt says.
    async fn take(&mut self, batch: Box<Batch>) {
        self.around.ledger.held.fetch_add(1, Ordering::Relaxed);
        let path = self.path.at(batch.oldest_ns).to_owned();
        self.repeats = self.comes_again(&batch);
        self.unwritten = Some(batch);
        if self.current.as_ref().is_some_and(|current| current.path != path) {
            let closed = self.close().await;
            if self.around.settings.packing.is_some() {
                // The checkpoint must not name a file that packing takes away.
                self.persist().await;
            }
            self.packer.closed(closed);
        }
        if self.was_cut() {
            // Opened again, it is in the checkpoint at the length it has now before anything is written.
            self.close().await;
        }
        if self.current.is_none() {
            self.open(&path).await;
        }
        if self.is_rotation_due() {
            self.rotate(&path).await;
        }
        // It went back with what was before it, when that could not be closed.
        let Some(batch) = self.unwritten.take() else { return };
        let mut job = Job::new(batch);
        self.look_at_head(&job.batch);
        self.write(&mut job, &path).await;
        if self.is_failing {
            self.unwritten = Some(job.batch);
            return;
        }
        self.taken = self.taken.wrapping_add(job.batch.arena.len() as u64);
        self.written(job.batch);
        if let (Fsync::Interval(interval), false) = (self.around.settings.fsync, self.unsynced.is_empty()) {
            self.sync_due.get_or_insert_with(|| Instant::now() + interval);
        }
    }

    /// What goes another way than into this file (to a rescue and back, into a new file twice) moves its end away from where
    /// the ledger has it, and then every batch would be moved in memory before it is written. Where that has lasted longer
    /// than batches of one lane are under way, the ledger is put right, and what was under way by then passes.
    fn look_at_head(&mut self, batch: &Batch) {
        let Some(Output { kind: Kind::File(file), .. }) = &self.current else { return };
        let off = file.writer.standing().head().wrapping_sub(batch.arena.head()) % BLOCK;
        let Astray { before, times, rest } = &mut self.astray;
        if *rest > 0 {
            *rest -= 1;
            return;
        }
        *times = if off != 0 && off == *before { *times + 1 } else { u32::from(off != 0) };
        *before = off;
        if *times > CREDIT_BATCHES {
            // For the next file as well.
            self.taken = self.taken.wrapping_sub(off as u64);
            self.around.ledger.put_right(off as u64);
            self.astray = Astray { rest: 4 * CREDIT_BATCHES, ..Astray::default() };
        }
    }

    /// A batch is written: in a file it waits for a sync, and what a stream has is delivered.
    fn written(&mut self, batch: Box<Batch>) {
        match self.current.as_mut().map(|current| &mut current.kind) {
            Some(Kind::File(file)) => {
                file.written_ns = batch.oldest_ns;
                self.unsynced.push(batch);
            }
            _ => (self.around.home)(batch, Verdict::Delivered),
        }
    }

    /// Whether somebody else has removed the file that is open.
    fn was_removed(&mut self) -> bool {
        let Some(Output { path, kind: Kind::File(file) }) = &self.current else { return false };
        // Some file systems count no names: the path has its say as well.
        if !file.writer.is_removed() || !super::place::is_moved(path.as_ref(), file.dev, file.ino) {
            return false;
        }
        log::warn!(
            target: "wpgen::sink",
            "output {path}: somebody removed it, with the {} bytes that were delivered to it; records go into a new one. To have \
             it put aside without a loss, let it be renamed and send SIGHUP, or use `rotate`",
            self.around.ledger.committed_len(file.dev, file.ino).unwrap_or(0)
        );
        true
    }

    /// The file is gone, and nobody will find what is written to it: what no sync has covered goes into a new one.
    async fn begin_again(&mut self) {
        let Some(Output { path, kind: Kind::File(file) }) = self.current.take() else { return };
        self.around.ledger.forget(file.dev, file.ino);
        let batches = std::mem::take(&mut self.unsynced);
        // The new file gets these, and not what was in the old one.
        let again: u64 = batches.iter().map(|batch| batch.arena.len() as u64).sum();
        self.taken = self.taken.wrapping_sub(again);
        self.write_all(batches, &path).await;
        self.taken = self.taken.wrapping_add(again);
    }

    /// Writes batches that were written before. What is at the path need not be a file any more.
    async fn write_all(&mut self, batches: Vec<Box<Batch>>, path: &str) {
        for batch in batches {
            let mut job = Job::new(batch);
            self.write(&mut job, path).await;
            match self.is_failing {
                true => self.unsynced.push(job.batch),
                false => self.written(job.batch),
            }
        }
        self.sync_due = Some(Instant::now());
    }

    /// Whether somebody else has cut the file that is open.
    fn was_cut(&mut self) -> bool {
        let Some(Output { path, kind: Kind::File(file) }) = &mut self.current else { return false };
        let Some(went) = file.writer.notice_cut() else { return false };
        log::warn!(
            target: "wpgen::sink",
            "output {path}: somebody cut it by {went} bytes, records go behind what is left; to have it rotated without \
             a loss, let it be renamed and send SIGHUP, or use `rotate`"
        );
        true
    }

    /// Something failed: waits before the next attempt; `true` when there is to be none, for a rescue has what is here.
    pub(super) async fn failed(&mut self, what: Attempt, error: &dyn std::fmt::Display) -> bool {
        self.patience.failed(what, error).await;
        self.is_failing = self.around.intake.is_guarded();
        self.is_failing
    }

    /// Gives everything that is not durable back to the rescue, in order.
    async fn give_back(&mut self) {
        let mut batches = match self.syncing.take() {
            Some(syncing) => match syncing.await {
                Ok(Ok(())) => Vec::new(),
                Ok(Err((_, batches))) => batches,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
            None => Vec::new(),
        };
        batches.append(&mut self.unsynced);
        self.cut().await;
        batches.extend(self.unwritten.take());
        self.around.ledger.held.fetch_sub(batches.len() as u64, Ordering::Relaxed);
        batches.into_iter().for_each(|batch| self.around.intake.give_back(batch));
        (self.is_failing, self.sync_due) = (false, None);
    }

    /// Cuts the file to its committed length, however long it takes.
    async fn cut(&mut self) {
        while let Some(Output { kind: Kind::File(file), .. }) = &mut self.current {
            let Some(len) = self.around.ledger.committed_len(file.dev, file.ino) else { break };
            match file.writer.cut(len) {
                Ok(()) => break,
                Err(error) => self.patience.failed(Attempt::Cutting, &error).await,
            }
        }
    }

    /// Whether what is in a batch comes again where a crash takes it, from an input or a rescue.
    fn comes_again(&self, batch: &Batch) -> bool {
        self.around.intake.is_guarded() || batch.tickets.iter().any(|ticket| ticket.input != 0)
    }

    /// Writes all of a job, however long it takes, or until a rescue is to have it.
    async fn write(&mut self, job: &mut Job, path: &str) {
        self.repeats = self.comes_again(&job.batch);
        while !self.is_failing {
            if self.current.is_none() {
                self.open(path).await;
                continue;
            }
            if self.repeats && self.around.ledger.set_only_copy(false) {
                // From here on a start may cut the file, and so must know how long it is, for what was there before too.
                self.persist().await;
            }
            let Some(current) = &mut self.current else { continue };
            let (result, is_stream) = match &mut current.kind {
                Kind::File(file) => (file.writer.append(job).await, false),
                Kind::Stream(stream) => (stream.write(job).await, true),
            };
            match result {
                // What is kept for a whole block says nothing of the disk.
                Ok(()) if current.is_pending() => return,
                Ok(()) => return self.patience.worked(Attempt::Writing),
                Err(error) => {
                    if is_stream {
                        self.current = None;
                    }
                    self.failed(Attempt::Writing, &error).await;
                }
            }
        }
    }

    async fn flush(&mut self) {
        while let Some(current) = self.current.as_mut().filter(|current| current.is_pending()) {
            let Kind::File(file) = &mut current.kind else { return };
            match file.writer.flush().await {
                Ok(()) => return self.patience.worked(Attempt::Writing),
                Err(error) if self.failed(Attempt::Writing, &error).await => return,
                Err(_) => {}
            }
        }
    }

    /// Whether a sync is due by what waits for it, not by the clock.
    fn wants_sync(&self) -> bool {
        let Some(last) = self.unsynced.last() else { return false };
        let settings = &self.around.settings;
        let lane = (last.home, last.lane);
        let of_lane = || self.unsynced.iter().filter(|batch| (batch.home, batch.lane) == lane);
        let many = || of_lane().count() >= settings.unsynced_batches_max as usize;
        let idle = self.around.intake.is_empty();
        self.syncing.is_none()
            && match settings.fsync {
                Fsync::Batch => true,
                Fsync::Interval(_) => many(),
                Fsync::Never => idle || many(),
            }
    }

    /// Begins a sync of what is written; without sync, what is written is delivered.
    async fn begin_sync(&mut self) {
        if self.was_removed() {
            self.begin_again().await;
        }
        self.flush().await;
        if self.is_failing {
            return self.give_back().await;
        }
        self.sync_due = None;
        let Some(Output { kind: Kind::File(file), .. }) = &self.current else {
            return assert!(self.unsynced.is_empty(), "only a file's batches wait for a sync");
        };
        let batches = std::mem::take(&mut self.unsynced);
        let (medium, dev, ino) = (file.writer.medium(), file.dev, file.ino);
        let len = file.writer.standing().visible;
        let (ledger, home) = (Arc::clone(&self.around.ledger), Rc::clone(&self.around.home));
        let persist = Arc::clone(&self.around.persist);
        let sync = self.around.settings.fsync != Fsync::Never;
        // Where a start cuts the file to what the checkpoint says, what no input brings again is delivered only then.
        let is_once = batches.iter().flat_map(|batch| &batch.tickets).any(|ticket| ticket.input == 0);
        let waits = is_once && !self.around.ledger.is_only_copy();
        let task = async move {
            if sync && let Err(error) = sync_data(&medium).await {
                return Err((error, batches));
            }
            ledger.commit(dev, ino, len, &batches);
            // Asked for anew: it may have changed while this was synced.
            while is_once && !ledger.is_only_copy() && persist().await.is_err() {
                // The keeper tells of it.
                tokio::time::sleep(PERSIST_AGAIN).await;
            }
            batches.into_iter().for_each(|batch| home(batch, Verdict::Delivered));
            Ok(())
        };
        if sync || waits {
            self.syncing = Some(tokio::task::spawn_local(task));
        } else {
            // It does not wait for anything.
            let _: Synced = task.await;
        }
    }

    async fn synced(&mut self, synced: Result<Synced, JoinError>) {
        match synced {
            Ok(Ok(())) => self.patience.worked(Attempt::Syncing),
            Ok(Err((error, batches))) => self.write_again(&error, batches).await,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// A sync failed: what it should have covered may be lost, whatever the next one says. The file goes back to its
    /// committed length and gets everything again.
    async fn write_again(&mut self, error: &std::io::Error, mut batches: Vec<Box<Batch>>) {
        batches.append(&mut self.unsynced);
        if self.failed(Attempt::Syncing, error).await {
            self.unsynced = batches;
            return self.give_back().await;
        }
        self.cut().await;
        let path = self.current.as_ref().map(|current| current.path.clone()).unwrap_or_default();
        self.write_all(batches, &path).await;
    }

    /// Syncs everything and closes the file, whole. Returns its path, if there was a file.
    pub(super) async fn close(&mut self) -> Option<String> {
        loop {
            if let Some(syncing) = self.syncing.take() {
                let synced = syncing.await;
                self.synced(synced).await;
            } else if self.unsynced.is_empty() {
                break;
            } else {
                self.begin_sync().await;
            }
        }
        let Output { path, kind } = self.current.take()?;
        let Kind::File(mut file) = kind else { return None };
        if let Err(error) = file.writer.trim() {
            log::info!(target: "wpgen::sink", "output {path}: blocks reserved ahead stay with it ({error})");
        }
        self.around.ledger.forget(file.dev, file.ino);
        Some(path)
    }

    /// Whether the batch that was taken belongs into a new file.
    fn is_rotation_due(&self) -> bool {
        let (Some(rotate), Some(batch)) = (&self.around.settings.rotate, &self.unwritten) else {
            return false;
        };
        let Some(Output { kind: Kind::File(file), .. }) = &self.current else { return false };
        let (len, more) = (file.writer.standing().len(), batch.arena.len() as u64);
        let zone = &self.around.settings.zone;
        rotate::is_due(rotate, len, more, file.written_ns, batch.oldest_ns, zone)
            && self.rotate_not_before.is_none_or(|at| Instant::now() >= at)
            // Numbers must not move under a file that is being packed; this one may grow meanwhile.
            && self.packer.is_idle()
    }

    /// Closes the file, puts it aside and begins a new one. The checkpoint has the old one whole before it moves.
    async fn rotate(&mut self, path: &str) {
        self.close().await;
        self.persist().await;
        let keep = self.around.settings.rotate.map_or(0, |rotate| rotate.keep);
        let from = std::path::PathBuf::from(path);
        match super::output::blocking(move || rotate::put_aside(&from, keep)).await {
            Ok(aside) => self.packer.pack(aside),
            Err(error) => {
                log::warn!(target: "wpgen::sink", "output {path} cannot be rotated: {error}; it grows on");
                self.rotate_not_before = Some(Instant::now() + ROTATE_AGAIN);
            }
        }
        self.open(path).await;
    }

    /// Opens the path again if it names another file by now.
    async fn reopen(&mut self) {
        let Some(Output { path, kind: Kind::File(file) }) = &self.current else { return };
        if super::place::is_moved(path.as_ref(), file.dev, file.ino) {
            let path = path.clone();
            self.close().await;
            self.open(&path).await;
        }
    }

    /// Waits until a checkpoint with what the ledger says now is on disk.
    pub(super) async fn persist(&mut self) {
        loop {
            match (self.around.persist)().await {
                Ok(()) => return self.patience.worked(Attempt::Checkpoint),
                Err(error) => self.patience.failed(Attempt::Checkpoint, &error).await,
            }
        }
    }
}

#[cfg(not(test))]
async fn sync_data(file: &IoFile) -> std::io::Result<()> {
    file.sync_data().await
}

#[cfg(test)]
async fn sync_data(file: &IoFile) -> std::io::Result<()> {
    match super::tests::next_sync_fails() {
        true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        false => file.sync_data().await,
    }
}
