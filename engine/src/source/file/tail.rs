//! `mode = "tail"`: files are found, followed, and read on when they grow.
//!
//! One coordinator, on the source's home shard, watches folders and asks the catalog what to do. Each file is followed by
//! a task of its own on one shard; a file that takes another's path is followed on the same shard, after the other's rest.
//! The catalog decides what a file is; the follower asks it before it reads on, so that bytes are never read under a wrong
//! identity.

mod beside;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use self::beside::Beside;
use super::blame;
use super::catalog::{Catalog, Decision};
use super::find::{Found, Search};
use super::follow::{Assignment, Link, follow};
use super::identity::Seen;
use super::observe;
use super::params::Compression;
use super::plan::check_packing;
use super::settings::Settings;
use super::watch::Watch;
use crate::batch::ShardId;
use crate::checkpoint::Input;
use crate::source::part::{Part, Source, Surroundings};

/// A file source with `mode = "tail"`.
pub struct Tail {
    settings: Settings,
    search: Arc<Search>,
    followed: Arc<Followed>,
    opened: Vec<String>,
}

/// What coordinator, followers and the checkpoint share.
pub struct Followed {
    catalog: Mutex<Catalog>,
    ids: Arc<AtomicU64>,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    parts: Mutex<HashMap<ShardId, mpsc::UnboundedSender<Assignment>>>,
    joined: Notify,
    /// A follower saw what only a look at all files can tell.
    look: Notify,
    /// The catalog has judged a look at all files.
    pub looked: Notify,
    /// Files that cannot be read now, and why, by input.
    failing: Mutex<BTreeMap<u64, String>>,
    revision: AtomicU64,
    /// A last line without newline is a record after this time; zero waits for ever.
    pub flush_partial: Duration,
}

impl Followed {
    /// Nothing followed yet.
    pub fn new(catalog: Catalog, ids: Arc<AtomicU64>, flush_partial: Duration) -> Arc<Self> {
        Arc::new(Self {
            catalog: Mutex::new(catalog),
            ids,
            links: Mutex::default(),
            parts: Mutex::default(),
            joined: Notify::new(),
            look: Notify::new(),
            looked: Notify::new(),
            failing: Mutex::default(),
            revision: AtomicU64::new(0),
            flush_partial,
        })
    }

    /// The catalog; what changes in it is for the next checkpoint.
    pub fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.revision.fetch_add(1, Ordering::Relaxed);
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where new identities come from.
    pub fn ids(&self) -> &AtomicU64 {
        &self.ids
    }

    /// Asks the coordinator to look at all files.
    pub fn ask_look(&self) {
        self.look.notify_one();
    }

    fn links(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, id: u64) -> Option<Arc<Link>> {
        self.links().get(&id).cloned()
    }

    /// Has the catalog judge the open file of the follower at `link`. Where it begins anew, the follower can be reached
    /// under the new identity before a look can speak of that; the follower itself unlinks the old one.
    pub fn touch(&self, seen: &Seen, link: &Arc<Link>) -> Option<Decision> {
        let mut catalog = self.catalog();
        let decision = catalog.touch(seen, &self.ids);
        if let Some(Decision::Truncated { new, .. }) = decision {
            self.links().insert(new, Arc::clone(link));
        }
        decision
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of `id` cannot be read; that is tried again.
    pub fn fails(&self, id: u64, path: &Path, error: &io::Error) {
        self.failing().insert(id, format!("cannot read {}: {error}", path.display()));
    }

    /// It can, or nobody tries any more.
    pub fn works(&self, id: u64) {
        self.failing().remove(&id);
    }

    /// A follower has ended.
    pub fn unlink(&self, id: u64) {
        self.links().remove(&id);
    }

    /// Every sink has all that the follower of `id` read, up to `position`.
    pub fn retired(&self, id: u64, position: u64) {
        if self.catalog().retire(id, position) {
            self.ask_look();
        }
    }

    fn wake_all(&self) {
        self.links().values().for_each(|link| link.wake());
    }

    fn join(&self, shard: ShardId, assignments: mpsc::UnboundedSender<Assignment>) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, assignments);
        self.joined.notify_one();
    }

    fn joined(&self) -> usize {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn assign(&self, assignment: Assignment) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get(&assignment.link.shard) {
            // A part that ended follows nothing, and needs nothing.
            let _ = part.send(assignment);
        }
    }
}

impl Tail {
    /// A source that follows what `search` finds.
    pub fn new(settings: Settings, search: Search, followed: Arc<Followed>) -> Self {
        let opened = vec![format!("{}, followed", search.pattern().display())];
        Self { settings, search: Arc::new(search), followed, opened }
    }
}

