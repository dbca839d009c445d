//! What is sent: RFC 5424 messages of 250 bytes that differ in every field of their header.

/// Bytes of a message, its last one included.
pub const MESSAGE_BYTES: usize = 250;
/// Messages before they repeat; about a megabyte, so that a sender reads them from its cache.
pub const MESSAGES: usize = 4096;

/// Messages one behind the other.
pub struct Messages(Vec<u8>);

impl Messages {
    /// Messages that end in `last`; `elements` gives each one element of structured data.
    pub fn new(last: u8, elements: bool) -> Self {
        let mut bytes = Vec::with_capacity(MESSAGES * MESSAGE_BYTES);
        let mut seed = 42u64;
        for i in 0..MESSAGES {
            let header = header(i, elements);
            bytes.extend_from_slice(header.as_bytes());
            for _ in header.len()..MESSAGE_BYTES - 1 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push(b' ' + ((seed >> 40) % 90) as u8);
            }
            bytes.push(last);
        }
        Self(bytes)
    }

    /// Bytes of a record in the middle: what is left of a message behind its header, its last byte included.
    pub fn record_bytes(&self) -> u64 {
        let headers: usize = (0..MESSAGES).map(|i| header(i, false).len()).sum();
        (MESSAGE_BYTES - headers / MESSAGES) as u64
    }

    /// `count` messages from the one with number `from` on, or fewer at the end.
    pub fn from(&self, from: u64, count: usize) -> &[u8] {
        let from = (from % MESSAGES as u64) as usize;
        let to = (from + count).min(MESSAGES);
        &self.0[from * MESSAGE_BYTES..to * MESSAGE_BYTES]
    }
}

fn header(i: usize, elements: bool) -> String {
    let (pri, second, host) = (i * 7 % 192, i % 60, i % 50);
    let data = if elements { format!("[meta sequenceId=\"{i}\"]") } else { "-".to_owned() };
    format!(
        "<{pri}>1 2026-11-22T03:15:{second:02}.{i:06}Z host{host}.example.com app{} {i} ID{} {data} ",
        i % 9,
        i % 90
    )
}
