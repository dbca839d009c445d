//! What the reader and a shard share of one assigned partition. A partition that comes back after a rebalance is a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;

use super::book::Beginning;
use super::parcel::Parcel;
use crate::kafka::assigned::Assigned;
use crate::queue::Mailbox;

/// Parcels that wait at most; small ones too are few, as a parcel is sent off only while there is room.
pub const PARCELS_MAX: usize = 16;

/// What the reader sends.
#[derive(Debug)]
pub enum Letter {
    /// Messages.
    Parcel(Parcel),
    /// No more will come.
    End,
}

/// See above.
#[derive(Debug)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// Its number.
    pub number: i32,
    /// The offset it begins at, where that is known.
    pub begin: Option<u64>,
    /// Its id in the checkpoint; another one after offsets went back.
    id: AtomicU64,
    /// The assignment, as a sink of Kafka's knows it.
    pub assigned: Arc<Assigned>,
    /// To the shard.
    pub mail: Mailbox<Letter>,
    /// Bytes in the mail and being delivered.
    waiting_bytes: AtomicUsize,
    /// Parcels that the shard is done with.
    taken: AtomicU64,
    /// Behind the last message of which every sink has it and all before it; 0 before the first.
    durable: AtomicU64,
    /// Behind the last message there is, as the broker said last; negative while that is not known.
    high: AtomicI64,
    /// What the reader has committed; negative before that, and after offsets went back.
    committed: AtomicI64,
    /// What the group has committed, as librdkafka said last.
    told: AtomicI64,
    /// Whether what is in the mail is not wanted any more.
    given_up: AtomicBool,
    /// Whether the shard is done with it.
    left: AtomicBool,
    reader: Thread,
}

impl Partition {
    /// A partition that was assigned; `reader` waits for the shard at times.
    pub fn new(assigned: Arc<Assigned>, beginning: Beginning, reader: Thread) -> Self {
        Self {
            topic: Arc::clone(&assigned.topic),
            number: assigned.number,
            assigned,
            begin: beginning.offset,
            id: AtomicU64::new(beginning.id),
            // One more, for the end.
            mail: Mailbox::new(PARCELS_MAX + 1),
            waiting_bytes: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            durable: AtomicU64::new(beginning.offset.unwrap_or(0)),
            high: AtomicI64::new(-1),
            committed: AtomicI64::new(-1),
            told: AtomicI64::new(-1),
            given_up: AtomicBool::new(false),
            left: AtomicBool::new(false),
            reader,
        }
    }

    /// Its id in the checkpoint.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// Sends a parcel off.
    ///
    /// # Errors
    /// The parcel, when as many wait as may.
    pub fn send(&self, parcel: Parcel) -> Result<(), Parcel> {
        if self.mail.len() >= PARCELS_MAX {
            return Err(parcel);
        }
        let bytes = parcel.bytes();
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.mail.put(Letter::Parcel(parcel)).map_err(|letter| {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            match letter {
                Letter::Parcel(parcel) => parcel,
                Letter::End => Parcel::default(),
            }
        })
    }

    /// No more comes, and what is in the mail goes no further: it is not committed and will be read again.
    pub fn end(&self) {
        if !self.given_up.swap(true, Ordering::AcqRel) {
            let put = self.mail.put(Letter::End);
            debug_assert!(put.is_ok(), "there is room for the end");
        }
    }

    /// Whether what is in the mail goes no further.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// A parcel of so many bytes is delivered, or left out.
    pub fn taken(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Parcels that were delivered or left out so far.
    pub fn parcels_taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Every sink has everything before this offset.
    pub fn set_durable(&self, upto: u64) {
        self.durable.store(upto, Ordering::Release);
    }

    /// See [`Partition::set_durable`]; none before the first message.
    pub fn durable(&self) -> Option<i64> {
        i64::try_from(self.durable.load(Ordering::Acquire)).ok().filter(|upto| *upto > 0)
    }

    /// What is committed, as far as the reader knows.
    pub fn set_committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Relaxed);
    }

    /// Offsets went back: whatever is durable next is committed.
    pub fn begin_anew(&self, id: u64) {
        self.id.store(id, Ordering::Release);
        self.durable.store(0, Ordering::Release);
        self.committed.store(-1, Ordering::Relaxed);
    }

    /// Whether this offset is still to be committed.
    pub fn is_new(&self, offset: i64) -> bool {
        offset > self.committed.load(Ordering::Relaxed)
    }

    /// The broker says up to where there are messages, and what the group has committed. That may be from before offsets went
    /// back, so it says nothing of what is still to be committed.
    pub fn seen(&self, high: i64, committed: i64) {
        self.high.store(high, Ordering::Relaxed);
        self.told.store(committed, Ordering::Relaxed);
    }

    /// Messages that are there and not durable here; none while that is not known.
    pub fn lag(&self) -> Option<u64> {
        let high = self.high.load(Ordering::Relaxed);
        let at = self.durable().or_else(|| Some(self.told.load(Ordering::Relaxed))).unwrap_or(0).max(0);
        (high >= 0).then(|| u64::try_from(high - at).unwrap_or(0))
    }

    /// The shard is done with it.
    pub fn leave(&self) {
        self.assigned.end();
        self.left.store(true, Ordering::Release);
        self.reader.unpark();
    }

    /// Whether the shard is done with it.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }
}
