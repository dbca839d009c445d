//! What a source and a sink of Kafka's share of one assignment of a partition, so that a transaction of the sink can hold the
//! offsets of the source's group.
//!
//! A partition that goes to another member and comes back is another assignment. The sink commits an assignment's offsets in
//! the transaction that has its records; from then on the source does not, and the broker refuses both together where the
//! partition is another member's by then.
//!
//! Invariants: an assignment is lost before its group may give the partition to another member (the source says so before it
//! lets go). So whoever asks for [`Membership::now`] first, and only then whether an assignment is lost, has a generation in
//! which the partition is still ours, or one that the broker refuses.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as raw;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::batch::Assignment;

/// One assignment of a partition to a source.
#[derive(Debug)]
pub struct Assigned {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub number: i32,
    /// The source's membership in its group.
    pub membership: Arc<Membership>,
    /// Whether a sink commits its offsets.
    is_taken: AtomicBool,
    /// Whether the partition is ours no more.
    is_lost: AtomicBool,
    /// Whether no record of it is out any more.
    is_over: AtomicBool,
}

impl Assigned {
    /// An assignment that begins.
    pub fn new(topic: Arc<str>, number: i32, membership: Arc<Membership>) -> Arc<Self> {
        let no = || AtomicBool::new(false);
        Arc::new(Self { topic, number, membership, is_taken: no(), is_lost: no(), is_over: no() })
    }

    /// It, for an origin.
    pub fn for_origin(self: &Arc<Self>) -> Assignment {
        Assignment(Arc::clone(self) as Arc<dyn Any + Send + Sync>)
    }

    /// It, of an origin.
    pub fn of(assignment: &Assignment) -> Option<Arc<Self>> {
        Arc::clone(&assignment.0).downcast().ok()
    }

    /// A sink commits its offsets with its records, or does not any more.
    pub fn take(&self, is_taken: bool) {
        self.is_taken.store(is_taken, Ordering::Release);
    }

    /// Whether a sink commits its offsets.
    pub fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Acquire)
    }

    /// The partition is given up, or another member has it already.
    pub fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// Whether the partition is ours no more.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// No record of it is out any more.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether no record of it is out, or will be.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// A source's membership in its group, as long as its consumer lives.
pub struct Membership {
    /// The group.
    pub group: String,
    client: Mutex<Option<Client>>,
}

/// The consumer of a membership.
struct Client(NonNull<raw::rd_kafka_t>);

// SAFETY: librdkafka's clients may be used from any thread.
unsafe impl Send for Client {}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Membership {
    /// A membership that has no consumer yet.
    pub fn new(group: String) -> Arc<Self> {
        Arc::new(Self { group, client: Mutex::default() })
    }

    /// Gives it its consumer.
    ///
    /// # Safety
    /// The client must be alive until [`Membership::close`] has returned.
    pub unsafe fn open(&self, client: NonNull<raw::rd_kafka_t>) {
        *self.client() = Some(Client(client));
    }

