//! How far the files and partitions of sources are that are switched off (`enable = false`): switched on again, they go on
//! there.
//!
//! Owns what no source tells of meanwhile. Invariants: an input is told of by its source while that is in the list of what
//! runs, and from then on here, if the source is only switched off; what is not configured at all is forgotten, and
//! that is said.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Engine, Running, Shared, lock};
use crate::checkpoint::{Input, Partition, Snapshot};
use crate::config::Config;

/// What sources tell of how far they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) inputs: Vec<Input>,
    pub(super) partitions: Vec<Partition>,
}

impl Told {
    /// What these tell; `low` is how far each is.
    pub(super) fn of<'a>(running: impl Iterator<Item = &'a Arc<Running>>, low: &HashMap<u64, u64>) -> Self {
        let mut told = Self::default();
        for running in running {
            told.inputs.extend(running.source.inputs(low));
            told.partitions.extend(running.source.places(low));
        }
        told
    }

    /// Leaves out those of other sources.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.inputs.retain(|input| is_wanted(&input.source));
        self.partitions.retain(|partition| is_wanted(&partition.source));
    }

    /// Adds what others tell.
    pub(super) fn extend(&mut self, more: Self) {
        self.inputs.extend(more.inputs);
        self.partitions.extend(more.partitions);
    }
}

/// What is known of sources that are switched off.
#[derive(Debug, Default)]
pub struct Aside {
    off: BTreeSet<Arc<str>>,
    told: Told,
}

impl Aside {
    /// Of the sources that are switched off, what the last run knew. What it knew of others is theirs, or forgotten.
    pub fn new(config: &Config, before: &Snapshot) -> Self {
        let off = switched_off(config);
        let sources: BTreeSet<&str> = before.inputs.iter().map(|input| input.source.as_str()).collect();
        let is_configured = |key: &str| config.sources.iter().any(|source| &*source.key == key);
        for key in sources.into_iter().filter(|key| !is_configured(key)) {
            log::info!(target: "wpgen::checkpoint", "{}", forgotten(key));
        }
        let mut told = Told { inputs: before.inputs.clone(), partitions: before.partitions.clone() };
        told.retain(|key| off.contains(key));
        Self { told, off }
    }
}

fn switched_off(config: &Config) -> BTreeSet<Arc<str>> {
    let off = config.sources.iter().filter(|source| !source.enable);
    off.map(|source| Arc::clone(&source.key)).collect()
}

fn forgotten(source: &str) -> String {
    format!(
        "source '{source}' is configured no more: how far its files were read is forgotten \
         (enable = false would keep it)"
    )
}

impl Engine {
    /// A reload to `next` begins: how far the sources are that it switches off is kept.
    pub fn begin_reload(&self, next: &Config) {
        lock(&self.shared.aside).off.extend(switched_off(next));
    }

    /// A reload to `next` was done: what it does not name is forgotten.
    pub fn end_reload(&self, next: &Config) {
        let mut aside = lock(&self.shared.aside);
        aside.off = switched_off(next);
        let is_configured = |key: &str| next.sources.iter().any(|source| &*source.key == key);
        aside.told.retain(is_configured);
    }

    /// That a source which is configured no more is forgotten, if there is anything to forget.
    pub(super) fn forgotten(&self, running: &Running) -> Option<String> {
        let key = running.source.key();
        let is_off = lock(&self.shared.aside).off.contains(key);
        (!is_off && !running.source.inputs(&HashMap::new()).is_empty()).then(|| forgotten(key))
    }
}

impl Shared {
    /// All that is in the list, and what is aside at the same moment.
    pub(super) fn all_and_aside(&self) -> (Vec<Arc<Running>>, Told) {
        let all = lock(&self.running);
        let aside = lock(&self.aside).told.clone();
        (all.clone(), aside)
    }

    /// Takes those that have ended and leave out of the list, if nobody did yet; what they tell goes to `told`, too. `low`
    /// was asked for since they ended.
    pub(super) fn put_aside(&self, over: &[Arc<Running>], low: &HashMap<u64, u64>, told: &mut Told) {
        let mut all = lock(&self.running);
        let mut aside = lock(&self.aside);
        for running in over {
            let key = running.source.key();
            let is_listed = all.iter().any(|other| Arc::ptr_eq(other, running));
            all.retain(|other| !Arc::ptr_eq(other, running));
            if !aside.off.contains(key) || all.iter().any(|other| other.source.key() == key) {
                continue;
            }
            let last = Told::of(std::iter::once(running), low);
            told.retain(|other| other != key);
            told.extend(last.clone());
            if is_listed {
                aside.told.retain(|other| other != key);
                aside.told.extend(last);
            }
        }
    }

    /// A source of this key tells of them itself.
    pub(super) fn take_back(&self, key: &str) {
        lock(&self.aside).told.retain(|other| other != key);
    }
}
