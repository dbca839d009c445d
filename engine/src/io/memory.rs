//! Lends an [`Arena`] to the kernel: the one place that promises tokio-uring that its memory stays where it is.

use tokio_uring::buf::{IoBuf, IoBufMut};

use crate::pool::Arena;

// SAFETY: an arena's memory is a heap allocation of its own; moving the arena moves the pointer, not the bytes, and
// the allocation lives until the arena is dropped, which the ring's operation owns while it runs.
unsafe impl IoBuf for Arena {
    fn stable_ptr(&self) -> *const u8 {
        self.memory().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.capacity()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }
}

// SAFETY: as above; all of an arena's memory is initialised from the start, so there is no mark to move.
unsafe impl IoBufMut for Arena {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.memory_mut().as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _pos: usize) {}
}
