//! Messages of one partition on their way from the reader to the shard.

use crate::batch::Span;
use crate::batch::messages::{Message, write_header};
use crate::kafka::native::Taken;
use crate::memory::Charge;

/// A parcel of so many bytes is sent off; one message may make it larger.
pub const PARCEL_BYTES: usize = 256 << 10;
/// Buffers of a parcel beyond this are not kept for the next one.
const KEPT_BYTES_MAX: usize = 2 * PARCEL_BYTES;

/// See above. One entry in each list a message.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The values, each with a newline behind it, so that a raw sink takes them in one copy.
    pub values: Vec<u8>,
    /// Keys and headers.
    pub extras: Vec<u8>,
    /// Where the values are.
    pub spans: Vec<Span>,
    /// What is known of each.
    pub rows: Vec<Message>,
    /// The offsets behind each.
    pub upto: Vec<u64>,
    /// What its memory is charged with.
    pub charge: Option<Charge>,
}

impl Parcel {
    /// Adds a message. Sizes fit into 32 bits: librdkafka takes no message above 1 GB, and a parcel ends at
    /// [`PARCEL_BYTES`].
    pub fn push(&mut self, taken: &Taken<'_>) {
        let payload = taken.payload();
        let start = self.values.len() as u32;
        self.values.extend_from_slice(payload.unwrap_or_default());
        let end = self.values.len() as u32;
        self.values.push(b'\n');
        self.spans.push(Span { start, end });
        let key = taken.key().map(|key| {
            let start = self.extras.len() as u32;
            self.extras.extend_from_slice(key);
            Span { start, end: self.extras.len() as u32 }
        });
        let start = self.extras.len() as u32;
        taken.headers(|name, value| write_header(&mut self.extras, name, value));
        let headers = Span { start, end: self.extras.len() as u32 };
        self.rows.push(Message {
            offset: taken.offset(),
            timestamp_ms: taken.timestamp_ms(),
            key,
            headers,
            is_null: payload.is_none(),
        });
        self.upto.push(u64::try_from(taken.offset() + 1).unwrap_or_default());
    }

    /// Bytes of its messages, what is known of them included.
    pub fn bytes(&self) -> usize {
        let each = size_of::<Span>() + size_of::<Message>() + size_of::<u64>();
        self.values.len() + self.extras.len() + self.spans.len() * each
    }

    /// Whether no message is in it.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether it is worth keeping for others.
    pub fn is_kept(&self) -> bool {
        self.values.capacity() + self.extras.capacity() <= KEPT_BYTES_MAX
    }

    /// Makes it empty; memory is kept, and its charge.
    pub fn clear(&mut self) {
        self.values.clear();
        self.extras.clear();
        self.spans.clear();
        self.rows.clear();
        self.upto.clear();
    }
}
