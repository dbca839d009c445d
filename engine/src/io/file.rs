//! Files: positioned reads into the shard's buffers, positioned writes from arenas, sync, preallocation.
//!
//! Every operation owns its memory while the kernel has it and gives it back with the result. On the epoll backend a
//! read is first tried without blocking (RWF_NOWAIT: the page cache answers at once) and goes to a blocking thread
//! only when the disk must be asked.
//!
//! Files on FUSE are read and written so on the other backend too: where the page cache takes no part (`direct_io`,
//! O_DIRECT), a ring that gets a part of what it asked for, as it does at the end of a file, asks for the rest at the same
//! offset again. A read then fills the buffer with what it has already, and a write puts the rest over what it has written
//! (Linux 6.18; fuse_direct_IO moves no position, io_read and io_write rely on it).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::buf::fixed::FixedBuf;

use super::pause::asked;
use super::runtime::{Backend, Io};
use crate::pool::{ARENA_BYTES, Arena};

/// Bytes of one read, so that its records fill one batch and do not wait for a second one; measured, 256 KiB costs a
/// tenth more.
pub const READ_BYTES: usize = ARENA_BYTES;
/// Bytes in front of a read's bytes, for the unfinished line of the read before.
pub const READ_HEAD: usize = 64 << 10;

/// A read's memory: `READ_HEAD` bytes of head, then `READ_BYTES`. Goes back to its shard when dropped.
pub struct ReadBuffer {
    memory: Memory,
    io: Io,
}

enum Memory {
    Fixed(FixedBuf),
    Plain(Arena),
    Lent,
}

impl ReadBuffer {
    pub(super) fn fixed(buffer: FixedBuf, io: Io) -> Self {
        Self { memory: Memory::Fixed(buffer), io }
    }

    pub(super) fn plain(arena: Arena, io: Io) -> Self {
        Self { memory: Memory::Plain(arena), io }
    }

    /// Head and body.
    pub fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Fixed(buffer) => buffer,
            Memory::Plain(arena) => arena.memory(),
            Memory::Lent => &[],
        }
    }

    /// Head and body, to be written.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Fixed(buffer) => buffer,
            Memory::Plain(arena) => arena.memory_mut(),
            Memory::Lent => &mut [],
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        // Memory that a cancelled operation still owns goes home with the operation; the permit must not.
        let plain = match std::mem::replace(&mut self.memory, Memory::Lent) {
            Memory::Plain(arena) => Some(arena),
            Memory::Fixed(_) | Memory::Lent => None,
        };
        self.io.give(plain);
    }
}

/// An open file of a shard.
#[derive(Clone)]
pub struct IoFile {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Uring(Rc<tokio_uring::fs::File>),
    Epoll(Arc<File>),
}

impl AsRawFd for IoFile {
    fn as_raw_fd(&self) -> RawFd {
        match &self.inner {
            Inner::Uring(file) => file.as_raw_fd(),
            Inner::Epoll(file) => file.as_raw_fd(),
        }
    }
}

impl IoFile {
    /// Takes an open file for a shard.
    pub fn new(file: File, backend: Backend) -> Self {
        let inner = match backend {
            Backend::Uring if is_on_fuse(&file) => Inner::Epoll(Arc::new(file)),
            Backend::Uring => {
                // SAFETY: the descriptor was owned by `file` and is handed over whole.
                let owned = unsafe { tokio_uring_file(file.into_raw_fd()) };
                Inner::Uring(Rc::new(owned))
            }
            Backend::Epoll => Inner::Epoll(Arc::new(file)),
        };
        Self { inner }
    }

