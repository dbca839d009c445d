//! A connection as the owner sees it: plain, or under TLS.
//!
//! Positions are those of the TCP connection, whatever is inside it: what the peer has acknowledged is known of bytes on
//! the way, and under TLS those are encrypted. [`Wire::flush`] says when all that was taken is on its way.

use std::io::{self, IoSlice, Read, Write};
use std::time::Duration;

use rustls::ClientConnection;

use super::host_of;
use crate::io::outgoing::Outgoing;
use crate::tls::client::{Client, portion};

/// Plaintext that is encrypted before it is sent: a few records of TLS.
const STEP_BYTES: usize = 64 << 10;

/// Reads at once of what a peer says.
const READS_MAX: usize = 16;

/// A connection to write to.
pub(super) enum Wire {
    /// As it is.
    Plain(Outgoing),
    /// Under TLS.
    Encrypted(Box<Encrypted>),
}

/// TLS over a connection.
pub(super) struct Encrypted {
    tcp: Outgoing,
    tls: ClientConnection,
}

impl Wire {
    /// Connects to `host:port`, and shakes hands where TLS is spoken.
    pub(super) async fn connect(address: &str, client: Option<&Client>) -> io::Result<Self> {
        let Some(client) = client else { return Outgoing::connect(address).await.map(Self::Plain) };
        let host = host_of(address).to_owned();
        let (asked, of) = (client.clone(), host.clone());
        let session = tokio::task::spawn_blocking(move || asked.session(&of)).await?;
        let tls = session.map_err(|finding| io::Error::other(finding.message))?;
        let mut wire = Encrypted { tcp: Outgoing::connect(address).await?, tls };
        wire.shake().await.map_err(|error| client.in_words(&host, error))?;
        Ok(Self::Encrypted(Box::new(wire)))
    }

    /// Takes what can be taken at once; 0 when nothing can now.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Encrypted(wire) => wire.write(bytes),
        }
    }

    /// Whether all that was taken is written.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Encrypted(wire) => wire.flush(),
        }
    }

    /// The position behind what is written.
    pub(super) fn written(&self) -> u64 {
        self.tcp().written()
    }

    /// The position up to which the peer's kernel has everything.
    pub(super) fn acknowledged(&self) -> io::Result<u64> {
        self.tcp().acknowledged()
    }

    /// Whether the peer has said that it will close. Anything else it says is of no interest.
    pub(super) fn has_ended(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(tcp) => tcp.has_ended(),
            Self::Encrypted(wire) => wire.has_ended(),
        }
    }

    /// Whether the peer is silent for too long.
    pub(super) fn is_dead(&self) -> bool {
        self.tcp().is_dead()
    }

    /// Waits until the peer said something or broke the connection, or, when `to_write`, until more is taken.
    pub(super) async fn ready(&self, to_write: bool) {
        self.tcp().ready(to_write).await;
    }

    /// Says that nothing follows, and waits until the peer has closed too.
    pub(super) async fn finish(self, at_most: Duration) {
        match self {
            Self::Plain(tcp) => tcp.finish(at_most).await,
            Self::Encrypted(mut wire) => {
                wire.tls.send_close_notify();
                // All is acknowledged, so there is room for this.
                let _ = wire.flush();
                wire.tcp.finish(at_most).await;
            }
        }
    }

    fn tcp(&self) -> &Outgoing {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Encrypted(wire) => &wire.tcp,
        }
    }
}

impl Encrypted {
    async fn shake(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            let sent = self.flush()?;
            if self.tls.is_handshaking() {
                self.tcp.ready(!sent).await;
                if self.has_ended()? {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server hung up within the TLS handshake",
                    ));
                }
            }
        }
        self.flush().map(drop)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.flush()? {
            return Ok(0);
        }
        let taken = self.tls.writer().write(&bytes[..portion(bytes, STEP_BYTES)])?;
        self.flush()?;
        Ok(taken)
    }

    /// What the peer said in front of hanging up explains more than that it did.
    fn last_word(&mut self, error: io::Error) -> io::Error {
        match self.has_ended() {
            Err(said) if said.kind() == io::ErrorKind::InvalidData => said,
            _ => error,
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Now(&mut self.tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.last_word(error)),
            }
        }
        Ok(true)
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        for _ in 0..READS_MAX {
            match self.tls.read_tls(&mut Now(&mut self.tcp)) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            let state = self.tls.process_new_packets().map_err(|error| {
                // The alert that tells the server.
                let _ = self.tls.write_tls(&mut Now(&mut self.tcp));
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
            let mut words = [0; 512];
            while self.tls.reader().read(&mut words).is_ok_and(|n| n > 0) {}
            if state.peer_has_closed() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads and writes what is possible at once.
struct Now<'a>(&'a mut Outgoing);

impl Read for Now<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0.write_vectored(parts)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
