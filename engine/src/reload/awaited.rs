//! Sources and sinks that a reload could not open: their older selves still drained or closed, somebody else had their
//! port, or a source's sink did not run.
//!
//! Owns what is wanted of them and when they are tried again. Invariants: none is tried while an older self drains or
//! closes, nor a source before its sinks; a try touches nothing but these, and what one waits for keeps no other one
//! waiting. An engine that awaits a source is not done, whatever its others do.

use std::time::{Duration, Instant};

use super::{Older, Reloaded, apply, diff};
use crate::config::{Config, SinkConfig, SourceConfig};
use crate::diagnosis::Diagnostics;
use crate::engine::Engine;

/// How often what could not be opened is tried.
const RETRY: Duration = Duration::from_secs(1);

/// What is configured and does not run.
#[derive(Debug, Default)]
pub struct Awaited {
    sources: Vec<SourceConfig>,
    sinks: Vec<SinkConfig>,
    older: Older,
    next_try: Option<Instant>,
}

impl Awaited {
    /// Reloads; what is awaited from then on is what `next` has and could not be opened.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub fn reload(
        &mut self,
        engine: &Engine,
        runs: &mut Config,
        next: &Config,
    ) -> Result<Reloaded, Diagnostics> {
        let (sources_before, sinks_before) = (runs.sources.clone(), runs.sinks.clone());
        let done = apply(&self.older, engine, runs, next, next)?;
        let is_missing = |key: &str| diff::source(runs, key).is_none();
        self.sources = diff::sources(next).into_iter().filter(|s| is_missing(&s.key)).cloned().collect();
        let is_missing = |key: &str| diff::sink(runs, key).is_none();
        self.sinks = diff::sinks(next).into_iter().filter(|s| is_missing(&s.key)).cloned().collect();
        let is_awaited = |old: &SourceConfig| self.sources.iter().any(|source| source.key == old.key);
        let Older { sources, sinks } = std::mem::take(&mut self.older);
        let sources = sources_before.into_iter().chain(sources).filter(is_awaited).collect();
        let has_its_file = |old: &SinkConfig| self.sinks.iter().any(|sink| diff::is_sink_held(sink, old));
        let sinks = sinks_before.into_iter().chain(sinks).filter(has_its_file).collect();
        self.older = Older { sources, sinks };
        self.next_try = None;
        Ok(done)
    }

    /// Every source that is configured runs.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Opens what can be opened by now, sinks first; `runs` says what runs afterwards. What came of it, where something
    /// has changed.
    pub fn open(&mut self, engine: &Engine, runs: &mut Config) -> Vec<Reloaded> {
        let now = Instant::now();
        let is_early = self.next_try.is_some_and(|at| now < at);
        if self.is_empty() && self.sinks.is_empty() || is_early {
            return Vec::new();
        }
        if engine.answers(now + RETRY).is_err() {
            self.next_try = Some(Instant::now() + RETRY);
            return Vec::new();
        }
        let sinks = self.sinks.iter().filter(|sink| engine.leaving(&sink.key).is_none());
        let sinks: Vec<SinkConfig> = sinks.cloned().collect();
        let mut done = Vec::new();
        for sink in sinks {
            self.next_try = Some(now + RETRY);
            let mut wanted = runs.clone();
            wanted.sinks.push(sink);
            done.extend(self.open_wanted(engine, runs, &wanted));
        }
        let lacks = |source: &SourceConfig| self.sinks.iter().any(|sink| sink.sources.takes(&source.key));
        let is_ready = |source: &&SourceConfig| !lacks(source) && engine.wait_source(&source.key, now);
        let sources: Vec<SourceConfig> = self.sources.iter().filter(is_ready).cloned().collect();
        if !sources.is_empty() {
            self.next_try = Some(now + RETRY);
            let mut wanted = runs.clone();
            wanted.sources.extend(sources);
            done.extend(self.open_wanted(engine, runs, &wanted));
        }
        done
    }

    /// Opens what `wanted` has more than what runs. Why one cannot be opened was said by the reload that wanted it first.
    fn open_wanted(&mut self, engine: &Engine, runs: &mut Config, wanted: &Config) -> Option<Reloaded> {
        let mut whole = runs.clone();
        whole.sources.extend(self.sources.iter().cloned());
        whole.sinks.extend(self.sinks.iter().cloned());
        let done = apply(&self.older, engine, runs, wanted, &whole);
        self.sources.retain(|source| diff::source(runs, &source.key).is_none());
        self.sinks.retain(|sink| diff::sink(runs, &sink.key).is_none());
        done.ok().filter(|Reloaded { changes, .. }| {
            !changes.sources.added.is_empty() || !changes.sinks.added.is_empty()
        })
    }
}
