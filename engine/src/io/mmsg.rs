//! Many datagrams with one system call, where io_uring is refused.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::provided::Mapping;

/// Datagrams of one call.
pub(super) const MESSAGES: usize = 64;

/// Memory for the datagrams of one call, their senders and their control messages.
///
/// The headers point into the mapping and into each other's boxes, none of which moves or grows.
pub(super) struct Messages {
    memory: Mapping,
    slot_bytes: usize,
    layout: Layout,
    headers: Box<[libc::mmsghdr]>,
    _vectors: Box<[libc::iovec]>,
}

/// What is in front of a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Room for the sender's address.
    pub(super) name: usize,
    /// Room for control messages.
    pub(super) control: usize,
    /// Room for the payload.
    pub(super) payload: usize,
}

/// One datagram, or several that the kernel merged.
pub(super) struct Message<'a> {
    pub(super) name: &'a [u8],
    pub(super) control: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) truncated: bool,
}

impl Messages {
    /// Memory for [`MESSAGES`] datagrams.
    pub(super) fn new(layout: Layout) -> io::Result<Self> {
        // An odd number of cache lines: payloads at equal offsets must not compete for the same ways.
        let slot_bytes = (layout.name + layout.control + layout.payload).next_multiple_of(128) + 64;
        let memory = Mapping::new(MESSAGES * slot_bytes, false)?;
        let at = |slot: usize, offset: usize| memory.at(slot * slot_bytes + offset).as_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..MESSAGES)
            .map(|slot| libc::iovec {
                iov_base: at(slot, layout.name + layout.control).cast(),
                iov_len: layout.payload,
            })
            .collect();
        let headers = (0..MESSAGES)
            .map(|slot| {
                // SAFETY: all zeroes is a valid header of plain integers and null pointers.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = at(slot, 0).cast();
                header.msg_hdr.msg_control = at(slot, layout.name).cast();
                header.msg_hdr.msg_iov = &raw mut vectors[slot];
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Ok(Self { memory, slot_bytes, layout, headers, _vectors: vectors })
    }

    /// Receives what is there, without waiting.
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = self.layout.name as u32;
            header.msg_hdr.msg_controllen = self.layout.control;
        }
        // SAFETY: every header describes memory of its own slot, which lives as long as `self`.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MESSAGES as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if n >= 0 { Ok(n as usize) } else { Err(io::Error::last_os_error()) }
    }

    /// Message `i` of the last [`Messages::receive`].
    pub(super) fn get(&self, i: usize) -> Message<'_> {
        let header = &self.headers[i].msg_hdr;
        let part = |offset: usize, bytes: usize| {
            let at = self.memory.at(i * self.slot_bytes + offset);
            // SAFETY: within the slot: the kernel's lengths are cut to the room they were given, and mappings start zeroed.
            unsafe { std::slice::from_raw_parts(at.as_ptr(), bytes) }
        };
        let Layout { name, control, payload } = self.layout;
        Message {
            name: part(0, name.min(header.msg_namelen as usize)),
            control: part(name, control.min(header.msg_controllen)),
            payload: part(name + control, payload.min(self.headers[i].msg_len as usize)),
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}
