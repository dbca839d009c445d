//! The receive buffers of a shard: lent to the kernel, leased to a consumer, and given back.
//!
//! A buffer is in exactly one place: *free* (in a list here), *published* (the kernel may fill it), or *leased* (a
//! consumer reads it). A [`Lease`] that is dropped makes its buffers free; the next [`Buffers::publish`] lends them
//! to the kernel again. Withholding leases is the backpressure: the kernel runs out of buffers and the peers' windows
//! close.
//!
//! The *hot set* is the first [`HOT_BUFFERS`] buffers. At most that many are published at a time, and those beyond
//! the hot set only while hot ones are leased: memory that is cycled through costs more than the size of one read, so
//! a large budget must not cool a small flow. Buffers beyond the hot set are made when they are first needed, up to
//! the sum of the budgets of the sources ([`Buffers::open_account`]).
//!
//! A source that holds its whole budget is *full*; it stays so until a quarter of the budget is back. Refusing to
//! receive for a full source is the caller's part.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use slab::Slab;

use super::alarm::Alarm;

/// Size of one receive buffer.
pub const BUFFER_BYTES: usize = 16 << 10;
/// Buffers of the hot set: 2 MiB, which stay in the cache.
pub const HOT_BUFFERS: usize = 128;
/// Buffers that are made at a time.
const SEGMENT_BUFFERS: usize = HOT_BUFFERS;
/// Buffers that a source may come to hold beyond its budget: a turn's worth before it is seen to be full, and another
/// before its receives have ended. Without them a full source would leave the others none.
const OVERSHOOT_BUFFERS: usize = 2 * HOT_BUFFERS;
/// Buffer identities are 16 bits wide in the kernel's interface.
const BUFFERS_MAX: usize = 1 << 16;

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
    fn forget_pages(&self) {
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
    published: usize,
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
    fn after(&self, buffer: u16) -> u16 {
        self.order[usize::from(self.position[usize::from(buffer)].wrapping_add(1) & self.mask)]
    }

    /// Notes that the kernel has used a buffer.
    pub(super) fn used(&mut self) {
        assert!(self.published > 0, "the kernel uses only what was published");
        self.published -= 1;
    }
}

#[derive(Debug)]
struct Segment {
    memory: Mapping,
    /// Buffers of it that are published or leased.
    out: usize,
    /// Whether it was used since its pages were last given back.
    touched: bool,
}

/// What a source may hold.
#[derive(Debug)]
struct Account {
    budget: usize,
    held: usize,
    full: bool,
    closed: bool,
}

#[derive(Debug)]
struct Inner {
    segments: Vec<Segment>,
    /// Buffers made so far.
    made: usize,
    /// Most buffers that may be made.
    made_max: usize,
    hot: VecDeque<u16>,
    cold: Vec<u16>,
    /// Whether pages beyond the hot set were used since they were last given back.
    cold_pages: bool,
    accounts: Slab<Account>,
    provided: Option<Provided>,
    /// Whether someone waits for a buffer to come back.
    wanted: bool,
}

/// The receive buffers of a shard.
#[derive(Debug)]
pub struct Buffers {
    inner: RefCell<Inner>,
    alarm: Rc<Alarm>,
}

impl Buffers {
    /// A set that publishes to a registered ring, or that is taken from directly when there is none. `alarm` rings
    /// when a buffer that was waited for is back.
    pub(super) fn new(provided: Option<Provided>, alarm: Rc<Alarm>) -> io::Result<Rc<Self>> {
        let inner = Inner {
            segments: Vec::new(),
            made: 0,
            made_max: HOT_BUFFERS,
            hot: VecDeque::with_capacity(HOT_BUFFERS),
            cold: Vec::new(),
            cold_pages: false,
            accounts: Slab::new(),
            provided,
            wanted: false,
        };
        let buffers = Self { inner: RefCell::new(inner), alarm };
        buffers.inner.borrow_mut().grow()?;
        Ok(Rc::new(buffers))
    }

