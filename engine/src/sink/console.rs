//! Standard output, written by a thread of its own: a pipe that nobody reads holds up that thread and the lanes' credit,
//! never a shard.
//!
//! A record is delivered when it is written. When the reader goes away the sink is closed: a batch that is not written
//! whole is given up, so that no position moves past it, though what was written of it counts; and the engine is to stop.

use std::any::Any;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::batch::{Batch, ShardId, SinkId, Verdict};
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::status::{SinkState, SinkStatus};

/// Standard output as a sink. One shard owns it, so lines of different sources never mix within a line.
pub struct Stdout {
    id: SinkId,
    format: Format,
    state: Arc<State>,
    out: Mutex<Option<Box<dyn Write + Send>>>,
}

#[derive(Default)]
struct State {
    key: String,
    records: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    /// Batches that the writer has or is to have.
    held: AtomicU64,
    closed: AtomicBool,
}

impl Stdout {
    /// The sink, writing to the process's standard output.
    pub fn new(id: SinkId, key: &str, format: Format) -> Arc<Self> {
        // Without a buffer of its own, so that what it took is what the reader can have.
        let out: Box<dyn Write + Send> = match io::stdout().as_fd().try_clone_to_owned() {
            Ok(fd) => Box::new(File::from(fd)),
            Err(_) => Box::new(io::stdout()),
        };
        Self::over(id, key, format, out)
    }

    /// The sink, writing elsewhere.
    pub fn over(id: SinkId, key: &str, format: Format, out: Box<dyn Write + Send>) -> Arc<Self> {
        let state = State { key: key.to_owned(), ..State::default() };
        Arc::new(Self { id, format, state: Arc::new(state), out: Mutex::new(Some(out)) })
    }
}

/// A batch, how much of it was written, and why not all of it.
type Written = (Box<Batch>, usize, io::Result<()>);

/// Writes batches until there are no more; each goes back with what became of it.
fn write_batches(
    mut out: Box<dyn Write + Send>,
    batches: &Receiver<Box<Batch>>,
    back: &UnboundedSender<Written>,
) {
    for batch in batches {
        let (written, result) = write(&mut *out, batch.bytes());
        if back.send((batch, written, result)).is_err() {
            return;
        }
    }
}

/// Writes all of `bytes`, and tells how much of it was taken.
fn write(out: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}

impl Sink for Stdout {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        Some(self.format)
    }

    fn owner(&self, _outlet: u32, _home: ShardId) -> ShardId {
        0
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        let Some(out) = self.out.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (batches, taken) = channel();
        let (back, mut written) = tokio::sync::mpsc::unbounded_channel();
        let spawned = std::thread::Builder::new()
            .name("stdout".into())
            .spawn(move || write_batches(out, &taken, &back));
        if let Err(error) = spawned {
            log::error!(target: "wpgen::sink", "sink '{}': no thread to write with: {error}", self.state.key);
            self.state.closed.store(true, Ordering::Release);
        }
        let (shard, state) = (Rc::clone(shard), Arc::clone(&self.state));
        let feeder = Rc::clone(&intake);
        tokio::task::spawn_local(feed(feeder, batches, Arc::clone(&state)));
        tokio::task::spawn_local(async move {
            while let Some((batch, written, result)) = written.recv().await {
                let verdict = state.judge(&batch, written, result);
                shard.send_home(batch, verdict);
            }
            intake.ended();
        });
    }

    fn status(&self) -> SinkStatus {
        let state = &self.state;
        let closed = state.closed.load(Ordering::Acquire);
        SinkStatus {
            key: state.key.clone(),
            records: state.records.load(Ordering::Relaxed),
            bytes: state.bytes.load(Ordering::Relaxed),
            batches_in_flight: state.held.load(Ordering::Relaxed),
            errors: state.errors.load(Ordering::Relaxed),
            state: if closed { SinkState::Closed } else { SinkState::Ready },
            ..SinkStatus::default()
        }
    }

    fn opened(&self) -> Vec<String> {
        vec![format!("standard output, {}", self.format.name())]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

async fn feed(intake: Rc<Intake>, batches: Sender<Box<Batch>>, state: Arc<State>) {
    while let Some(batch) = intake.next().await {
        state.held.fetch_add(1, Ordering::Relaxed);
        if batches.send(batch).is_err() {
            return;
        }
    }
}

impl State {
    fn judge(&self, batch: &Batch, written: usize, result: io::Result<()>) -> Verdict {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        let Err(error) = result else {
            self.records.fetch_add(u64::from(batch.records), Ordering::Relaxed);
            return Verdict::Delivered;
        };
        // No record is written whole without its newline; one with newlines in it counts as one at most.
        let newlines = memchr::memchr_iter(b'\n', &batch.bytes()[..written]).count() as u64;
        self.records.fetch_add(newlines.min(u64::from(batch.records)), Ordering::Relaxed);
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.say(&error);
        }
        Verdict::Abandoned
    }

    fn say(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            let records = self.records.load(Ordering::Relaxed);
            log::info!(
                target: "wpgen::sink",
                "sink '{}': the reader of standard output has left, after {records} records", self.key
            );
        } else {
            self.errors.fetch_add(1, Ordering::Relaxed);
            log::error!(target: "wpgen::sink", "sink '{}': writing to standard output: {error}", self.key);
        }
    }
}
