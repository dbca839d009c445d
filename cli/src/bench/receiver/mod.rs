//! Receives the messages of a bench on a socket, or follows a file that some program writes.
//!
//! One thread does all of it. Its connections share one read buffer, which so stays in the cache; what each keeps is the
//! beginning of a message whose end has not come. The account is one for all connections, because a program in between
//! may have mixed them.

mod follow;
mod sockets;
mod tally;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::target::Target;
use super::watch::Watched;
use sockets::Bound;
use tally::Shared;
pub use tally::{Limits, Tally};

/// A receiver at work.
#[derive(Debug)]
pub struct Receiver {
    thread: JoinHandle<Result<Received, String>>,
    shared: Arc<Shared>,
    address: String,
}

/// What was received.
#[derive(Debug)]
pub struct Received {
    /// Account and latencies.
    pub tally: Tally,
    /// Datagrams that the kernel dropped because this receiver was too slow.
    pub kernel_drops: u64,
}

/// Binds and begins.
pub fn start(listen: &Target, limits: Limits) -> Result<Receiver, String> {
    if let Target::File(path) = listen {
        return follow_file(path, limits, None);
    }
    let bound = Bound::new(listen).map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    let address = bound.address();
    let shared = Arc::new(Shared::default());
    let tally = Tally::new(Arc::clone(&shared), None);
    let thread = spawn(move || sockets::receive(bound, tally, limits))?;
    Ok(Receiver { thread, shared, address })
}

/// Follows a file from its present end; it may appear later. `only` is the run whose messages are counted.
pub fn follow_file(path: &Path, limits: Limits, only: Option<u32>) -> Result<Receiver, String> {
    let followed = follow::Followed::new(path);
    let shared = Arc::new(Shared::default());
    let tally = Tally::new(Arc::clone(&shared), only);
    let thread = spawn(move || followed.receive(tally, limits))?;
    Ok(Receiver { thread, shared, address: Target::File(path.to_owned()).to_string() })
}

fn spawn(
    work: impl FnOnce() -> Result<Received, String> + Send + 'static,
) -> Result<JoinHandle<Result<Received, String>>, String> {
    let thread = std::thread::Builder::new().name("bench-recv".to_owned()).spawn(work);
    thread.map_err(|e| format!("cannot start a thread: {e}"))
}

impl Receiver {
    /// What it listens on, with the port it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for the end.
    pub fn join(self) -> Result<Received, String> {
        self.thread.join().unwrap_or_else(|_| Err("the receiving thread panicked".to_owned()))
    }
}

impl Watched for Receiver {
    fn so_far(&self) -> (u64, u64) {
        (self.shared.messages.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }

    fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
