//! The receive buffers of a shard: lent to the kernel, leased to a consumer, and given back.
//!
//! A buffer is in exactly one place: *free* (in a list here), *published* (the kernel may fill it), or *leased* (a
//! consumer reads it). A [`Lease`] that is dropped makes its buffers free; the next [`Buffers::publish`] lends them
//! to the kernel again. Withholding leases is the backpressure: the kernel runs out of buffers and the peers' windows
//! close.
//!
//! The *hot set* is the first [`HOT_BUFFERS`] buffers; those beyond lie side by side in segments, which are made when they
//! are first needed, up to the sum of the budgets of the sources ([`Buffers::open_account`]), and given up when none of
//! one was needed for a while. Less than a hot set's worth is published at a time, always of the lowest segment that has
//! free ones: memory that is cycled through costs more than the size of one read, so a large budget must not cool a small
//! flow, nor a source that holds the hot set its neighbours. Within a segment buffers are used in turn, so that what one
//! receive fills lies side by side.
//!
//! A source that holds its whole budget is *full*; it stays so until a quarter of the budget is back. Refusing to
//! receive for a full source is the caller's part. A budget is for bursts: one that is used up again and again takes none
//! any more, and all that passes through it has cooled when it comes out. Such a source *lags*: it is full with a hot
//! set's worth, until it has not been full for a while.
//!
//! All of it is charged to the engine's [`Memory`], a segment at a time. When that has no more, the set is *short*: a
//! source is full with a few buffers, few are published at a time, and each source brought enough with its account that
//! the others cannot take the last one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::alarm::Alarm;
use super::provided::{Mapping, Provided};
use crate::memory::{Charge, Memory, Use};

/// Size of one receive buffer.
pub const BUFFER_BYTES: usize = 16 << 10;
/// Buffers of the hot set: 2 MiB, which stay in the cache.
pub const HOT_BUFFERS: usize = 128;
/// Buffers that the kernel does not get: for reads that the shard makes itself, of which few keep their buffers for long.
const READ_BUFFERS: usize = 4;
/// Buffers that the kernel has at most.
const PUBLISHED_MAX: usize = HOT_BUFFERS - READ_BUFFERS;
/// Buffers beyond the hot set that are made at a time.
const SEGMENT_BUFFERS: usize = 32;
/// What they take.
pub const SEGMENT_BYTES: usize = SEGMENT_BUFFERS * BUFFER_BYTES;
/// Buffers that a source may come to hold beyond its budget: a turn's worth before it is seen to be full, and another
/// before its receives have ended. Without them a full source would leave the others none.
const OVERSHOOT_BUFFERS: usize = 2 * HOT_BUFFERS;
/// When memory is short: what a source may hold, and what is published at a time. Twice that and a read may come before
/// the source's receives have ended; together they are less than the segment that each source brings.
const SHORT_BUFFERS: usize = 8;
/// How many looks ([`Buffers::look`]) in a row must find a segment unused before it is given up: two seconds of them, for a
/// page that was given up costs a microsecond and more when it is used again.
const LOOKS_UNUSED: u8 = 8;
/// How many must find that a source was full before it lags, and as many that it was not before it does no more: a second
/// of them.
const LOOKS_FULL: u8 = 4;
/// Buffer identities are 16 bits wide in the kernel's interface.
const BUFFERS_MAX: usize = 1 << 16;

/// Buffers that were made together. The hot set is the first.
#[derive(Debug)]
struct Segment {
    memory: Mapping,
    /// Buffers that are free, in the order in which they are taken.
    free: VecDeque<u16>,
    /// Buffers of it that are published or leased.
    out: usize,
    /// Looks since one was taken.
    unused: u8,
    /// Without, it has no pages and its buffers are not in the list.
    charge: Option<Charge>,
    /// Whether it is one that an account brought: then its charge is the account's.
    set_aside: bool,
}

/// What a source may hold.
#[derive(Debug)]
struct Account {
    budget: usize,
    held: usize,
    full: bool,
    /// Whether it was since the last look.
    was_full: bool,
    /// Looks that found that it was, less those that did not.
    looks_full: u8,
    lags: bool,
    closed: bool,
    /// The segment that it brings, whether it was made or not.
    _set_aside: Charge,
}

