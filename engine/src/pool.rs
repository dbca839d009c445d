//! Page-aligned memory that goes out and comes back.
//!
//! An [`Arena`] is a batch's bytes: aligned for direct I/O, with a head of up to one page in front that a file's owner
//! fills with the file's unaligned end, so that a whole batch goes to disk without being moved. A [`Pool`] keeps
//! returned batches of one shard, still charged to the engine's [`Memory`]; when somebody waits for a batch it keeps none.
//!
//! A new batch lies in small pages, of which only those are resident that records were written to. One that comes home
//! filled gets half of a huge page instead ([`crate::io::halves`]), and keeps it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::batch::Batch;
use crate::io::halves::{self, HALF_BYTES};
use crate::io::memory::{map, unmap};
use crate::memory::{Charge, Memory};

/// Alignment of arenas, bytes: what O_DIRECT asks for on every file system in use.
pub const ALIGN: usize = 4096;
/// What a batch of standard size takes in memory.
pub const BATCH_BYTES: usize = HALF_BYTES;
/// Bytes that an arena of standard size holds, without its head.
pub const ARENA_BYTES: usize = BATCH_BYTES - 2 * ALIGN;
/// A batch that came home with so much in it is likely to be filled again.
const FILLED_BYTES: usize = ARENA_BYTES / 2;

/// Aligned bytes with a fill mark. Memory `[0, head)` belongs to the sink, `[head, len)` are the records.
#[derive(Debug)]
pub struct Arena {
    ptr: NonNull<u8>,
    cap: usize,
    head: usize,
    len: usize,
    /// Whether it is half of a huge page.
    is_half: bool,
}

// SAFETY: the memory is owned by the arena alone and holds plain bytes.
unsafe impl Send for Arena {}

impl Arena {
    /// An empty arena that holds `bytes` of records behind a head of up to a page.
    pub fn new(bytes: usize) -> Self {
        let cap = bytes.next_multiple_of(ALIGN) + 2 * ALIGN;
        Self { ptr: allocate(cap), cap, head: 0, len: 0, is_half: false }
    }

    /// An empty arena of standard size in half of a huge page, if there is memory for one.
    fn half() -> Option<Self> {
        Some(Self { ptr: halves::take()?, cap: HALF_BYTES, head: 0, len: 0, is_half: true })
    }

    /// Bytes that still fit without growing.
    #[inline]
    pub fn room(&self) -> usize {
        (self.cap - ALIGN).saturating_sub(self.len)
    }

    /// Bytes allocated.
    pub fn capacity(&self) -> usize {
        self.cap
    }

    /// Bytes of head in front of the records.
    pub fn head(&self) -> usize {
        self.head
    }

