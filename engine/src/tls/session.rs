//! One connection's TLS at the listening side: bytes in, bytes out.
//!
//! Whole records are decrypted where they lie, in the receive buffer of the caller. Only what is cut by the end of a
//! buffer is put together in the carry: one record, or the beginning of a message of the handshake, at most
//! [`CARRY_BYTES_MAX`]. What has to be sent goes into `reply`, and the caller sends it. However the ciphertext is cut,
//! the plaintext is the same.
//!
//! First comes [`Session::shake`] until it says that the handshake is over, then [`Session::read`].

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use rustls::{Error, ServerConfig};

use super::subject;
use super::words::explain;
use crate::escape::escape_outside_to;

/// Ciphertext that one call of [`Session::read`] decrypts, a record more or less, so that it is still in the cache when
/// the plaintext is looked at.
const STEP_BYTES: usize = 32 << 10;
/// Type, version and length of a record.
const HEADER_BYTES: usize = 5;
/// What follows a header is shorter.
const BODY_BYTES_MAX: usize = (16 << 10) + 2048;
/// The longest message of a handshake, and a record with its beginning and one with its end.
pub const CARRY_BYTES_MAX: usize = 0xffff + 2 * (HEADER_BYTES + BODY_BYTES_MAX);
/// The first byte of a client that speaks TLS: a record of the handshake.
const HANDSHAKE: u8 = 22;
/// Bytes that the log shows of one that does not.
const SHOWN_BYTES: usize = 40;

/// Why a connection cannot go on. What has to be said about it is in the reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The client does not speak TLS; its first bytes, escaped.
    Plain(String),
    /// TLS itself failed.
    Tls(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(shown) => {
                write!(f, "it does not speak TLS, it begins with {shown}; switch TLS on at the client")
            }
            Self::Tls(error) => f.write_str(&explain(error)),
        }
    }
}

/// Whether `bytes`, the first of a connection, are those of a client that speaks TLS.
pub fn speaks_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, 0..=4, ..])
}

/// See above.
pub struct Session {
    tls: UnbufferedServerConnection,
    carry: Vec<u8>,
    /// Where in the carry the record begins that is not whole.
    partial: usize,
    /// What came with the last bytes of the handshake: at most one record.
    early: Vec<u8>,
    begun: bool,
    ended: bool,
    /// Whether we have said that we send nothing more.
    farewelled: bool,
}

