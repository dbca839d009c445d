//! Standard output, written by a thread of its own: a pipe that nobody reads holds up that thread and the lanes' credit,
//! never a shard.
//!
//! A record is delivered when it is written. When the reader goes away the sink is closed: what is out is given up, so
//! that no position moves past it, and the engine is to stop.

use std::any::Any;
use std::io::{self, Write};
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
    closed: AtomicBool,
}

impl Stdout {
    /// The sink, writing to the process's standard output.
    pub fn new(id: SinkId, key: &str, format: Format) -> Arc<Self> {
        Self::over(id, key, format, Box::new(io::stdout()))
    }

    /// The sink, writing elsewhere.
    pub fn over(id: SinkId, key: &str, format: Format, out: Box<dyn Write + Send>) -> Arc<Self> {
        let state = State { key: key.to_owned(), ..State::default() };
        Arc::new(Self { id, format, state: Arc::new(state), out: Mutex::new(Some(out)) })
    }
}

type Written = (Box<Batch>, io::Result<()>);

/// Writes batches until there are no more; each goes back with what became of it.
fn write_batches(
    mut out: Box<dyn Write + Send>,
    batches: &Receiver<Box<Batch>>,
    back: &UnboundedSender<Written>,
) {
    for batch in batches {
        let result = out.write_all(batch.arena.filled()).and_then(|()| out.flush());
        if back.send((batch, result)).is_err() {
            return;
        }
    }
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
        tokio::task::spawn_local(feed(feeder, batches));
        tokio::task::spawn_local(async move {
            while let Some((batch, result)) = written.recv().await {
                let verdict = state.judge(&batch, result);
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

async fn feed(intake: Rc<Intake>, batches: Sender<Box<Batch>>) {
    while let Some(batch) = intake.next().await {
        if batches.send(batch).is_err() {
            return;
        }
    }
}

impl State {
    fn judge(&self, batch: &Batch, result: io::Result<()>) -> Verdict {
        match result {
            Ok(()) => {
                self.records.fetch_add(u64::from(batch.records), Ordering::Relaxed);
                self.bytes.fetch_add(batch.arena.len() as u64, Ordering::Relaxed);
                Verdict::Delivered
            }
            Err(error) => {
                let first = !self.closed.swap(true, Ordering::AcqRel);
                if first && error.kind() != io::ErrorKind::BrokenPipe {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    log::error!(target: "wpgen::sink", "sink '{}': writing to standard output: {error}", self.key);
                }
                Verdict::Abandoned
            }
        }
    }
}
