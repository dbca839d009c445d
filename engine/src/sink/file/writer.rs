//! One open output file: batches in, in order, one write in flight.
//!
//! It owns the place in the file and the bytes of the last block that are not written yet. Every error leaves it where
//! it was: the same call goes on at the right byte. It decides nothing about when to sync, and acknowledges nothing.

use std::io;
use std::ops::Range;

use super::step::{self, BLOCK, Standing, Step};
use crate::batch::Batch;
use crate::io::IoFile;
use crate::pool::Arena;

/// Disk blocks reserved ahead of direct writes, bytes.
const PREALLOCATE: u64 = 64 << 20;

/// What a writer needs of a file. Tests put a disk in its place that fails.
pub(super) trait Medium: Clone + 'static {
    /// Writes `arena.memory()[range]` at `offset`; may write less.
    async fn write_at(&self, arena: Arena, range: Range<usize>, offset: u64) -> (io::Result<usize>, Arena);
    /// Reserves blocks, leaves the length.
    async fn allocate_keep_size(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Sets the length, and gives back what was reserved behind it.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The length as the kernel has it at hand.
    fn len(&self) -> io::Result<u64>;
    /// The length as the file system has it.
    fn stat_len(&self) -> io::Result<u64>;
    /// Whether it has no name any more.
    fn is_removed(&self) -> bool;
}

impl Medium for IoFile {
    async fn write_at(&self, arena: Arena, range: Range<usize>, offset: u64) -> (io::Result<usize>, Arena) {
        Self::write_at(self, arena, range, offset).await
    }

    async fn allocate_keep_size(&self, offset: u64, len: u64) -> io::Result<()> {
        Self::allocate_keep_size(self, offset, len).await
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Self::truncate(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.len_at_hand()
    }

    fn stat_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_removed(&self) -> bool {
        Self::is_removed(self).unwrap_or(false)
    }
}

/// A batch on its way into the file.
#[derive(Debug)]
pub(super) struct Job {
    /// The batch.
    pub(super) batch: Box<Batch>,
    /// Record bytes that are in the output or pending.
    pub(super) done: usize,
}

impl Job {
    /// All of a batch.
    pub(super) fn new(batch: Box<Batch>) -> Self {
        Self { batch, done: 0 }
    }
}

/// An open output file.
#[derive(Debug)]
pub(super) struct Writer<M> {
    cached: M,
    direct: Option<M>,
    visible: u64,
    /// What comes next behind `visible`: less than a block. None while the kernel has it.
    pending: Option<Arena>,
    /// Blocks are reserved up to here.
    reserved: u64,
    /// The disk was too full for that, and is not asked again up to here.
    refused: u64,
    /// Stands in a batch for the arena that the kernel has.
    stand_in: Option<Arena>,
}

impl<M: Medium> Writer<M> {
    /// Writes at `len`, which is where the file ends. `direct` is the same file opened past the page cache.
    pub(super) fn new(cached: M, direct: Option<M>, len: u64) -> Self {
        Self { cached, direct, visible: len, pending: None, reserved: len, refused: 0, stand_in: None }
    }

    /// Where the file stands.
    pub(super) fn standing(&self) -> Standing {
        Standing { visible: self.visible, pending: self.pending.as_ref().map_or(0, Arena::len) }
    }

    /// The handle to sync.
    pub(super) fn medium(&self) -> M {
        self.cached.clone()
    }

    /// Takes what is left of a batch. After an error, the same call goes on where it stopped.
    pub(super) async fn append(&mut self, job: &mut Job) -> io::Result<()> {
        loop {
            let arena = &mut job.batch.arena;
            let (from, end) = (arena.head() + job.done, arena.head() + arena.len());
            match step::next(self.standing(), from, end, job.done == 0, self.direct.is_some()) {
                Step::Done => return Ok(()),
                Step::Flush => self.flush().await?,
                Step::Shift(head) => arena.shift_to_head(head),
                Step::Keep(range) => {
                    job.done += range.len();
                    let pending = self.pending.get_or_insert_with(|| Arena::new(BLOCK));
                    pending.extend(&arena.memory()[range]);
                }
                Step::Cached(range) => {
                    let medium = self.cached.clone();
                    job.done += self.write(&medium, &mut job.batch, range).await?;
                }
                Step::Direct(range) => job.done += self.write_direct(&mut job.batch, range).await?,
            }
        }
    }

