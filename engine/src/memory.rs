//! `memory_limit`: one budget for everything the engine buffers, shared by all shards.
//!
//! It is charged in whole batches and segments of receive buffers, never for a record: a [`Charge`] is held as long as
//! the memory is, and gives it back when it is dropped. Who finds none left waits in one line for all shards, first come
//! first served, or does without: sources stop receiving.
//!
//! Two parts are set aside, so that nobody is starved and nothing deadlocks. Each source has a [`Share`]: one batch of
//! its own that no other source can take, however long that one's sink stalls. And an eighth of the limit is for
//! unfinished records ([`Memory::carry`]); when they hold all of it, somebody cuts one.
//!
//! A charge is *owed* where the memory is needed whatever is left: a record longer than a batch, the buffers a shard
//! cannot do without. What is owed is paid back before anyone else gets memory. Pure bookkeeping: nothing is allocated.

mod hoard;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::hoard::Hoard;
use crate::pool::BATCH_BYTES;

/// What is counted: charges are rounded up to this.
const UNIT_BYTES: usize = 64 << 10;
/// The part of the limit that is for unfinished records.
pub const CARRIED_SHARE: usize = 8;

/// What memory is used for: only told apart for those who ask where it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Use {
    /// Records on their way to a sink and back.
    #[default]
    Batches,
    /// What connections are received into.
    Streams,
    /// What datagrams are received into, and those that wait.
    Datagrams,
    /// What files are read into, and unpacked with.
    Files,
    /// What messages wait in before they are records, those that the client has fetched ahead included.
    Kafka,
    /// What is set aside for each source, used or not.
    SetAside,
}

/// Every use, in the order of the figures, and its name.
pub const USES: [(Use, &str); 6] = [
    (Use::Batches, "batches"),
    (Use::Streams, "streams"),
    (Use::Datagrams, "datagrams"),
    (Use::Files, "files"),
    (Use::Kafka, "kafka"),
    (Use::SetAside, "set_aside"),
];

/// The budget.
#[derive(Debug)]
pub struct Memory {
    limit_bytes: usize,
    /// Units that nobody has; waiting is in order.
    free: Semaphore,
    /// Units in all, those for unfinished records aside.
    units: usize,
    /// Units that are used and were not there.
    owed: AtomicUsize,
    /// Units that are charged, by what for.
    by_use: [AtomicUsize; USES.len()],
    /// Bytes in unfinished records.
    carried: AtomicUsize,
    /// What lies unused in the pools of shards, and who waits for it.
    hoard: Hoard,
}

