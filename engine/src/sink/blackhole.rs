//! The blackhole: takes everything, keeps nothing, counts. For measuring, and for sources that only feed counters.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::{SinkId, Verdict};
use crate::config::kinds::Check;
use crate::config::params::params;
use crate::config::tree::Table;
use crate::diagnosis::Findings;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::status::SinkStatus;

params! {
    /// The parameters of a blackhole: none.
    pub struct BlackholeParams {}
}

impl Check for BlackholeParams {
    fn check(&self, _table: &Table, _findings: &mut Findings) {}
}

/// A sink that only counts; shared by all shards, so its two numbers are added to once a run.
#[derive(Debug)]
pub struct Blackhole {
    id: SinkId,
    key: String,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Blackhole {
    /// The sink with index `id`.
    pub fn new(id: SinkId, key: &str) -> Arc<Self> {
        Arc::new(Self { id, key: key.to_owned(), records: AtomicU64::new(0), bytes: AtomicU64::new(0) })
    }

    /// Records and bytes so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Sink for Blackhole {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        None
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        // No lane encodes for a counting sink; a batch that comes all the same goes home at once.
        let shard = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            while let Some(batch) = intake.next().await {
                shard.send_home(batch, Verdict::Delivered);
            }
            intake.ended();
        });
    }

    fn counted(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn status(&self) -> SinkStatus {
        let (records, bytes) = self.counts();
        SinkStatus { key: self.key.clone(), records, bytes, ..SinkStatus::default() }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
