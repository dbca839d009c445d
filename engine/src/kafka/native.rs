//! A consumer of librdkafka's without its crate, where messages come in.
//!
//! A [`Consumer`] has a queue of its own for messages. So events are served while nobody takes messages (a member that is
//! stalled stays in its group), and hundreds of messages are taken in one call, without an allocation for each.
//!
//! Invariant: the queue is gone before its client is.

use std::ffi::{CStr, CString, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::bindings as raw;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use super::assigned::Membership;

/// Messages taken at most in one call.
pub const TAKEN_MAX: usize = 512;

/// A consumer whose messages come through a queue of their own.
pub struct Consumer<C: ConsumerContext> {
    // Dropped in this order: see the invariant.
    diversion: Arc<Diversion>,
    inner: BaseConsumer<C>,
    membership: Arc<Membership>,
}

impl<C: ConsumerContext> Drop for Consumer<C> {
    fn drop(&mut self) {
        self.membership.close();
    }
}

/// The queue of a consumer's messages.
pub struct Diversion {
    client: NonNull<raw::rd_kafka_t>,
    queue: NonNull<raw::rd_kafka_queue_t>,
}

// SAFETY: librdkafka's clients and queues may be used from any thread.
unsafe impl Send for Diversion {}
// SAFETY: as above.
unsafe impl Sync for Diversion {}

impl Drop for Diversion {
    fn drop(&mut self) {
        // SAFETY: the queue was made in `Consumer::new`, its client is still there, and nobody has it any more.
        unsafe { raw::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl<C: ConsumerContext> Consumer<C> {
    /// Gives a consumer its queue, and a membership its consumer.
    pub fn new(inner: BaseConsumer<C>, membership: Arc<Membership>) -> Option<Self> {
        let client = NonNull::new(inner.client().native_ptr())?;
        // SAFETY: the client is alive.
        let queue = NonNull::new(unsafe { raw::rd_kafka_queue_new(client.as_ptr()) })?;
        // SAFETY: the client lives as long as `inner`, and the membership is closed before that goes.
        unsafe { membership.open(client) };
        Some(Self { diversion: Arc::new(Diversion { client, queue }), inner, membership })
    }

    /// The queue, for the context, which lives longer than the queue may.
    pub fn diversion(&self) -> Weak<Diversion> {
        Arc::downgrade(&self.diversion)
    }

    /// What its callbacks know.
    pub fn context(&self) -> &Arc<C> {
        self.inner.context()
    }

    /// The consumer itself: for events, offsets and the group.
    pub fn inner(&self) -> &BaseConsumer<C> {
        &self.inner
    }

    /// Gives at most [`TAKEN_MAX`] messages to `each`, in the order of each partition and in stretches of one, an error by
    /// itself; waits for the first one. Returns how many there were.
    pub fn take(&self, wait: Duration, mut each: impl FnMut(Stretch<'_>)) -> usize {
        let mut slots = [None::<Slot>; TAKEN_MAX];
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let mut take = |wait_ms, from: usize, most: usize| {
            let room = &mut slots[from..from + most];
            // SAFETY: the queue is alive, and there is room for so many messages; none is a null pointer.
            let taken = unsafe {
                raw::rd_kafka_consume_batch_queue(
                    self.diversion.queue.as_ptr(),
                    wait_ms,
                    room.as_mut_ptr().cast(),
                    room.len(),
                )
            };
            usize::try_from(taken).unwrap_or(0)
        };
        // It waits until there are as many as were asked for.
        let mut taken = take(0, 0, TAKEN_MAX);
        if taken == 0 && wait_ms > 0 {
            taken = take(wait_ms, 0, 1);
            if taken > 0 {
                taken += take(0, 1, TAKEN_MAX - 1);
            }
        }
        for stretch in slots[..taken].chunk_by(are_of_one) {
            each(Stretch(stretch));
            for message in stretch.iter().flatten() {
                // SAFETY: a message that was taken is ours until it is destroyed, and nobody has it any more.
                unsafe { raw::rd_kafka_message_destroy(message.as_ptr()) };
            }
        }
        taken
    }
}

/// Where librdkafka puts a message.
type Slot = NonNull<raw::rd_kafka_message_t>;

/// Whether both are messages of one partition, by the looks of it: they may differ and be of one all the same.
fn are_of_one(a: &Option<Slot>, b: &Option<Slot>) -> bool {
    let of = |slot: &Option<Slot>| {
        // SAFETY: a message that was taken is there until it is destroyed.
        let message = unsafe { slot.as_ref()?.as_ref() };
        let is_message = message.err == raw::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        is_message.then_some((message.rkt, message.partition))
    };
    of(a).is_some_and(|of_a| Some(of_a) == of(b))
}

/// Messages of one partition that were taken one after the other, or one error.
pub struct Stretch<'a>(&'a [Option<Slot>]);

impl<'a> Stretch<'a> {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Taken<'a>> {
        // SAFETY: a message that was taken is there until it is destroyed, behind this stretch's life.
        self.0.iter().flatten().map(|message| Taken(unsafe { message.as_ref() }))
    }
}

impl Diversion {
    /// From now on the messages of a partition come through the queue. To be called before the partition is assigned, so that
    /// none has come by the other way.
    pub fn divert(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: client and queue are alive. What is asked for is ours, and counted; to forward does not need it later.
        unsafe {
            let of = raw::rd_kafka_queue_get_partition(self.client.as_ptr(), topic.as_ptr(), partition);
            if let Some(of) = NonNull::new(of) {
                raw::rd_kafka_queue_forward(of.as_ptr(), self.queue.as_ptr());
                raw::rd_kafka_queue_destroy(of.as_ptr());
            }
        }
    }
}

/// A message that was taken, or an error of its partition.
pub struct Taken<'a>(&'a raw::rd_kafka_message_t);

impl<'a> Taken<'a> {
    /// What is wrong, if this is no message.
    pub fn error(&self) -> Option<(RDKafkaErrorCode, String)> {
        let code = RDKafkaErrorCode::from(self.0.err);
        if code == RDKafkaErrorCode::NoError {
            return None;
        }
        // SAFETY: the text belongs to the message.
        let text = unsafe { raw::rd_kafka_message_errstr(self.0) };
        // SAFETY: as above; it ends in a NUL where there is one.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        Some((code, text.unwrap_or_else(|| code.to_string())))
    }

    /// The topic.
    pub fn topic(&self) -> &'a str {
        if self.0.rkt.is_null() {
            return "";
        }
        // SAFETY: the topic lives as long as the message, and its name ends in a NUL.
        let name = unsafe { CStr::from_ptr(raw::rd_kafka_topic_name(self.0.rkt)) };
        name.to_str().unwrap_or_default()
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    /// The offset.
    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    /// The value, if there is one.
    pub fn payload(&self) -> Option<&'a [u8]> {
        bytes(self.0.payload, self.0.len)
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&'a [u8]> {
        bytes(self.0.key, self.0.key_len)
    }

    /// The message's time, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = raw::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let time = unsafe { raw::rd_kafka_message_timestamp(self.0, &mut kind) };
        (kind != raw::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && time >= 0)
            .then_some(time)
    }

    /// Gives each header's name and value to `each`.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = null_mut();
        // SAFETY: the message is alive, and so are its headers as long as it is.
        let error = unsafe { raw::rd_kafka_message_headers(self.0, &mut headers) };
        if RDKafkaErrorCode::from(error) != RDKafkaErrorCode::NoError {
            return;
        }
        for at in 0.. {
            let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: as above; each is written where there is a header of that number.
            let error = unsafe { raw::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut len) };
            if RDKafkaErrorCode::from(error) != RDKafkaErrorCode::NoError {
                return;
            }
            // SAFETY: a header's name ends in a NUL.
            let name = unsafe { CStr::from_ptr(name) };
            each(name.to_bytes(), bytes(value, len));
        }
    }
}

/// What is wrong with a topic that begins with `^`, by the same function that librdkafka reads it with.
pub fn pattern_refusal(pattern: &str) -> Option<String> {
    let Ok(text) = CString::new(pattern) else { return Some("it holds a NUL".to_owned()) };
    // SAFETY: a regex_t is plain memory, which regcomp fills in.
    let mut compiled: libc::regex_t = unsafe { std::mem::zeroed() };
    // SAFETY: both live for the call, and the text ends in a NUL.
    let code =
        unsafe { libc::regcomp(&raw mut compiled, text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
    if code == 0 {
        // SAFETY: it was compiled, and nobody uses it any more.
        unsafe { libc::regfree(&raw mut compiled) };
        return None;
    }
    let mut why = [0u8; 128];
    // SAFETY: at most so many bytes are written, the NUL at their end included.
    unsafe { libc::regerror(code, &raw const compiled, why.as_mut_ptr().cast(), why.len()) };
    let why = CStr::from_bytes_until_nul(&why).map(|why| why.to_string_lossy().into_owned());
    Some(why.unwrap_or_default())
}

/// Bytes of a message, which live as long as it does.
fn bytes<'a>(at: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: librdkafka says so many bytes are there; callers bind them to the message's life.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast(), len) })
}
