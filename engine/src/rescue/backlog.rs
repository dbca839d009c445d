//! The rescued batches of one owner on disk: written at the end, read from the front, deleted as they are delivered.
//!
//! They lie in segments of a few MiB, each a file; a segment goes when all of it is delivered. So a crash repeats at
//! most a segment and what the sink had in its hands, and no place needs to be remembered. What [`Backlog::append`] returned
//! for is durable. A write that fails leaves the segment as it was after the last sync.
//!
//! Everything here blocks, and is called off the shards.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::format::{self, Content, HEAD_BYTES, Head, Owner};
use crate::batch::Batch;
use crate::pool::Arena;

/// A segment with so many bytes is followed by another.
const SEGMENT_BYTES: u64 = 8 << 20;
/// A segment with so many batches is followed by another: bounds what is remembered of it.
const SEGMENT_BATCHES: usize = 4096;
/// The ending of a segment's name.
pub(super) const ENDING: &str = ".rescue";

/// Bytes that all backlogs of a sink may take together.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) most: u64,
    pub(super) used: AtomicU64,
}

impl Quota {
    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| (used.saturating_add(bytes) <= self.most).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Counts what is there whether it may or not.
    pub(super) fn take_all(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Where the segments of a sink are.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// To sync it by.
    handle: File,
}

impl Folder {
    /// Makes it where it is missing.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }
}

/// A file of batches.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Its bytes, as the quota counts them.
    pub(super) bytes: u64,
    /// Where batches begin that are not read yet.
    pub(super) unread: VecDeque<u64>,
    /// Batches that are not delivered.
    pub(super) left: usize,
    /// Whether a part of it cannot be read: then it is put aside, not deleted.
    pub(super) broken: bool,
}

/// See above.
#[derive(Debug)]
pub(super) struct Backlog {
    folder: Arc<Folder>,
    /// What names of new segments begin with.
    name: String,
    owner: Owner,
    quota: Arc<Quota>,
    /// The number of the next segment.
    next: u64,
    /// From the oldest to the newest.
    segments: VecDeque<Segment>,
    /// The newest, while it is written to, and how much of it is durable.
    writing: Option<(File, u64)>,
    /// The segment that is read, by its path.
    reading: Option<(PathBuf, File)>,
}

impl Backlog {
    /// Goes on after `segments`, whose bytes the quota has. Names of new ones begin with `name`.
    pub(super) fn new(
        folder: Arc<Folder>,
        name: String,
        owner: Owner,
        segments: VecDeque<Segment>,
        next: u64,
        quota: Arc<Quota>,
    ) -> Self {
        Self { folder, name, owner, quota, next, segments, writing: None, reading: None }
    }

