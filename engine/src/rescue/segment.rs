//! A file of rescued batches as it is remembered, and what the files of one sink may take together.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::format::Head;

/// The ending of a segment's name.
pub(super) const ENDING: &str = ".rescue";

/// What all backlogs of a sink hold together, and may.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) most: u64,
    pub(super) used: AtomicU64,
    /// Records that are kept and not delivered.
    pub(super) records: AtomicU64,
}

impl Quota {
    pub(super) fn new(most: u64) -> Self {
        Self { most, used: AtomicU64::new(0), records: AtomicU64::new(0) }
    }

    /// Takes bytes if they are left.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| (used.saturating_add(bytes) <= self.most).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Counts what is there whether it may or not.
    pub(super) fn take_all(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Where the segments of a sink are.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// To sync it by.
    pub(super) handle: File,
}

impl Folder {
    /// Makes it where it is missing, so that it is still there after the power failed.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            for above in path.ancestors().skip(1).take(2) {
                File::open(above)?.sync_all()?;
            }
        }
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }
}

/// A batch in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where it begins.
    pub(super) at: u64,
    pub(super) records: u32,
    /// Receipt of its oldest record, nanoseconds since the Unix epoch.
    pub(super) oldest_ns: i64,
}

impl Entry {
    /// The batch that a scan found.
    pub(super) fn found((at, head): &(usize, Head)) -> Self {
        Self { at: *at as u64, records: head.records, oldest_ns: head.oldest_ns }
    }
}

/// A file of batches.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Its bytes, as the quota counts them.
    pub(super) bytes: u64,
    /// What its first line says heads are sealed with.
    pub(super) salt: u32,
    /// Batches that are not delivered, oldest first.
    pub(super) batches: VecDeque<Entry>,
    /// How many of those, from the first on, were read.
    pub(super) read: usize,
    /// Whether a part of it cannot be read: then it is put aside, not deleted.
    pub(super) broken: bool,
}

impl Segment {
    /// The first batch that was not read.
    pub(super) fn unread(&self) -> Option<Entry> {
        self.batches.get(self.read).copied()
    }
}

/// Renames a segment so that it is not read again, and returns where it is.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".broken-{seconds}"));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}
