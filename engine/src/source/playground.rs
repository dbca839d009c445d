//! An engine for tests of sources that listen: real sockets and shards, and a sink that keeps records and can be stalled.

use std::any::Any;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::batch::{SinkId, Verdict};
use crate::engine::{Engine, Wired, Wiring};
use crate::io::Backend;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::{Sink, Where};
use crate::source::part::Source;
use crate::status::{SinkStatus, SourceStatus};

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Epoll];
const PATIENCE: Duration = Duration::from_secs(60);

/// A sink that keeps what it gets.
#[derive(Default)]
pub(crate) struct Keep {
    id: SinkId,
    format: Format,
    records: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) stalled: Arc<AtomicBool>,
}

impl Keep {
    pub(crate) fn new(id: SinkId, format: Format) -> Arc<Self> {
        Arc::new(Self { id, format, ..Self::default() })
    }

    /// The records without their newlines.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        self.records.lock().unwrap().iter().map(|record| record[..record.len() - 1].to_vec()).collect()
    }

    /// The records as text.
    pub(crate) fn records(&self) -> Vec<String> {
        self.bytes().iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }
}

impl Sink for Keep {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        Some(self.format)
    }

    fn wants_ends(&self) -> bool {
        true
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        let shard = Rc::clone(shard);
        let (records, stalled) = (Arc::clone(&self.records), Arc::clone(&self.stalled));
        tokio::task::spawn_local(async move {
            while let Some(batch) = intake.next().await {
                while stalled.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut start = 0;
                for end in &batch.ends {
                    records.lock().unwrap().push(batch.bytes()[start..*end as usize].to_vec());
                    start = *end as usize;
                }
                shard.send_home(batch, Verdict::Delivered);
            }
            intake.ended();
        });
    }

    fn status(&self) -> SinkStatus {
        SinkStatus::default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A running engine in which source `i` feeds sink `i`, on two shards that are not pinned.
pub(crate) fn start(backend: Backend, pairs: &[(Arc<dyn Source>, Arc<Keep>)]) -> Engine {
    let keys: std::collections::BTreeSet<_> =
        pairs.iter().map(|(source, _)| source.key().to_owned()).collect();
    assert_eq!(keys.len(), pairs.len(), "sources of one key are one source to the status: {keys:?}");
    let wiring = Wiring {
        cpus: vec![None; SHARDS],
        backend,
        sinks: pairs.iter().map(|(_, sink)| Arc::clone(sink) as Arc<dyn Sink>).collect(),
        sources: pairs
            .iter()
            .enumerate()
            .map(|(i, (source, _))| Wired { source: Arc::clone(source), routes: vec![(i, Where::default())] })
            .collect(),
        keeping: None,
        next_input: Arc::new(AtomicU64::new(1)),
        memory: crate::memory::Memory::unlimited(),
    };
    Engine::start(wiring).unwrap()
}

pub(crate) const SHARDS: usize = 2;

/// Waits for a condition.
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Drains the engine; everything must settle. The sources' last figures.
pub(crate) fn drain(engine: Engine) -> Vec<SourceStatus> {
    let (settled, status) = engine.drain(PATIENCE);
    assert!(settled, "{status:?}");
    for source in &status.sources {
        let dropped: u64 = source.dropped.iter().map(|(_, n)| n).sum();
        assert_eq!(source.records_in, source.delivered + source.rejected + dropped, "{source:?}");
    }
    status.sources
}
