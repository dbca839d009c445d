//! Serving connections: one request and one answer each, on a thread of its own.
//!
//! Owns the accepting thread. Invariants: at most [`CONNECTIONS_MAX`] are served at a time and each for [`SERVE_MAX`] at
//! most, however slowly it sends, so a silent one blocks nobody for long and garbage costs no more than its bytes. Where
//! there is a token, nothing is answered without it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Answer, Control, answer, http};
use crate::decode::{Encode, decode_line};

/// Connections served at a time; further ones are told to come back.
pub(super) const CONNECTIONS_MAX: usize = 8;
/// How long one connection may take in all.
const SERVE_MAX: Duration = Duration::from_secs(5);
/// How long a client has to take its answer off us.
const LINGER: Duration = Duration::from_millis(200);

/// A connection with time limits.
pub(super) trait Connection: Read + Write + Send + 'static {
    /// Bounds the next read and write.
    fn set_timeouts(&self, at_most: Duration) -> io::Result<()>;
    /// Nothing more will be written.
    fn finish(&self) -> io::Result<()>;
}

impl Connection for UnixStream {
    fn set_timeouts(&self, at_most: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(at_most))?;
        self.set_read_timeout(Some(at_most))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Connection for TcpStream {
    fn set_timeouts(&self, at_most: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(at_most))?;
        self.set_read_timeout(Some(at_most))
    }

    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The thread that accepts, and the socket on which it does.
#[derive(Debug)]
pub(super) struct Desk<L: Listener> {
    listener: Arc<L>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A socket that listens.
pub(super) trait Listener: AsFd + Send + Sync + 'static {
    /// What it gives.
    type Connection: Connection;
    /// Waits for the next.
    fn next(&self) -> io::Result<Self::Connection>;
}

impl Listener for UnixListener {
    type Connection = UnixStream;

    fn next(&self) -> io::Result<UnixStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Connection = TcpStream;

    fn next(&self) -> io::Result<TcpStream> {
        self.accept().map(|(stream, _)| stream)
    }
}

/// What every connection is served with.
struct Service {
    name: &'static str,
    engine: Arc<dyn Control>,
    token: Option<String>,
    served: AtomicUsize,
}

impl<L: Listener> Desk<L> {
    /// Serves whoever comes to `listener`.
    pub(super) fn open(
        name: &'static str,
        engine: Arc<dyn Control>,
        token: Option<String>,
        listener: L,
    ) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let ending = Arc::new(AtomicBool::new(false));
        let (mine, seen) = (Arc::clone(&listener), Arc::clone(&ending));
        let service = Arc::new(Service { name, engine, token, served: AtomicUsize::new(0) });
        let work = move || accept_all(&*mine, &service, &seen);
        let thread = std::thread::Builder::new().name("wpgen-admin".into()).spawn(work)?;
        Ok(Self { listener, ending, thread: Some(thread) })
    }
}

impl<L: Listener> Drop for Desk<L> {
    /// Accepts no more. The thread sleeps in accept(2), which ends when its socket is shut down. A connection to the
    /// address would not do in its place: a path may meanwhile name the socket of another engine.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        if socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic there is already on standard error.
            let _ = thread.join();
        }
    }
}

fn accept_all<L: Listener>(listener: &L, service: &Arc<Service>, ending: &AtomicBool) {
    while !ending.load(Ordering::Acquire) {
        match listener.next() {
            Ok(stream) if !ending.load(Ordering::Acquire) => spawn(stream, service),
            Ok(_) => return,
            Err(_) if ending.load(Ordering::Acquire) => return,
            Err(e) => {
                log::warn!("{}: cannot accept: {e}", service.name);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn spawn<C: Connection>(mut stream: C, service: &Arc<Service>) {
    if service.served.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        // Whoever is turned away may already be gone, and must not hold up the next one.
        let _ = stream.set_timeouts(LINGER);
        let _ = stream.write_all(&http::write(&Answer::refusal(503, "too many requests at once")));
        return;
    }
    service.served.fetch_add(1, Ordering::Relaxed);
    let mine = Arc::clone(service);
    let serve = move || {
        if let Err(e) = serve(&mut stream, &mine) {
            log::debug!("{}: {e}", mine.name);
        }
        mine.served.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(e) = std::thread::Builder::new().name("wpgen-admin-req".into()).spawn(serve) {
        service.served.fetch_sub(1, Ordering::Relaxed);
        log::warn!("{}: no thread for a request: {e}", service.name);
    }
}

fn serve<C: Connection>(stream: &mut C, service: &Service) -> io::Result<()> {
    let deadline = Instant::now() + SERVE_MAX;
    let mut bytes = Vec::with_capacity(1024);
    let answer = loop {
        match http::parse(&bytes) {
            http::Parsed::Whole(request) => break service.answer(&request),
            http::Parsed::Refused(code, why) => break Answer::refusal(code, why),
            http::Parsed::More => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Answer::refusal(408, "the request did not end in time");
        }
        stream.set_timeouts(left)?;
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
    };
    stream.set_timeouts(SERVE_MAX)?;
    stream.write_all(&http::write(&answer))?;
    // What was sent and not read would have the kernel reset the connection, and the answer with it.
    stream.finish()?;
    let until = Instant::now() + LINGER;
    let mut left = until.saturating_duration_since(Instant::now());
    while !left.is_zero() {
        stream.set_timeouts(left)?;
        if matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {
            break;
        }
        left = until.saturating_duration_since(Instant::now());
    }
    Ok(())
}

impl Service {
    fn answer(&self, request: &http::Request<'_>) -> Answer {
        match &self.token {
            Some(token) if !request.authorization.is_some_and(|given| shows(given, token)) => {
                Answer::refusal(
                    401,
                    "this takes the token: Authorization: Bearer TOKEN, or as the password of HTTP Basic",
                )
            }
            _ => answer(request, &*self.engine),
        }
    }
}

/// Whether credentials hold the token: alone behind `Bearer`, or behind `Basic` as the password of whatever user.
fn shows(credentials: &str, token: &str) -> bool {
    let (scheme, given) = credentials.split_once(' ').unwrap_or((credentials, ""));
    let given = given.trim().as_bytes();
    if scheme.eq_ignore_ascii_case("bearer") {
        return is_same(given, token.as_bytes());
    }
    let mut decoded = Vec::new();
    if !scheme.eq_ignore_ascii_case("basic") || decode_line(Encode::Base64, given, &mut decoded).is_err() {
        return false;
    }
    memchr::memchr(b':', &decoded).is_some_and(|colon| is_same(&decoded[colon + 1..], token.as_bytes()))
}

/// Compares in a time that does not tell how much of it is right.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differ = given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b));
    given.len() == token.len() && differ == 0
}

/// An engine with nothing to tell.
#[cfg(test)]
pub(super) struct Quiet;

#[cfg(test)]
impl Control for Quiet {
    fn status(&self) -> crate::status::Status {
        crate::status::Status::default()
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn stop(&self) {}

    fn reload(&self) -> Result<crate::reload::Reloaded, super::Refusal> {
        Err(super::Refusal::Stopping)
    }
}