    /// What stat says of the open file now.
    ///
    /// # Errors
    /// Those of fstat.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.as_std().metadata()
    }

    /// Sets the file's length.
    ///
    /// # Errors
    /// Those of ftruncate.
    pub fn truncate(&self, len: u64) -> io::Result<()> {
        self.as_std().set_len(len)
    }

    /// The file's length as the kernel has it at hand: it asks no server and no FUSE daemon, and does not wait.
    ///
    /// # Errors
    /// Those of statx.
    pub fn len_at_hand(&self) -> io::Result<u64> {
        Ok(self.at_hand(libc::STATX_SIZE)?.stx_size)
    }

    /// Whether no name leads to the file any more, as far as the kernel knows without asking a server.
    ///
    /// # Errors
    /// Those of statx.
    pub fn is_removed(&self) -> io::Result<bool> {
        Ok(self.at_hand(libc::STATX_NLINK)?.stx_nlink == 0)
    }

    fn at_hand(&self, mask: u32) -> io::Result<libc::statx> {
        // SAFETY: statx is a plain C struct of integers, for which all zeros is a valid value.
        let mut facts: libc::statx = unsafe { std::mem::zeroed() };
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        // SAFETY: the descriptor is open, the path ends with NUL, and the struct lives through the call.
        let asked = unsafe { libc::statx(self.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut facts) };
        if asked == 0 { Ok(facts) } else { Err(io::Error::last_os_error()) }
    }

    /// A second handle that a blocking thread may use.
    ///
    /// # Errors
    /// Those of dup.
    pub fn try_clone_std(&self) -> io::Result<File> {
        self.as_std().try_clone()
    }

    /// The file as the standard library has it, for calls that do not wait.
    pub fn as_std(&self) -> impl std::ops::Deref<Target = File> + '_ {
        // SAFETY: the descriptor is open as long as `self`; ManuallyDrop keeps this borrowed view from closing it.
        std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(self.as_raw_fd()) })
    }

    /// Reads up to `len` bytes (at most `READ_BYTES`) at `offset` into the body of `buffer`.
    pub async fn read_at(
        &self,
        buffer: ReadBuffer,
        offset: u64,
        len: usize,
    ) -> (io::Result<usize>, ReadBuffer) {
        self.read_more(buffer, offset, 0, len).await
    }

    /// Goes on with a read at `offset` of which `have` bytes of `len` are in the body.
    pub async fn read_more(
        &self,
        mut buffer: ReadBuffer,
        offset: u64,
        have: usize,
        len: usize,
    ) -> (io::Result<usize>, ReadBuffer) {
        let range = READ_HEAD + have..READ_HEAD + len.min(READ_BYTES);
        let offset = offset + have as u64;
        let memory = std::mem::replace(&mut buffer.memory, Memory::Lent);
        let (result, memory) = match (&self.inner, memory) {
            (Inner::Uring(file), Memory::Fixed(fixed)) => {
                let (result, slice) = asked(file.read_fixed_at(fixed.slice(range), offset)).await;
                (result, Memory::Fixed(slice.into_inner()))
            }
            (Inner::Uring(file), Memory::Plain(arena)) => {
                let (result, slice) = asked(file.read_at(arena.slice(range), offset)).await;
                (result, Memory::Plain(slice.into_inner()))
            }
            (Inner::Epoll(file), Memory::Plain(arena)) => {
                let (result, arena) = read_blocking(file, arena, range, offset).await;
                (result, arena.map_or(Memory::Lent, Memory::Plain))
            }
            (Inner::Epoll(file), Memory::Fixed(mut fixed)) => {
                // A blocking thread cannot have a ring's memory.
                let result = read_apart(file, range.len(), offset).await.map(|bytes| {
                    fixed[range.start..range.start + bytes.len()].copy_from_slice(&bytes);
                    bytes.len()
                });
                (result, Memory::Fixed(fixed))
            }
            (_, other) => (Err(io::Error::other("a read buffer of another shard")), other),
        };
        buffer.memory = memory;
        (result, buffer)
    }

    /// Writes `arena.memory()[range]` at `offset`; may write less.
    pub async fn write_at(
        &self,
        arena: Arena,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Arena) {
        match &self.inner {
            Inner::Uring(file) => {
                let (result, slice) = asked(file.write_at(arena.slice(range), offset).submit()).await;
                (result, slice.into_inner())
            }
            Inner::Epoll(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    use std::os::unix::fs::FileExt;
                    (file.write_at(&arena.memory()[range], offset), arena)
                })
                .await
            }
        }
    }

    /// Makes what was written durable (fdatasync).
    ///
    /// # Errors
    /// Those of fdatasync: the data may be lost, and the caller must not acknowledge it.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Uring(file) => asked(file.sync_data()).await,
            Inner::Epoll(file) => {
                let file = Arc::clone(file);
                blocking(move || file.sync_data()).await
            }
        }
    }

    /// Reserves disk blocks for `[offset, offset + len)` without changing the file's size, so that a crash leaves no
    /// zeros behind the data.
    ///
    /// # Errors
    /// Those of fallocate; EOPNOTSUPP where the file system cannot.
    pub async fn allocate_keep_size(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.inner {
            Inner::Uring(file) => asked(file.fallocate(offset, len, libc::FALLOC_FL_KEEP_SIZE)).await,
            Inner::Epoll(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let (offset, len) = (offset.cast_signed(), len.cast_signed());
                    // SAFETY: the descriptor is open; fallocate takes numbers only.
                    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, offset, len) }
                    {
                        0 => Ok(()),
                        _ => Err(io::Error::last_os_error()),
                    }
                })
                .await
            }
        }
    }

    /// Share of `[offset, offset + len)` that is in the page cache, 0.0 to 1.0; `None` where the kernel cannot say.
    pub fn cached_share(&self, offset: u64, len: u64) -> Option<f64> {
        #[repr(C)]
        struct Span {
            off: u64,
            len: u64,
        }
        let span = Span { off: offset, len };
        let mut stat = [0u64; 5];
        // SAFETY: cachestat (Linux 6.5) reads the span and writes five counters, the first being cached pages.
        let rc =
            unsafe { libc::syscall(SYS_CACHESTAT, self.as_raw_fd(), &raw const span, stat.as_mut_ptr(), 0) };
        let pages = len.div_ceil(4096).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
        (rc == 0).then(|| stat[0] as f64 / pages as f64)
    }
}

