//! `mode = "once"`: every file that is there is read to its end, by all shards together.
//!
//! Jobs (whole files, or line-aligned ranges of big ones) stand in one list; each shard takes the next when it has time,
//! so that shards end together whatever the sizes. A job keeps one window open until everything it read has settled.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Mutex;

use super::reader::{Ended, Reader};
use super::settings::Settings;
use super::unpack::Corrupt;
use crate::batch::Origin;
use crate::io::IoFile;
use crate::source::part::Surroundings;

/// Bytes of one range of a big file: large enough that a border costs nothing, small enough to end together.
pub const RANGE_BYTES: u64 = 64 << 20;
/// Jobs one shard works on at a time: while one waits for the disk, the other reads.
const JOBS_AT_ONCE: usize = 2;

/// A stretch of a file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The input's durable identity.
    pub input: u64,
    /// The file.
    pub path: PathBuf,
    /// First byte of the stretch.
    pub start: u64,
    /// Behind its last byte: lines that start before it belong to it.
    pub end: u64,
    /// Where reading begins: `start`, or where a run before this one came to.
    pub position: u64,
    /// Whether the stretch is one of several of its file.
    pub range: bool,
    /// Whether the file is compressed: start, end and position are then those of its content.
    pub packed: bool,
}

/// The work left, for all shards.
#[derive(Debug, Default)]
pub struct Jobs {
    list: Mutex<VecDeque<Job>>,
}

impl Jobs {
    /// The work there is.
    pub fn new(jobs: impl IntoIterator<Item = Job>) -> Self {
        Self { list: Mutex::new(jobs.into_iter().collect()) }
    }

    /// Work to be done before the other.
    pub fn put_first(&self, jobs: Vec<Job>) {
        let mut list = self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        jobs.into_iter().rev().for_each(|job| list.push_front(job));
    }

    fn take(&self) -> Option<Job> {
        self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
    }
}

/// Splits `[start, end)` into ranges.
pub fn ranges(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let from = at;
            at = end.min(from + RANGE_BYTES);
            (from, at)
        })
    })
}

/// Takes jobs until there are none.
pub async fn work(settings: &Rc<Settings>, around: &Surroundings, jobs: &Jobs) {
    let workers: Vec<_> = (0..JOBS_AT_ONCE).map(|_| one_after_another(settings, around, jobs)).collect();
    join_all(workers).await;
}

async fn one_after_another(settings: &Rc<Settings>, around: &Surroundings, jobs: &Jobs) {
    while !around.stop.is_raised() {
        let Some(job) = jobs.take() else { return };
        read(settings, around, job).await;
    }
}

async fn read(settings: &Rc<Settings>, around: &Surroundings, job: Job) {
    let file = match File::open(&job.path) {
        Ok(file) => file,
        Err(error) => return settings.failed(around, &job.path, &error),
    };
    let origin = Rc::new(settings.origin(&job.path));
    let slot = around.shard.settle().open(job.input, job.position);
    let mut reader = reader(settings, around, &job, file, origin, slot);
    let mut at_end = false;
    let read = if job.packed {
        reader.read_packed().await
    } else {
        reader.read_to(job.end_of_reading(), |_| true).await
    };
    match read {
        Ok(Ended::AtEnd) => {
            reader.finish().await;
            // A bad line may have stopped it in the last lines.
            at_end = !around.stop.is_raised();
        }
        Ok(Ended::Stopped) => {}
        Err(error) => {
            settings.failed(around, &job.path, &error);
            if Corrupt::of(&error).is_some_and(|corrupt| !corrupt.is_cut) {
                // There is no more of it than what came before the damage. Of one that is cut off there may be: the next
                // run begins at its last line.
                reader.finish().await;
            }
        }
    }
    let settings = Rc::clone(settings);
    let around = around.clone();
    let end = at_end.then(|| reader.handed());
    drop(reader);
    around.lanes.seal(&around.shard);
    tokio::task::spawn_local(async move { retire(&settings, &around, job.input, slot, end).await });
}

fn reader(
    settings: &Settings,
    around: &Surroundings,
    job: &Job,
    file: File,
    origin: Rc<Origin>,
    slot: u32,
) -> Reader {
    let mut way = settings.way();
    let fresh_range = job.range && job.position == job.start && job.start > 0;
    let position = if fresh_range { job.position - 1 } else { job.position };
    if !job.packed && !fresh_range && job.position > 0 && !newline_before(&file, job.position) {
        way.lines.resume_inside_line();
    }
    let file = IoFile::new(file, around.shard.io().backend());
    let mut reader = Reader::new(around.clone(), file, origin, slot, way, position);
    if job.range {
        reader.range(job.end, fresh_range);
    }
    reader
}

/// Whether the byte before `position` ends a line; where it cannot be read, it is taken to.
pub fn newline_before(file: &File, position: u64) -> bool {
    let mut byte = [b'\n'];
    let _ = file.read_at(&mut byte, position - 1);
    byte[0] == b'\n'
}

/// Waits until every sink has what was read, remembers it, and gives the window back. The job is done when it was read to
/// its end and no sink gave up any of it: up to `end`.
async fn retire(settings: &Settings, around: &Surroundings, input: u64, slot: u32, end: Option<u64>) {
    while !around.shard.settle().is_idle(slot) {
        around.shard.settled().await;
    }
    let low = around.shard.settle().low(slot);
    settings.known().settled(input, low, end.is_some_and(|end| low >= end));
    around.shard.settle().close(slot);
}

impl Job {
    /// Bytes left to read, as far as that is known before.
    pub fn bytes(&self) -> u64 {
        if self.end == u64::MAX { 0 } else { self.end.saturating_sub(self.position) }
    }

    /// A range is read on beyond its end, for its last line.
    fn end_of_reading(&self) -> u64 {
        if self.range { u64::MAX } else { self.end }
    }
}

async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for slot in &mut futures {
            if let Some(future) = slot {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(()) => *slot = None,
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
}
