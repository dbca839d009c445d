//! The file sink: every record once, in order, in a file that is never seen with a hole.
//!
//! A path template makes outlets; each outlet has one owner task on one shard, which writes its files one after the
//! other ([`owner`]); where the bytes go is arithmetic ([`step`]), how they get there is the [`writer`]. What is durable
//! is in the outlet's [`ledger`], from which the engine's checkpoint takes its snapshots, and to which a start cuts the
//! files ([`recover`]).
//!
//! The promise needs two things of the engine. A snapshot of inputs is taken *before* that of the sinks, so that no
//! input stands further than the files it went to; and [`Persist`] answers only when a checkpoint with a snapshot taken
//! after the call is on disk.

mod ledger;
mod output;
mod owner;
mod pack;
mod packer;
pub mod params;
mod place;
mod recover;
mod rotate;
mod settings;
mod step;
mod stream;
mod trouble;
mod writer;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::assemble::{Past, Rest};
use crate::batch::{Batch, Origin, ShardId, SinkId, Verdict};
use crate::checkpoint::Group;
use crate::keeper::Persist;
use crate::pool::ALIGN;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::sink::template::Outlet;
use crate::status::{SinkState, SinkStatus};

use ledger::Ledger;
use owner::{Around, Home, Owner};
use params::Existing;
use place::{Opened, Regular};

pub use ledger::Trouble;
pub use place::OpenError;
pub use settings::{Fsync, Packing, Rotate, Settings};

/// A file sink.
pub struct FileSink {
    id: SinkId,
    key: String,
    settings: Arc<Settings>,
    persist: Persist,
    table: Mutex<Table>,
}

/// The outlets, by number and by what they are.
#[derive(Default)]
struct Table {
    numbers: HashMap<Outlet, u32>,
    ledgers: Vec<Arc<Ledger>>,
    /// Groups of the run before whose outlets have not got a record yet, by name.
    before: HashMap<String, Group>,
    /// Whether the checkpoint on disk has them so. One of this run's may be without.
    is_told: bool,
}

impl FileSink {
    /// The sink with the key `key` in the configuration. `past` is what the last checkpoint has of it; its files are
    /// cut to their committed lengths here, where what is behind comes again. A path without values or dates is opened at once.
    ///
    /// # Errors
    /// An output that another engine writes, or that cannot be opened.
    pub(crate) fn open(
        id: SinkId,
        key: &str,
        settings: Settings,
        past: Past,
        persist: Persist,
    ) -> Result<Arc<Self>, OpenError> {
        let mut table = Table { is_told: past.rest != Rest::Cut, ..Table::default() };
        for mut group in past.groups {
            table.is_told &= recover::recover(&mut group, past.rest, settings.fsync != Fsync::Never)?;
            table.before.insert(group.key.clone(), group);
        }
        let table = Mutex::new(table);
        let sink = Self { id, key: key.to_owned(), settings: Arc::new(settings), persist, table };
        sink.claim()?;
        Ok(Arc::new(sink))
    }