    /// Opens an account for a source that may hold `budget_bytes`.
    pub(super) fn open_account(&self, budget_bytes: usize) -> u16 {
        let inner = &mut *self.inner.borrow_mut();
        let budget = (budget_bytes / BUFFER_BYTES).clamp(1, BUFFERS_MAX - 2 * HOT_BUFFERS);
        let account = inner.accounts.insert(Account { budget, held: 0, full: false, closed: false });
        inner.made_max = (inner.made_max + budget + OVERSHOOT_BUFFERS).min(BUFFERS_MAX);
        u16::try_from(account).expect("a shard has fewer sources than 65 536")
    }

    /// Closes an account; its leases stay good.
    pub(super) fn close_account(&self, account: u16) {
        let inner = &mut *self.inner.borrow_mut();
        let budget = inner.accounts[account.into()].budget;
        inner.made_max = inner.made_max.saturating_sub(budget + OVERSHOOT_BUFFERS).max(HOT_BUFFERS);
        inner.accounts[account.into()].closed = true;
        inner.drop_account_if_done(account);
    }

    /// Whether the source holds so much that it must not receive.
    pub(super) fn is_full(&self, account: u16) -> bool {
        self.inner.borrow().accounts[account.into()].full
    }

    /// Bytes in buffers that the source holds.
    pub(super) fn held_bytes(&self, account: u16) -> usize {
        self.inner.borrow().accounts[account.into()].held * BUFFER_BYTES
    }

    /// Publishes free buffers until the kernel has a hot set's worth of them, and says how many it has; without a
    /// kernel to publish to, how many could be taken.
    pub(super) fn publish(&self) -> usize {
        let inner = &mut *self.inner.borrow_mut();
        let Some(mut provided) = inner.provided.take() else {
            let free = inner.hot.len() + inner.cold.len() + inner.made_max.saturating_sub(inner.made);
            inner.wanted = free == 0;
            return free;
        };
        let before = provided.published;
        while provided.published < HOT_BUFFERS {
            let Some(buffer) = inner.take() else { break };
            provided.put(buffer, inner.address(buffer), BUFFER_BYTES);
        }
        if provided.published != before {
            provided.store_tail();
        }
        let published = provided.published;
        inner.wanted = published < HOT_BUFFERS / 2;
        inner.provided = Some(provided);
        published
    }

    /// Takes over what one completion filled: `bytes` bytes, the first of them in `first`. Calls `each` with leases
    /// in order; buffers that lie side by side are one lease.
    pub(super) fn claim(
        self: &Rc<Self>,
        first: u16,
        bytes: usize,
        account: u16,
        mut each: impl FnMut(Lease),
    ) {
        let (mut next, mut left) = (first, bytes);
        while left > 0 {
            let lease = self.claim_run(&mut next, &mut left, account);
            each(lease);
        }
    }

    /// Takes back a buffer that a completion used for nothing.
    pub(super) fn unused(&self, buffer: u16) {
        let inner = &mut *self.inner.borrow_mut();
        inner.provided.as_mut().expect("only a published buffer is completed").used();
        inner.free_behind(buffer);
    }

    /// Claims the buffers from `next` on that lie side by side.
    fn claim_run(self: &Rc<Self>, next: &mut u16, left: &mut usize, account: u16) -> Lease {
        let inner = &mut *self.inner.borrow_mut();
        let first = *next;
        let at = inner.address(first);
        let (mut count, mut len) = (0u16, 0);
        loop {
            let provided = inner.provided.as_mut().expect("only a published buffer is completed");
            let part = (*left).min(BUFFER_BYTES);
            provided.used();
            count += 1;
            len += part;
            *left -= part;
            if *left == 0 {
                break;
            }
            let here = *next;
            *next = provided.after(here);
            if *next != here.wrapping_add(1) || usize::from(*next) % SEGMENT_BUFFERS == 0 {
                break;
            }
        }
        inner.charge(account, count.into());
        Lease { buffers: Rc::clone(self), at, len: len as u32, first, count, account }
    }

