//! How far the files of sources are that are switched off (`enable = false`): switched on again, they go on there.
//!
//! Owns what no source tells of meanwhile. Invariants: an input is told of by its source while that is in the list of what
//! runs, and from then on here, if the source is only switched off; what is not configured at all is forgotten, and
//! that is said.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Engine, Running, Shared, lock};
use crate::checkpoint::{Input, Snapshot};
use crate::config::Config;

/// The inputs of sources that are switched off.
#[derive(Debug, Default)]
pub struct Aside {
    off: BTreeSet<Arc<str>>,
    inputs: Vec<Input>,
}

impl Aside {
    /// Of the sources that are switched off, what the last run knew. What it knew of others is theirs, or forgotten.
    pub fn new(config: &Config, before: &Snapshot) -> Self {
        let off = switched_off(config);
        let sources: BTreeSet<&str> = before.inputs.iter().map(|input| input.source.as_str()).collect();
        let is_configured = |key: &str| config.sources.iter().any(|source| &*source.key == key);
        sources.into_iter().filter(|key| !is_configured(key)).for_each(tell_forgotten);
        let inputs = before.inputs.iter().filter(|input| off.contains(input.source.as_str()));
        Self { inputs: inputs.cloned().collect(), off }
    }
}

fn switched_off(config: &Config) -> BTreeSet<Arc<str>> {
    let off = config.sources.iter().filter(|source| !source.enable);
    off.map(|source| Arc::clone(&source.key)).collect()
}

fn tell_forgotten(source: &str) {
    log::info!(
        target: "wpgen::checkpoint",
        "source '{source}' is configured no more: how far its files were read is forgotten \
         (enable = false would keep it)"
    );
}

impl Engine {
    /// A reload to `next` begins: how far the files of sources are that it switches off is kept.
    pub fn begin_reload(&self, next: &Config) {
        lock(&self.shared.aside).off.extend(switched_off(next));
    }

    /// A reload to `next` was done: what it does not name is forgotten.
    pub fn end_reload(&self, next: &Config) {
        let mut aside = lock(&self.shared.aside);
        aside.off = switched_off(next);
        let is_configured = |key: &str| next.sources.iter().any(|source| &*source.key == key);
        aside.inputs.retain(|input| is_configured(&input.source));
    }

    /// Says that a source which is configured no more is forgotten, if there is anything to forget.
    pub(super) fn tell_if_forgotten(&self, running: &Running) {
        let key = running.source.key();
        let is_off = lock(&self.shared.aside).off.contains(key);
        if !is_off && !running.source.inputs(&HashMap::new()).is_empty() {
            tell_forgotten(key);
        }
    }
}

impl Shared {
    /// All that is in the list, and what is aside at the same moment.
    pub(super) fn all_and_aside(&self) -> (Vec<Arc<Running>>, Vec<Input>) {
        let all = lock(&self.running);
        let aside = lock(&self.aside).inputs.clone();
        (all.clone(), aside)
    }

    /// Takes those that have ended and leave out of the list, if nobody did yet; what they tell goes to `told`, too. `low`
    /// was asked for since they ended.
    pub(super) fn put_aside(&self, over: &[Arc<Running>], low: &HashMap<u64, u64>, told: &mut Vec<Input>) {
        let mut all = lock(&self.running);
        let mut aside = lock(&self.aside);
        for running in over {
            let key = running.source.key();
            let is_listed = all.iter().any(|other| Arc::ptr_eq(other, running));
            all.retain(|other| !Arc::ptr_eq(other, running));
            if !aside.off.contains(key) || all.iter().any(|other| other.source.key() == key) {
                continue;
            }
            let inputs = running.source.inputs(low);
            told.retain(|input| input.source != key);
            told.extend_from_slice(&inputs);
            if is_listed {
                aside.inputs.retain(|input| input.source != key);
                aside.inputs.extend(inputs);
            }
        }
    }

    /// A source of this key tells of them itself.
    pub(super) fn take_back(&self, key: &str) {
        lock(&self.aside).inputs.retain(|input| input.source != key);
    }
}
