//! Reading the configuration anew while the engine runs.
//!
//! In two steps. First everything new is opened that needs nothing of what runs: if any of that fails, all of it is
//! dropped and nothing has changed. Then sources that are configured no more, or otherwise, stop and drain; sinks come
//! and go; and what needed a port or a file of an old one is opened when that has let go of it, while the sources that
//! feed it are held back, so that no record is without its sink. Should that fail, the old one is opened again.
//!
//! All of it together has a limit: what is not done when that is over is told, too, and opened afterwards.
//!
//! What is the same keeps its sockets, connections, files and positions. What cannot be drained in time is told, and
//! goes on draining by itself; a source that waits for that is [`Awaited`].

mod awaited;
mod diff;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::assemble::{
    Making, Past, Rest, forgotten, make_sink, make_source, transactional, unordered, with_rescue,
};
use crate::batch::SinkId;
use crate::checkpoint::Snapshot;
use crate::config::{Config, SinkConfig, SourceConfig};
use crate::diagnosis::{Code, Diagnostic, Diagnostics};
use crate::engine::{ANSWER_MAX, Engine, Unanswered};
use crate::health::leaves_when;
use crate::io::host;
use crate::keeper::Persist;
use crate::rescue;
use crate::shard::Leaving;
use crate::sink::SinkParams;
use crate::sink::file::params::Existing;
use crate::sink::remote::Remote;
use crate::sink::route::{Sink, Where};
use crate::source::part::Source;

pub use awaited::Awaited;
pub use diff::{Changes, Lists};

/// The longest wait for what stops to be drained, and for sources that are held back; `drain_timeout` when that is less.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// The longest wait of all of a reload. What is opened after it is tried once, and a file or an address may take seconds.
const RELOAD_MAX: Duration = Duration::from_secs(30);
/// How long something that its owner has let go of may still be taken.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// What a reload has done.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// What became of everything.
    pub changes: Changes,
    /// What could not be done as configured, or not yet.
    pub findings: Vec<Diagnostic>,
}

/// As what sources and sinks ran before that wait for their turn: they go on with that, wherever a new one would begin.
#[derive(Debug, Default)]
struct Older {
    sources: Vec<SourceConfig>,
    sinks: Vec<SinkConfig>,
}

/// Makes `engine`, which runs what `runs` says, run what `next` says. `runs` says what runs afterwards; `whole`, what is
/// configured, of which `next` may be a part.
///
/// # Errors
/// Why nothing was changed.
fn apply(
    older: &Older,
    engine: &Engine,
    runs: &mut Config,
    next: &Config,
    whole: &Config,
) -> Result<Reloaded, Diagnostics> {
    let refused = |all| Diagnostics { all, dropped: 0 };
    let restarts = diff::needs_restart(runs, next);
    if !restarts.is_empty() {
        return Err(refused(restarts));
    }
    let Some(persist) = engine.persist() else {
        return Err(refused(vec![Diagnostic::plain(
            "this engine keeps no checkpoint and cannot be changed",
        )]));
    };
    let deadline = Instant::now() + RELOAD_MAX;
    if let Err(silent) = engine.answers(Instant::now() + ANSWER_MAX) {
        return Err(refused(vec![unanswered(silent).help(again(silent))]));
    }
    let changes = diff::changes(runs, next);
    let mut work = Work {
        engine,
        older,
        runs,
        next,
        whole,
        changes,
        persist,
        host: host::name().into(),
        sinks: HashMap::new(),
        sources: HashMap::new(),
        undrained: Vec::new(),
        findings: Vec::new(),
        deadline,
    };
    work.open_ahead();
    if work.is_over() {
        let message = format!("opening what is new has taken {} s already", RELOAD_MAX.as_secs());
        work.findings.push(Diagnostic::plain(message).help("see what answers so slowly, and reload again"));
    }
    if !work.findings.is_empty() {
        return Err(refused(work.findings));
    }
    work.change();
    let Work { changes, mut findings, .. } = work;
    runs.engine.drain_timeout = next.engine.drain_timeout;
    let (sinks, forgotten) = (&changes.sinks, forgotten(whole));
    if !sinks.removed.is_empty() || !sinks.changed.is_empty() {
        findings.extend(forgotten.iter().map(|left| Diagnostic::warning(None, left.to_string())));
    }
    engine.tell_forgotten_rescues(forgotten);
    engine.keep_now();
    Ok(Reloaded { changes, findings })
}

