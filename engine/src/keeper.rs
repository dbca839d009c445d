//! The keeper of the checkpoint: a thread of its own that gathers positions and writes them, off the shards.
//!
//! A snapshot is gathered in two steps, in this order: first how far every sink has each input, then what the sinks
//! have committed. So a sink is never behind an input in a snapshot, and a start that cuts files to their committed
//! length and reads on from the inputs' positions misses nothing. The order is what makes it right; both steps are
//! taken while everything runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::checkpoint::{Snapshot, Store};
use crate::engine::drain::await_end;
use crate::status::CheckpointStatus;

/// Bytes received after which a checkpoint is written before its interval is over.
const BYTES_BETWEEN: u64 = 64 << 20;
/// How often the keeper looks whether that many bytes came, while some do.
const LOOK: Duration = Duration::from_millis(20);
/// Between two attempts to write a checkpoint that cannot be written.
const AGAIN: Duration = Duration::from_millis(500);
/// A failure is said at most this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Asks for a checkpoint and waits until it is on disk.
pub type Persist = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send + Sync>;

/// Who asked is told by it.
type Tell = Box<dyn FnOnce(io::Result<()>) + Send>;

enum Ask {
    Write(Tell),
    Stop,
}

/// What the keeper needs of the engine.
pub struct Duty {
    /// Gathers a snapshot, inputs before groups; an error is tried again.
    pub gather: Box<dyn Fn() -> io::Result<Snapshot> + Send>,
    /// Bytes received so far, by all sources.
    pub bytes: Box<dyn Fn() -> u64 + Send>,
    /// A number that differs when the snapshot may differ: gathering one costs, for ten thousand files.
    pub activity: Box<dyn Fn() -> u64 + Send>,
    /// Told of each checkpoint that is on disk.
    pub kept: Box<dyn Fn(&Snapshot) + Send>,
    /// The longest time between a change and its checkpoint.
    pub interval: Duration,
}

/// The keeper's figures.
#[derive(Debug, Default)]
pub struct KeeperState {
    /// Checkpoints written.
    pub written: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// What the last attempt failed with; `None` when it went well.
    pub trouble: Mutex<Option<String>>,
    /// When what is on disk was last known to be up to date.
    fresh: Mutex<Option<Instant>>,
}

