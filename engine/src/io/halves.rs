//! Memory for arenas that are filled: two of them in a huge page.
//!
//! A write past the page cache goes by the pages that its bytes are in: each is pinned, and each becomes a segment of the
//! disk's request. A megabyte in one huge page costs less than half of what it does in 256 small ones.
//!
//! A page has two halves, each taken or free. What is resident is what is taken: a half that is given back while the
//! other one is taken loses its memory, which breaks the huge page up, so the page is not used for new ones after that.
//! The one exception is a page of which one half was never taken; there is at most one such, for it comes first.
//!
//! Halves are taken and given when an arena is made or dropped, a few times in an engine's life; so one lock will do.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use super::memory::{map, unmap};

/// Bytes of a half.
pub const HALF_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 2 * HALF_BYTES;

/// Two halves side by side.
#[derive(Debug)]
struct Page {
    at: NonNull<u8>,
    taken: [bool; 2],
    /// Whether no half was ever given back.
    whole: bool,
}

// SAFETY: a page is an address and what is known of it; who took a half alone uses the memory.
unsafe impl Send for Page {}

static PAGES: Mutex<Vec<Page>> = Mutex::new(Vec::new());

/// A zeroed half that nobody else has; none when the system has no more memory.
pub fn take() -> Option<NonNull<u8>> {
    let mut pages = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(page) = pages.iter_mut().find(|page| page.whole && !page.taken[1]) {
        page.taken[1] = true;
        return Some(page.half(1));
    }
    let at = map(PAGE_BYTES)?;
    // SAFETY: the range was mapped above; advice changes no content. Kernels without huge pages refuse it, and those that
    // do not align large mappings have no use for it: then it is memory as any other.
    unsafe { libc::madvise(at.as_ptr().cast(), PAGE_BYTES, libc::MADV_HUGEPAGE) };
    let page = Page { at, taken: [true, false], whole: true };
    let half = page.half(0);
    pages.push(page);
    Some(half)
}

/// Gives a half back.
///
/// # Safety
/// It comes from [`take`], and nobody uses it any more.
pub unsafe fn give(half: NonNull<u8>) {
    let mut pages = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = pages.iter().enumerate().find_map(|(i, page)| Some((i, page.index_of(half)?)));
    let Some((i, which)) = found else { unreachable!("a half belongs to a page") };
    let page = &mut pages[i];
    assert!(std::mem::take(&mut page.taken[which]), "a half is given back once");
    page.whole = false;
    if page.taken == [false, false] {
        let page = pages.swap_remove(i);
        // SAFETY: mapped in `take` with this size; neither half is used any more.
        unsafe { unmap(page.at, PAGE_BYTES) };
    } else {
        // SAFETY: the half is mapped, and by the caller's promise nobody uses it.
        unsafe { libc::madvise(half.as_ptr().cast(), HALF_BYTES, libc::MADV_DONTNEED) };
    }
}

impl Page {
    fn half(&self, which: usize) -> NonNull<u8> {
        // SAFETY: a page has two halves, so that both begin within it.
        unsafe { self.at.add(which * HALF_BYTES) }
    }

    fn index_of(&self, half: NonNull<u8>) -> Option<usize> {
        (0..2).find(|which| self.half(*which) == half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(half: NonNull<u8>) -> &'static mut [u8] {
        // SAFETY: the test took it and has not given it back.
        unsafe { std::slice::from_raw_parts_mut(half.as_ptr(), HALF_BYTES) }
    }

    /// Whether the kernel has memory for the first byte.
    fn is_resident(half: NonNull<u8>) -> bool {
        let mut state = 0u8;
        // SAFETY: one page of a mapping, and one byte for its state.
        let code = unsafe { libc::mincore(half.as_ptr().cast(), 1, &raw mut state) };
        code == 0 && state & 1 == 1
    }

    #[test]
    fn each_half_is_one_owners_and_what_is_given_back_is_gone() {
        let halves: Vec<NonNull<u8>> = (0..9).map(|_| take().unwrap()).collect();
        for (i, half) in halves.iter().enumerate() {
            assert!(bytes(*half).iter().all(|byte| *byte == 0), "zeroed");
            bytes(*half).fill(i as u8 + 1);
        }
        for (i, half) in halves.iter().enumerate() {
            assert!(bytes(*half).iter().all(|byte| *byte == i as u8 + 1), "nobody else writes to it");
        }
        let pages = || PAGES.lock().unwrap().len();
        let before = pages();
        for half in halves.iter().step_by(2) {
            // SAFETY: taken above, and not used any more.
            unsafe { give(*half) };
        }
        for (i, half) in halves.iter().enumerate().skip(1).step_by(2) {
            assert!(bytes(*half).iter().all(|byte| *byte == i as u8 + 1), "the other half stays");
            // SAFETY: as above.
            unsafe { give(*half) };
        }
        assert!(pages() < before, "a page without a taken half is given back");
    }

    #[test]
    fn a_half_that_is_free_has_no_memory() {
        // Other tests take halves, too: both of one page are wanted.
        let (mut one, mut other) = (take().unwrap(), take().unwrap());
        let is_page = |page: &Page, one, other| (page.half(0), page.half(1)) == (one, other);
        while !PAGES.lock().unwrap().iter().any(|page| is_page(page, one, other)) {
            (one, other) = (other, take().unwrap());
        }
        bytes(one).fill(1);
        bytes(other).fill(2);
        assert!(is_resident(one) && is_resident(other));
        // SAFETY: taken above, and not used any more.
        unsafe { give(one) };
        assert!(!is_resident(one) && is_resident(other));
        assert!(take().unwrap() != one, "a page that was broken up is used no more");
        // SAFETY: as above.
        unsafe { give(other) };
    }
}