/// A reload under way.
struct Work<'a> {
    engine: &'a Engine,
    older: &'a Older,
    runs: &'a mut Config,
    next: &'a Config,
    /// What is configured: `next`, and what waits for its turn.
    whole: &'a Config,
    changes: Changes,
    persist: Persist,
    host: Arc<str>,
    /// What was opened ahead, by key.
    sinks: HashMap<Arc<str>, Arc<dyn Sink>>,
    sources: HashMap<Arc<str>, Arc<dyn Source>>,
    /// Sources that were stopped and still have records for their sinks.
    undrained: Vec<Arc<str>>,
    findings: Vec<Diagnostic>,
    /// No wait lasts longer.
    deadline: Instant,
}

impl Work<'_> {
    /// Opens what is new and needs nothing of what runs.
    fn open_ahead(&mut self) {
        for key in self.new_sinks() {
            let Some(sink) = diff::sink(self.next, &key).filter(|_| !self.is_over()) else { continue };
            let old = self.changes.sinks.removed.iter().chain(&self.changes.sinks.changed);
            let mut old = old.filter_map(|key| diff::sink(self.runs, key));
            // One whose rescue is switched off may still be sending what it left.
            let is_left = |old: &SinkConfig| {
                old.key == sink.key && rescue::is_used(&self.next.engine.data_dir, &old.key)
            };
            if old.any(|old| diff::is_sink_held(sink, old) || is_left(old)) {
                continue;
            }
            if self.is_closing(&key) && self.ancestor(&key).is_none() {
                self.findings.push(leaves_when(still_closing(sink)).help("reload again when it is closed"));
                continue;
            }
            let had_it = self.older.sinks.iter().any(|old| diff::is_sink_held(sink, old));
            let made = match had_it {
                true => self.make_sink(&going_on(sink), &Snapshot::default()),
                false => self.make_sink(sink, &Snapshot::default()),
            };
            match made {
                Ok(made) => drop(self.sinks.insert(key, made)),
                Err(finding) => self.findings.push(finding),
            }
        }
        let new = self.new_sources();
        if new.is_empty() {
            return;
        }
        let before = match self.engine.snapshot(self.answer_until()) {
            Ok(before) => before,
            Err(silent) => return self.findings.push(unanswered(silent).help(again(silent))),
        };
        for key in new {
            let Some(source) = diff::source(self.next, &key).filter(|_| !self.is_over()) else { continue };
            let old = self.changes.sources.removed.iter().chain(&self.changes.sources.changed);
            let mut old = old.filter_map(|key| diff::source(self.runs, key));
            if old.any(|old| diff::is_source_held(source, old)) {
                continue;
            }
            // One of this key may still be draining since an earlier reload.
            if !self.engine.wait_source(&key, Instant::now()) {
                self.findings.push(
                    still_draining(source)
                        .help("it ends by itself once that is delivered; reload again then"),
                );
                continue;
            }
            match self.make_source(source, &before) {
                Ok(made) => drop(self.sources.insert(key, made)),
                Err(found) => self.findings.extend(found),
            }
        }
    }

    fn new_sinks(&self) -> Vec<Arc<str>> {
        self.changes.sinks.added.iter().chain(&self.changes.sinks.changed).cloned().collect()
    }

    fn new_sources(&self) -> Vec<Arc<str>> {
        self.changes.sources.added.iter().chain(&self.changes.sources.changed).cloned().collect()
    }

    fn until(&self) -> Instant {
        (Instant::now() + self.next.engine.drain_timeout.min(DRAIN_MAX)).min(self.deadline)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn answer_until(&self) -> Instant {
        (Instant::now() + ANSWER_MAX).min(self.deadline)
    }

    fn change(&mut self) {
        self.stop_sources();
        self.leave_needed();
        let late: Vec<Arc<str>> =
            self.new_sinks().into_iter().filter(|key| !self.sinks.contains_key(key)).collect();
        let held = self.feeding(&late);
        let held: Vec<&str> = held.iter().map(|key| &**key).collect();
        self.engine.hold(&held, true);
        let quiet = self.engine.wait_quiet(&held, self.until());
        self.connect_kept();
        let leaving = self.connect_new();
        self.wait_gone(leaving);
        for key in late {
            self.exchange(&key, quiet);
        }
        self.let_go_on();
        self.start_sources();
        self.write_down();
    }

    /// Changed sinks for which a stopped source still has records stay as they are: the record that it is giving out would
    /// be without its sink.
    fn leave_needed(&mut self) {
        let feeds = |sink: &Arc<str>| {
            self.undrained.iter().any(|source| diff::route(self.runs, source, sink).is_some())
        };
        let needed: Vec<Arc<str>> =
            self.changes.sinks.changed.iter().filter(|sink| feeds(sink)).cloned().collect();
        for key in needed {
            self.sinks.remove(&key);
            self.changes.sinks.fall_back(&key, true);
            if let Some(sink) = diff::sink(self.next, &key) {
                let message = format!("sink '{key}' does not take what it was given: it is left as it is");
                self.findings.push(
                    Diagnostic::plain(message).at(sink.place.clone()).help("reload again when it does"),
                );
            }
        }
    }

    /// Kept sources go on, except those of which a sink is to have records that does not run: they are held back until it
    /// does.
    fn let_go_on(&self) {
        let is_held = |source: &&Arc<str>| self.lacks(source).is_some();
        let (held, free): (Vec<_>, Vec<_>) = self.changes.sources.kept.iter().partition(is_held);
        let words = |keys: &[&Arc<str>], held| {
            let keys: Vec<&str> = keys.iter().map(|key| &***key).collect();
            self.engine.hold(&keys, held);
        };
        words(&held, true);
        words(&free, false);
    }

    /// A sink that is configured to have records of a source, and does not run.
    fn lacks(&self, source: &str) -> Option<&SinkConfig> {
        let mut sinks = self.whole.sinks.iter().filter(|sink| sink.enable);
        sinks.find(|sink| {
            diff::route(self.whole, source, &sink.key).is_some() && self.engine.sink(&sink.key).is_none()
        })
    }

    /// Whether what has this key was taken out by an earlier reload, and is not closed yet.
    fn is_closing(&self, sink: &str) -> bool {
        self.engine.sink(sink).is_none() && self.engine.leaving(sink).is_some()
    }

    /// What has this key and was taken out by an earlier reload, where what it does not deliver can go to its successor: both
    /// are connections, and it has no rescue.
    fn ancestor(&self, sink: &str) -> Option<Arc<dyn Sink>> {
        let old = self.engine.leaving(sink).filter(|_| self.engine.sink(sink).is_none())?;
        let is_plain = old.as_any().is::<Remote>() && old.status().rescue.is_none();
        (is_plain && diff::is_connection(self.next, sink)).then_some(old)
    }

    /// Kept sources of which some sink of these takes records.
    fn feeding(&self, sinks: &[Arc<str>]) -> Vec<Arc<str>> {
        let feeds = |source: &Arc<str>| {
            sinks.iter().any(|sink| {
                diff::route(self.next, source, sink).or(diff::route(self.runs, source, sink)).is_some()
            })
        };
        self.changes.sources.kept.iter().filter(|source| feeds(source)).cloned().collect()
    }

    /// Stops the sources that are configured no more, or otherwise.
    fn stop_sources(&mut self) {
        let (removed, changed) = (self.changes.sources.removed.clone(), self.changes.sources.changed.clone());
        let until = self.until();
        let at_most = until.saturating_duration_since(Instant::now());
        removed.iter().chain(&changed).for_each(|key| self.engine.stop_source(key, at_most));
        for key in removed.iter().chain(&changed) {
            if self.engine.wait_source(key, until) {
                continue;
            }
            self.undrained.push(Arc::clone(key));
            let Some(source) = diff::source(self.runs, key) else { continue };
            let next = match (changed.contains(key), self.sources.contains_key(key)) {
                (true, false) => "once that is delivered, it is opened as configured now",
                (true, true) => "it is open as configured now; what it took before goes on",
                (false, _) => "it ends by itself once that is delivered",
            };
            self.findings.push(still_draining(source).help(next));
            if changed.contains(key) && self.sources.contains_key(key) {
                self.engine.forget_source(key);
            } else if changed.contains(key) {
                // It ends when it is drained; only then can one run that needs its port or positions, and who tells of
                // those until then is this one.
                self.changes.sources.fall_back(key, false);
            }
        }
        let told = self.engine.forget_sources_without(|key| diff::source(self.whole, key).is_some());
        self.findings.extend(told.into_iter().map(|told| Diagnostic::warning(None, told)));
    }

    /// Between sources and sinks that both stay: what the sinks take of the sources may have changed.
    fn connect_kept(&self) {
        for sink in &self.changes.sinks.kept {
            let Some(running) = self.engine.sink(sink) else { continue };
            for source in &self.changes.sources.kept {
                match (diff::route(self.runs, source, sink), diff::route(self.next, source, sink)) {
                    (None, Some(takes)) => self.engine.connect(source, &running, &takes, None),
                    (Some(_), None) => self.engine.disconnect(source, running.id()),
                    (Some(before), Some(takes)) if before != takes => {
                        self.engine.connect(source, &running, &takes, Some(running.id()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Connects the sinks that were opened ahead, in the place of their older selves, and takes those out.
    fn connect_new(&mut self) -> Vec<Arc<Leaving>> {
        let mut leaving = Vec::new();
        for (key, sink) in &self.sinks {
            let (old, ancestor) = (self.engine.sink(key), self.ancestor(key));
            let inherits = old.is_some() && diff::is_heir(self.runs, self.next, key);
            if inherits || ancestor.is_some() {
                self.engine.add_heir(Arc::clone(sink));
            } else {
                self.engine.add_sink(Arc::clone(sink));
            }
            self.connect_all(key, sink, old.as_ref().map(|old| old.id()));
            if let Some(ancestor) = ancestor {
                self.engine.inherit(ancestor.id(), sink.id());
            }
            leaving.extend(old.map(|old| self.engine.remove_sink(&old, inherits.then_some(sink))));
        }
        for key in &self.changes.sinks.removed {
            leaving.extend(self.engine.sink(key).map(|old| self.engine.remove_sink(&old, None)));
        }
        leaving
    }

    fn connect_all(&self, key: &str, sink: &Arc<dyn Sink>, before: Option<SinkId>) {
        for source in &self.changes.sources.kept {
            if let Some(takes) = diff::route(self.next, source, key) {
                self.engine.connect(source, sink, &takes, before);
            }
        }
    }

    fn wait_gone(&mut self, leaving: Vec<Arc<Leaving>>) {
        let until = self.until();
        for leaving in leaving {
            if !leaving.wait(until) {
                let key = leaving.sink.status().key;
                let message = format!("sink '{key}' was taken out and still writes what it was given before");
                let finding = Diagnostic::warning(None, message);
                // What has a successor ends with that.
                let is_over = self.engine.sink(&key).is_none();
                self.findings.push(if is_over { leaves_when(finding) } else { finding });
            }
        }
    }

    /// Opens a sink that needs what another one held: its file. The sources that feed it are held back.
    fn exchange(&mut self, key: &Arc<str>, quiet: bool) {
        let Some(new) = diff::sink(self.next, key) else { return };
        let old = diff::sink(self.runs, key).cloned();
        if !quiet {
            let message = format!("sink '{key}' does not take what it was given: it is left as it is");
            self.findings
                .push(Diagnostic::plain(message).at(new.place.clone()).help("reload again when it does"));
            return self.changes.sinks.fall_back(key, old.is_some());
        }
        let before = match self.engine.sink(key) {
            Some(sink) => {
                let leaving = self.engine.remove_sink(&sink, None);
                let gone = leaving.wait(self.until());
                if !gone {
                    self.findings.push(still_closing(new).help("it is opened as configured now when it has"));
                    return self.changes.sinks.fall_back(key, false);
                }
                Snapshot { groups: sink.groups(), ..Snapshot::default() }
            }
            None if self.is_closing(key) => {
                self.findings.push(still_closing(new).help("it is opened as configured now when it has"));
                return self.changes.sinks.fall_back(key, false);
            }
            None => Snapshot::default(),
        };
        let going_on_new = going_on(new);
        let made = self.patiently(|| self.make_sink(&going_on_new, &before).map_err(|finding| vec![finding]));
        let made = made.or_else(|found| {
            self.findings.extend(found);
            self.changes.sinks.fall_back(key, old.is_some());
            let old = old.as_ref().map(going_on).ok_or_else(Vec::new)?;
            self.patiently(|| self.make_sink(&old, &before).map_err(|finding| vec![finding]))
        });
        match made {
            Ok(sink) => {
                self.engine.add_sink(Arc::clone(&sink));
                self.connect_all(key, &sink, None);
            }
            Err(found) => {
                self.findings.extend(found);
                self.changes.sinks.fall_back(key, false);
            }
        }
    }

    /// Starts the new sources; those that needed a port or the positions of an older one are opened now.
    fn start_sources(&mut self) {
        let new = self.new_sources();
        if new.is_empty() {
            return;
        }
        let before = self.engine.snapshot(self.answer_until());
        for key in new {
            let Some(new) = diff::source(self.next, &key) else { continue };
            if let Some(sink) = self.lacks(&key) {
                // Until then its older self tells of its positions.
                let message = format!("source '{key}' waits for sink '{}', which does not run", sink.key);
                self.findings.push(
                    Diagnostic::plain(message).at(new.place.clone()).help("it is opened when that sink is"),
                );
                self.changes.sources.fall_back(&key, false);
                continue;
            }
            let made = match (self.sources.remove(&key), &before) {
                (Some(made), _) => Ok(made),
                (None, Ok(before)) if !self.is_over() => self.make_or_older(new, before),
                (None, before) => {
                    let why = before.as_ref().map_or_else(|silent| unanswered(*silent), |_| not_in_time(new));
                    self.findings.push(why.help("it is opened as configured now when it can be"));
                    self.changes.sources.fall_back(&key, false);
                    continue;
                }
            };
            match made {
                Ok(source) => self.engine.start_source(source, self.routes(&key)),
                Err(found) => {
                    self.findings.extend(found);
                    self.changes.sources.fall_back(&key, false);
                    self.engine.forget_source(&key);
                }
            }
        }
    }

    /// Makes a source as it is configured now, or else as it was before.
    fn make_or_older(
        &mut self,
        new: &SourceConfig,
        before: &Snapshot,
    ) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        self.patiently(|| self.make_source(new, before)).or_else(|found| {
            self.findings.extend(found);
            let old = diff::source(self.runs, &new.key).cloned();
            self.changes.sources.fall_back(&new.key, old.is_some());
            let old = old.ok_or_else(Vec::new)?;
            self.patiently(|| self.make_source(&old, before))
        })
    }

    fn routes(&self, source: &str) -> Vec<(Arc<dyn Sink>, Where)> {
        let sinks = self.next.sinks.iter().filter(|sink| sink.enable);
        sinks
            .filter_map(|sink| {
                Some((self.engine.sink(&sink.key)?, diff::route(self.next, source, &sink.key)?))
            })
            .collect()
    }

    /// Writes down what runs now, in the order of the configuration.
    fn write_down(&mut self) {
        let Changes { sources, sinks } = &self.changes;
        let (all_sources, all_sinks) = (diff::sources(self.next), diff::sinks(self.next));
        self.runs.sources =
            sources.what_runs(&self.runs.sources, &all_sources, |source| &source.key, PartialEq::eq);
        self.runs.sinks =
            sinks.what_runs(&self.runs.sinks, &all_sinks, |sink| &sink.key, SinkConfig::is_same_output);
        let sources: Vec<&str> = self.runs.sources.iter().map(|source| &*source.key).collect();
        let sinks: Vec<&str> = self.runs.sinks.iter().map(|sink| &*sink.key).collect();
        self.engine.put_in_order(&sources, &sinks);
    }

    /// Tries again for a while what fails because a port or file is taken: the kernel may not have let go of it yet.
    fn patiently<T>(
        &self,
        mut make: impl FnMut() -> Result<T, Vec<Diagnostic>>,
    ) -> Result<T, Vec<Diagnostic>> {
        let until = (Instant::now() + RELEASE_MAX).min(self.deadline);
        loop {
            let made = make();
            let taken = |found: &Vec<Diagnostic>| {
                found.iter().all(|finding| matches!(finding.code, Some(Code::WP301 | Code::WP104)))
            };
            match made {
                Err(found) if taken(&found) && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                made => return made,
            }
        }
    }

    fn make_sink(&self, sink: &SinkConfig, before: &Snapshot) -> Result<Arc<dyn Sink>, Diagnostic> {
        let taken: Vec<SinkId> = self.sinks.values().map(|sink| sink.id()).collect();
        let Some(id) = self.engine.free_sink_id(&taken) else {
            return Err(Diagnostic::plain(format!("sink '{}': there are too many sinks", sink.key)));
        };
        let next_input = self.engine.next_input().load(Ordering::Acquire);
        // What the old one has not committed comes again, from the batches at hand.
        let past = Past { groups: before.groups.clone(), rest: Rest::Cut };
        transactional(self.whole, sink, usize::from(id), next_input, &self.persist)
            .unwrap_or_else(|| make_sink(usize::from(id), sink, past, &self.persist))
            .and_then(|made| with_rescue(&self.next.engine.data_dir, sink, made, &self.persist))
            .map_err(|finding| *finding)
    }

    fn make_source(
        &self,
        source: &SourceConfig,
        before: &Snapshot,
    ) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let old = diff::source(self.runs, &source.key);
        let old = old.or_else(|| self.older.sources.iter().find(|older| older.key == source.key));
        make_source(&Making {
            config: source,
            before,
            next_input: self.engine.next_input(),
            host: &self.host,
            // The log goes on where it is until a restart.
            log_dir: &self.runs.log.dir,
            goes_on: old.map(|old| &old.params),
            unordered: unordered(self.whole, &source.key),
            shards: self.engine.shards(),
            persist: &self.persist,
        })
    }
}

fn still_draining(source: &SourceConfig) -> Diagnostic {
    let message = format!("source '{}' was stopped, and the last of it is not delivered yet", source.key);
    Diagnostic::plain(message).at(source.place.clone())
}

/// What to do about a worker that does not answer, when nothing was changed.
fn again(silent: Unanswered) -> &'static str {
    if silent.spent.is_some_and(|spent| spent.waited > spent.slept) {
        return "other programs have its CPU: end those, or give wpgen more of it (`nice`, `CPUWeight=` in its unit); reload again then";
    }
    "it waits for a disk that does not answer, most likely: `wpgen source status` and the kernel's log say which; reload \
     again when it does"
}

fn unanswered(silent: Unanswered) -> Diagnostic {
    Diagnostic::plain(silent.to_string())
}

fn not_in_time(source: &SourceConfig) -> Diagnostic {
    let most = RELOAD_MAX.as_secs();
    let message = format!("source '{}' was not opened: the reload has taken {most} s already", source.key);
    Diagnostic::plain(message).at(source.place.clone())
}

fn still_closing(sink: &SinkConfig) -> Diagnostic {
    let message = format!("sink '{}' was taken out, and is not closed yet", sink.key);
    Diagnostic::plain(message).at(sink.place.clone())
}

/// A sink that goes on with the file that it has had: the file is not emptied.
fn going_on(sink: &SinkConfig) -> SinkConfig {
    let mut sink = sink.clone();
    if let SinkParams::File(file) = &mut sink.params {
        file.existing = Existing::Append;
    }
    sink
}