impl Session {
    /// A new connection.
    ///
    /// # Errors
    /// What the configuration or the system's random numbers lack.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Fault> {
        let tls = UnbufferedServerConnection::new(config).map_err(Fault::Tls)?;
        Ok(Self {
            tls,
            carry: Vec::new(),
            partial: 0,
            early: Vec::new(),
            begun: false,
            ended: false,
            farewelled: false,
        })
    }

    /// Goes on with the handshake; once it is over, how many of the bytes belonged to it.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn shake(&mut self, incoming: &mut [u8], reply: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
        let Some(first) = incoming.first() else { return Ok(None) };
        if !std::mem::replace(&mut self.begun, true) && *first != HANDSHAKE {
            return Err(Fault::Plain(escape_outside_to(incoming, SHOWN_BYTES)));
        }
        let mut early = std::mem::take(&mut self.early);
        let mut used = 0;
        while used < incoming.len() && self.tls.is_handshaking() {
            let out = Out { plaintext: &mut early, reply: &mut *reply, until_shaken: true };
            used += self.advance(&mut incoming[used..], out)?;
        }
        self.early = early;
        Ok((!self.tls.is_handshaking()).then_some(used))
    }

    /// Decrypts some of what came and says how much of it; the caller goes on until all is used. What was decrypted in
    /// front of a fault is there.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn read(
        &mut self,
        incoming: &mut [u8],
        plaintext: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        plaintext.append(&mut self.early);
        if self.ended {
            return Ok(incoming.len());
        }
        self.advance(incoming, Out { plaintext, reply, until_shaken: false })
    }

    /// Whether the client has said that it sends no more.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whom the client's certificate names, once the handshake is over; nobody where none was demanded, and verified.
    pub fn subject(&self) -> Option<String> {
        subject::of(self.tls.peer_certificates()?.first()?)
    }

    /// Says that we send nothing more. What the client sends is read as before.
    pub fn farewell(&mut self, reply: &mut Vec<u8>) {
        if let Ok(ConnectionState::WriteTraffic(traffic)) = self.tls.process_tls_records(&mut []).state {
            say_goodbye(traffic, &mut self.farewelled, reply);
        }
    }

    /// Bytes of a record that is not whole.
    pub fn unread(&self) -> usize {
        self.carry.len()
    }

    /// Uses up a part of `incoming`: what completes the carry, some whole records, or all if none is whole.
    fn advance(&mut self, incoming: &mut [u8], mut out: Out<'_>) -> Result<usize, Fault> {
        if !self.carry.is_empty() {
            return self.advance_carry(incoming, &mut out);
        }
        let whole = whole_records(incoming);
        if whole == 0 {
            self.carry.extend_from_slice(incoming);
            self.partial = 0;
            return Ok(incoming.len());
        }
        let done = self.process(&mut incoming[..whole], &mut out)?;
        if out.until_shaken && !self.tls.is_handshaking() {
            return Ok(done);
        }
        // The beginning of a message of the handshake, which is to stay in front of its rest.
        self.carry.extend_from_slice(&incoming[done..whole]);
        self.partial = self.carry.len();
        Ok(whole)
    }

    /// Adds what the last record in the carry lacks, and goes on once it is whole.
    fn advance_carry(&mut self, incoming: &mut [u8], out: &mut Out<'_>) -> Result<usize, Fault> {
        let mut used = 0;
        loop {
            let have = self.carry.len() - self.partial;
            let wanted = record_bytes(&self.carry[self.partial..]).unwrap_or(HEADER_BYTES);
            if have >= HEADER_BYTES && have >= wanted {
                break;
            }
            let more = (wanted - have).min(incoming.len() - used);
            if more == 0 {
                return Ok(used);
            }
            self.carry.extend_from_slice(&incoming[used..used + more]);
            used += more;
        }
        let mut carry = std::mem::take(&mut self.carry);
        let done = self.process(&mut carry, out)?;
        if done < carry.len() {
            carry.drain(..done);
            self.partial = carry.len();
            self.carry = carry;
        }
        Ok(used)
    }

    /// Has whole records processed; how many bytes are not needed any more.
    fn process(&mut self, records: &mut [u8], out: &mut Out<'_>) -> Result<usize, Fault> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut records[done..]);
            let mut goes_on = true;
            let mut is_said = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(Fault::Tls)?;
                        out.plaintext.extend_from_slice(record.payload);
                        done += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, out.reply);
                    is_said = false;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    if self.ended {
                        say_goodbye(traffic, &mut self.farewelled, out.reply);
                    }
                    goes_on = false;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => goes_on = false,
                Ok(_) => return Err(Fault::Tls(Error::General("data before the handshake".into()))),
                Err(error) => {
                    done += discard;
                    self.take_alert(&mut records[done..], out.reply);
                    return Err(Fault::Tls(error));
                }
            }
            done += discard;
            let is_shaken = out.until_shaken && is_said && !self.tls.is_handshaking();
            if !goes_on || is_shaken {
                return Ok(if self.ended { records.len() } else { done });
            }
        }
    }

    /// After a failure: what tells the client. Nothing more is decrypted.
    fn take_alert(&mut self, records: &mut [u8], reply: &mut Vec<u8>) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(records).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, reply),
                _ => return,
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("carried", &self.carry.len()).finish_non_exhaustive()
    }
}

/// A closing alert with the overhead of any cipher.
const GOODBYE_BYTES_MAX: usize = 64;

/// Where a session's output goes.
struct Out<'a> {
    plaintext: &'a mut Vec<u8>,
    reply: &'a mut Vec<u8>,
    /// Whether to stop when the handshake is over.
    until_shaken: bool,
}

/// Appends our `close_notify`, once.
fn say_goodbye<Data>(mut traffic: WriteTraffic<'_, Data>, said: &mut bool, reply: &mut Vec<u8>) {
    if std::mem::replace(said, true) {
        return;
    }
    let at = reply.len();
    reply.resize(at + GOODBYE_BYTES_MAX, 0);
    let written = traffic.queue_close_notify(&mut reply[at..]).unwrap_or(0);
    reply.truncate(at + written);
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, reply: &mut Vec<u8>) {
    let at = reply.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        reply.resize(at + size.required_size, 0);
        let written = data.encode(&mut reply[at..]);
        debug_assert!(written.is_ok_and(|n| n == size.required_size), "it told its size");
    }
}

/// The size of the record whose header is at the front; nothing while the header is not there. A length that is not
/// allowed makes a record of the header alone, which is refused when it is looked at.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(3..HEADER_BYTES)?;
    let body = usize::from(u16::from_be_bytes([length[0], length[1]]));
    Some(HEADER_BYTES + if body < BODY_BYTES_MAX { body } else { 0 })
}

/// The bytes of the whole records at the front, as many as make a step.
fn whole_records(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while whole < STEP_BYTES {
        match record_bytes(&bytes[whole..]) {
            Some(record) if whole + record <= bytes.len() => whole += record,
            _ => break,
        }
    }
    whole
}
