//! What earlier runs left: found, checked and counted before anything runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::backlog::{ENDING, Folder, Quota, Segment, put_aside};
use super::format::{Ended, Scanned, Wrong, read_line, scan};
use super::{Left, Rescue, folder};
use crate::keeper::Persist;

/// Why the rescue of a sink cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// A newer engine has written it; it is left alone.
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file or the folder cannot be read, cut or renamed.
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { path, version } => {
                write!(f, "{} was written by a newer engine (version {version})", path.display())
            }
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

impl Rescue {
    /// The rescue of the sink `key`, which may keep `most` bytes. What earlier runs left is checked. A sink whose files
    /// a start cuts to what the checkpoint has of them needs `persist`.
    ///
    /// # Errors
    /// Files that cannot be used; then nothing was changed that matters.
    pub fn open(
        data_dir: &Path,
        key: &str,
        most: u64,
        persist: Option<Persist>,
    ) -> Result<Arc<Self>, OpenError> {
        let path = folder(data_dir, key);
        let folder = Folder::open(path.clone()).map_err(|error| OpenError::Io { path, error })?;
        let mut rescue = Self {
            key: key.to_owned(),
            persist,
            quota: Arc::new(Quota { most, used: AtomicU64::new(0) }),
            left: Mutex::default(),
            next: AtomicU64::new(1),
            errors: AtomicU64::new(0),
            trouble: Mutex::default(),
            full: AtomicBool::new(false),
            folder: Arc::new(folder),
        };
        let mut left = Vec::new();
        for (name, numbers) in names(&rescue.folder.path)? {
            left.extend(rescue.recover(&name, &numbers)?);
            let last = numbers.last().map_or(0, |(number, _)| *number);
            rescue.next.fetch_max(last + 1, Ordering::Relaxed);
        }
        rescue.left = Mutex::new(left);
        Ok(Arc::new(rescue))
    }

    /// Reads the segments of one owner.
    fn recover(&self, name: &str, numbers: &[(u64, PathBuf)]) -> Result<Option<Left>, OpenError> {
        let (mut segments, mut owner) = (VecDeque::new(), None);
        for (i, (_, path)) in numbers.iter().enumerate() {
            let io = |error| OpenError::Io { path: path.clone(), error };
            let bytes = fs::read(path).map_err(io)?;
            let is_followed = i + 1 < numbers.len();
            let (its, from) = match read_line(&bytes) {
                Ok(found) => found,
                Err(Wrong::Newer(version)) => return Err(OpenError::Newer { path: path.clone(), version }),
                Err(Wrong::Broken) => {
                    self.without_line(path, &bytes, is_followed).map_err(io)?;
                    continue;
                }
            };
            let scanned = scan(&bytes, from, is_followed);
            if let Some(segment) = self.segment(path, &bytes, &scanned).map_err(io)? {
                self.quota.take_all(segment.bytes);
                segments.push_back(segment);
                owner.get_or_insert(its);
            }
        }
        let shard = name.split('-').next().and_then(|shard| shard.parse().ok()).unwrap_or(0);
        Ok(owner.map(|owner| Left { outlet: owner.outlet, shard, segments }))
    }

    /// A segment as it is after its end was cut; none when nothing of it is left.
    fn segment(&self, path: &Path, bytes: &[u8], scanned: &Scanned) -> io::Result<Option<Segment>> {
        let mut len = bytes.len();
        match scanned.ended {
            Ended::Whole => {}
            Ended::Torn(at) => {
                len = at;
                log::warn!(
                    target: "wpgen::rescue",
                    "rescue of sink '{}': {} ends with {} bytes that were never acknowledged; they are cut",
                    self.key, path.display(), bytes.len() - at
                );
                let file = OpenOptions::new().write(true).open(path)?;
                file.set_len(at as u64).and_then(|()| file.sync_all())?;
            }
            Ended::Broken(at) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                log::error!(
                    target: "wpgen::rescue",
                    "rescue of sink '{}': {} is broken at byte {at}: what was there is lost; {} batches can be read and are \
                     sent, then the file is put aside", self.key, path.display(), scanned.batches.len()
                );
            }
        }
        let broken = matches!(scanned.ended, Ended::Broken(_));
        if scanned.batches.is_empty() {
            if broken { put_aside(path).map(drop) } else { fs::remove_file(path) }?;
            return Ok(None);
        }
        let unread: VecDeque<u64> = scanned.batches.iter().map(|(at, _)| *at as u64).collect();
        let left = unread.len();
        Ok(Some(Segment { path: path.to_owned(), bytes: len as u64, unread, left, broken }))
    }

    /// A file that does not begin as a segment: one that was just made when the engine was killed, or a broken one.
    fn without_line(&self, path: &Path, bytes: &[u8], is_followed: bool) -> io::Result<()> {
        let batches = scan(bytes, 0, is_followed).batches.len();
        if batches == 0 && !is_followed {
            return fs::remove_file(path);
        }
        let aside = put_aside(path)?;
        self.errors.fetch_add(1, Ordering::Relaxed);
        log::error!(
            target: "wpgen::rescue",
            "rescue of sink '{}': a segment's first line is broken: its {batches} batches are not sent; it was put aside as {}",
            self.key, aside.display()
        );
        Ok(())
    }
}

type Numbered = Vec<(u64, PathBuf)>;

/// The segments in a folder, by what their names begin with, in order.
fn names(folder: &Path) -> Result<BTreeMap<String, Numbered>, OpenError> {
    let io = |error| OpenError::Io { path: folder.to_owned(), error };
    let mut all: BTreeMap<String, Numbered> = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(io(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let Some((begin, number)) =
            name.to_str().and_then(|name| name.strip_suffix(ENDING)).and_then(|name| name.rsplit_once('-'))
        else {
            continue;
        };
        if let Ok(number) = number.parse() {
            all.entry(begin.to_owned()).or_default().push((number, entry.path()));
        }
    }
    all.values_mut().for_each(|numbers| numbers.sort_unstable());
    Ok(all)
}

/// Whether an earlier run left something for this sink.
pub fn is_used(data_dir: &Path, key: &str) -> bool {
    names(&folder(data_dir, key)).is_ok_and(|names| !names.is_empty())
}

/// Folders with rescued records of sinks other than `keys`: they wait for those sinks to be configured again.
pub fn forgotten(data_dir: &Path, keys: &[&str]) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(data_dir.join("rescue")) else { return Vec::new() };
    let known: Vec<PathBuf> = keys.iter().map(|key| folder(data_dir, key)).collect();
    let others = folders.flatten().map(|entry| entry.path()).filter(|path| !known.contains(path));
    others.filter(|path| names(path).is_ok_and(|names| !names.is_empty())).collect()
}