impl Memory {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        let units = ((limit_bytes - limit_bytes / CARRIED_SHARE) / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            limit_bytes,
            free: Semaphore::new(units),
            units,
            owed: AtomicUsize::new(0),
            by_use: Default::default(),
            carried: AtomicUsize::new(0),
            hoard: Hoard::default(),
        })
    }

    /// A budget that is never reached.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// The limit.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// What is charged now, unfinished records included. What is set aside for sources counts as used.
    pub fn used_bytes(&self) -> usize {
        let charged = self.units - self.free.available_permits() + self.owed.load(Ordering::Relaxed);
        charged * UNIT_BYTES + self.carried.load(Ordering::Relaxed)
    }

    /// What is charged now, by what for; with [`Memory::carried_bytes`] it is [`Memory::used_bytes`].
    pub fn used_by(&self) -> [usize; USES.len()] {
        self.by_use.each_ref().map(|units| units.load(Ordering::Relaxed) * UNIT_BYTES)
    }

    /// What unfinished records take.
    pub fn carried_bytes(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    fn charge_of(self: &Arc<Self>, units: usize, own: Option<OwnedSemaphorePermit>) -> Charge {
        self.by_use[Use::Batches as usize].fetch_add(units, Ordering::Relaxed);
        Charge { memory: Arc::clone(self), units, own, used_for: Use::Batches }
    }

    /// Charges memory that is needed whatever is left.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let units = bytes.div_ceil(UNIT_BYTES);
        self.take_or_owe(units);
        self.charge_of(units, None)
    }

    /// Charges memory if so much is left and nobody waits for it.
    pub fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let units = bytes.div_ceil(UNIT_BYTES);
        self.free.try_acquire_many(u32::try_from(units).ok()?).ok()?.forget();
        Some(self.charge_of(units, None))
    }

    /// Charges memory as soon as so much is left, in the order of asking.
    pub async fn charged(self: &Arc<Self>, bytes: usize) -> Charge {
        let units = bytes.div_ceil(UNIT_BYTES);
        // More than there is at all would wait for ever: it is owed.
        match u32::try_from(units).ok().filter(|_| units <= self.units) {
            // The semaphore is never closed.
            Some(many) => drop(self.free.acquire_many(many).await.map(|permit| permit.forget())),
            None => self.take_or_owe(units),
        }
        self.charge_of(units, None)
    }

    /// Whether so much could be charged now.
    pub fn has(&self, bytes: usize) -> bool {
        self.free.available_permits() >= bytes.div_ceil(UNIT_BYTES)
    }

    /// Says that somebody waits for a batch, until the guard is dropped; the second value is whether pools hold some.
    pub fn want(self: &Arc<Self>) -> (Wanted, bool) {
        let pooled = self.hoard.want();
        (Wanted { memory: Arc::clone(self) }, pooled)
    }

    /// A charged batch lies unused in a pool from now on, unless somebody waits for one: then it must be freed.
    pub fn may_pool(&self) -> bool {
        self.hoard.keep()
    }

    /// A batch that lay unused in a pool does no more.
    pub fn unpool(&self) {
        self.hoard.take();
    }

    /// Says that unfinished records took `before` bytes and take `now`; whether all of them together are too much.
    pub fn carry(&self, before: usize, now: usize) -> bool {
        self.carried.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        self.is_overcarried()
    }

    /// Whether unfinished records hold all that is set aside for them.
    pub fn is_overcarried(&self) -> bool {
        self.carried.load(Ordering::Relaxed) > self.limit_bytes / CARRIED_SHARE
    }

    fn take_or_owe(&self, units: usize) {
        let taken = self.free.forget_permits(units);
        self.owed.fetch_add(units - taken, Ordering::AcqRel);
    }

    fn give(&self, units: usize) {
        let pay = |owed: usize| Some(owed.saturating_sub(units));
        let owed =
            self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay).unwrap_or_else(|owed| owed);
        self.free.add_permits(units.saturating_sub(owed));
    }
}

/// Somebody waits for a batch.
#[derive(Debug)]
pub struct Wanted {
    memory: Arc<Memory>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.memory.hoard.done();
    }
}

/// Memory that is used; dropping it gives it back.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<Memory>,
    units: usize,
    /// It is a source's own batch, which is set aside already.
    own: Option<OwnedSemaphorePermit>,
    used_for: Use,
}

impl Charge {
    /// Says what the memory is used for.
    #[must_use]
    pub fn used_for(mut self, used_for: Use) -> Self {
        self.memory.by_use[self.used_for as usize].fetch_sub(self.units, Ordering::Relaxed);
        self.memory.by_use[used_for as usize].fetch_add(self.units, Ordering::Relaxed);
        self.used_for = used_for;
        self
    }

    /// Whether it is a source's own batch, which must not lie unused where the source cannot find it.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The memory turned out to be larger.
    pub fn grow(&mut self, more_bytes: usize) {
        let more = more_bytes.div_ceil(UNIT_BYTES);
        self.memory.take_or_owe(more);
        self.memory.by_use[self.used_for as usize].fetch_add(more, Ordering::Relaxed);
        self.units += more;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.by_use[self.used_for as usize].fetch_sub(self.units, Ordering::Relaxed);
        self.memory.give(self.units);
    }
}

/// What is set aside for a source, shared by its parts on all shards.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    /// One batch.
    own: Arc<Semaphore>,
    /// What it takes, whether it is used or not.
    _set_aside: Charge,
}

impl Share {
    /// Sets one batch aside.
    pub fn new(memory: &Arc<Memory>) -> Arc<Self> {
        let set_aside = memory.charge(BATCH_BYTES).used_for(Use::SetAside);
        Arc::new(Self { memory: Arc::clone(memory), own: Arc::new(Semaphore::new(1)), _set_aside: set_aside })
    }

    /// The budget it is a part of.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Memory for a batch if there is some: of what all share, else the source's own.
    pub fn try_batch(&self) -> Option<Charge> {
        self.memory.try_charge(BATCH_BYTES).or_else(|| {
            let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
            Some(self.own_batch(own))
        })
    }

