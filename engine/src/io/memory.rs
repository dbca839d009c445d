//! Memory of [`Arena`]s: taken from the kernel, and lent to it. The one place that promises tokio-uring that an arena's
//! memory stays where it is.

use std::ptr::NonNull;

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

/// Zeroed pages of their own; none when the system has no more.
pub fn map(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: a fresh private mapping that nothing else points into.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) }
}

/// Gives pages back.
///
/// # Safety
/// They come from [`map`] with the same size, and nobody uses them any more.
pub unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(at.as_ptr().cast(), bytes) };
}