    /// Opens the only file there is, so that a second engine is refused before it reads anything.
    fn claim(&self) -> Result<(), OpenError> {
        let template = &self.settings.template;
        if !template.is_single() || template.has_date() {
            return Ok(());
        }
        let ledger = self.ledger(self.number(template.outlet(&Origin::new("", ""))));
        match place::open(Path::new(&ledger.name), self.settings.mode) {
            Ok(mut opened) => {
                if let Opened::Regular(file) = &mut opened {
                    self.begin(&ledger, file)?;
                }
                *ledger.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
            }
            // Somebody may read it later.
            Err(OpenError::NoReader(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Forgets the positions of inputs that will not come again.
    pub fn retain_inputs(&self, keep: &dyn Fn(u64) -> bool) {
        let mut table = self.table();
        table.ledgers.iter().for_each(|ledger| ledger.retain_inputs(keep));
        table.before.values_mut().for_each(|group| group.positions.retain(|(input, _)| keep(*input)));
    }

    /// Empties a claimed file where that is wanted, so that it is done also when no record ever comes.
    fn begin(&self, ledger: &Ledger, file: &mut Regular) -> Result<(), OpenError> {
        if self.settings.existing == Existing::Truncate && ledger.committed_len(file.dev, file.ino).is_none()
        {
            file.empty().map_err(|error| OpenError::Io { path: ledger.name.clone().into(), error })?;
        }
        ledger.goes_on(file.len, 0);
        Ok(())
    }

    /// The outlets that do not get their bytes out.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.table().ledgers.iter().filter_map(|ledger| ledger.trouble()).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self, number: u32) -> Arc<Ledger> {
        Arc::clone(&self.table().ledgers[number as usize])
    }

    fn number(&self, outlet: Outlet) -> u32 {
        let mut table = self.table();
        if let Some(number) = table.numbers.get(&outlet) {
            return *number;
        }
        let number =
            u32::try_from(table.ledgers.len()).expect("an outlet holds a file; there are fewer than 2^32");
        let before = table.before.remove(&outlet.name()).unwrap_or_default();
        let ledger = Ledger::new(outlet.clone(), before, table.is_told);
        table.ledgers.push(Arc::new(ledger));
        table.numbers.insert(outlet, number);
        number
    }
}

impl Sink for FileSink {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        Some(self.settings.format)
    }

    fn outlet(&self, origin: &Origin) -> u32 {
        self.number(self.settings.template.outlet(origin))
    }

    fn outlet_name(&self, outlet: u32) -> String {
        self.ledger(outlet).name.clone()
    }

    fn outlet_named(&self, name: &str) -> Option<u32> {
        Some(self.number(Outlet::named(name)?))
    }

    fn owner(&self, outlet: u32, home: ShardId) -> ShardId {
        self.ledger(outlet).owner(home)
    }

    fn start_owner(&self, shard: &Rc<Shard>, outlet: u32, intake: Rc<Intake>) {
        let shard = Rc::clone(shard);
        let backend = shard.io().backend();
        let ledger = self.ledger(outlet);
        let counted = Arc::clone(&ledger);
        let home = move |batch: Box<Batch>, verdict: Verdict| {
            counted.delivered(&batch);
            shard.send_home(batch, verdict);
        };
        let around = Around {
            ledger,
            settings: Arc::clone(&self.settings),
            persist: Arc::clone(&self.persist),
            backend,
            intake,
            home: Rc::new(home) as Home,
        };
        tokio::task::spawn_local(Owner::new(around).run());
    }

    fn head_for_next(&self, outlet: u32) -> usize {
        (self.ledger(outlet).end() % ALIGN as u64) as usize
    }

    fn sealed(&self, outlet: u32, bytes: usize) {
        self.ledger(outlet).sealed(bytes as u64);
    }

    fn seals_each_second(&self) -> bool {
        self.settings.template.has_date()
    }

    fn positions_before(&self) -> HashMap<u64, u64> {
        let table = self.table();
        let mut all: HashMap<u64, u64> = HashMap::new();
        table.before.values().for_each(|group| all.extend(group.positions.iter().copied()));
        table.ledgers.iter().for_each(|ledger| ledger.positions_into(&mut all));
        all
    }

    fn groups(&self) -> Vec<Group> {
        let table = self.table();
        let running = table.ledgers.iter().map(|ledger| ledger.snapshot(&self.key));
        running.chain(table.before.values().cloned()).collect()
    }

    fn status(&self) -> SinkStatus {
        let table = self.table();
        let sum =
            |of: fn(&Ledger) -> &AtomicU64| table.ledgers.iter().map(|l| of(l).load(Ordering::Relaxed)).sum();
        let trouble = table.ledgers.iter().find_map(|ledger| ledger.trouble());
        SinkStatus {
            key: self.key.clone(),
            records: sum(|ledger| &ledger.records),
            bytes: sum(|ledger| &ledger.bytes),
            // The checkpoint holds its committed length: it writes nothing twice.
            repeated: 0,
            batches_in_flight: sum(|ledger| &ledger.held),
            errors: sum(|ledger| &ledger.failures),
            state: trouble
                .map_or(SinkState::Ready, |t| SinkState::Waiting(format!("{}: {}", t.outlet, t.words))),
            rescue: None,
        }
    }

    fn reopen(&self) {
        self.table().ledgers.iter().for_each(|ledger| ledger.reopen.notify_one());
    }

    fn opened(&self) -> Vec<String> {
        vec![format!("{}, {}", self.settings.template, self.settings.format.name())]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
