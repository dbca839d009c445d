//! A batch on its way to a broker: handed to librdkafka without a copy, and given back when each of its messages is reported.
//!
//! Invariants: librdkafka has pointers into the batch's bytes. The batch stays in its [`Cargo`], and nobody writes to it, while
//! a message of it is not reported or may still be handed over; each message holds the cargo. So memory outlives what points
//! into it, whatever becomes of producers and owners.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::bindings as raw;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{PARTITION_UA, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc::UnboundedSender;

use crate::batch::Batch;

/// Messages handed over in one call.
const RUN: usize = 256;

/// A producer, with a thread of its own that brings reports.
pub struct Producer<C: ProducerContext<DeliveryOpaque = Arc<Cargo>> + 'static> {
    // Dropped in this order: topics are gone before their client is.
    topics: Topics,
    inner: ThreadedProducer<C>,
}

/// librdkafka's topics by name.
#[derive(Default)]
struct Topics(Mutex<HashMap<String, NonNull<raw::rd_kafka_topic_t>>>);

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for Topics {}
// SAFETY: as above; the table itself is locked.
unsafe impl Sync for Topics {}

impl Drop for Topics {
    fn drop(&mut self) {
        for (_, topic) in lock(&self.0).drain() {
            // SAFETY: it is ours, its client is still there, and nobody uses it: `Producer` is being dropped.
            unsafe { raw::rd_kafka_topic_destroy(topic.as_ptr()) }
        }
    }
}

/// How handing over went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// All messages are with librdkafka.
    All,
    /// Its queue is full: the rest later.
    Full,
    /// It takes no message now, for this reason.
    Refused(RDKafkaErrorCode),
}

/// A batch whose messages are all reported.
#[derive(Debug)]
pub struct Reported {
    /// The batch.
    pub batch: Box<Batch>,
    /// Records that were not delivered and may be yet, by number and in order, and why.
    pub failed: Vec<(u32, RDKafkaErrorCode)>,
    /// Records that will never be delivered, by number, and why.
    pub rejected: Vec<(u32, RDKafkaErrorCode)>,
    /// The batch's turn, as it was loaded.
    pub turn: u64,
    /// Messages that were to be delivered.
    pub messages: usize,
}

/// Which records of a batch are to be messages, and how.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Those of these numbers, in order; all where there are none.
    pub only: Vec<u32>,
    /// Each is sent when the one before it is reported. A broker refuses whole requests: this finds out whom it means.
    pub single: bool,
    /// The batch's turn.
    pub turn: u64,
}

/// See above.
#[derive(Debug)]
pub struct Cargo {
    hold: Mutex<Hold>,
    /// Messages that are not reported; one more while there may be others.
    left: AtomicUsize,
    load: Load,
    messages: usize,
    /// None for messages that are of no batch.
    done: Option<UnboundedSender<Reported>>,
}

#[derive(Debug)]
struct Hold {
    batch: Option<Box<Batch>>,
    failed: Vec<(u32, RDKafkaErrorCode)>,
    rejected: Vec<(u32, RDKafkaErrorCode)>,
}

/// Whether a message that met this will never be taken, whenever it is sent.
pub fn is_final(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(code, E::MessageSizeTooLarge | E::InvalidRecord | E::InvalidTimestamp)
}

impl Cargo {
    /// For messages that are of no batch, and of which nobody waits for a report: their transaction does.
    pub fn none() -> Arc<Self> {
        let hold = Hold { batch: None, failed: Vec::new(), rejected: Vec::new() };
        let (left, load) = (AtomicUsize::new(0), Load::default());
        Arc::new(Self { hold: Mutex::new(hold), left, load, messages: 0, done: None })
    }

    /// A message of the cargo is reported. `payload` is where its bytes are.
    pub fn report(&self, error: Option<(RDKafkaErrorCode, Option<&[u8]>)>) {
        if self.done.is_none() {
            return;
        }
        if let Some((code, payload)) = error {
            let mut hold = lock(&self.hold);
            match hold.number(payload) {
                Some(number) if self.load.single && is_final(code) => hold.rejected.push((number, code)),
                Some(number) => hold.failed.push((number, code)),
                None => debug_assert!(false, "a report of a message that was not sent"),
            }
        }
        self.less();
    }

    /// One that held the batch does no more; the last one sends it home.
    fn less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let mut hold = lock(&self.hold);
        let (mut failed, rejected) = (std::mem::take(&mut hold.failed), std::mem::take(&mut hold.rejected));
        failed.sort_unstable_by_key(|(number, _)| *number);
        if let Some((batch, done)) = hold.batch.take().zip(self.done.as_ref()) {
            let (turn, messages) = (self.load.turn, self.messages);
            // An owner that has ended has left it behind: it counts as not delivered.
            let _ = done.send(Reported { batch, failed, rejected, turn, messages });
        }
    }
}

impl Hold {
    /// The number of the message whose bytes begin there. Each has at least its newline, so no two begin at one place.
    fn number(&self, payload: Option<&[u8]>) -> Option<u32> {
        let batch = self.batch.as_ref()?;
        let at = (payload?.as_ptr() as usize).checked_sub(batch.bytes().as_ptr() as usize)?;
        u32::try_from(batch.ends.partition_point(|end| *end as usize <= at)).ok()
    }
}

/// A cargo of which messages are still to be handed over.
#[derive(Debug)]
pub struct Loading {
    cargo: Arc<Cargo>,
    /// The first message that is not.
    next: usize,
}

impl Load {
    /// The number of the record that is the message `at`.
    fn number(&self, at: usize) -> usize {
        self.only.get(at).map_or(at, |number| *number as usize)
    }
}

