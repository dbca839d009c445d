//! Reads a stretch of a file in order, several reads ahead, and hands the segments out one by one.
//!
//! Depth comes from what is free: the first read of a file waits for a buffer, further ones take only what no other
//! reader wants. What was read ahead goes back where the reader has to wait for long. A backlog that is not in the page cache is read past it (O_DIRECT), the live end through it.
//! It knows no line and no record.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::io::file::{READ_BYTES, READ_HEAD};
use crate::io::{Io, IoFile, ReadBuffer};
use crate::pool::ALIGN;

/// Reads in flight for one file.
const DEPTH: usize = 4;
/// A wait that lasts so long is one for a sink that takes nothing now.
const LONG_WAIT: Duration = Duration::from_millis(100);
/// What is read ahead of a file at most.
pub const READ_AHEAD_BYTES: u64 = (DEPTH * READ_BYTES) as u64;
/// A stretch shorter than this is not worth a second descriptor.
const DIRECT_BYTES_MIN: u64 = 16 << 20;
/// A shorter stretch is read from where it begins, without what is in front of it in its page.
const ALIGNED_BYTES_MIN: u64 = 64 << 10;
/// The stretch whose share in the page cache decides.
const PROBE_BYTES: u64 = 256 << 20;

/// One read's bytes: `buffer.memory()[READ_HEAD + skip .. READ_HEAD + len]` stand at `offset` in the file.
pub struct Segment {
    /// The memory, head included.
    pub buffer: ReadBuffer,
    /// Where the first byte of interest stands in the file.
    pub offset: u64,
    /// Bytes of the body in front of it (an aligned read begins before the position).
    pub skip: usize,
    /// Bytes of the body in all.
    pub len: usize,
}

type Read = JoinHandle<(io::Result<usize>, ReadBuffer)>;

struct Flight {
    read: Read,
    offset: u64,
    want: usize,
    direct: bool,
}

/// Segments of `[position, end)`.
pub struct Segments {
    io: Io,
    file: IoFile,
    direct: Option<IoFile>,
    /// Where the next read begins.
    ahead: u64,
    /// Where the next segment begins.
    position: u64,
    /// No read is begun beyond this.
    end: u64,
    flights: VecDeque<Flight>,
}

impl Segments {
    /// Reads `file` from `position` to `end`.
    pub fn new(io: Io, file: IoFile, position: u64, end: u64) -> Self {
        let direct = direct_handle(&io, &file, position, end);
        Self { io, file, direct, ahead: position, position, end, flights: VecDeque::with_capacity(DEPTH) }
    }

    /// Whether it reads past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Moves the end.
    pub fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Where the next segment begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next segment; `None` at the end, or where the file ends before it.
    ///
    /// # Errors
    /// What the read said; the position stays before the failed read.
    pub async fn next(&mut self) -> io::Result<Option<Segment>> {
        loop {
            self.launch().await;
            let Some(flight) = self.flights.pop_front() else { return Ok(None) };
            let (result, buffer) = flight.read.await.map_err(io::Error::other)?;
            let len = match result {
                Ok(len) => len,
                Err(error) if flight.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                    self.restart(buffer, true);
                    continue;
                }
                Err(error) => {
                    self.restart(buffer, false);
                    return Err(error);
                }
            };
            let skip = usize::try_from(self.position - flight.offset).unwrap_or(0);
            if len <= skip {
                self.restart(buffer, false);
                return Ok(None);
            }
            let segment = Segment { buffer, offset: self.position, skip, len };
            self.position = flight.offset + len as u64;
            if len < flight.want {
                // The file is shorter than it was, or the kernel gave less: what was read ahead is not in order.
                self.abandon();
                self.ahead = self.position;
            }
            return Ok(Some(segment));
        }
    }

    /// Waits for `work`. Where that lasts, what was read ahead goes back, and with `holding`, another buffer stands in for the
    /// one that `work` has: the shard's other files are read on meanwhile.
    pub async fn patiently<T>(&mut self, holding: bool, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut stand_in = None;
        loop {
            if let Ok(done) = tokio::time::timeout(LONG_WAIT, work.as_mut()).await {
                return done;
            }
            self.abandon();
            self.ahead = self.position;
            if holding && stand_in.is_none() {
                stand_in = self.io.stand_in();
            }
        }
    }

    /// Begins reads until depth, end or the shard's buffers are reached.
    async fn launch(&mut self) {
        while self.flights.len() < DEPTH && self.ahead < self.end {
            let buffer = if self.flights.is_empty() {
                self.io.read_buffer().await
            } else {
                match self.io.try_read_buffer() {
                    Some(buffer) => buffer,
                    None => return,
                }
            };
            self.begin(buffer);
        }
    }

    fn begin(&mut self, buffer: ReadBuffer) {
        let align = ALIGN as u64;
        let start = self.ahead / align * align;
        let last_block = self.end / align * align;
        let use_direct = self.direct.is_some() && start < last_block;
        let (file, offset, end) = match &self.direct {
            Some(direct) if use_direct => (direct.clone(), start, last_block),
            // Aligned to the page too: copying between unlike offsets costs the kernel three times as much.
            _ if self.end - self.ahead >= ALIGNED_BYTES_MIN => (self.file.clone(), start, self.end),
            _ => (self.file.clone(), self.ahead, self.end),
        };
        let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ_BYTES);
        self.ahead = offset + want as u64;
        let read =
            tokio::task::spawn_local(
                async move { read_whole(&file, buffer, offset, want, use_direct).await },
            );
        self.flights.push_back(Flight { read, offset, want, direct: use_direct });
    }

    fn restart(&mut self, failed: ReadBuffer, without_direct: bool) {
        drop(failed);
        self.abandon();
        self.ahead = self.position;
        if without_direct {
            self.direct = None;
        }
    }

    /// Reads in flight are left to finish by themselves; their buffers go home.
    fn abandon(&mut self) {
        self.flights.clear();
    }
}

/// Reads until `want` bytes are there or the file ends: the kernel may give less in one go.
async fn read_whole(
    file: &IoFile,
    buffer: ReadBuffer,
    offset: u64,
    want: usize,
    direct: bool,
) -> (io::Result<usize>, ReadBuffer) {
    let (first, buffer) = file.read_at(buffer, offset, want).await;
    match first {
        Ok(n) if n > 0 && n < want && !direct => {}
        result => return (result, buffer),
    }
    let mut have = first.unwrap_or(0);
    let mut buffer = buffer;
    while have < want {
        let (result, back) = file.read_more(buffer, offset, have, want).await;
        buffer = back;
        match result {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    (Ok(have), buffer)
}

/// A second descriptor with O_DIRECT, when most of the stretch is not in the page cache.
fn direct_handle(io: &Io, file: &IoFile, position: u64, end: u64) -> Option<IoFile> {
    let len = end.saturating_sub(position);
    if len < DIRECT_BYTES_MIN || file.cached_share(position, len.min(PROBE_BYTES))? > 0.5 {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened: io::Result<File> = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    opened.ok().map(|direct| IoFile::new(direct, io.backend()))
}

impl Segment {
    /// The bytes of interest, with `front` bytes of head before them.
    pub fn range(&self, front: usize) -> std::ops::Range<usize> {
        READ_HEAD + self.skip - front..READ_HEAD + self.len
    }
}