#[derive(Debug)]
struct Inner {
    memory: Arc<Memory>,
    segments: Vec<Segment>,
    /// Buffers that have pages.
    backed: usize,
    /// Most buffers that may have.
    backed_max: usize,
    /// Segments that accounts brought and that are not in use; less than none when one is that belongs to no account
    /// any more. They are used only while memory is short.
    set_aside: isize,
    /// Buffers of all segments that are published or leased.
    out: usize,
    /// No segment below this one has a free buffer.
    lowest: usize,
    /// Whether the engine had no memory for more when some were needed.
    short: bool,
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
    pub(super) fn new(
        provided: Option<Provided>,
        alarm: Rc<Alarm>,
        memory: Arc<Memory>,
    ) -> io::Result<Rc<Self>> {
        let hot = Segment {
            memory: Mapping::new(HOT_BUFFERS * BUFFER_BYTES, true)?,
            free: (0..HOT_BUFFERS as u16).collect(),
            out: 0,
            unused: 0,
            charge: Some(memory.charge(HOT_BUFFERS * BUFFER_BYTES).used_for(Use::Streams)),
            set_aside: false,
        };
        let inner = Inner {
            memory,
            segments: vec![hot],
            backed: HOT_BUFFERS,
            backed_max: HOT_BUFFERS,
            set_aside: 0,
            out: 0,
            lowest: 0,
            short: false,
            accounts: Slab::new(),
            provided,
            wanted: false,
        };
        Ok(Rc::new(Self { inner: RefCell::new(inner), alarm }))
    }

    /// Opens an account for a source that may hold `budget_bytes`.
    pub(super) fn open_account(&self, budget_bytes: usize) -> u16 {
        let inner = &mut *self.inner.borrow_mut();
        let budget = (budget_bytes / BUFFER_BYTES).clamp(1, BUFFERS_MAX - 2 * HOT_BUFFERS);
        let set_aside = inner.memory.charge(SEGMENT_BYTES).used_for(Use::SetAside);
        let account = Account {
            budget,
            held: 0,
            full: false,
            was_full: false,
            looks_full: 0,
            lags: false,
            closed: false,
            _set_aside: set_aside,
        };
        let account = inner.accounts.insert(account);
        inner.backed_max = (inner.backed_max + budget + OVERSHOOT_BUFFERS).min(BUFFERS_MAX);
        inner.set_aside += 1;
        u16::try_from(account).expect("a shard has fewer sources than 65 536")
    }

    /// Closes an account; its leases stay good.
    pub(super) fn close_account(&self, account: u16) {
        let inner = &mut *self.inner.borrow_mut();
        let budget = inner.accounts[account.into()].budget;
        inner.backed_max = inner.backed_max.saturating_sub(budget + OVERSHOOT_BUFFERS).max(HOT_BUFFERS);
        inner.accounts[account.into()].closed = true;
        inner.drop_account_if_done(account);
    }

    /// Whether the source holds so much that it must not receive.
    pub(super) fn is_full(&self, account: u16) -> bool {
        self.inner.borrow().accounts[account.into()].full
    }

    /// Whether nobody can receive now, for want of buffers.
    pub(super) fn are_all_out(&self) -> bool {
        let inner = self.inner.borrow();
        match &inner.provided {
            Some(provided) => provided.published == 0,
            None => inner.backed == inner.out && inner.growth_max() == 0,
        }
    }

    /// Bytes in buffers that the source holds.
    pub(super) fn held_bytes(&self, account: u16) -> usize {
        self.inner.borrow().accounts[account.into()].held * BUFFER_BYTES
    }