    /// A free buffer and up to `more` that lie side by side behind it, for a read by the caller, who returns it with
    /// the number of bytes read. Nothing when all are out; then the alarm rings when one is back.
    pub(super) fn take_run(self: &Rc<Self>, more: usize, account: u16) -> Option<Lease> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(first) = inner.take() else {
            inner.wanted = true;
            return None;
        };
        let mut count = 1u16;
        while usize::from(count) <= more {
            let next = first.wrapping_add(count);
            if usize::from(next) % SEGMENT_BUFFERS == 0 || inner.hot.front() != Some(&next) {
                break;
            }
            inner.take();
            count += 1;
        }
        inner.charge(account, count.into());
        Some(Lease { buffers: Rc::clone(self), at: inner.address(first), len: 0, first, count, account })
    }

    /// Gives the pages of segments beyond the hot set back to the system while none of their buffers is out.
    pub(super) fn trim(&self) {
        let inner = &mut *self.inner.borrow_mut();
        for segment in inner.segments.iter_mut().skip(1) {
            if segment.out == 0 && segment.touched {
                segment.memory.forget_pages();
                segment.touched = false;
            }
        }
        inner.cold_pages = inner.segments.iter().skip(1).any(|segment| segment.touched);
    }

    /// Whether a trim has something to do, now or when buffers are back.
    pub(super) fn has_cold_pages(&self) -> bool {
        self.inner.borrow().cold_pages
    }

    fn give(&self, first: u16, count: u16, account: u16) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.provided.is_some() {
            (first..=first + (count - 1)).for_each(|buffer| inner.free_behind(buffer));
        } else {
            // Taken directly: the buffer used last is the warmest, and ascending order keeps runs side by side.
            (first..=first + (count - 1)).rev().for_each(|buffer| inner.free_in_front(buffer));
        }
        let reopened = inner.discharge(account, count.into());
        if reopened || inner.wanted {
            inner.wanted = false;
            self.alarm.ring();
        }
    }
}

impl Inner {
    fn address(&self, buffer: u16) -> NonNull<u8> {
        let buffer = usize::from(buffer);
        self.segments[buffer / SEGMENT_BUFFERS].memory.at(buffer % SEGMENT_BUFFERS * BUFFER_BYTES)
    }

    /// Makes buffers up to the next segment's end, as far as the budgets allow.
    fn grow(&mut self) -> io::Result<()> {
        let from = self.made;
        let to = (from + 1).next_multiple_of(SEGMENT_BUFFERS).min(self.made_max);
        if from >= to {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if from.is_multiple_of(SEGMENT_BUFFERS) {
            let memory = Mapping::new(SEGMENT_BUFFERS * BUFFER_BYTES, true)?;
            self.segments.push(Segment { memory, out: 0, touched: false });
        }
        self.made = to;
        let buffers = (from..to).map(|buffer| buffer as u16);
        if from == 0 {
            self.hot.extend(buffers)
        } else {
            self.cold.extend(buffers.rev())
        }
        Ok(())
    }

    fn take(&mut self) -> Option<u16> {
        let buffer = match self.hot.pop_front().or_else(|| self.cold.pop()) {
            Some(buffer) => buffer,
            None => {
                self.grow().ok()?;
                self.cold.pop()?
            }
        };
        let segment = &mut self.segments[usize::from(buffer) / SEGMENT_BUFFERS];
        segment.out += 1;
        segment.touched = true;
        self.cold_pages |= usize::from(buffer) >= HOT_BUFFERS;
        Some(buffer)
    }

    fn free_behind(&mut self, buffer: u16) {
        self.segments[usize::from(buffer) / SEGMENT_BUFFERS].out -= 1;
        if usize::from(buffer) < HOT_BUFFERS { self.hot.push_back(buffer) } else { self.cold.push(buffer) }
    }

    fn free_in_front(&mut self, buffer: u16) {
        self.segments[usize::from(buffer) / SEGMENT_BUFFERS].out -= 1;
        if usize::from(buffer) < HOT_BUFFERS { self.hot.push_front(buffer) } else { self.cold.push(buffer) }
    }

    fn charge(&mut self, account: u16, buffers: usize) {
        let account = &mut self.accounts[account.into()];
        account.held += buffers;
        account.full |= account.held >= account.budget;
    }

    /// Takes buffers off an account; true when that ends its being full.
    fn discharge(&mut self, account: u16, buffers: usize) -> bool {
        let entry = &mut self.accounts[account.into()];
        assert!(entry.held >= buffers, "an account gives back what it was charged");
        entry.held -= buffers;
        let reopened = entry.full && entry.held <= entry.budget - entry.budget.div_ceil(4);
        if reopened {
            entry.full = false;
        }
        self.drop_account_if_done(account);
        reopened
    }

    fn drop_account_if_done(&mut self, account: u16) {
        let entry = &self.accounts[account.into()];
        if entry.closed && entry.held == 0 {
            self.accounts.remove(account.into());
        }
    }
}

/// Received bytes, until it is dropped; they are charged to their source in whole buffers.
#[derive(Debug)]
pub struct Lease {
    buffers: Rc<Buffers>,
    at: NonNull<u8>,
    len: u32,
    first: u16,
    count: u16,
    account: u16,
}

impl Lease {
    /// Memory the lease keeps, in bytes.
    pub fn held_bytes(&self) -> usize {
        usize::from(self.count) * BUFFER_BYTES
    }

