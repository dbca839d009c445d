//! Memory that the kernel fills by itself: a mapping of pages, and the ring by which buffers are lent.
//!
//! The ring takes buffers at its end and the kernel uses them from its front, in order; which of them it used is told
//! by completions. What the buffers are for is nobody's business here.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Anonymous memory, zeroed, aligned to 2 MiB when it is that large.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes` bytes; `huge` asks for huge pages, which the kernel may ignore.
    pub(super) fn new(bytes: usize, huge: bool) -> io::Result<Self> {
        // SAFETY: a fresh private mapping that nothing else points into.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the range was mapped above; advice changes no content. A kernel without huge pages refuses it.
        unsafe { libc::madvise(at, bytes, advice) };
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, bytes })
    }

    /// The address of byte `offset`.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "an offset lies within its mapping");
        // SAFETY: within the mapping, as asserted.
        unsafe { self.at.add(offset) }
    }

    /// Gives the pages back; the bytes read as zero afterwards.
    pub(super) fn forget_pages(&self) {
        // SAFETY: the range is this mapping's own and private; the caller knows that no one uses its content.
        unsafe { libc::madvise(self.at.as_ptr().cast(), self.bytes, libc::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size and unmapped once.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

/// A ring of buffer addresses shared with the kernel: it takes them from the front, in order.
#[derive(Debug)]
pub(super) struct Provided {
    entries: Mapping,
    mask: u16,
    tail: u16,
    /// The buffer in each entry.
    order: Box<[u16]>,
    /// The entry each buffer was last put into.
    position: Vec<u16>,
    /// Buffers that the kernel has and has not used.
    pub(super) published: usize,
}

impl Provided {
    /// Registers an empty ring of `entries` (a power of two) as buffer group `group`.
    pub(super) fn register(ring: &IoUring, group: u16, entries: u16) -> io::Result<Self> {
        assert!(entries.is_power_of_two(), "the kernel masks positions");
        let bytes = usize::from(entries) * size_of::<BufRingEntry>();
        let memory = Mapping::new(bytes.next_multiple_of(4096), false)?;
        // SAFETY: the memory is page-aligned, zeroed, large enough, and the kernel pins its pages for the ring's life.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(memory.at(0).as_ptr() as u64, entries, group, 0)?;
        }
        Ok(Self {
            entries: memory,
            mask: entries - 1,
            tail: 0,
            order: vec![0; usize::from(entries)].into(),
            position: Vec::new(),
            published: 0,
        })
    }

    /// Puts a buffer at the end; the kernel sees it after [`Provided::store_tail`].
    pub(super) fn put(&mut self, buffer: u16, at: NonNull<u8>, bytes: usize) {
        assert!(self.published <= usize::from(self.mask), "a full ring takes no more buffers");
        let entry = self.tail & self.mask;
        // SAFETY: `entry` is below the number of entries, and the kernel reads entries only behind the stored tail.
        let slot =
            unsafe { &mut *self.entries.at(0).cast::<BufRingEntry>().add(usize::from(entry)).as_ptr() };
        slot.set_addr(at.as_ptr() as u64);
        slot.set_len(bytes as u32);
        slot.set_bid(buffer);
        self.order[usize::from(entry)] = buffer;
        if self.position.len() <= usize::from(buffer) {
            self.position.resize(usize::from(buffer) + 1, 0);
        }
        self.position[usize::from(buffer)] = entry;
        self.tail = self.tail.wrapping_add(1);
        self.published += 1;
    }

    /// Shows the kernel all buffers put so far.
    pub(super) fn store_tail(&self) {
        let base: *const BufRingEntry = self.entries.at(0).cast::<BufRingEntry>().as_ptr();
        // SAFETY: `base` is the first entry of a registered ring; the field is aligned for 16 bits and the kernel
        // reads it with acquire ordering.
        unsafe { (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(self.tail, Ordering::Release) };
    }

    /// The buffer that the kernel used after `buffer`, in the same completion.
    pub(super) fn after(&self, buffer: u16) -> u16 {
        self.order[usize::from(self.position[usize::from(buffer)].wrapping_add(1) & self.mask)]
    }

    /// Notes that the kernel has used a buffer.
    pub(super) fn used(&mut self) {
        assert!(self.published > 0, "the kernel uses only what was published");
        self.published -= 1;
    }
}