impl Source for Tail {
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
            let (assignments, taken) = mpsc::unbounded_channel();
            self.followed.join(around.shard.id(), assignments);
            if around.shard.id() == 0 {
                let coordinator = Coordinator::new(&self, &around);
                tokio::task::spawn_local(coordinator.run());
            }
            host(self.settings.clone(), Arc::clone(&self.followed), around, taken).await;
        })
    }

    fn inputs(&self, low: &HashMap<u64, u64>) -> Vec<Input> {
        let mut catalog = self.followed.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        low.iter().for_each(|(id, position)| catalog.settle(*id, *position));
        catalog.inputs()
    }

    fn lag_bytes(&self, _read: u64) -> u64 {
        self.followed.links().values().map(|link| link.lag()).sum()
    }

    fn revision(&self) -> u64 {
        self.followed.revision.load(Ordering::Relaxed)
    }

    fn trouble(&self) -> Option<String> {
        let failing = self.followed.failing();
        let (_, first) = failing.first_key_value()?;
        Some(match failing.len() - 1 {
            0 => first.clone(),
            more => format!("{first}, and {more} other files"),
        })
    }
}

/// Hosts the followers of one shard until the source stops and they have ended.
async fn host(
    settings: Settings,
    followed: Arc<Followed>,
    around: Surroundings,
    mut taken: mpsc::UnboundedReceiver<Assignment>,
) {
    let settings = Rc::new(settings);
    let mut followers = JoinSet::new();
    loop {
        let assignment = tokio::select! {
            biased;
            () = around.stop.raised() => None,
            next = taken.recv() => next,
        };
        let Some(assignment) = assignment else { break };
        while followers.try_join_next().is_some() {}
        followers.spawn_local(follow(
            Rc::clone(&settings),
            Arc::clone(&followed),
            around.clone(),
            assignment,
        ));
    }
    followed.wake_all();
    while followers.join_next().await.is_some() {}
}

/// Looks at the files, and has the catalog decide.
struct Coordinator {
    key: Arc<str>,
    compression: Compression,
    search: Arc<Search>,
    followed: Arc<Followed>,
    around: Surroundings,
    /// Paths by the one under which their folder's watch speaks of them.
    by_real: HashMap<PathBuf, PathBuf>,
    /// Who follows the file at a path.
    at: HashMap<PathBuf, Arc<Link>>,
    /// Findings that were said already.
    said: HashSet<String>,
    /// What the last look left out.
    skipped: HashSet<PathBuf>,
    /// What was looked for beside them.
    beside: Beside,
    next_shard: usize,
}

/// Between two looks when watching cannot be set up at all.
const POLL: Duration = Duration::from_secs(1);

impl Coordinator {
    fn new(tail: &Tail, around: &Surroundings) -> Self {
        Self {
            key: Arc::clone(&tail.settings.key),
            compression: tail.settings.compression,
            search: Arc::clone(&tail.search),
            followed: Arc::clone(&tail.followed),
            around: around.clone(),
            by_real: HashMap::new(),
            at: HashMap::new(),
            said: HashSet::new(),
            skipped: HashSet::new(),
            beside: Beside::default(),
            next_shard: 0,
        }
    }

    async fn run(mut self) {
        while self.followed.joined() < self.around.shard.links().len() {
            self.followed.joined.notified().await;
        }
        let mut watch = match Watch::new() {
            Ok(watch) => Some(watch),
            Err(error) => {
                log::warn!(target: "wpgen::file", "source '{}': folders are polled, inotify cannot be had: {error}", self.key);
                None
            }
        };
        let mut again = self.look(&mut watch).await;
        while !self.around.stop.is_raised() {
            again = match self.changed(&mut watch, again).await {
                Changed::Written(paths) => {
                    let ended = paths.iter().filter(|path| !self.wake(path)).count();
                    if ended > 0 { self.look(&mut watch).await } else { again }
                }
                Changed::Look => self.look(&mut watch).await,
                Changed::Stop => return,
            };
        }
    }

    /// Waits for whatever comes first: an event, a follower's question, the time to look again, the end.
    async fn changed(&self, watch: &mut Option<Watch>, again: Option<Duration>) -> Changed {
        let events = async {
            match watch {
                Some(watch) => {
                    let changes = watch.changes().await;
                    if changes.look {
                        Changed::Look
                    } else {
                        Changed::Written(changes.written.into_iter().collect())
                    }
                }
                None => std::future::pending().await,
            }
        };
        let later = async {
            match again {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.around.stop.raised() => Changed::Stop,
            changed = events => changed,
            () = self.followed.look.notified() => Changed::Look,
            () = later => Changed::Look,
        }
    }

    /// Looks at all files, off the shard, and does what the catalog decides.
    async fn look(&mut self, watch: &mut Option<Watch>) -> Option<Duration> {
        self.followed.catalog().begin_look();
        let began_ms = self.now_ms();
        let (search, compression) = (Arc::clone(&self.search), self.compression);
        let looked = tokio::task::spawn_blocking(move || search.look()).await;
        let Ok(mut found) = looked else { return Some(POLL) };
        if let Some(watch) = watch {
            for polled in watch.set(&found.folders) {
                log::info!(
                    target: "wpgen::file",
                    "source '{}': {} is polled: {}", self.key, polled.folder.display(), polled.reason
                );
            }
            // What appeared before the watch was set is not told: look once more.
            if watch.added() {
                let search = Arc::clone(&self.search);
                if let Ok(again) = tokio::task::spawn_blocking(move || search.look()).await {
                    found = again;
                }
            }
        }
        let looked = tokio::task::spawn_blocking(move || {
            let seen = observe_all(&mut found, compression);
            (seen, found)
        });
        let Ok((seen, found)) = looked.await else { return Some(POLL) };
        self.say(&found);
        for decision in self.beside(began_ms, &found, &seen).await {
            self.decide(decision);
        }
        let by_real = found.files.into_iter().map(|file| (file.real, file.path));
        if found.unsure.is_empty() {
            self.by_real = by_real.collect();
        } else {
            self.by_real.extend(by_real);
        }
        let now_ms = self.now_ms();
        let outcome = {
            let mut catalog = self.followed.catalog();
            found.unsure.iter().for_each(|path| catalog.unsure(path));
            catalog.look(now_ms, &seen, self.followed.ids())
        };
        for decision in outcome.decisions {
            self.decide(decision);
        }
        self.followed.looked.notify_waiters();
        let again = outcome.again_ms.map(Duration::from_millis);
        // Nothing else tells when the disk answers again.
        let again = if found.unsure.is_empty() { again } else { Some(again.unwrap_or(POLL).min(POLL)) };
        if watch.is_none() { Some(again.unwrap_or(POLL).min(POLL)) } else { again }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.around.shard.now_ns() / 1_000_000).unwrap_or(0)
    }