    /// Whether there is nothing that is not delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.left == 0)
    }

    /// Whether there is something that was not read.
    pub(super) fn has_unread(&self) -> bool {
        self.segments.iter().any(|segment| !segment.unread.is_empty())
    }

    /// Writes as many of the batches as may be kept, from the first on, and returns how many are durable now.
    ///
    /// # Errors
    /// What the disk said; then none of them is kept.
    pub(super) fn append<'a>(&mut self, batches: impl Iterator<Item = Content<'a>>) -> io::Result<usize> {
        let mut written: Vec<(u64, u64)> = Vec::new();
        let appended = self.write_all(batches, &mut written).and_then(|()| self.sync());
        if appended.is_ok() {
            return Ok(written.len());
        }
        self.cut(&written);
        appended.map(|()| 0)
    }

    fn write_all<'a>(
        &mut self,
        batches: impl Iterator<Item = Content<'a>>,
        written: &mut Vec<(u64, u64)>,
    ) -> io::Result<()> {
        for content in batches {
            let bytes = content.len() as u64;
            if !self.quota.take(bytes) {
                return Ok(());
            }
            if let Err(error) = self.write(content) {
                self.quota.give(bytes);
                return Err(error);
            }
            let Some(segment) = self.segments.back_mut() else { continue };
            segment.unread.push_back(segment.bytes);
            written.push((segment.bytes, bytes));
            segment.bytes += bytes;
            segment.left += 1;
        }
        Ok(())
    }

    /// Writes a batch at the end of the newest segment, or of a new one.
    fn write(&mut self, content: Content<'_>) -> io::Result<()> {
        let is_full = self
            .segments
            .back()
            .is_some_and(|segment| segment.bytes >= SEGMENT_BYTES || segment.left >= SEGMENT_BATCHES);
        if is_full && self.writing.is_some() {
            // What is followed by another segment is durable.
            self.sync()?;
            self.writing = None;
        }
        if self.writing.is_none() {
            self.begin()?;
        }
        match &mut self.writing {
            Some((file, durable)) => content.write(*durable, file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Begins a segment.
    fn begin(&mut self) -> io::Result<()> {
        let line = format::line(&self.owner)?;
        let path = self.folder.path.join(format!("{}-{:012}{ENDING}", self.name, self.next));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let made =
            file.write_all(&line).and_then(|()| file.sync_all()).and_then(|()| self.folder.handle.sync_all());
        if let Err(error) = made {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.next += 1;
        let bytes = line.len() as u64;
        self.quota.take_all(bytes);
        self.segments.push_back(Segment { path, bytes, unread: VecDeque::new(), left: 0, broken: false });
        self.writing = Some((file, bytes));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let (Some((file, durable)), Some(segment)) = (&mut self.writing, self.segments.back()) else {
            return Ok(());
        };
        if *durable < segment.bytes {
            file.sync_data()?;
            *durable = segment.bytes;
        }
        Ok(())
    }

    /// Forgets what was written last, wherever it stands; the newest segment goes back to its last sync.
    fn cut(&mut self, written: &[(u64, u64)]) {
        for (at, bytes) in written.iter().rev() {
            // Those of a segment that was full are in the one before.
            let Some(segment) =
                self.segments.iter_mut().rev().find(|segment| segment.unread.back() == Some(at))
            else {
                continue;
            };
            segment.unread.pop_back();
            segment.left -= 1;
            segment.bytes -= bytes;
            self.quota.give(*bytes);
        }
        let Some((file, durable)) = &mut self.writing else { return };
        let back = self.segments.back().map_or(*durable, |segment| segment.bytes).min(*durable);
        if file.set_len(back).and_then(|()| file.seek(SeekFrom::Start(back))).is_err() {
            // What stands behind the cut may come again after a crash; nothing more is written there.
            self.writing = None;
        } else {
            *durable = back;
        }
    }

    /// The oldest batch that was not read.
    ///
    /// # Errors
    /// What the disk said, or that the batch is not what was written; it is passed over then, and its segment put aside.
    pub(super) fn read(&mut self) -> io::Result<Option<Batch>> {
        let Some(segment) = self.segments.iter_mut().find(|segment| !segment.unread.is_empty()) else {
            return Ok(None);
        };
        let Some(at) = segment.unread.front().copied() else { return Ok(None) };
        if self.reading.as_ref().is_none_or(|(path, _)| *path != segment.path) {
            self.reading = Some((segment.path.clone(), File::open(&segment.path)?));
        }
        let Some((_, file)) = &self.reading else { return Ok(None) };
        match read_batch(file, at) {
            Ok(batch) => {
                segment.unread.pop_front();
                Ok(Some(batch))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                segment.unread.pop_front();
                (segment.broken, segment.left) = (true, segment.left - 1);
                let why = format!("{} at byte {at}: {error}", segment.path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
            Err(error) => Err(error),
        }
    }

    /// The oldest batch that was read and not delivered is delivered now.
    pub(super) fn delivered(&mut self) {
        let oldest = self.segments.iter_mut().find(|segment| segment.left > segment.unread.len());
        if let Some(segment) = oldest {
            segment.left -= 1;
        }
    }

    /// Whether there is a segment in front that is delivered whole.
    pub(super) fn has_delivered(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.left == 0)
    }

    /// Deletes segments in front that are delivered whole.
    pub(super) fn forget_delivered(&mut self) {
        while self.has_delivered() {
            let Some(segment) = self.segments.pop_front() else { break };
            if self.segments.is_empty() {
                self.writing = None;
            }
            let gone = if segment.broken {
                put_aside(&segment.path).map(drop)
            } else {
                fs::remove_file(&segment.path)
            };
            if let Err(error) = gone {
                log::warn!(
                    target: "wpgen::rescue",
                    "{} is delivered and cannot be removed: {error}; a start would send it again", segment.path.display()
                );
            }
            self.quota.give(segment.bytes);
        }
    }
}

fn read_batch(file: &File, at: u64) -> io::Result<Batch> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the batch there is not what was written");
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, at)?;
    let head = Head::decode(&head).ok_or_else(wrong)?;
    let mut body = vec![0; head.body_bytes()];
    file.read_exact_at(&mut body, at + HEAD_BYTES as u64)?;
    if !head.fits(&body) {
        return Err(wrong());
    }
    let (ends, bytes) = head.split(&body);
    let mut batch = Batch::new(Arena::new(bytes.len()));
    batch.arena.extend(bytes);
    batch.ends = ends;
    batch.records = head.records;
    batch.oldest_ns = head.oldest_ns;
    Ok(batch)
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
