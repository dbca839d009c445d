//! The file source: finds its files, and has every shard read its share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::beside;
use super::blame::{self, Finding};
use super::catalog::Missing;
use super::find::{FoundFile, Search};
use super::once::{self, Job, Jobs};
use super::plan;
use super::settings::Settings;
use crate::checkpoint::Input;
use crate::source::part::{Part, Source, Surroundings};

/// A file source with `mode = "once"`.
pub struct Once {
    settings: Settings,
    jobs: Jobs,
    opened: Vec<String>,
    total: u64,
    errors: u64,
}

/// How a source of `mode = "once"` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnceStart {
    /// Go on where the checkpoint says; else from the beginning, whatever it says.
    pub resume: bool,
    /// Split big files into ranges.
    pub parallel: bool,
}

impl Once {
    /// A source that reads `files`; what was found wrong while they were looked for is told and counted, and the others
    /// are read.
    pub fn new(settings: Settings, files: &[PathBuf], found: Vec<Finding>, start: OnceStart) -> Self {
        let mut list = Vec::new();
        let mut opened = Vec::new();
        let mut findings = found;
        for path in files {
            match plan::jobs(&settings, path, start) {
                Ok(jobs) => {
                    opened.push(describe(path, &jobs));
                    list.extend(jobs);
                }
                Err(error) => findings.push(blame::explain(path, &error)),
            }
        }
        for finding in &findings {
            log::error!(target: "wpgen::file", "source '{}': {finding}", settings.key);
        }
        let errors = findings.len() as u64;
        let total = list.iter().map(Job::bytes).sum();
        Self { settings, jobs: Jobs::new(list), opened, total, errors }
    }

    /// Reads the rest of inputs of an earlier run, too, that none of the files is and `search` would find: their files have
    /// another name now.
    #[must_use]
    pub fn with_rests(mut self, search: &Search, files: &[FoundFile]) -> Self {
        let mut missing = missing(&self.settings, search, files);
        if missing.is_empty() {
            return self;
        }
        let mut rests = Vec::new();
        for seen in beside::of_missing(&missing, self.settings.compression) {
            let path = seen.path.clone();
            let jobs = plan::rest(&self.settings, seen);
            if !jobs.is_empty() {
                self.opened.push(describe(&path, &jobs));
                self.total += jobs.iter().map(Job::bytes).sum::<u64>();
            }
            rests.extend(jobs);
        }
        missing.retain(|missing| missing.ids.iter().all(|id| rests.iter().all(|job| job.input != *id)));
        let lost = beside::lost(missing);
        beside::tell_lost(&self.settings.key, &lost);
        for id in lost.iter().flat_map(|lost| &lost.ids) {
            self.settings.known.update(*id, |input| input.lost = true);
        }
        self.jobs.put_first(rests);
        self
    }
}

/// The inputs of an earlier run that none of the files is.
fn missing(settings: &Settings, search: &Search, files: &[FoundFile]) -> Vec<Missing> {
    let here: HashSet<(u64, u64)> = files.iter().map(|file| (file.dev, file.ino)).collect();
    let mut missing: BTreeMap<(u64, u64), Missing> = BTreeMap::new();
    for input in settings.known.snapshot(&HashMap::new()) {
        let inode = (input.dev, input.ino);
        if here.contains(&inode) || input.superseded || !search.covers(&input.path) {
            continue;
        }
        let one = missing.entry(inode).or_insert_with(|| Missing {
            path: input.path.clone(),
            dev: input.dev,
            ino: input.ino,
            done: true,
            ..Missing::default()
        });
        one.ids.push(input.id);
        one.position = one.position.max(input.position);
        one.done &= input.done;
        one.told |= input.lost;
    }
    missing.into_values().collect()
}

fn describe(path: &Path, jobs: &[Job]) -> String {
    let left: u64 = jobs.iter().map(Job::bytes).sum();
    let parts = if jobs.len() > 1 { format!(" in {} ranges", jobs.len()) } else { String::new() };
    format!("{}, {left} bytes to read{parts}", path.display())
}

impl Source for Once {
    fn key(&self) -> &str {
        &self.settings.key
    }

    fn opened(&self) -> Vec<String> {
        self.opened.clone()
    }

    fn buffer_bytes(&self) -> u64 {
        super::segments::READ_AHEAD_BYTES
    }

    fn run(self: Arc<Self>, around: Surroundings) -> Part {
        Box::pin(async move {
            let settings = Rc::new(self.settings.clone());
            once::work(&settings, &around, &self.jobs).await;
        })
    }

    fn inputs(&self, low: &HashMap<u64, u64>) -> Vec<Input> {
        self.settings.known.snapshot(low)
    }

    fn errors(&self) -> u64 {
        self.errors
    }

    fn lag_bytes(&self, read: u64) -> u64 {
        self.total.saturating_sub(read)
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.total)
    }

    fn is_finite(&self) -> bool {
        true
    }
}