impl Loading {
    /// A batch, each record one message without the newline behind it. When all are reported it goes to `done`.
    pub fn new(batch: Box<Batch>, load: Load, done: UnboundedSender<Reported>) -> Self {
        debug_assert_eq!(batch.ends.len(), batch.records as usize, "the ends are asked for");
        let messages = if load.only.is_empty() { batch.ends.len() } else { load.only.len() };
        let hold = Hold { batch: Some(batch), failed: Vec::new(), rejected: Vec::new() };
        let cargo =
            Cargo { hold: Mutex::new(hold), left: AtomicUsize::new(1), load, messages, done: Some(done) };
        Self { cargo: Arc::new(cargo), next: 0 }
    }

    /// Hands over what is left, as far as librdkafka takes it.
    pub fn hand_over<C>(&mut self, producer: &Producer<C>, topic: &str, key: Option<&[u8]>) -> Handed
    where
        C: ProducerContext<DeliveryOpaque = Arc<Cargo>> + 'static,
    {
        let Some(topic) = producer.topic(topic) else {
            return Handed::Refused(RDKafkaErrorCode::InvalidTopic);
        };
        loop {
            let mut hold = lock(&self.cargo.hold);
            let Hold { batch: Some(batch), rejected, .. } = &mut *hold else { return Handed::All };
            let Cargo { load, messages, left, .. } = &*self.cargo;
            let to = (*messages).min(self.next + if load.single { 1 } else { RUN });
            if self.next == to {
                return Handed::All;
            }
            if load.single && left.load(Ordering::Acquire) > 1 {
                return Handed::Full;
            }
            let mut run = [const { MaybeUninit::<raw::rd_kafka_message_t>::uninit() }; RUN];
            let ends = &batch.ends;
            let (bytes, from) = (batch.bytes(), self.next);
            left.fetch_add(to - from, Ordering::AcqRel);
            for (slot, at) in run.iter_mut().zip(from..to) {
                let number = load.number(at);
                let start = if number == 0 { 0 } else { ends[number - 1] as usize };
                slot.write(message(&bytes[start..ends[number] as usize - 1], key, &self.cargo));
            }
            // SAFETY: the first `to - from` messages are written. Their bytes lie in the batch, which the cargo keeps where
            // it is, unchanged, until they are reported; keys are copied. The topic is alive as long as the producer.
            let run = unsafe {
                let run = std::slice::from_raw_parts_mut(
                    run.as_mut_ptr().cast::<raw::rd_kafka_message_t>(),
                    to - from,
                );
                raw::rd_kafka_produce_batch(
                    topic.as_ptr(),
                    PARTITION_UA,
                    0,
                    run.as_mut_ptr(),
                    run.len() as i32,
                );
                run
            };
            let mut stopped = None;
            for (message, at) in run.iter().zip(from..to) {
                let code = RDKafkaErrorCode::from(message.err);
                if code == RDKafkaErrorCode::NoError {
                    continue;
                }
                // SAFETY: librdkafka did not take the message, so what it was to hold is still ours.
                drop(unsafe { Arc::from_raw(message._private.cast::<Cargo>().cast_const()) });
                // The loading holds it as well: it does not go home now.
                left.fetch_sub(1, Ordering::AcqRel);
                if is_final(code) {
                    rejected.push((load.number(at) as u32, code));
                } else {
                    stopped.get_or_insert((at, code));
                }
            }
            let Some((at, code)) = stopped else {
                self.next = to;
                continue;
            };
            self.next = at;
            return if code == RDKafkaErrorCode::QueueFull { Handed::Full } else { Handed::Refused(code) };
        }
    }

    /// No more is handed over: what is not counts as failed for `code`; none when all is.
    pub fn finish(self, code: Option<RDKafkaErrorCode>) {
        if let Some(code) = code {
            let rest = (self.next..self.cargo.messages).map(|at| (self.cargo.load.number(at) as u32, code));
            lock(&self.cargo.hold).failed.extend(rest);
        }
        self.cargo.less();
    }
}

/// A message that holds its cargo.
fn message(payload: &[u8], key: Option<&[u8]>, cargo: &Arc<Cargo>) -> raw::rd_kafka_message_t {
    let pointer = |bytes: &[u8]| bytes.as_ptr().cast_mut().cast::<c_void>();
    raw::rd_kafka_message_t {
        err: raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: null_mut(),
        partition: PARTITION_UA,
        payload: pointer(payload),
        len: payload.len(),
        key: key.map_or(null_mut(), pointer),
        key_len: key.map_or(0, <[u8]>::len),
        offset: 0,
        _private: Arc::into_raw(Arc::clone(cargo)).cast_mut().cast(),
    }
}

impl<C> Producer<C>
where
    C: ProducerContext<DeliveryOpaque = Arc<Cargo>> + 'static,
{
    /// A producer with its topics.
    pub fn new(inner: ThreadedProducer<C>) -> Self {
        Self { topics: Topics::default(), inner }
    }

    /// The producer itself.
    pub fn inner(&self) -> &ThreadedProducer<C> {
        &self.inner
    }

    fn topic(&self, name: &str) -> Option<NonNull<raw::rd_kafka_topic_t>> {
        let mut topics = lock(&self.topics.0);
        if let Some(topic) = topics.get(name) {
            return Some(*topic);
        }
        let text = CString::new(name).ok()?;
        // SAFETY: the client is alive, and a name without settings of its own is copied.
        let topic =
            unsafe { raw::rd_kafka_topic_new(self.inner.client().native_ptr(), text.as_ptr(), null_mut()) };
        let topic = NonNull::new(topic)?;
        topics.insert(name.to_owned(), topic);
        Some(topic)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