    /// Writes what is pending, so that readers see every record.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while let Some(pending) = self.pending.take_if(|pending| !pending.is_empty()) {
            let (len, head) = (pending.len(), pending.head());
            let (result, mut pending) = self.cached.write_at(pending, head..head + len, self.visible).await;
            let written = result.and_then(some);
            if let Ok(n) = written {
                let rest = pending.filled()[n..].to_vec();
                pending.clear();
                pending.extend(&rest);
                self.visible += n as u64;
            }
            self.pending = Some(pending);
            written?;
        }
        Ok(())
    }

    /// Where somebody else has cut the file, as logrotate's copytruncate does, it goes on at the end that it has now, and not
    /// behind a hole. Returns how many bytes went.
    pub(super) fn notice_cut(&mut self) -> Option<u64> {
        let len = self.cached.len().ok().filter(|len| *len < self.visible)?;
        let went = self.visible - len;
        (self.visible, self.reserved) = (len, len);
        Some(went)
    }

    /// Whether somebody else has removed the file.
    pub(super) fn is_removed(&self) -> bool {
        self.cached.is_removed()
    }

    /// Forgets what is behind `len`, in the file too.
    pub(super) fn cut(&mut self, len: u64) -> io::Result<()> {
        let len = self.truncate(len)?;
        (self.visible, self.reserved) = (len, len);
        self.forget_pending();
        Ok(())
    }

    /// Sets the length, or leaves a shorter one that somebody else has set: longer, the file would have a hole. Blocks
    /// behind it are given back. Returns the length.
    fn truncate(&self, len: u64) -> io::Result<u64> {
        let len = self.cached.stat_len().map_or(len, |now| len.min(now));
        self.cached.truncate(len)?;
        Ok(len)
    }

    /// Gives back the blocks reserved behind the end. What is pending must be flushed.
    pub(super) fn trim(&mut self) -> io::Result<()> {
        if self.reserved > self.visible {
            self.truncate(self.visible)?;
            self.reserved = self.visible;
        }
        Ok(())
    }

    /// Writes blocks past the page cache, the pending bytes first. Returns the number of the batch's bytes written.
    async fn write_direct(&mut self, batch: &mut Batch, range: Range<usize>) -> io::Result<usize> {
        let Some(direct) = self.direct.clone() else { return Ok(0) };
        let pending_len = self.standing().pending;
        if let Some(pending) = &self.pending {
            batch.arena.memory_mut()[range.start..range.start + pending_len]
                .copy_from_slice(pending.filled());
        }
        self.reserve(range.len() as u64).await;
        match self.write(&direct, batch, range).await {
            Ok(n) if n >= pending_len => {
                self.forget_pending();
                Ok(n - pending_len)
            }
            Ok(n) => {
                // Shorter than what was pending, which is still there: it is written again, through the page cache.
                self.visible -= n as u64;
                self.direct = None;
                Ok(0)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                log::info!(target: "wpgen::sink", "the file system takes no direct writes ({error}): written through the page cache");
                self.direct = None;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, medium: &M, batch: &mut Batch, range: Range<usize>) -> io::Result<usize> {
        let stand_in = self.stand_in.take().unwrap_or_else(|| Arena::new(0));
        let arena = std::mem::replace(&mut batch.arena, stand_in);
        let (result, arena) = medium.write_at(arena, range, self.visible).await;
        self.stand_in = Some(std::mem::replace(&mut batch.arena, arena));
        let written = result.and_then(some)?;
        self.visible += written as u64;
        Ok(written)
    }

    /// Reserves blocks for the next write and more; a file system that cannot is not asked again, and one that is full not
    /// before as many bytes are written.
    async fn reserve(&mut self, len: u64) {
        if self.visible + len <= self.reserved.max(self.refused) {
            return;
        }
        let from = self.reserved.max(self.visible);
        self.reserved = match self.cached.allocate_keep_size(from, PREALLOCATE).await {
            Ok(()) => from + PREALLOCATE,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                // Some keep what they could get, and nobody else would have room. The write itself will tell of a full one.
                self.refused = self.visible + PREALLOCATE;
                match self.truncate(self.visible) {
                    Ok(_) => self.visible,
                    // When the file is closed, it is tried again.
                    Err(_) => from + PREALLOCATE,
                }
            }
            Err(_) => u64::MAX,
        };
    }

    fn forget_pending(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.clear();
        }
    }
}

