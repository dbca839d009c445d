//! The edge to the kernel: only this module makes system calls on a shard and sees errno.
//!
//! Two backends give the same records, codes and counters: io_uring (files through tokio-uring, sockets through a raw
//! ring beside it) and epoll (tokio) where io_uring is refused. Which one a shard has is decided once, in [`probe`].
//! It refuses to know what bytes mean: no framing, no source, no sink.

pub mod affinity;
mod alarm;
pub mod bufring;
mod bundling;
mod connections;
pub mod datagram;
#[cfg(test)]
mod datagram_tests;
mod datagram_ways;
mod epoll_net;
pub mod file;
pub mod halves;
pub mod host;
pub mod interfaces;
pub mod listen;
mod lowat;
pub mod memory;
mod mmsg;
pub mod outgoing;
pub mod packets;
mod pause;
mod poller;
pub mod probe;
mod provided;
pub mod ring;
pub mod runtime;
pub mod sockopt;
pub mod stream;
#[cfg(test)]
mod stream_tests;
mod turn;

pub(crate) use file::first_hole;
pub use file::{IoFile, ReadBuffer};
pub use runtime::{Backend, Io};