/// The number of cachestat(2) on every architecture of the unified table; libc does not name it yet.
const SYS_CACHESTAT: libc::c_long = 451;

/// Takes over a raw descriptor.
///
/// # Safety
/// The caller owns `fd` and gives it up.
unsafe fn tokio_uring_file(fd: RawFd) -> tokio_uring::fs::File {
    // SAFETY: the caller's promise.
    tokio_uring::fs::File::from_std(unsafe { File::from_raw_fd(fd) })
}

/// Reads on a blocking thread, into memory of its own.
async fn read_apart(file: &Arc<File>, len: usize, offset: u64) -> io::Result<Vec<u8>> {
    let file = Arc::clone(file);
    blocking(move || {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; len];
        let n = file.read_at(&mut bytes, offset)?;
        bytes.truncate(n);
        Ok(bytes)
    })
    .await
}

/// FUSE_SUPER_MAGIC, which libc does not name.
const FUSE: u64 = 0x6573_5546;

fn is_on_fuse(file: &File) -> bool {
    // SAFETY: statfs is a plain C struct of integers, for which all zeros is a valid value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the struct lives through the call.
    let known = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut facts) } == 0;
    known && facts.f_type as u64 & 0xffff_ffff == FUSE
}

async fn read_blocking(
    file: &Arc<File>,
    mut arena: Arena,
    range: Range<usize>,
    offset: u64,
) -> (io::Result<usize>, Option<Arena>) {
    match read_cached(file, &mut arena.memory_mut()[range.clone()], offset) {
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
        result => return (result, Some(arena)),
    }
    let file = Arc::clone(file);
    let (result, arena) = blocking(move || {
        use std::os::unix::fs::FileExt;
        (file.read_at(&mut arena.memory_mut()[range], offset), arena)
    })
    .await;
    (result, Some(arena))
}

/// Reads what the page cache has, or EAGAIN. A file system without RWF_NOWAIT counts as EAGAIN.
fn read_cached(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: the descriptor is open and the vector describes `into`, borrowed exclusively for the call.
    let n =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const iov, 1, offset.cast_signed(), libc::RWF_NOWAIT) };
    if n >= 0 {
        return Ok(n.cast_unsigned());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {
            Err(io::Error::from_raw_os_error(libc::EAGAIN))
        }
        _ => Err(error),
    }
}

/// Runs `work` on a blocking thread of the shard's runtime and hands a panic on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The page cache's largest piece, bytes.
const FOLIO_MAX: u64 = 2 << 20;

/// Forgets what memory has of the file from `from` on and is not newer than the disk, and returns the first bytes there that
/// the disk does not have: a hole, or blocks that were reserved and not written. `None` where it has all, and where the file
/// system cannot tell. What a process has mapped is not forgotten.
///
/// # Errors
/// Those of fstat.
pub(crate) fn first_hole(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
    let len = file.metadata()?.len();
    // A folio that begins before the range is left out.
    let (fd, begin) = (file.as_raw_fd(), from.saturating_sub(FOLIO_MAX) / FOLIO_MAX * FOLIO_MAX);
    // SAFETY: the descriptor is open; posix_fadvise and lseek take numbers only.
    let seek = |from: u64, whence| u64::try_from(unsafe { libc::lseek(fd, from.cast_signed(), whence) }).ok();
    // SAFETY: as above. Where it is refused, memory has its say.
    unsafe { libc::posix_fadvise(fd, begin.cast_signed(), 0, libc::POSIX_FADV_DONTNEED) };
    let Some(hole) = seek(from, libc::SEEK_HOLE).filter(|hole| *hole < len) else { return Ok(None) };
    // Behind the last one there is no data.
    Ok(Some(hole..seek(hole, libc::SEEK_DATA).unwrap_or(len)))
}