    /// Number of record bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len - self.head
    }

    /// Whether there are no record bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == self.head
    }

    /// Makes it empty with a head of `head` bytes (at most a page).
    pub fn clear_with_head(&mut self, head: usize) {
        assert!(head < ALIGN, "an arena's head is less than a page");
        self.head = head;
        self.len = head;
    }

    /// Makes it empty, without a head.
    pub fn clear(&mut self) {
        self.clear_with_head(0);
    }

    /// Moves the records so that `head` bytes are in front of them.
    pub fn shift_to_head(&mut self, head: usize) {
        assert!(head < ALIGN, "an arena's head is less than a page");
        let n = self.len();
        let from = self.head;
        // What is kept free behind the records is for this, unless they were advanced into it.
        self.reserve((head + n).saturating_sub(self.cap));
        self.memory_mut().copy_within(from..from + n, head);
        self.head = head;
        self.len = head + n;
    }

    /// Forgets record bytes behind the first `n`.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(self.head + n);
    }

    /// Grows, when needed, so that `more` bytes fit.
    pub fn reserve(&mut self, more: usize) {
        if self.room() >= more {
            return;
        }
        let cap = (self.len + more + ALIGN).next_multiple_of(ALIGN).max(self.cap.saturating_mul(2));
        let mut grown = Self { ptr: allocate(cap), cap, head: self.head, len: self.len, is_half: false };
        let len = self.len;
        grown.memory_mut()[..len].copy_from_slice(&self.memory()[..len]);
        *self = grown;
    }

    /// Appends bytes, growing when they do not fit.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let at = self.len;
        self.memory_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends the first `n` bytes of a chunk. All of it is copied: a copy of known size takes a few instructions, one of
    /// any size a call.
    #[inline]
    pub fn extend_within<const N: usize>(&mut self, chunk: &[u8; N], n: usize) {
        assert!(n <= N, "a chunk holds what is appended");
        self.reserve(N);
        let at = self.len;
        self.memory_mut()[at..at + N].copy_from_slice(chunk);
        self.len += n;
    }

    /// Appends one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    /// At least `more` bytes behind the records to be written by the caller, who then calls [`Arena::advance`].
    #[inline]
    pub fn spare(&mut self, more: usize) -> &mut [u8] {
        self.reserve(more);
        let at = self.len;
        &mut self.memory_mut()[at..]
    }

    /// Takes `n` bytes written to [`Arena::spare`] as records.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.cap - self.len, "advance within the arena");
        self.len += n;
    }

    /// The record bytes.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.memory()[self.head..self.len]
    }

    /// All memory, the head and what is not filled included.
    pub fn memory(&self) -> &[u8] {
        // SAFETY: `cap` bytes were allocated zeroed, so all are initialised.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.cap) }
    }

    /// All memory, to be written.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `memory`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.cap) }
    }
}

impl std::io::Write for Arena {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.is_half {
            // SAFETY: taken in `half`; nothing else uses an arena's memory.
            return unsafe { halves::give(self.ptr) };
        }
        if self.cap >= MAPPED_BYTES_MIN {
            // SAFETY: mapped in `allocate` with the same size.
            return unsafe { unmap(self.ptr, self.cap) };
        }
        // SAFETY: allocated in `allocate` with the same layout.
        unsafe { dealloc(self.ptr.as_ptr(), layout(self.cap)) }
    }
}

/// From this size on an arena is a mapping of its own: an allocator rounds such sizes up by as much as a quarter and
/// keeps what is freed, and `memory_limit` is about what the process has.
const MAPPED_BYTES_MIN: usize = 256 << 10;

fn layout(cap: usize) -> Layout {
    Layout::from_size_align(cap, ALIGN).expect("an arena is far below isize::MAX")
}

fn allocate(cap: usize) -> NonNull<u8> {
    if cap >= MAPPED_BYTES_MIN {
        return map(cap).unwrap_or_else(|| handle_alloc_error(layout(cap)));
    }
    // SAFETY: the layout's size is not zero: a capacity holds at least a head.
    let ptr = unsafe { alloc_zeroed(layout(cap)) };
    NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout(cap)))
}

/// Batches of standard size that came home and wait to go out again.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Box<Batch>>,
    free_max: usize,
    memory: Arc<Memory>,
}

impl Pool {
    /// A pool that keeps at most `free_max` batches; others are freed.
    pub fn new(free_max: usize, memory: Arc<Memory>) -> Self {
        Self { free: Vec::new(), free_max, memory }
    }

    /// An empty batch: one that lies here, or one with memory that `charge` finds.
    pub fn take(&mut self, charge: impl FnOnce() -> Option<Charge>) -> Option<Box<Batch>> {
        if let Some(batch) = self.free.pop() {
            self.memory.unpool();
            return Some(batch);
        }
        let charge = charge()?;
        let mut batch = Box::new(Batch::new(Arena::new(ARENA_BYTES)));
        batch.charge = Some(charge);
        Some(batch)
    }

