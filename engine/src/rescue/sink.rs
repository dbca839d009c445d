//! A sink with a rescue: the sink, and on each shard a guard in front of each owner.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Rescue;
use super::guard::Guard;
use crate::batch::{Origin, ShardId, SinkId};
use crate::checkpoint::Group;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::status::SinkStatus;

/// See above.
pub struct Rescued {
    sink: Arc<dyn Sink>,
    rescue: Arc<Rescue>,
}

impl Rescued {
    /// The sink, with a rescue. When their intake is guarded, its owners must give back what they cannot write, and send home
    /// in order what comes from disk.
    pub fn new(sink: Arc<dyn Sink>, rescue: Arc<Rescue>) -> Arc<Self> {
        Arc::new(Self { sink, rescue })
    }

    /// Whether `shard` sends what was left for an outlet on a shard of an earlier run.
    fn is_mine(&self, outlet: u32, shard: &Shard, before: ShardId) -> bool {
        let shards = u16::try_from(shard.links().len()).unwrap_or(1);
        self.sink.owner(outlet, before % shards) == shard.id()
    }
}

impl Sink for Rescued {
    fn start_owner(&self, shard: &Rc<Shard>, outlet: u32, intake: Rc<Intake>) {
        let inner = Intake::guarded(&intake);
        self.sink.start_owner(shard, outlet, Rc::clone(&inner));
        let is_mine = |before| self.is_mine(outlet, shard, before);
        let backlog = self.rescue.backlog(&self.sink.outlet_name(outlet), shard.id(), is_mine);
        let to = (Arc::clone(&self.sink), outlet);
        let guard = Guard::new(shard, to, Arc::clone(&self.rescue), intake, inner, backlog);
        tokio::task::spawn_local(guard.run());
    }

    fn started(&self, shard: &Rc<Shard>) {
        self.sink.started(shard);
        for (name, before) in self.rescue.left() {
            match self.sink.outlet_named(&name) {
                Some(outlet) if self.is_mine(outlet, shard, before) => shard.open_intake(self.id(), outlet),
                None if shard.id() == 0 => self.rescue.cannot_find(&name),
                _ => {}
            }
        }
    }

    fn status(&self) -> SinkStatus {
        SinkStatus { rescue: Some(self.rescue.status()), ..self.sink.status() }
    }

    fn id(&self) -> SinkId {
        self.sink.id()
    }

    fn format(&self) -> Option<Format> {
        self.sink.format()
    }

    fn outlet(&self, origin: &Origin) -> u32 {
        self.sink.outlet(origin)
    }

    fn outlet_name(&self, outlet: u32) -> String {
        self.sink.outlet_name(outlet)
    }

    fn outlet_named(&self, name: &str) -> Option<u32> {
        self.sink.outlet_named(name)
    }

    fn owner(&self, outlet: u32, home: ShardId) -> ShardId {
        self.sink.owner(outlet, home)
    }

    fn counted(&self, records: u64, bytes: u64) {
        self.sink.counted(records, bytes);
    }

    fn head_for_next(&self, outlet: u32) -> usize {
        self.sink.head_for_next(outlet)
    }

    fn sealed(&self, outlet: u32, bytes: usize) {
        self.sink.sealed(outlet, bytes);
    }

    fn seals_each_second(&self) -> bool {
        self.sink.seals_each_second()
    }

    fn wants_ends(&self) -> bool {
        self.sink.wants_ends()
    }

    fn positions_before(&self) -> HashMap<u64, u64> {
        self.sink.positions_before()
    }

    fn groups(&self) -> Vec<Group> {
        self.sink.groups()
    }

    fn reopen(&self) {
        self.sink.reopen();
    }

    fn opened(&self) -> Vec<String> {
        self.sink.opened()
    }

    fn as_any(&self) -> &dyn Any {
        self.sink.as_any()
    }
}
