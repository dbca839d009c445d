//! The engine's one checkpoint file: how far each input is settled and how long each output is.
//!
//! Invariants: `data_dir/checkpoint` is at any moment a whole snapshot, the old one or the new one (temporary file,
//! fsync, rename, fsync of the folder); only one engine has the folder (the lock is held as long as the [`Store`]);
//! ids of inputs are never given twice, because `next_input` is in the snapshot.
//!
//! What it refuses: a start on a snapshot that is not whole, or newer than this engine. A broken one is set aside as
//! `checkpoint.broken-<time>`, and as long as that is all there is, every start is refused with the reason: beginning
//! at zero would repeat everything, so it is the operator's decision, made by moving that file away.

mod format;
mod identity;
mod path;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::lock::{self, Lock, Refused};
use crate::source::file::identity::Fingerprint;

pub use identity::{NAME as IDENTITY_NAME, identity};

const LOCK: &str = "lock";
const NAME: &str = "checkpoint";
const NAME_NEXT: &str = "checkpoint.next";
const NAME_BROKEN: &str = "checkpoint.broken-";
/// What the operator puts behind the name of a broken one to allow a start without it.
const SEEN: &str = ".seen";

/// All that a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The id the next new input gets; ids are never used again.
    pub next_input: u64,
    /// The inputs that can be read again, and how far they are settled.
    pub inputs: Vec<Input>,
    /// What the file sinks have made durable.
    pub groups: Vec<Group>,
    /// The Kafka partitions that were read, and how far they are settled.
    pub partitions: Vec<Partition>,
}

impl Snapshot {
    /// Without positions of inputs that it does not hold: they are forgotten and not read again, so what sinks have of
    /// them need not be known.
    #[must_use]
    pub fn without_forgotten(mut self) -> Self {
        let inputs = self.inputs.iter().map(|input| input.id);
        let known: HashSet<u64> =
            inputs.chain(self.partitions.iter().map(|partition| partition.id)).collect();
        self.groups.iter_mut().for_each(|group| group.positions.retain(|(input, _)| known.contains(input)));
        self
    }
}

/// A file input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its id, for the life of the data folder.
    pub id: u64,
    /// The source's key.
    pub source: String,
    /// Where it was last seen.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// When that inode was made; 0 where the file system does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub born_ns: u64,
    /// Whether that inode is another file's by now, so that only the content can be known again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    /// What it begins with, as it is on disk.
    pub fingerprint: Fingerprint,
    /// Up to where every sink has it; for compressed files, of the content.
    pub position: u64,
    /// The parts of a file that is read in parallel; then `position` is where the first unfinished one stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Whether it was read to its end and will not grow: a rotated or compressed file, or one read `once`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// Whether it was said that its file is not there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// What its content begins with, if the file is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Fingerprint>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A part of one file that is read in parallel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
    /// Up to where it is settled: between the two.
    pub position: u64,
}

/// A Kafka partition, as a source reads it. Its id is another one when its offsets begin anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its id, as that of an [`Input`].
    pub id: u64,
    /// The source's key.
    pub source: String,
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Its number in the topic.
    pub number: i32,
    /// Behind the last message of which every sink has it and all before it.
    pub position: u64,
    /// What was known to be committed to the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<u64>,
    /// What the group had from before the offsets went back, while it has nothing of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<u64>,
}

/// The files of a file sink that were committed together, and what of the inputs is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The sink's key.
    pub sink: String,
    /// Which of the sink's groups this is.
    pub key: String,
    /// The files and their committed lengths; a start truncates to those, but for an only copy.
    pub files: Vec<Output>,
    /// Input ids and up to which position the files hold them.
    pub positions: Vec<(u64, u64)>,
    /// Whether what lies behind the committed lengths is the only copy there is: then a start leaves whole lines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_copy: bool,
}

/// An output file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where it is.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// The length that is durable and accounted for.
    pub committed_len: u64,
}

/// The data folder, locked.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    handle: File,
    encoder: format::Encoder,
    /// What the file holds, once this store has written it.
    last: Option<Snapshot>,
    lock: Lock,
}

