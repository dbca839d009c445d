//! What people are told of a rescue: the log once and then each minute, status and metrics at every moment.
//!
//! Each guard has a [`Watch`] of its own, so that one whose disk works does not take back what another one said. The log
//! speaks of the sink as a whole: of the first guard in trouble, and of the last one that is out of it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::{Rescue, lock};
use crate::config::units::Size;
use crate::status::RescueStatus;

/// What goes on is said this often.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Where nothing waits.
const NOTHING: i64 = i64::MAX;

/// How one guard is doing.
#[derive(Debug)]
pub(super) struct Watch {
    troubles: Mutex<[Option<String>; 2]>,
    /// Whether batches wait because the files are full.
    full: AtomicBool,
    /// Receipt of the oldest record that is kept.
    oldest_ns: AtomicI64,
}

/// What a guard does with the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    Writing,
    Reading,
}

/// Something that the log is told once, and again while it goes on.
#[derive(Debug, Default)]
pub(super) struct Said {
    at: Option<Instant>,
    goes_on: bool,
}

impl Said {
    /// It happens; whether that is to be said.
    pub(super) fn begins(&mut self) -> bool {
        let is_due = self.at.is_none_or(|at| at.elapsed() >= SAY_EVERY);
        if is_due {
            (self.at, self.goes_on) = (Some(Instant::now()), true);
        }
        is_due
    }

    /// It is over; whether that is to be said.
    pub(super) fn ends(&mut self) -> bool {
        std::mem::take(&mut self.goes_on)
    }
}

impl Watch {
    /// Notes the oldest record that is kept.
    pub(super) fn oldest(&self, oldest_ns: Option<i64>) {
        self.oldest_ns.store(oldest_ns.unwrap_or(NOTHING), Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether status tells of anything wrong.
    pub(super) fn is_noted(&self) -> bool {
        self.is_full() || self.trouble().is_some()
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.troubles).iter().flatten().next().cloned()
    }
}

impl Rescue {
    /// A watch for a new guard.
    pub(super) fn watch(&self) -> Arc<Watch> {
        let watch = Watch {
            troubles: Mutex::default(),
            full: AtomicBool::new(false),
            oldest_ns: AtomicI64::new(NOTHING),
        };
        let watch = Arc::new(watch);
        lock(&self.watches).push(Arc::clone(&watch));
        watch
    }

    /// What it holds, for people.
    pub fn status(&self) -> RescueStatus {
        let (quota, figures) = (&self.shared.quota, &self.figures);
        let watches = lock(&self.watches);
        let running = watches.iter().map(|watch| watch.oldest_ns.load(Ordering::Relaxed)).min();
        let left = lock(&self.left);
        let left = left.iter().flat_map(|left| &left.segments).filter_map(|segment| segment.batches.front());
        let oldest_ns = left.map(|oldest| oldest.oldest_ns).chain(running).min().filter(|ns| *ns != NOTHING);
        RescueStatus {
            bytes: quota.used.load(Ordering::Relaxed),
            limit_bytes: quota.most,
            records: quota.records.load(Ordering::Relaxed),
            oldest: oldest_ns.map(age),
            kept_records: figures.kept_records.load(Ordering::Relaxed),
            kept_bytes: figures.kept_bytes.load(Ordering::Relaxed),
            sent_records: figures.sent_records.load(Ordering::Relaxed),
            refusals: figures.refusals.load(Ordering::Relaxed),
            full: watches.iter().any(|watch| watch.is_full()),
            errors: figures.errors.load(Ordering::Relaxed),
            stranded_files: self.stranded.load(Ordering::Relaxed),
            trouble: watches.iter().find_map(|watch| watch.trouble()),
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, watch: &Watch, what: Attempt, error: &std::io::Error) {
        self.figures.errors.fetch_add(1, Ordering::Relaxed);
        let words = match what {
            Attempt::Writing => format!("writing: {error}"),
            Attempt::Reading => format!("reading: {error}"),
        };
        if lock(&self.told).trouble.begins() {
            log::error!(
                target: "wpgen::rescue",
                "rescue of sink '{}': {words}; what it has is kept, newer records wait, and their sources", self.key
            );
        }
        lock(&watch.troubles)[what as usize] = Some(words);
    }

    /// What was kept cannot be read: it is passed over.
    pub(super) fn lost(&self, error: &std::io::Error) {
        self.figures.errors.fetch_add(1, Ordering::Relaxed);
        log::error!(target: "wpgen::rescue", "rescue of sink '{}': {error}", self.key);
    }

    /// What is delivered cannot be removed; that is tried again.
    pub(super) fn cannot_remove(&self, error: &std::io::Error) {
        self.figures.errors.fetch_add(1, Ordering::Relaxed);
        if lock(&self.told).removing.begins() {
            log::warn!(
                target: "wpgen::rescue",
                "rescue of sink '{}': a file in {} is delivered and cannot be removed: {error}; a start now would send it again",
                self.key, self.shared.folder.path.display()
            );
        }
    }

    /// An attempt went well, or is no longer needed.
    pub(super) fn well(&self, watch: &Watch, what: Attempt) {
        if lock(&watch.troubles)[what as usize].take().is_none() {
            return;
        }
        let is_troubled = lock(&self.watches).iter().any(|watch| watch.trouble().is_some());
        if !is_troubled && lock(&self.told).trouble.ends() {
            log::info!(target: "wpgen::rescue", "rescue of sink '{}': no trouble any more", self.key);
        }
    }

    /// Says whether batches wait because the files are full.
    pub(super) fn set_full(&self, watch: &Watch, full: bool) {
        // A rescue that is switched off only sends what is left.
        let full = full && self.shared.quota.most > 0;
        let before = watch.full.swap(full, Ordering::Relaxed);
        if full && lock(&self.told).full.begins() {
            log::warn!(
                target: "wpgen::rescue",
                "rescue of sink '{}' is full (rescue_bytes = {}): newer records wait, and their sources",
                self.key, Size(self.shared.quota.most)
            );
        }
        let is_full = || lock(&self.watches).iter().any(|watch| watch.is_full());
        if before && !full && !is_full() && lock(&self.told).full.ends() {
            log::info!(target: "wpgen::rescue", "rescue of sink '{}' has room again", self.key);
        }
    }
}

/// The time since a receipt.
fn age(ns: i64) -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
}