    /// Memory for a batch, as soon as there is some.
    pub async fn batch(&self) -> Charge {
        tokio::select! {
            charge = self.memory.charged(BATCH_BYTES) => charge,
            // The semaphore is never closed.
            Ok(own) = Arc::clone(&self.own).acquire_owned() => self.own_batch(own),
        }
    }

    fn own_batch(&self, own: OwnedSemaphorePermit) -> Charge {
        self.memory.charge_of(0, Some(own))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: usize = 1 << 20;

    fn is_ready<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }

    #[test]
    fn what_is_given_back_can_be_charged_again_and_the_sum_is_the_limit() {
        let memory = Memory::new(16 * MIB as u64);
        let most: Vec<Charge> = std::iter::from_fn(|| memory.try_charge(MIB)).collect();
        assert_eq!(most.len(), 14, "an eighth is for unfinished records");
        assert_eq!(memory.used_bytes(), 14 * MIB);
        drop(most);
        assert_eq!(memory.used_bytes(), 0);
        assert!(memory.has(14 * MIB) && !memory.has(14 * MIB + 1));
    }

    #[test]
    fn what_is_owed_is_paid_before_anyone_gets_memory() {
        let memory = Memory::new(16 * MIB as u64);
        let all = memory.try_charge(14 * MIB).unwrap();
        let mut owed = memory.charge(MIB);
        owed.grow(2 * MIB);
        assert_eq!(memory.used_bytes(), 17 * MIB);
        drop(owed);
        assert!(memory.try_charge(1).is_none(), "three were owed, three are paid");
        let owed = memory.charge(MIB);
        drop(all);
        assert_eq!(memory.used_bytes(), MIB);
        drop(owed);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn who_waits_gets_memory_in_order_and_nobody_overtakes() {
        let memory = Memory::new(16 * MIB as u64);
        let all = memory.try_charge(14 * MIB).unwrap();
        let (mut first, mut second) = (pin!(memory.charged(10 * MIB)), pin!(memory.charged(MIB)));
        assert!(!is_ready(first.as_mut()) && !is_ready(second.as_mut()));
        let small = memory.charge(MIB);
        drop(all);
        assert!(memory.try_charge(13 * MIB).is_none(), "the first has ten of it");
        assert!(is_ready(first.as_mut()) && is_ready(second.as_mut()));
        drop(small);
    }

    #[test]
    fn a_source_has_a_batch_of_its_own_however_much_the_others_hold() {
        let memory = Memory::new(16 * MIB as u64);
        let (one, other) = (Share::new(&memory), Share::new(&memory));
        let mut held: Vec<Charge> = std::iter::from_fn(|| one.try_batch()).collect();
        assert_eq!(held.iter().filter(|charge| charge.is_own()).count(), 1);
        let own = other.try_batch().expect("its own");
        assert!(own.is_own() && other.try_batch().is_none());
        let mut waits = pin!(other.batch());
        assert!(!is_ready(waits.as_mut()));
        drop(own);
        assert!(is_ready(waits.as_mut()), "it is back");
        assert!(memory.used_bytes() <= 14 * MIB);
        held.clear();
        assert_eq!(memory.used_bytes(), 2 * BATCH_BYTES.next_multiple_of(UNIT_BYTES));
    }

    #[test]
    fn what_it_is_used_for_adds_up_to_what_is_used() {
        let memory = Memory::new(16 * MIB as u64);
        let batch = memory.try_charge(MIB).unwrap();
        let mut file = memory.charge(20 * MIB).used_for(Use::Files);
        file.grow(MIB);
        memory.carry(0, 5);
        assert_eq!(memory.used_by(), [MIB, 0, 0, 21 * MIB, 0, 0]);
        assert_eq!(memory.used_by().iter().sum::<usize>() + memory.carried_bytes(), memory.used_bytes());
        drop((batch, file));
        assert_eq!(memory.used_by(), [0; USES.len()]);
    }

    #[test]
    fn unfinished_records_have_an_eighth() {
        let memory = Memory::new(16 * MIB as u64);
        assert!(!memory.carry(0, 2 * MIB));
        assert!(memory.carry(0, 1) && memory.is_overcarried());
        assert!(!memory.carry(2 * MIB, MIB));
        assert_eq!(memory.used_bytes(), MIB + 1);
    }
}
