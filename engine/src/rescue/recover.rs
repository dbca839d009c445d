//! What earlier runs left: found, checked and counted before anything runs.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{Ended, Scanned, Wrong, may_hold_batches, read_line, scan};
use super::segment::{ENDING, Entry, Folder, Segment, put_aside, read_sent, remove};
use super::{Kind, Left, Rescue, folder, key_of, lock};
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
        kind: Kind,
        most: u64,
        persist: Option<Persist>,
    ) -> Result<Arc<Self>, OpenError> {
        let path = folder(data_dir, key);
        let folder = Folder::open(path.clone()).map_err(|error| OpenError::Io { path, error })?;
        let rescue = Self::new(key, kind, folder, most, persist);
        let mut all = Vec::new();
        for (name, numbers) in names(&rescue.shared.folder.path)? {
            rescue.recover(&name, &numbers, &mut all)?;
            let last = numbers.last().map_or(0, |(number, _)| *number);
            rescue.shared.next.fetch_max(last.saturating_add(1), Ordering::Relaxed);
        }
        *lock(&rescue.left) = all;
        rescue.tell_stranded();
        Ok(Arc::new(rescue))
    }

    /// Reads the segments whose names begin alike: those of one owner.
    fn recover(&self, name: &str, numbers: &[(u64, PathBuf)], all: &mut Vec<Left>) -> Result<(), OpenError> {
        let shard = name.split('-').next().and_then(|shard| shard.parse().ok()).unwrap_or(0);
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
            if its.kind != self.kind.name() {
                self.shared.quota.take_all(bytes.len() as u64);
                self.stranded.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let scanned = scan(&bytes, from, its.salt, is_followed);
            let Some(segment) = self.segment(path, &bytes, its.salt, &scanned).map_err(io)? else { continue };
            self.shared.quota.take_all(segment.bytes);
            let records = segment.batches.iter().map(|batch| u64::from(batch.records)).sum();
            self.shared.quota.records.fetch_add(records, Ordering::Relaxed);
            match all.iter_mut().find(|left| left.shard == shard && left.outlet == its.outlet) {
                Some(left) => left.segments.push_back(segment),
                None => all.push(Left { outlet: its.outlet, shard, segments: [segment].into() }),
            }
        }
        Ok(())
    }

    /// A segment as it is after its end was cut; none when nothing of it is left.
    fn segment(
        &self,
        path: &Path,
        bytes: &[u8],
        salt: u32,
        scanned: &Scanned,
    ) -> io::Result<Option<Segment>> {
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
                self.figures.errors.fetch_add(1, Ordering::Relaxed);
                log::error!(
                    target: "wpgen::rescue",
                    "rescue of sink '{}': {} is broken at byte {at}: what was there is lost; {} batches can be read and are \
                     sent, then the file is put aside", self.key, path.display(), scanned.batches.len()
                );
            }
        }
        let broken = matches!(scanned.ended, Ended::Broken(_));
        let sent = read_sent(path, salt).unwrap_or(0);
        let batches: VecDeque<Entry> =
            scanned.batches.iter().map(Entry::found).filter(|entry| entry.at >= sent).collect();
        if batches.is_empty() {
            if broken { put_aside(path).map(drop) } else { remove(path) }?;
            return Ok(None);
        }
        let (path, bytes) = (path.to_owned(), len as u64);
        Ok(Some(Segment { path, bytes, salt, batches, read: 0, is_begun: false, broken }))
    }

    /// A file that does not begin as a segment: one that was just made when the engine was killed, or a broken one.
    fn without_line(&self, path: &Path, bytes: &[u8], is_followed: bool) -> io::Result<()> {
        if !may_hold_batches(bytes) && !is_followed {
            return fs::remove_file(path);
        }
        let aside = put_aside(path)?;
        self.figures.errors.fetch_add(1, Ordering::Relaxed);
        log::error!(
            target: "wpgen::rescue",
            "rescue of sink '{}': a segment's first line is broken: its batches are not sent; it was put aside as {}",
            self.key, aside.display()
        );
        Ok(())
    }

    fn tell_stranded(&self) {
        let (files, folder) = (self.stranded.load(Ordering::Relaxed), &self.shared.folder.path);
        if files > 0 {
            log::error!(
                target: "wpgen::rescue",
                "rescue of sink '{}': {files} files in {} are of another kind of sink: they wait until it is of that kind again, \
                 or somebody moves them away", self.key, folder.display()
            );
        }
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

/// What lies on disk for a sink that is not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The key of the sink.
    pub key: String,
    /// The folder.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, path, bytes } = self;
        write!(
            f,
            "{} has {bytes} bytes of rescued records that no sink sends: the sink key '{key}' takes it up again",
            path.display()
        )
    }
}

/// Rescued records of sinks other than `keys`: they wait for those sinks to be configured again.
pub fn forgotten(data_dir: &Path, keys: &[&str]) -> Vec<Forgotten> {
    let Ok(folders) = fs::read_dir(data_dir.join("rescue")) else { return Vec::new() };
    let known: Vec<PathBuf> = keys.iter().map(|key| folder(data_dir, key)).collect();
    let mut others: Vec<PathBuf> =
        folders.flatten().map(|entry| entry.path()).filter(|path| !known.contains(path)).collect();
    others.sort();
    let left = |path: PathBuf| {
        let names = names(&path).ok().filter(|names| !names.is_empty())?;
        let bytes = |(_, path): &(u64, PathBuf)| fs::metadata(path).map_or(0, |file| file.len());
        let bytes = names.values().flatten().map(bytes).sum();
        Some(Forgotten { key: key_of(&path), path, bytes })
    };
    others.into_iter().filter_map(left).collect()
}