    /// Publishes free buffers until the kernel has nearly a hot set's worth of them, and says how many it has; without a
    /// kernel to publish to, how many could be taken.
    pub(super) fn publish(&self) -> usize {
        let inner = &mut *self.inner.borrow_mut();
        let was_short = inner.short;
        inner.recover();
        let available = inner.publish();
        if inner.short != was_short {
            // Who is full is another question now: the caller must ask it before anything else happens.
            self.alarm.ring();
        }
        available
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
        inner.put_back(buffer, false);
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
            if *next != here.wrapping_add(1) || begins_segment(*next) {
                break;
            }
        }
        inner.charge(account, count.into());
        inner.judge(account);
        Lease { buffers: Rc::clone(self), at, len: len as u32, first, count, account, direct: false }
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
            if begins_segment(next) || inner.front() != Some(next) {
                break;
            }
            inner.take();
            count += 1;
        }
        inner.charge(account, count.into());
        let at = inner.address(first);
        Some(Lease { buffers: Rc::clone(self), at, len: 0, first, count, account, direct: true })
    }

    /// Looks for segments beyond the hot set that are not used, whose pages go back to the system, at once when the engine
    /// has no other memory; and for sources that lag.
    pub(super) fn look(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.find_lags();
        let scarce = inner.short || !inner.memory.has(SEGMENT_BYTES);
        for at in 1..inner.segments.len() {
            let segment = &mut inner.segments[at];
            if segment.out > 0 || segment.charge.is_none() {
                continue;
            }
            segment.unused += 1;
            if scarce || segment.unused >= LOOKS_UNUSED {
                segment.memory.forget_pages();
                segment.charge = None;
                inner.set_aside += isize::from(std::mem::take(&mut segment.set_aside));
                segment.free.clear();
                inner.backed -= SEGMENT_BUFFERS;
            }
        }
    }

    /// Whether another look has something to find, now or when buffers are back.
    pub(super) fn wants_looks(&self) -> bool {
        let inner = self.inner.borrow();
        inner.backed > HOT_BUFFERS || inner.accounts.iter().any(|(_, account)| account.lags)
    }

    fn give(&self, first: u16, count: u16, account: u16, direct: bool) {
        let inner = &mut *self.inner.borrow_mut();
        let buffers = first..=first + (count - 1);
        if direct {
            // The buffer used last is the warmest, and ascending order keeps runs side by side.
            buffers.rev().for_each(|buffer| inner.put_back(buffer, true));
        } else {
            buffers.for_each(|buffer| inner.put_back(buffer, false));
        }
        let reopened = inner.discharge(account, count.into());
        if reopened || inner.wanted {
            inner.wanted = false;
            self.alarm.ring();
        }
    }
}

/// The segment of a buffer: the hot set, then equal ones.
fn segment_of(buffer: u16) -> usize {
    match usize::from(buffer).checked_sub(HOT_BUFFERS) {
        None => 0,
        Some(cold) => 1 + cold / SEGMENT_BUFFERS,
    }
}

fn begins_segment(buffer: u16) -> bool {
    usize::from(buffer) >= HOT_BUFFERS && (usize::from(buffer) - HOT_BUFFERS).is_multiple_of(SEGMENT_BUFFERS)
}

fn first_of(segment: usize) -> usize {
    HOT_BUFFERS + (segment - 1) * SEGMENT_BUFFERS
}

impl Inner {
    fn address(&self, buffer: u16) -> NonNull<u8> {
        let segment = segment_of(buffer);
        let first = if segment == 0 { 0 } else { first_of(segment) };
        self.segments[segment].memory.at((usize::from(buffer) - first) * BUFFER_BYTES)
    }