impl KeeperState {
    /// The figures at this moment; `started` is when there was nothing to write yet.
    pub fn status(&self, started: Instant) -> CheckpointStatus {
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(started);
        CheckpointStatus {
            written: self.written.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            age: fresh.elapsed(),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The keeper before the engine runs: sinks are made with its [`Keeper::persist`].
pub struct Keeper {
    ask: mpsc::Sender<Ask>,
    asked: Option<mpsc::Receiver<Ask>>,
    state: Arc<KeeperState>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Keeper {
    fn default() -> Self {
        Self::new()
    }
}

impl Keeper {
    /// A keeper that does not run yet; what it is asked waits.
    pub fn new() -> Self {
        let (ask, asked) = mpsc::channel();
        Self { ask, asked: Some(asked), state: Arc::default(), thread: None }
    }

    /// A way to ask for a checkpoint.
    pub fn persist(&self) -> Persist {
        let ask = self.ask.clone();
        Arc::new(move || {
            let (tell, told) = oneshot::channel();
            // Whoever asked may be gone.
            let sent = ask.send(Ask::Write(Box::new(|result| drop(tell.send(result)))));
            Box::pin(async move {
                let gone = || io::Error::other("the checkpoint's keeper has ended");
                sent.map_err(|_| gone())?;
                told.await.unwrap_or_else(|_| Err(gone()))
            })
        })
    }

    /// Has a checkpoint written and waits for it, so long at most; not for a shard's thread.
    ///
    /// # Errors
    /// It cannot be written now, or is not written yet. It will be tried again.
    pub fn write_now(&self, at_most: Duration) -> io::Result<()> {
        let (tell, told) = mpsc::channel();
        let gone = || io::Error::other("the checkpoint's keeper has ended");
        let tell = Box::new(move |result| drop(tell.send(result)));
        self.ask.send(Ask::Write(tell)).map_err(|_| gone())?;
        told.recv_timeout(at_most).unwrap_or_else(|why| match why {
            RecvTimeoutError::Timeout => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the checkpoint is not written yet"))
            }
            RecvTimeoutError::Disconnected => Err(gone()),
        })
    }

    /// Its figures.
    pub fn state(&self) -> Arc<KeeperState> {
        Arc::clone(&self.state)
    }

    /// Begins to work.
    ///
    /// # Errors
    /// A thread that cannot be made.
    pub fn start(&mut self, store: Store, duty: Duty) -> io::Result<()> {
        let Some(asked) = self.asked.take() else { return Ok(()) };
        let work = Work { store, duty, state: Arc::clone(&self.state), active: 0, said: None };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || work.run(&asked))?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Writes a last checkpoint and ends; waits for it so long at most, and says whether it has ended. The shards must
    /// still run.
    pub fn stop(mut self, at_most: Duration) -> bool {
        let _ = self.ask.send(Ask::Stop);
        let Some(thread) = self.thread.take() else { return true };
        let has_ended = await_end(thread, Instant::now() + at_most);
        if !has_ended {
            let why = "the disk does not answer".to_owned();
            *self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
        has_ended
    }
}

struct Work {
    store: Store,
    duty: Duty,
    state: Arc<KeeperState>,
    active: u64,
    said: Option<Instant>,
}

impl Work {
    fn run(mut self, asked: &mpsc::Receiver<Ask>) {
        let (mut due, mut bytes, mut seen) = (Instant::now() + self.duty.interval, 0, 0);
        loop {
            let now = (self.duty.bytes)();
            let pause = due.saturating_duration_since(Instant::now());
            let pause = if now == seen { pause } else { pause.min(LOOK) };
            seen = now;
            let mut waiting = Vec::new();
            match asked.recv_timeout(pause) {
                Ok(Ask::Write(tell)) => waiting.push(tell),
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.write(true);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if waiting.is_empty() && Instant::now() < due && (self.duty.bytes)() < bytes + BYTES_BETWEEN {
                continue;
            }
            let mut stop = false;
            for ask in asked.try_iter() {
                match ask {
                    Ask::Write(tell) => waiting.push(tell),
                    Ask::Stop => stop = true,
                }
            }
            bytes = (self.duty.bytes)();
            let result = self.write(!waiting.is_empty() || stop);
            due = Instant::now() + if result.is_ok() { self.duty.interval } else { AGAIN };
            for tell in waiting {
                let answer = result.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string()));
                tell(answer);
            }
            if stop {
                return;
            }
        }
    }

    /// Writes what changed; `force` writes all the same.
    fn write(&mut self, force: bool) -> io::Result<()> {
        let began = Instant::now();
        let written = self.write_changes(force);
        if written.is_ok() {
            *self.state.fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        }
        written
    }

    fn write_changes(&mut self, force: bool) -> io::Result<()> {
        let active = (self.duty.activity)();
        if !force && self.store.last().is_some() && active == self.active {
            return Ok(());
        }
        let snapshot = match (self.duty.gather)() {
            Ok(snapshot) => snapshot,
            Err(error) => return Err(self.failed(error)),
        };
        if !force && self.store.last() == Some(&snapshot) {
            self.active = active;
            return Ok(());
        }
        match self.store.write(snapshot) {
            Ok(()) => {
                self.active = active;
                self.state.written.fetch_add(1, Ordering::Relaxed);
                self.set_trouble(None);
                if let Some(snapshot) = self.store.last() {
                    (self.duty.kept)(snapshot);
                }
                Ok(())
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: io::Error) -> io::Error {
        self.state.failed.fetch_add(1, Ordering::Relaxed);
        self.say(&error);
        self.set_trouble(Some(error.to_string()));
        error
    }

    fn set_trouble(&mut self, trouble: Option<String>) {
        let mut now = self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && trouble.is_none() {
            log::info!(target: "wpgen::checkpoint", "the checkpoint is written again");
            self.said = None;
        }
        *now = trouble;
    }

    fn say(&mut self, error: &io::Error) {
        if self.said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            log::error!(
                target: "wpgen::checkpoint",
                "writing the checkpoint: {error}; nothing is lost, but a crash now would repeat what came since the last one; \
                 tried again every {} ms", AGAIN.as_millis()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Input;
    use crate::source::playground::until;

    fn snapshot(position: u64) -> Snapshot {
        let input = Input { id: 1, source: "s".into(), position, ..Input::default() };
        Snapshot { next_input: 2, inputs: vec![input], ..Snapshot::default() }
    }

    #[test]
    fn who_waits_for_a_disk_that_does_not_answer_waits_so_long_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new();
        let (store, _) = Store::open(folder.path()).unwrap();
        let (answers, disk) = mpsc::channel::<()>();
        let duty = Duty {
            gather: Box::new(move || {
                let _ = disk.recv();
                Ok(snapshot(5))
            }),
            bytes: Box::new(|| 0),
            activity: Box::new(|| 0),
            kept: Box::new(|_| ()),
            interval: Duration::from_secs(3600),
        };
        keeper.start(store, duty).unwrap();
        let error = keeper.write_now(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let state = keeper.state();
        assert!(!keeper.stop(Duration::from_millis(1)));
        assert_eq!(state.trouble.lock().unwrap().as_deref(), Some("the disk does not answer"));
        drop(answers);
        // Once, where both were asked for before it began.
        until("it is written", || state.written.load(Ordering::Relaxed) > 0);
        until("it is there", || Store::open(folder.path()).is_ok_and(|(_, found)| found == snapshot(5)));
    }

    #[test]
    fn who_gathers_nothing_writes_nothing_and_tries_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new();
        let (store, _) = Store::open(folder.path()).unwrap();
        let times = AtomicU64::new(0);
        let duty = Duty {
            gather: Box::new(move || match times.fetch_add(1, Ordering::Relaxed) {
                0 => Err(io::Error::other("worker 1 does not answer")),
                _ => Ok(snapshot(5)),
            }),
            bytes: Box::new(|| 0),
            activity: Box::new(|| 0),
            kept: Box::new(|_| ()),
            interval: Duration::from_secs(3600),
        };
        keeper.start(store, duty).unwrap();
        assert!(keeper.write_now(Duration::from_secs(60)).is_err());
        assert_eq!(keeper.state().trouble.lock().unwrap().as_deref(), Some("worker 1 does not answer"));
        keeper.write_now(Duration::from_secs(60)).unwrap();
        assert!(keeper.stop(Duration::from_secs(60)));
        assert_eq!(Store::open(folder.path()).unwrap().1, snapshot(5));
    }

    #[test]
    fn a_request_is_answered_when_its_snapshot_is_on_disk_and_the_last_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let position = Arc::new(AtomicU64::new(5));
        let mut keeper = Keeper::new();
        let persist = keeper.persist();
        let (store, _) = Store::open(folder.path()).unwrap();
        let gather = {
            let position = Arc::clone(&position);
            Box::new(move || Ok(snapshot(position.load(Ordering::Relaxed))))
        };
        let told: Arc<AtomicU64> = Arc::default();
        let duty = Duty {
            gather,
            bytes: Box::new(|| 0),
            activity: Box::new(|| 0),
            kept: {
                let told = Arc::clone(&told);
                Box::new(move |snapshot| told.store(snapshot.inputs[0].position, Ordering::Relaxed))
            },
            interval: Duration::from_secs(3600),
        };
        keeper.start(store, duty).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(persist()).unwrap();
        assert_eq!(keeper.state().written.load(Ordering::Relaxed), 1);
        position.store(9, Ordering::Relaxed);
        assert_eq!(told.load(Ordering::Relaxed), 5);
        assert!(keeper.stop(Duration::from_secs(60)));
        assert_eq!(told.load(Ordering::Relaxed), 9);
        assert!(runtime.block_on(persist()).is_err(), "nobody writes any more");
        assert_eq!(Store::open(folder.path()).unwrap().1, snapshot(9));
    }
}