/// Why a data folder cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another engine has it, or the lock cannot be made.
    Locked(Refused),
    /// The snapshot is not whole. It has been set aside.
    Broken {
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier start set a broken snapshot aside, and there is no other.
    StillAside {
        /// Where it is.
        aside: PathBuf,
    },
    /// A newer engine has written the snapshot; it is left alone.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The folder or the file cannot be made, read or renamed.
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Reads the checkpoint of a folder without a lock and without changing anything; nothing when there is none.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn inspect(folder: &Path) -> Result<Option<Snapshot>, String> {
    let path = folder.join(NAME);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    format::decode(&bytes).map(Some).map_err(|wrong| match wrong {
        format::Wrong::Newer(version) => {
            format!("{} was written by a newer wpgen (version {version})", path.display())
        }
        format::Wrong::Broken(reason) => format!("{} is not whole: {reason}", path.display()),
    })
}

/// Why a folder cannot be had now: another engine has locked it. Nothing is taken or changed.
pub fn locked(folder: &Path) -> Option<OpenError> {
    let path = folder.join(LOCK);
    let holder = lock::held(&path).ok().flatten()?;
    Some(OpenError::Locked(Refused::Held { path, holder }))
}

impl Store {
    /// Locks `folder`, made when it is missing, and reads its checkpoint; none yet is an empty snapshot.
    pub fn open(folder: &Path) -> Result<(Self, Snapshot), OpenError> {
        let io = |error| OpenError::Io { path: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(io)?;
        let lock = Lock::take(&folder.join(LOCK)).map_err(OpenError::Locked)?;
        let handle = File::open(folder).map_err(io)?;
        let encoder = format::Encoder::default();
        let store = Self { folder: folder.to_owned(), handle, encoder, last: None, lock };
        let snapshot = store.load()?;
        Ok((store, snapshot))
    }

    /// Replaces the checkpoint; when this returns, the new one is durable. It blocks for an fsync.
    pub fn write(&mut self, snapshot: Snapshot) -> io::Result<()> {
        self.keep_folder()?;
        let before = self.last.take();
        let bytes = self.encoder.encode(&snapshot, before.as_ref().map_or(&[], |before| &before.inputs))?;
        let next = self.folder.join(NAME_NEXT);
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&next, self.folder.join(NAME))?;
        self.handle.sync_all()?;
        self.last = Some(snapshot);
        Ok(())
    }

    /// Locks the folder again where it was emptied or made anew. Another engine may be in it by then, whose checkpoint this
    /// one must not replace.
    fn keep_folder(&mut self) -> io::Result<()> {
        let path = self.folder.join(LOCK);
        if self.lock.is_at(&path) {
            return Ok(());
        }
        let handle = File::open(&self.folder)?;
        let lock = Lock::take(&path).map_err(|refused| match refused {
            Refused::Io { error, .. } => error,
            held @ Refused::Held { .. } => io::Error::other(format!(
                "the data folder was emptied or made anew while this engine ran, and {held}: stop one of the two"
            )),
        })?;
        log::warn!(target: "wpgen::checkpoint", "{} was emptied or made anew: its checkpoint begins again", self.folder.display());
        (self.handle, self.lock) = (handle, lock);
        Ok(())
    }

    /// What the last [`Store::write`] wrote; nothing when it failed, or there was none.
    pub fn last(&self) -> Option<&Snapshot> {
        self.last.as_ref()
    }

    fn load(&self) -> Result<Snapshot, OpenError> {
        let path = self.folder.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let first = self.first()?;
                identity::forget(&self.folder).map_err(|error| OpenError::Io { path, error })?;
                return Ok(first);
            }
            Err(error) => return Err(OpenError::Io { path, error }),
        };
        match format::decode(&bytes) {
            Ok(snapshot) => Ok(snapshot),
            Err(format::Wrong::Newer(version)) => Err(OpenError::Newer { path, version }),
            Err(format::Wrong::Broken(reason)) => Err(self.set_aside(&path, reason)),
        }
    }

    fn set_aside(&self, path: &Path, reason: String) -> OpenError {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let aside = self.folder.join(format!("{NAME_BROKEN}{seconds}"));
        match fs::rename(path, &aside).and_then(|()| self.handle.sync_all()) {
            Ok(()) => OpenError::Broken { aside, reason },
            Err(error) => OpenError::Io { path: path.to_owned(), error },
        }
    }

    /// No checkpoint: the first start, unless a broken one was set aside.
    fn first(&self) -> Result<Snapshot, OpenError> {
        let aside =
            aside(&self.folder).map_err(|error| OpenError::Io { path: self.folder.clone(), error })?;
        match aside {
            Some(aside) => Err(OpenError::StillAside { aside }),
            None => Ok(Snapshot { next_input: 1, ..Snapshot::default() }),
        }
    }
}

/// The last broken checkpoint that was set aside in a folder and that nobody has looked at.
fn aside(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut names: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(NAME_BROKEN.as_bytes()) && !name.ends_with(SEEN.as_bytes())
    });
    Ok(names.iter().max().map(|name| folder.join(name)))
}

/// What a start would refuse a folder for that has no checkpoint, without touching anything.
pub fn refused_first(folder: &Path) -> Option<OpenError> {
    aside(folder).ok().flatten().map(|aside| OpenError::StillAside { aside })
}

impl OpenError {
    /// What was found out about the cause: which right would show more.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Locked(Refused::Held { holder: None, .. }) => crate::lock::unseen(),
            _ => None,
        }
    }

    /// The way out, a line each.
    pub fn help(&self) -> Vec<String> {
        match self {
            Self::Locked(Refused::Held { holder, .. }) => {
                let stop = holder.as_ref().map(|_| "stop that engine: wpgen source stop".to_owned());
                let other = "a folder of its own for this one: [engine] data_dir = \"./data-second\"";
                stop.into_iter().chain([other.to_owned()]).collect()
            }
            Self::Broken { aside, .. } | Self::StillAside { aside } => vec![
                "nothing was read and nothing lost: without a checkpoint everything would be read again"
                    .into(),
                "restore `checkpoint` from a backup if there is one".into(),
                format!(
                    "or, to begin anew and accept repeated records: mv '{0}' '{0}{SEEN}'",
                    aside.display()
                ),
            ],
            Self::Newer { .. } => vec!["start the newer engine, or use another data_dir".into()],
            Self::Locked(Refused::Io { path, error }) | Self::Io { path, error } => {
                vec![match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        format!("make room: df -h {}", path.parent().unwrap_or(path).display())
                    }
                    _ => "data_dir must be a folder that this user may write to".into(),
                }]
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(refused) => refused.fmt(f),
            Self::Broken { aside, reason } => {
                write!(f, "the checkpoint is broken ({reason}) and was set aside as {}", aside.display())
            }
            Self::StillAside { aside } => {
                write!(f, "there is no checkpoint but a broken one that was set aside: {}", aside.display())
            }
            Self::Newer { path, version } => {
                write!(f, "{} was written by a newer engine (version {version})", path.display())
            }
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests;
