//! What a part has of its peers that is no record yet: they were told that it has arrived.

use std::cell::Cell;

/// In bytes as they were sent, but for carries, which are decrypted; for each part one.
#[derive(Debug, Default)]
pub struct Backlog {
    /// In the kernel, once the source is stopped.
    pub kernel: Cell<u64>,
    /// Received and not framed, what is being framed included.
    waiting: Cell<u64>,
    /// How much of it is of what is being framed.
    current: Cell<u64>,
    /// Framed, of records that have no end yet.
    carried: Cell<u64>,
}

impl Backlog {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.kernel.get() + self.waiting.get() + self.carried.get()
    }

    /// So many bytes wait to be framed.
    pub fn arrived(&self, bytes: usize) {
        self.waiting.set(self.waiting.get() + bytes as u64);
    }

    /// So many of them are next.
    pub fn begin(&self, bytes: usize) {
        self.current.set(bytes as u64);
    }

    /// So many more of these are framed.
    pub fn framed(&self, bytes: usize) {
        let bytes = self.current.get().min(bytes as u64);
        self.current.set(self.current.get() - bytes);
        self.waiting.set(self.waiting.get() - bytes);
    }

    /// A connection's unfinished record has so many bytes now.
    pub fn carries(&self, before: usize, now: usize) {
        self.carried.set(self.carried.get() + now as u64 - before as u64);
    }

    /// What is left of them never will be: their connection is gone.
    pub fn done(&self) {
        self.framed(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_or_never_will_be_waits_no_more() {
        let backlog = Backlog::default();
        backlog.arrived(10);
        backlog.begin(10);
        backlog.framed(4);
        backlog.arrived(7);
        assert_eq!(backlog.bytes(), 13);
        backlog.carries(0, 5);
        backlog.carries(5, 3);
        backlog.kernel.set(100);
        assert_eq!(backlog.bytes(), 116);
        backlog.done();
        assert_eq!(backlog.bytes(), 110);
        backlog.begin(7);
        backlog.framed(8);
        assert_eq!(backlog.bytes(), 103, "never less than nothing");
    }
}
