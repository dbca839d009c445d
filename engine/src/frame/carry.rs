//! The carry: what one input has of a record whose end has not come.
//!
//! Its front may be *given*: a finished record that the caller reads until the next feed. Behind it lies content.
//!
//! Invariants: `given <= bytes.len()`. The memory is never more than the record limit and a constant, whatever a frame
//! declares: it grows with the bytes that came, doubling, up to that bound, and goes back to little when it is empty.

use super::header::HEADER_BYTES_MAX;

/// What an input without an unfinished record may keep.
const IDLE_BYTES_MAX: usize = 2048;

/// See above.
#[derive(Debug)]
pub(super) struct Carry {
    bytes: Vec<u8>,
    given: usize,
    bytes_max: usize,
}

impl Carry {
    /// Nothing is allocated before something is carried.
    pub(super) fn new(record_bytes_max: usize) -> Self {
        // Beside a record: a header that turned out to be text, a carriage return, a byte that shows there is more, and a newline.
        let bytes_max = record_bytes_max.saturating_add(HEADER_BYTES_MAX + 3);
        Self { bytes: Vec::new(), given: 0, bytes_max }
    }

    /// The bytes of the unfinished record.
    pub(super) fn content(&self) -> &[u8] {
        &self.bytes[self.given..]
    }

    /// What was given.
    pub(super) fn given(&self) -> &[u8] {
        &self.bytes[..self.given]
    }

    pub(super) fn is_given(&self) -> bool {
        self.given > 0
    }

    /// Memory held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends to the content.
    pub(super) fn extend(&mut self, more: &[u8]) {
        let need = self.bytes.len() + more.len();
        debug_assert!(need <= self.bytes_max, "a carry of {need} bytes");
        if need > self.bytes.capacity() {
            let target = need.max(2 * self.bytes.capacity()).max(256).min(self.bytes_max).max(need);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Gives the first `len` bytes to the caller, until [`Carry::release`].
    pub(super) fn give(&mut self, len: usize) {
        debug_assert!(self.given == 0 && len <= self.bytes.len());
        self.given = len;
    }

    /// Takes back what was given.
    pub(super) fn release(&mut self) {
        if self.given > 0 {
            self.bytes.drain(..self.given);
            self.given = 0;
            self.shrink();
        }
    }

    /// Forgets the first `len` bytes of the content.
    pub(super) fn skip(&mut self, len: usize) {
        self.bytes.drain(self.given..self.given + len);
    }

    /// Forgets all content but its first `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.given + len);
    }

    /// Forgets the content.
    pub(super) fn clear(&mut self) {
        self.bytes.truncate(self.given);
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > IDLE_BYTES_MAX {
            self.bytes.shrink_to(IDLE_BYTES_MAX);
        }
    }
}