    /// Its consumer goes: nothing is committed for it any more.
    pub fn close(&self) {
        *self.client() = None;
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the broker knows the member by, at this moment. None where it is no member of its group now: offsets would be
    /// taken from anybody then.
    pub fn now(&self) -> Option<Generation> {
        let client = self.client();
        let client = client.as_ref()?;
        // SAFETY: the client is alive while the lock is held; what it returns is ours.
        let found = NonNull::new(unsafe { raw::rd_kafka_consumer_group_metadata(client.0.as_ptr()) })?;
        let found = Generation(found);
        found.is_member().then_some(found)
    }
}

/// A member of a group, in one generation of it.
pub struct Generation(NonNull<raw::rd_kafka_consumer_group_metadata_t>);

// SAFETY: it is plain data that is only read.
unsafe impl Send for Generation {}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has it any more.
        unsafe { raw::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

impl Generation {
    fn is_member(&self) -> bool {
        // SAFETY: it is alive, and its id is a text that lives as long.
        let (generation, id) = unsafe {
            let at = self.0.as_ptr();
            (
                raw::rd_kafka_consumer_group_metadata_generation_id(at),
                raw::rd_kafka_consumer_group_metadata_member_id(at),
            )
        };
        // SAFETY: as above; it ends in a NUL.
        generation >= 0 && !id.is_null() && !unsafe { CStr::from_ptr(id) }.is_empty()
    }

    /// Puts offsets of the group into the transaction that `producer` has open. It blocks.
    ///
    /// # Errors
    /// Why they are not in it.
    pub fn send(
        &self,
        producer: NonNull<raw::rd_kafka_t>,
        offsets: &TopicPartitionList,
        at_most: Duration,
    ) -> Result<(), Fault> {
        let at_most = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the producer is alive, as whoever asks has it; offsets and generation are only read.
        let error = unsafe {
            raw::rd_kafka_send_offsets_to_transaction(
                producer.as_ptr(),
                offsets.ptr(),
                self.0.as_ptr(),
                at_most,
            )
        };
        match NonNull::new(error) {
            None => Ok(()),
            Some(error) => Err(Fault::taken(error)),
        }
    }
}

/// What went wrong with a transaction, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code.
    pub code: RDKafkaErrorCode,
    /// librdkafka's words.
    pub text: String,
    /// What is to be done.
    pub takes: Takes,
}

/// What a fault takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The same once more.
    Again,
    /// The transaction must be aborted.
    Abort,
    /// Another producer.
    Producer,
}

impl Takes {
    /// librdkafka says of some errors neither that they can be tried again nor that they take an abort: those are treated
    /// as the worst, as it advises.
    fn of(is_fatal: bool, requires_abort: bool, is_retriable: bool) -> Self {
        match (is_fatal, requires_abort, is_retriable) {
            (false, true, _) => Self::Abort,
            (false, false, true) => Self::Again,
            _ => Self::Producer,
        }
    }
}

impl Fault {
    /// A fault for which the transaction must be aborted.
    pub fn abort(code: RDKafkaErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), takes: Takes::Abort }
    }

    fn taken(error: NonNull<raw::rd_kafka_error_t>) -> Self {
        let at = error.as_ptr();
        // SAFETY: the error is ours until it is destroyed here, and its text lives as long.
        unsafe {
            let code = RDKafkaErrorCode::from(raw::rd_kafka_error_code(at));
            let text = CStr::from_ptr(raw::rd_kafka_error_string(at)).to_string_lossy().into_owned();
            let is = |flag| flag != 0;
            let takes = Takes::of(
                is(raw::rd_kafka_error_is_fatal(at)),
                is(raw::rd_kafka_error_txn_requires_abort(at)),
                is(raw::rd_kafka_error_is_retriable(at)),
            );
            raw::rd_kafka_error_destroy(at);
            Self { code, text, takes }
        }
    }
}

impl From<KafkaError> for Fault {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::Transaction(error) => Self {
                code: error.code(),
                text: error.string(),
                takes: Takes::of(error.is_fatal(), error.txn_requires_abort(), error.is_retriable()),
            },
            KafkaError::Flush(code) => Self { code, text: error.to_string(), takes: Takes::Again },
            other => {
                let code = other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                Self::abort(code, other.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_without_a_consumer_commits_nothing() {
        let membership = Membership::new("g".into());
        assert!(membership.now().is_none());
        let assigned = Assigned::new("t".into(), 3, membership);
        let same = Assigned::of(&assigned.for_origin()).unwrap();
        assert!(Arc::ptr_eq(&assigned, &same));
        assert_eq!(assigned.for_origin(), same.for_origin());
        assigned.take(true);
        same.lose();
        assert!((same.is_taken(), assigned.is_lost(), same.is_over()) == (true, true, false));
    }

    #[test]
    fn what_librdkafka_says_nothing_of_is_the_worst() {
        assert_eq!(Takes::of(true, true, true), Takes::Producer);
        assert_eq!(Takes::of(false, true, true), Takes::Abort);
        assert_eq!(Takes::of(false, false, true), Takes::Again);
        assert_eq!(Takes::of(false, false, false), Takes::Producer);
    }
}