/// No progress is an error: a caller that goes on would go on for ever.
fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A disk in memory: what it will say, one word a write, and what it has.
    #[derive(Clone, Default)]
    struct Disk {
        words: Rc<RefCell<Vec<Word>>>,
        bytes: Rc<RefCell<Vec<u8>>>,
        /// What it says when blocks are to be reserved, and how often it was asked.
        refuses: Option<i32>,
        asked: Rc<RefCell<u32>>,
    }

    #[derive(Clone, Copy)]
    enum Word {
        Short(usize),
        Error(i32),
    }

    impl Medium for Disk {
        async fn write_at(
            &self,
            arena: Arena,
            range: Range<usize>,
            offset: u64,
        ) -> (io::Result<usize>, Arena) {
            let mut bytes = self.bytes.borrow_mut();
            assert!(offset <= bytes.len() as u64, "no gap");
            let offset = usize::try_from(offset).unwrap();
            assert!(
                bytes[offset..].iter().eq(arena.memory()[range.clone()].iter().take(bytes.len() - offset)),
                "nothing twice, but for the beginning of a write that came to little"
            );
            bytes.truncate(offset);
            let n = match self.words.borrow_mut().pop() {
                Some(Word::Error(number)) => return (Err(io::Error::from_raw_os_error(number)), arena),
                Some(Word::Short(n)) => n.min(range.len()),
                None => range.len(),
            };
            bytes.extend_from_slice(&arena.memory()[range][..n]);
            (Ok(n), arena)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.borrow().len() as u64)
        }

        fn stat_len(&self) -> io::Result<u64> {
            self.len()
        }

        fn is_removed(&self) -> bool {
            false
        }

        async fn allocate_keep_size(&self, _offset: u64, _len: u64) -> io::Result<()> {
            let refusal = self.refuses.map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)));
            *self.asked.borrow_mut() += 1;
            refusal
        }

        fn truncate(&self, len: u64) -> io::Result<()> {
            self.bytes.borrow_mut().resize(len as usize, 0);
            Ok(())
        }
    }

    fn job(len: usize, head: usize) -> (Job, Vec<u8>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut batch = Box::new(Batch::new(Arena::new(len)));
        batch.arena.clear_with_head(head);
        batch.arena.extend(&bytes);
        (Job::new(batch), bytes)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn errors_and_short_writes_leave_it_at_the_right_byte() {
        use Word::{Error, Short};
        let disk = Disk::default();
        *disk.words.borrow_mut() = vec![
            Short(100),
            Error(libc::EIO),
            Short(5000),
            Short(8192),
            Error(libc::ENOSPC),
            Short(1),
            Error(libc::ENOSPC),
        ];
        let mut writer = Writer::new(disk.clone(), Some(disk.clone()), 0);
        let mut all = Vec::new();
        run(async {
            for (len, head) in [(300_000, 17), (10, 0), (400_000, 4095), (5000, 1), (300_001, 0)] {
                let (mut job, bytes) = job(len, head);
                all.extend_from_slice(&bytes);
                while writer.append(&mut job).await.is_err() {}
                assert_eq!(job.batch.bytes(), bytes, "a batch stays whole: it may be written again");
            }
            while writer.flush().await.is_err() {}
        });
        assert!(*disk.bytes.borrow() == all);
        assert!(disk.words.borrow().is_empty());
    }

    #[test]
    fn a_file_system_without_direct_writes_is_found_out_once() {
        let (cached, direct) = (Disk::default(), Disk::default());
        direct.words.borrow_mut().push(Word::Error(libc::EINVAL));
        let mut writer = Writer::new(cached.clone(), Some(direct), 0);
        let (mut job, bytes) = job(300_000, 0);
        run(writer.append(&mut job)).unwrap();
        assert!(*cached.bytes.borrow() == bytes && writer.direct.is_none());
    }

    #[test]
    fn a_direct_write_that_comes_to_less_than_was_pending_is_no_endless_one() {
        let disk = Disk::default();
        let mut writer = Writer::new(disk.clone(), Some(disk.clone()), 0);
        let (mut first, few) = job(1000, 0);
        run(writer.append(&mut first)).unwrap();
        *disk.words.borrow_mut() = vec![Word::Short(512)];
        let (mut next, many) = job(300_000, 1000);
        run(writer.append(&mut next)).unwrap();
        assert!(*disk.bytes.borrow() == [few, many].concat());
    }

    #[test]
    fn a_file_that_somebody_else_cut_has_no_hole() {
        let disk = Disk::default();
        let mut writer = Writer::new(disk.clone(), Some(disk.clone()), 0);
        let (mut first, bytes) = job(5000, 0);
        run(writer.append(&mut first)).unwrap();
        run(writer.flush()).unwrap();
        assert_eq!(writer.notice_cut(), None);
        disk.truncate(0).unwrap();
        assert_eq!(writer.notice_cut(), Some(5000));
        let (mut next, more) = job(300_000, 5000 % BLOCK);
        run(writer.append(&mut next)).unwrap();
        run(writer.flush()).unwrap();
        assert!(*disk.bytes.borrow() == more);
        assert_eq!(bytes.len(), 5000);
        disk.truncate(100).unwrap();
        assert!(writer.reserved > writer.visible);
        writer.trim().unwrap();
        assert_eq!(disk.bytes.borrow().len(), 100, "nor is it filled with zeros when it is closed");
        writer.cut(4000).unwrap();
        assert_eq!(writer.standing(), Standing { visible: 100, pending: 0 });
    }

    #[test]
    fn a_disk_that_is_too_full_to_reserve_is_not_asked_at_each_write() {
        for (refuses, times) in
            [(None, 2), (Some(libc::ENOSPC), 2), (Some(libc::EDQUOT), 2), (Some(libc::EIO), 1)]
        {
            let disk = Disk { refuses, ..Disk::default() };
            let mut writer = Writer::new(disk.clone(), Some(disk.clone()), 0);
            let mut all = 0;
            while all < PREALLOCATE as usize {
                let (mut job, bytes) = job(8 << 20, all % BLOCK);
                run(writer.append(&mut job)).unwrap();
                all += bytes.len();
                if refuses.is_some_and(|number| number != libc::EIO) {
                    assert!(writer.reserved <= writer.visible, "nothing is held");
                    // What is written again is no reason to ask again.
                    writer.cut(disk.len().unwrap()).unwrap();
                    assert_eq!(*disk.asked.borrow(), 1);
                }
            }
            let (mut job, _) = job(8 << 20, all % BLOCK);
            run(writer.append(&mut job)).unwrap();
            assert_eq!(*disk.asked.borrow(), times, "{refuses:?}");
        }
    }

    #[test]
    fn a_cut_file_takes_everything_again() {
        let disk = Disk::default();
        let mut writer = Writer::new(disk.clone(), None, 0);
        let (mut first, bytes) = job(5000, 3);
        run(writer.append(&mut first)).unwrap();
        writer.cut(1000).unwrap();
        let mut again = Job::new(first.batch);
        run(writer.append(&mut again)).unwrap();
        assert!(*disk.bytes.borrow() == [&bytes[..1000], &bytes].concat());
        assert_eq!(writer.standing(), Standing { visible: 6000, pending: 0 });
    }
}
