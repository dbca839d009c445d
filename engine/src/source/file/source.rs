//! The file source: finds its files, and has every shard read its share.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::identity::Fingerprint;
use super::observe;
use super::once::{self, Job, Jobs, RANGE_BYTES};
use super::settings::Settings;
use crate::checkpoint::{Input, Range};
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
    /// A source that reads `files`.
    pub fn new(settings: Settings, files: &[PathBuf], start: OnceStart) -> Self {
        let mut list = Vec::new();
        let mut opened = Vec::new();
        let mut errors = 0;
        for path in files {
            match jobs_of(&settings, path, start) {
                Ok(jobs) => {
                    opened.push(describe(path, &jobs));
                    list.extend(jobs);
                }
                Err(error) => {
                    errors += 1;
                    log::error!(target: "wpgen::file", "source '{}': opening {}: {error}", settings.key, path.display());
                }
            }
        }
        let total = list.iter().map(|j: &Job| j.end.saturating_sub(j.position)).sum();
        Self { settings, jobs: Jobs::new(list), opened, total, errors }
    }
}

fn describe(path: &Path, jobs: &[Job]) -> String {
    let left: u64 = jobs.iter().map(|j| j.end.saturating_sub(j.position)).sum();
    let parts = if jobs.len() > 1 { format!(" in {} ranges", jobs.len()) } else { String::new() };
    format!("{}, {left} bytes to read{parts}", path.display())
}

fn jobs_of(settings: &Settings, path: &Path, start: OnceStart) -> io::Result<Vec<Job>> {
    let file = File::open(path)?;
    let seen = observe::file(&file, path, false)?;
    let known = settings.known.find(&seen);
    let known = if start.resume && !known.is_empty() {
        known
    } else {
        known.iter().for_each(|old| settings.known.forget(old.id));
        Vec::new()
    };
    let job = |input: &Input| Job {
        input: input.id,
        path: path.to_owned(),
        start: input.ranges.first().map_or(0, |r| r.start),
        end: input.ranges.first().map_or(seen.size, |r| r.end),
        position: input.position,
        range: !input.ranges.is_empty(),
    };
    let mut jobs: Vec<Job> = known.iter().filter(|i| i.ranges.is_empty() || !i.done).map(job).collect();
    let begin = known.iter().flat_map(|i| &i.ranges).map(|r| r.end).max().unwrap_or(0);
    let whole = known.iter().any(|i| i.ranges.is_empty());
    if whole || (begin > 0 && begin >= seen.size) {
        return Ok(jobs);
    }
    let fresh = |ranges: Vec<Range>, position: u64| {
        let mut input = Input {
            source: settings.key.to_string(),
            path: path.to_owned(),
            dev: seen.dev,
            ino: seen.ino,
            born_ns: seen.born_ns,
            fingerprint: Fingerprint::of(&seen.head),
            position,
            ranges,
            ..Input::default()
        };
        input.id = settings.known.add(input.clone());
        job(&input)
    };
    if begin > 0 || (start.parallel && seen.size >= 2 * RANGE_BYTES) {
        let ranges = once::ranges(begin, seen.size);
        jobs.extend(ranges.map(|(s, e)| fresh(vec![Range { start: s, end: e, position: s }], s)));
    } else {
        jobs.push(fresh(Vec::new(), 0));
    }
    Ok(jobs)
}

impl Source for Once {
    fn key(&self) -> &str {
        &self.settings.key
    }

    fn opened(&self) -> Vec<String> {
        self.opened.clone()
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