    fn say(&mut self, found: &Found) {
        for finding in &found.findings {
            if self.said.insert(finding.message.clone()) {
                if finding.is_absence {
                    // Whoever follows a file waits for it: nothing has failed.
                    log::warn!(target: "wpgen::file", "source '{}': {finding}", self.key);
                    continue;
                }
                self.around.counters.errors.add(1);
                log::error!(target: "wpgen::file", "source '{}': {finding}", self.key);
            }
        }
        let skipped = found.skipped.iter().map(|(path, _)| path.clone()).collect();
        let before = std::mem::replace(&mut self.skipped, skipped);
        for (path, what) in &found.skipped {
            if !before.contains(path) {
                log::info!(target: "wpgen::file", "source '{}': {} is left out: it is {what}", self.key, path.display());
            }
        }
        if found.findings.is_empty() {
            self.said.clear();
        }
    }

    /// Wakes who follows the file; `false` when its follower has ended, and a look must tell whether another one begins.
    fn wake(&mut self, real: &Path) -> bool {
        // A file that is not ours may share the folder; one that becomes ours is told by its name.
        let Some(path) = self.by_real.get(real) else { return true };
        let Some(link) = self.at.get(path) else { return true };
        if link.has_ended() {
            self.at.remove(path);
            return false;
        }
        link.wake();
        true
    }

    fn decide(&mut self, decision: Decision) {
        match decision {
            Decision::Open { id, path, position, packed, after } => {
                let after = after.and_then(|id| self.followed.link(id));
                let shards = self.around.shard.links().len();
                let shard = after.as_ref().map_or(self.next_shard % shards, |link| usize::from(link.shard));
                self.next_shard += usize::from(after.is_none());
                let link = Arc::new(Link::new(u16::try_from(shard).unwrap_or(0), path.clone()));
                self.followed.links().insert(id, Arc::clone(&link));
                self.at.insert(path.clone(), Arc::clone(&link));
                self.followed.assign(Assignment { id, path, position, packed, after, link });
            }
            Decision::Grew { id } => {
                if let Some(link) = self.followed.link(id) {
                    link.wake();
                }
            }
            Decision::Truncated { id, new } => {
                if let Some(link) = self.followed.link(id) {
                    link.truncated(new);
                }
            }
            Decision::Renamed { id, to } => {
                if let Some(link) = self.followed.link(id) {
                    self.at.insert(to.clone(), Arc::clone(&link));
                    link.renamed(to);
                }
            }
            Decision::Gone { id } => {
                if let Some(link) = self.followed.link(id) {
                    link.gone();
                }
            }
        }
    }
}

enum Changed {
    Written(Vec<PathBuf>),
    Look,
    Stop,
}

/// Looks at each file; one that may not be read, or is not packed as it should be, is a finding, and the others go on. A file that is renamed meanwhile can be
/// seen at two paths: the later one is its path.
fn observe_all(found: &mut Found, compression: Compression) -> Vec<Seen> {
    let look = |path: &Path| {
        let seen = observe::path(path, compression != Compression::None)?;
        check_packing(compression, &seen).map(|()| seen)
    };
    let mut all: Vec<Seen> = Vec::with_capacity(found.files.len());
    let mut at = HashMap::with_capacity(found.files.len());
    let mut failures = Vec::new();
    for file in &found.files {
        match look(&file.path) {
            Ok(seen) => match at.entry((seen.dev, seen.ino)) {
                Entry::Occupied(before) => all[*before.get()] = seen,
                Entry::Vacant(vacant) => {
                    vacant.insert(all.len());
                    all.push(seen);
                }
            },
            // Gone since it was found.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failures.push((file.path.clone(), error)),
        }
    }
    for (path, error) in failures {
        found.unsure(&path, &error);
        found.findings.push(blame::explain(&path, &error));
    }
    all
}
