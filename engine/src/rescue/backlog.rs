//! The rescued batches of one owner on disk: written at the end, read from the front, deleted as they are delivered.
//!
//! They lie in segments of a few MiB, each a file; a segment goes when all of it is delivered. So a crash amid one repeats
//! at most a segment and what the sink had in its hands. At an orderly end, a stop or a reload that gives the sink a
//! successor, a file beside the oldest segment says how far that is delivered ([`Backlog::note_sent`]), and nothing
//! repeats. What [`Backlog::append`] says is kept is durable. A write that fails leaves the segment as it was after the
//! last sync.
//!
//! Everything here blocks, and is called off the shards.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{self, Content, HEAD_BYTES, Head, Owner};
use super::segment::{ENDING, Entry, Folder, Quota, Segment, put_aside, remove, write_sent};
use crate::batch::Batch;
use crate::pool::Arena;

/// A segment with so many bytes is followed by another.
const SEGMENT_BYTES: u64 = 8 << 20;
/// A segment with so many batches is followed by another: bounds what is remembered of it.
const SEGMENT_BATCHES: usize = 4096;
/// Logs may tell what others should not read.
const MODE: u32 = 0o640;

/// What all backlogs of a sink share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) folder: Arc<Folder>,
    pub(super) quota: Arc<Quota>,
    /// The number of the next segment, above all that were ever there.
    pub(super) next: Arc<AtomicU64>,
}

/// See above.
#[derive(Debug)]
pub(super) struct Backlog {
    shared: Shared,
    /// What names of new segments begin with.
    name: String,
    owner: Owner,
    /// From the oldest to the newest.
    segments: VecDeque<Segment>,
    /// The newest, while it is written to.
    writing: Option<Writing>,
    /// The segment that is read, by its path.
    reading: Option<(PathBuf, File)>,
}

/// The newest segment's file.
#[derive(Debug)]
struct Writing {
    file: File,
    /// How much of it is on disk.
    durable: u64,
    /// Batches at its end that are not.
    unsynced: usize,
}

impl Backlog {
    /// Goes on after `segments`, whose bytes and records the quota has. Names of new ones begin with `name`.
    pub(super) fn new(shared: Shared, name: String, owner: Owner, segments: VecDeque<Segment>) -> Self {
        Self { shared, name, owner, segments, writing: None, reading: None }
    }

