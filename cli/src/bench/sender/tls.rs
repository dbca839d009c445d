//! TLS around a connection's messages: what the kernel gets is encrypted, and what it took is told in messages again.
//!
//! The handshake and the end block; in between a batch is encrypted in one go before it is sent, and the socket is the
//! outbox's. Invariant: bytes count as taken when the record of TLS that holds them was taken whole.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use engine::config::tls::TlsConnect;
use engine::tls::client::{Client, portion};
use rustls::ClientConnection;

/// Plaintext of a record: the most that TLS allows.
const RECORD_BYTES: usize = 16 << 10;
/// How long the receiver may take to close after it was told that nothing follows.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long what the receiver said when it hung up is looked for.
const LAST_WORD_MAX: Duration = Duration::from_millis(200);

/// One connection's TLS.
#[derive(Debug)]
pub struct Tls {
    client: Client,
    host: String,
    session: ClientConnection,
    socket: TcpStream,
    spare: Sealed,
}

/// A batch, encrypted.
#[derive(Debug, Default)]
pub struct Sealed {
    /// What goes over the wire.
    pub bytes: Vec<u8>,
    /// Of each record, where it ends on the wire, and where its plaintext ends in the batch.
    records: Vec<(usize, usize)>,
}

impl Sealed {
    /// Bytes of the batch that the first `wire` bytes hold for certain.
    pub fn plain_bytes(&self, wire: usize) -> usize {
        let whole = self.records.partition_point(|(end, _)| *end <= wire);
        whole.checked_sub(1).map_or(0, |last| self.records[last].1)
    }
}

impl Tls {
    /// Shakes hands over a connection to `host`.
    pub fn shake(
        mut socket: TcpStream,
        host: &str,
        trust: &TlsConnect,
        at_most: Duration,
    ) -> io::Result<Self> {
        let client = Client::open(trust).map_err(|finding| io::Error::other(finding.message))?;
        let mut session = client.session(host).map_err(|finding| io::Error::other(finding.message))?;
        socket.set_read_timeout(Some(at_most))?;
        socket.set_write_timeout(Some(at_most))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|error| in_words(&client, host, error))?;
        }
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(Self { client, host: host.to_owned(), session, socket, spare: Sealed::default() })
    }

    /// The same socket once more, for whoever sends.
    pub fn file(&self) -> io::Result<File> {
        self.socket.try_clone().map(|socket| std::os::fd::OwnedFd::from(socket).into())
    }

    /// Encrypts a batch.
    pub fn seal(&mut self, plain: &[u8]) -> io::Result<Sealed> {
        let mut sealed = std::mem::take(&mut self.spare);
        sealed.bytes.clear();
        sealed.records.clear();
        let mut end = 0;
        while end < plain.len() {
            let rest = &plain[end..];
            let record = &rest[..portion(rest, RECORD_BYTES)];
            self.session.writer().write_all(record)?;
            while self.session.wants_write() {
                self.session.write_tls(&mut sealed.bytes)?;
            }
            end += record.len();
            sealed.records.push((sealed.bytes.len(), end));
        }
        Ok(sealed)
    }

    /// Takes the buffers of a batch that came home.
    pub fn reuse(&mut self, sealed: Sealed) {
        self.spare = sealed;
    }

    /// What a failure means: what the receiver said in front of hanging up explains more than that it did.
    pub fn explain(&mut self, error: io::Error) -> io::Error {
        // Whatever cannot be read explains nothing.
        let _ = self.socket.set_read_timeout(Some(LAST_WORD_MAX));
        while let Ok(1..) = self.session.read_tls(&mut self.socket) {
            if let Err(said) = self.session.process_new_packets() {
                return io::Error::new(ErrorKind::InvalidData, self.client.explain(&self.host, &said));
            }
        }
        error
    }

    /// Says that nothing follows, and waits until the receiver has closed: whoever closes first, with something unread,
    /// takes away what the receiver has not read.
    pub fn close(mut self) -> io::Result<()> {
        self.socket.set_write_timeout(Some(CLOSE_MAX))?;
        self.socket.set_read_timeout(Some(CLOSE_MAX))?;
        self.session.send_close_notify();
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        self.socket.shutdown(Shutdown::Write)?;
        let mut unread = [0; 4096];
        while let Ok(1..) = self.socket.read(&mut unread) {}
        Ok(())
    }
}

fn in_words(client: &Client, host: &str, error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "the receiver does not answer the TLS handshake")
        }
        // Whoever hangs up with something unread resets the connection.
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            io::Error::new(ErrorKind::UnexpectedEof, "the receiver hung up within the TLS handshake")
        }
        _ => client.in_words(host, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_count() {
        let sealed = Sealed { bytes: Vec::new(), records: vec![(120, 100), (230, 200), (240, 205)] };
        for (wire, plain) in [(0, 0), (119, 0), (120, 100), (229, 100), (230, 200), (239, 200), (240, 205)] {
            assert_eq!(sealed.plain_bytes(wire), plain, "{wire}");
        }
    }
}