    /// A batch that is no longer needed.
    pub fn give(&mut self, mut batch: Box<Batch>) {
        let fits = self.free.len() < self.free_max && batch.arena.capacity() <= BATCH_BYTES;
        let is_shared = batch.charge.as_ref().is_some_and(|charge| !charge.is_own());
        if fits && is_shared && self.memory.may_pool() {
            if batch.arena.len() >= FILLED_BYTES
                && !batch.arena.is_half
                && let Some(half) = Arena::half()
            {
                batch.arena = half;
            }
            batch.clear();
            self.free.push(batch);
        }
    }

    /// Frees all that lies here: somebody waits for it.
    pub fn trim(&mut self) {
        self.free.drain(..).for_each(|_| self.memory.unpool());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_grows_and_keeps_its_bytes() {
        for size in [0, 1, ALIGN - 1, ALIGN, ALIGN + 1, 3 * ALIGN] {
            let mut arena = Arena::new(size);
            arena.clear_with_head(17);
            let bytes: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
            for chunk in bytes.chunks(777) {
                arena.extend(chunk);
            }
            assert_eq!(arena.filled(), &bytes[..]);
            assert_eq!(arena.head(), 17);
            assert_eq!(arena.memory().as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    fn a_shift_moves_the_records_and_nothing_else() {
        let mut arena = Arena::new(100);
        arena.extend(b"hello");
        for head in [5, 0, 4095, 1] {
            arena.shift_to_head(head);
            assert_eq!((arena.filled(), arena.head()), (&b"hello"[..], head));
        }
        let mut full = Arena::new(ARENA_BYTES);
        full.clear_with_head(7);
        full.extend(&vec![1; ARENA_BYTES]);
        full.shift_to_head(ALIGN - 1);
        assert_eq!(
            (full.len(), full.capacity()),
            (ARENA_BYTES, BATCH_BYTES),
            "what is full needs no more memory"
        );
    }

    #[test]
    fn a_pool_keeps_standard_batches_up_to_its_bound() {
        let memory = Memory::unlimited();
        let mut pool = Pool::new(1, Arc::clone(&memory));
        let charge = || memory.try_charge(BATCH_BYTES);
        let (a, b) = (pool.take(charge).unwrap(), pool.take(charge).unwrap());
        pool.give(a);
        pool.give(b);
        assert_eq!(pool.free.len(), 1);
        let mut big = pool.take(charge).unwrap();
        big.arena.reserve(4 * ARENA_BYTES);
        pool.give(big);
        assert_eq!((pool.free.len(), memory.used_bytes()), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes no advice about pages")]
    fn a_batch_that_came_home_filled_lies_in_a_huge_page_from_then_on() {
        let memory = Memory::unlimited();
        let mut pool = Pool::new(2, Arc::clone(&memory));
        let charge = || memory.try_charge(BATCH_BYTES);
        let mut batch = pool.take(charge).unwrap();
        for (bytes, is_half) in [(FILLED_BYTES - 1, false), (FILLED_BYTES, true), (1, true)] {
            batch.arena.extend(&vec![1; bytes]);
            pool.give(batch);
            batch = pool.take(|| None).expect("it lay in the pool");
            assert_eq!((batch.arena.is_half, batch.arena.len()), (is_half, 0));
            assert_eq!((batch.arena.capacity(), memory.used_bytes()), (BATCH_BYTES, BATCH_BYTES));
        }
        batch.arena.extend(&vec![1; 2 * ARENA_BYTES]);
        assert!(!batch.arena.is_half, "what outgrows its half leaves it");
    }

    #[test]
    fn nothing_lies_unused_while_somebody_waits() {
        let memory = Memory::unlimited();
        let mut pool = Pool::new(4, Arc::clone(&memory));
        let charge = || memory.try_charge(BATCH_BYTES);
        let (a, b) = (pool.take(charge).unwrap(), pool.take(charge).unwrap());
        pool.give(a);
        let (wanted, pooled) = memory.want();
        assert!(pooled);
        pool.trim();
        pool.give(b);
        assert_eq!((pool.free.len(), memory.used_bytes(), memory.want().1), (0, 0, false));
        drop(wanted);
    }
}
