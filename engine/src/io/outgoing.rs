//! A TCP connection that this side opened, to write to: what the peer has acknowledged, whether it is still there.
//!
//! Positions count bytes from the connection's beginning. A byte is acknowledged when the peer's kernel has it; whether
//! its program has read it, TCP does not tell. Nothing here waits but [`Outgoing::connect`], [`Outgoing::ready`] and
//! [`Outgoing::finish`].

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::sockopt;

/// A peer is asked whether it is there after so much idle time, this often, at this distance.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMES: u32 = 3;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// A peer that was asked twice and has not answered for so long is gone. Keepalive does not ask while bytes are on their
/// way, and TCP_USER_TIMEOUT would also end connections to peers that answer and take nothing for a while.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const ASKED_MIN: u32 = 2;
/// Reads at once of what a peer says.
const READS_MAX: usize = 16;

/// A connection to write to.
#[derive(Debug)]
pub struct Outgoing {
    stream: TcpStream,
    written: u64,
}

impl Outgoing {
    /// Connects to `host:port`, to the first of its addresses that answers.
    ///
    /// # Errors
    /// What the resolver or the last address said.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TIMES))?;
        Ok(Self { stream, written: 0 })
    }

    /// Writes what the kernel takes at once; 0 when it takes nothing now.
    ///
    /// # Errors
    /// A connection that is broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count(self.stream.try_write(bytes))
    }

    /// Writes what the kernel takes at once of several pieces; 0 when it takes nothing now.
    ///
    /// # Errors
    /// A connection that is broken.
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.count(self.stream.try_write_vectored(pieces))
    }

    fn count(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Ok(n) => {
                self.written += n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads what the peer has said; 0 when it says no more.
    ///
    /// # Errors
    /// `WouldBlock` when it has not said anything, or a connection that is broken.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(into)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that the peer's kernel has.
    ///
    /// # Errors
    /// A connection that is broken.
    pub fn acknowledged(&self) -> io::Result<u64> {
        Ok(self.written.saturating_sub(sockopt::unacknowledged(self.stream.as_fd())?))
    }

    /// Whether the peer has said that it will close. Anything else it says is of no interest.
    ///
    /// # Errors
    /// A connection that is broken.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut words = [0; 512];
        for _ in 0..READS_MAX {
            match self.stream.try_read(&mut words) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether the peer is silent for too long.
    pub fn is_dead(&self) -> bool {
        let silence = sockopt::silence(self.stream.as_fd());
        silence.is_ok_and(|silence| silence.asked >= ASKED_MIN && silence.lasts >= SILENCE_MAX)
    }

    /// Waits until the peer said something or broke the connection, or, when `to_write`, until the kernel takes more.
    pub async fn ready(&self, to_write: bool) {
        let interest = if to_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        // An error is told by the read or write that follows.
        let _ = self.stream.ready(interest).await;
    }

    /// Says that nothing follows, and waits until the peer has closed too, so that nothing on its way is reset.
    pub async fn finish(self, at_most: Duration) {
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
        let _ = tokio::time::timeout(at_most, async {
            while matches!(self.has_ended(), Ok(false)) {
                self.ready(false).await;
            }
        })
        .await;
    }
}