    /// The whole memory, for a read by the caller.
    pub(super) fn room(&mut self) -> &mut [std::mem::MaybeUninit<u8>] {
        // SAFETY: the buffers lie side by side in one segment and are leased to this value alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr().cast(), self.held_bytes()) }
    }

    /// Says how many bytes a read has written from the start; buffers that stayed empty go back.
    pub(super) fn filled(&mut self, bytes: usize) {
        assert!(bytes <= self.held_bytes(), "a read fills at most the room it was given");
        self.len = bytes as u32;
        let used = bytes.div_ceil(BUFFER_BYTES).max(1) as u16;
        if used < self.count {
            self.buffers.give(self.first + used, self.count - used, self.account);
            self.count = used;
        }
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes were written by the kernel, which no longer uses these buffers, and nothing
        // else reaches them while the lease lives.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len as usize) }
    }
}

/// For whoever decrypts where it lies.
impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the buffers are leased to this value alone, which is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len as usize) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.buffers.give(self.first, self.count, self.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct() -> Rc<Buffers> {
        Buffers::new(None, Rc::default()).unwrap()
    }

    fn read(lease: &mut Lease, bytes: usize, with: u8) {
        for byte in &mut lease.room()[..bytes] {
            byte.write(with);
        }
        lease.filled(bytes);
    }

    #[test]
    fn a_returned_buffer_is_the_next_one_taken() {
        let buffers = direct();
        let account = buffers.open_account(1 << 20);
        let mut lease = buffers.take_run(3, account).unwrap();
        assert_eq!(lease.held_bytes(), 4 * BUFFER_BYTES);
        read(&mut lease, BUFFER_BYTES + 1, 7);
        assert_eq!(lease.held_bytes(), 2 * BUFFER_BYTES);
        assert_eq!(&lease[..], &vec![7u8; BUFFER_BYTES + 1][..]);
        let at = lease.as_ptr();
        drop(lease);
        assert_eq!(buffers.take_run(0, account).unwrap().as_ptr(), at);
    }

    #[test]
    fn buffers_beyond_the_hot_set_are_bounded_by_the_budgets() {
        let buffers = direct();
        let account = buffers.open_account(130 * BUFFER_BYTES);
        let mut leases: Vec<Lease> = std::iter::from_fn(|| buffers.take_run(0, account)).collect();
        assert_eq!(leases.len(), HOT_BUFFERS + 130 + OVERSHOOT_BUFFERS);
        assert!(buffers.is_full(account) && buffers.has_cold_pages());
        leases.truncate(98);
        assert!(buffers.is_full(account), "full until a quarter is back");
        leases.truncate(97);
        assert!(!buffers.is_full(account));
        buffers.trim();
        assert!(!buffers.has_cold_pages());
        leases.clear();
        assert_eq!(buffers.held_bytes(account), 0);
    }

    #[test]
    fn a_closed_account_waits_for_its_leases() {
        let buffers = direct();
        let account = buffers.open_account(1);
        let lease = buffers.take_run(0, account).unwrap();
        buffers.close_account(account);
        assert_eq!(buffers.inner.borrow().accounts.len(), 1);
        drop(lease);
        assert_eq!(buffers.inner.borrow().accounts.len(), 0);
    }
}