    /// Makes another segment of buffers, as far as the budgets and the engine's memory allow.
    fn grow(&mut self) -> io::Result<()> {
        if self.backed >= self.backed_max || self.backed + SEGMENT_BUFFERS > BUFFERS_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let mut set_aside = false;
        let charge = match self.memory.try_charge(SEGMENT_BYTES) {
            Some(charge) => charge.used_for(Use::Streams),
            None if self.short && self.set_aside > 0 => {
                set_aside = true;
                self.memory.charge(0)
            }
            None => {
                self.set_short(true);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        };
        let at = match self.segments.iter().position(|segment| segment.charge.is_none()) {
            Some(at) => at,
            None => {
                let memory = Mapping::new(SEGMENT_BYTES, false)?;
                let free = VecDeque::with_capacity(SEGMENT_BUFFERS);
                self.segments.push(Segment {
                    memory,
                    free,
                    out: 0,
                    unused: 0,
                    charge: None,
                    set_aside: false,
                });
                self.segments.len() - 1
            }
        };
        let segment = &mut self.segments[at];
        (segment.charge, segment.set_aside, segment.unused) = (Some(charge), set_aside, 0);
        self.set_aside -= isize::from(set_aside);
        let first = first_of(at);
        segment.free.extend((first..first + SEGMENT_BUFFERS).map(|buffer| buffer as u16));
        self.backed += SEGMENT_BUFFERS;
        self.lowest = self.lowest.min(at);
        Ok(())
    }

    /// See [`Buffers::publish`].
    fn publish(&mut self) -> usize {
        let Some(mut provided) = self.provided.take() else {
            let free = self.backed - self.out + self.growth_max();
            self.wanted = free == 0;
            return free;
        };
        let before = provided.published;
        while provided.published < self.published_max() {
            let Some(buffer) = self.take() else { break };
            provided.put(buffer, self.address(buffer), BUFFER_BYTES);
        }
        if provided.published != before {
            provided.store_tail();
        }
        let published = provided.published;
        self.wanted = published < self.published_max() / 2;
        self.provided = Some(provided);
        published
    }

    /// Buffers that could be made now, as far as is known.
    fn growth_max(&self) -> usize {
        match self.short {
            true => usize::try_from(self.set_aside).unwrap_or(0) * SEGMENT_BUFFERS,
            false => self.backed_max.saturating_sub(self.backed),
        }
    }

    /// What is published at a time.
    fn published_max(&self) -> usize {
        if self.short { SHORT_BUFFERS } else { PUBLISHED_MAX }
    }

    /// The engine has memory again.
    fn recover(&mut self) {
        if self.short && self.memory.has(SEGMENT_BYTES) {
            self.set_short(false);
        }
    }

    /// Finds the sources that lag, and those that do no more.
    fn find_lags(&mut self) {
        for (_, account) in &mut self.accounts {
            let was_full = std::mem::take(&mut account.was_full) || account.full;
            account.looks_full = match was_full {
                true if account.budget > HOT_BUFFERS => (account.looks_full + 1).min(LOOKS_FULL),
                _ => account.looks_full.saturating_sub(1),
            };
            match account.looks_full {
                LOOKS_FULL => {
                    account.lags = true;
                    account.full |= account.held >= account.most(self.short);
                }
                0 => account.lags = false,
                _ => {}
            }
        }
    }

    fn set_short(&mut self, short: bool) {
        self.short = short;
        for (_, account) in &mut self.accounts {
            let most = account.most(short);
            account.full = if short { account.full || account.held >= most } else { account.held >= most };
        }
    }

    /// The buffer that is taken next, of those that are made.
    fn front(&mut self) -> Option<u16> {
        while self.segments.get(self.lowest)?.free.is_empty() {
            self.lowest += 1;
        }
        self.segments[self.lowest].free.front().copied()
    }

    fn take(&mut self) -> Option<u16> {
        if self.front().is_none() {
            self.grow().ok()?;
        }
        let buffer = self.front()?;
        let segment = &mut self.segments[self.lowest];
        segment.free.pop_front();
        segment.out += 1;
        segment.unused = 0;
        self.out += 1;
        Some(buffer)
    }

    fn put_back(&mut self, buffer: u16, in_front: bool) {
        let at = segment_of(buffer);
        let segment = &mut self.segments[at];
        segment.out -= 1;
        if in_front {
            segment.free.push_front(buffer)
        } else {
            segment.free.push_back(buffer)
        }
        self.out -= 1;
        self.lowest = self.lowest.min(at);
    }

    fn charge(&mut self, account: u16, buffers: usize) {
        self.accounts[account.into()].held += buffers;
    }

    /// A source that holds its budget is full. Not asked of room for a read before it is known how much of it was used.
    fn judge(&mut self, account: u16) {
        let account = &mut self.accounts[account.into()];
        account.full |= account.held >= account.most(self.short);
    }

    /// Takes buffers off an account; true when that ends its being full.
    fn discharge(&mut self, account: u16, buffers: usize) -> bool {
        let entry = &mut self.accounts[account.into()];
        assert!(entry.held >= buffers, "an account gives back what it was charged");
        entry.held -= buffers;
        let most = entry.most(self.short);
        let reopened = entry.full && entry.held <= most - most.div_ceil(4);
        if reopened {
            (entry.full, entry.was_full) = (false, true);
        }
        self.drop_account_if_done(account);
        reopened
    }

    fn drop_account_if_done(&mut self, account: u16) {
        let entry = &self.accounts[account.into()];
        if entry.closed && entry.held == 0 {
            self.accounts.remove(account.into());
            self.set_aside -= 1;
        }
    }
}

impl Account {
    /// With how many buffers it is full.
    fn most(&self, short: bool) -> usize {
        match (short, self.lags) {
            (true, _) => self.budget.min(SHORT_BUFFERS),
            (false, true) => self.budget.min(HOT_BUFFERS),
            (false, false) => self.budget,
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
    /// Whether the caller reads into it, not the kernel on its own.
    direct: bool,
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
            self.buffers.give(self.first + used, self.count - used, self.account, self.direct);
            self.count = used;
        }
        self.buffers.inner.borrow_mut().judge(self.account);
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
        self.buffers.give(self.first, self.count, self.account, self.direct);
    }
}

#[cfg(test)]
#[path = "bufring_tests.rs"]
mod tests;