    /// Whether there is nothing that is not delivered.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.batches.is_empty())
    }

    /// Whether there is something that was not read.
    pub(super) fn has_unread(&self) -> bool {
        self.segments.iter().any(|segment| segment.unread().is_some())
    }

    /// Receipt of the oldest record that is not delivered.
    pub(super) fn oldest_ns(&self) -> Option<i64> {
        self.segments.iter().find_map(|segment| segment.batches.front()).map(|oldest| oldest.oldest_ns)
    }

    /// Writes as many of the batches as may be kept, from the first on. Returns how many are durable now, and what the
    /// disk said of the next one.
    pub(super) fn append<'a>(
        &mut self,
        batches: impl Iterator<Item = Content<'a>>,
    ) -> (usize, io::Result<()>) {
        let mut written = 0;
        let appended = self.write_all(batches, &mut written).and_then(|()| self.sync());
        if appended.is_err() {
            written -= self.cut();
        }
        (written, appended)
    }

    fn write_all<'a>(
        &mut self,
        batches: impl Iterator<Item = Content<'a>>,
        written: &mut usize,
    ) -> io::Result<()> {
        for content in batches {
            let bytes = content.len() as u64;
            if !self.shared.quota.take(bytes) {
                return Ok(());
            }
            if let Err(error) = self.write(content) {
                self.shared.quota.give(bytes);
                return Err(error);
            }
            *written += 1;
        }
        Ok(())
    }

    /// Writes a batch at the end of the newest segment, or of a new one.
    fn write(&mut self, content: Content<'_>) -> io::Result<()> {
        let is_full =
            |segment: &Segment| segment.bytes >= SEGMENT_BYTES || segment.batches.len() >= SEGMENT_BATCHES;
        if self.writing.is_some() && self.segments.back().is_some_and(is_full) {
            // What is followed by another segment is durable.
            self.sync()?;
            self.writing = None;
        }
        if self.writing.is_none() {
            self.begin()?;
        }
        let (Some(writing), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        content.write(writing.durable, segment.salt, &mut writing.file)?;
        let (records, oldest_ns) = (content.records, content.oldest_ns);
        segment.batches.push_back(Entry { at: segment.bytes, records, oldest_ns });
        segment.bytes += content.len() as u64;
        writing.unsynced += 1;
        self.shared.quota.records.fetch_add(records.into(), Ordering::Relaxed);
        Ok(())
    }

    /// Begins a segment.
    fn begin(&mut self) -> io::Result<()> {
        let line = format::line(&self.owner)?;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let path = self.shared.folder.path.join(format!("{}-{number:012}{ENDING}", self.name));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path)?;
        let made = file
            .write_all(&line)
            .and_then(|()| file.sync_all())
            .and_then(|()| self.shared.folder.handle.sync_all());
        if let Err(error) = made {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let bytes = line.len() as u64;
        self.shared.quota.take_all(bytes);
        let (batches, salt) = (VecDeque::new(), self.owner.salt);
        let segment = Segment { path, bytes, salt, batches, read: 0, is_begun: false, broken: false };
        self.segments.push_back(segment);
        self.writing = Some(Writing { file, durable: bytes, unsynced: 0 });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let (Some(writing), Some(segment)) = (&mut self.writing, self.segments.back()) else {
            return Ok(());
        };
        if writing.unsynced > 0 {
            writing.file.sync_data()?;
            (writing.durable, writing.unsynced) = (segment.bytes, 0);
        }
        Ok(())
    }

    /// Takes back what was written since the last sync, and returns how many batches that were.
    fn cut(&mut self) -> usize {
        let (Some(writing), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else { return 0 };
        let count = std::mem::take(&mut writing.unsynced);
        for _ in 0..count {
            let Some(entry) = segment.batches.pop_back() else { break };
            self.shared.quota.give(segment.bytes - entry.at);
            self.shared.quota.records.fetch_sub(entry.records.into(), Ordering::Relaxed);
            segment.bytes = entry.at;
        }
        let at = SeekFrom::Start(segment.bytes);
        if writing.file.set_len(segment.bytes).and_then(|()| writing.file.seek(at)).is_err() {
            // What stands behind the cut may come again after a crash; nothing more is written there.
            self.writing = None;
        }
        count
    }

    /// The oldest batch that was not read.
    ///
    /// # Errors
    /// What the disk said, or that the batch is not what was written; it is passed over then, and its segment put aside.
    pub(super) fn read(&mut self) -> io::Result<Option<Batch>> {
        let unread =
            self.segments.iter_mut().find_map(|segment| segment.unread().map(|entry| (segment, entry)));
        let Some((segment, entry)) = unread else { return Ok(None) };
        if self.reading.as_ref().is_none_or(|(path, _)| *path != segment.path) {
            let file = File::open(&segment.path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => lost(segment, &self.shared.quota),
                _ => error,
            })?;
            self.reading = Some((segment.path.clone(), file));
        }
        let Some((_, file)) = &self.reading else { return Ok(None) };
        match read_batch(file, entry.at, segment.salt) {
            Ok(batch) => {
                segment.read += 1;
                Ok(Some(batch))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                segment.batches.remove(segment.read);
                segment.broken = true;
                self.shared.quota.records.fetch_sub(entry.records.into(), Ordering::Relaxed);
                let (path, at, records) = (segment.path.display(), entry.at, entry.records);
                let why = format!("{path} at byte {at}: {error}; its {records} records are lost");
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
            Err(error) => Err(error),
        }
    }

    /// The oldest batch that was read and not delivered is delivered now.
    pub(super) fn delivered(&mut self) {
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.read > 0) else { return };
        if let Some(entry) = segment.batches.pop_front() {
            segment.is_begun = true;
            segment.read -= 1;
            self.shared.quota.records.fetch_sub(entry.records.into(), Ordering::Relaxed);
        }
    }

    /// Whether there is a segment in front that is delivered whole.
    pub(super) fn has_delivered(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.batches.is_empty())
    }

    /// Whether the oldest segment is delivered in part.
    pub(super) fn is_begun(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.is_begun && !segment.batches.is_empty())
    }

    /// Says on disk how far the oldest segment is delivered: whoever goes on with it begins there.
    pub(super) fn note_sent(&self) -> io::Result<()> {
        let Some(segment) = self.segments.front() else { return Ok(()) };
        let Some(next) = segment.batches.front() else { return Ok(()) };
        write_sent(&self.shared.folder, &segment.path, segment.salt, next.at)
    }

    /// Deletes segments in front that are delivered whole.
    ///
    /// # Errors
    /// What the disk said of the first one that it keeps; that one stays in front, and is tried again.
    pub(super) fn forget_delivered(&mut self) -> io::Result<()> {
        while let Some(segment) = self.segments.front().filter(|segment| segment.batches.is_empty()) {
            let gone =
                if segment.broken { put_aside(&segment.path).map(drop) } else { remove(&segment.path) };
            gone.or_else(none_is_gone)?;
            self.shared.quota.give(segment.bytes);
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.writing = None;
            }
        }
        Ok(())
    }
}

fn none_is_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Somebody has removed a segment: what was not read of it is not waited for.
fn lost(segment: &mut Segment, quota: &Quota) -> io::Error {
    let records = segment.batches.drain(segment.read..).map(|entry| u64::from(entry.records)).sum();
    quota.records.fetch_sub(records, Ordering::Relaxed);
    let why = format!("{} is gone; its {records} records are lost", segment.path.display());
    io::Error::new(io::ErrorKind::NotFound, why)
}

fn read_batch(file: &File, at: u64, salt: u32) -> io::Result<Batch> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the batch there is not what was written");
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, at)?;
    let head = Head::decode(&head, salt).ok_or_else(wrong)?;
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
