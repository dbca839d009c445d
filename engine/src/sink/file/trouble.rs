//! What an owner does when the world says no: it waits longer and longer, says so once a minute, and goes on.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ledger::Ledger;

/// The first wait, and the longest: who opens a FIFO or frees a disk should not wait for us.
const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(500);
/// At most one line in this time.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// An owner's patience.
#[derive(Debug)]
pub(super) struct Patience {
    ledger: Arc<Ledger>,
    wait: Duration,
    said: Option<Instant>,
}

impl Patience {
    /// Full patience.
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, wait: WAIT_MIN, said: None }
    }

    /// Something failed: waits before the next attempt.
    pub(super) async fn failed(&mut self, what: &str, error: &dyn Display) {
        let words = format!("{what}: {error}");
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            log::warn!(target: "wpgen::sink", "output {}: {words}; its records wait", self.ledger.name);
            self.said = Some(Instant::now());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ledger.failed(words, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAIT_MAX);
    }

    /// It worked.
    pub(super) fn worked(&mut self) {
        if self.wait > WAIT_MIN {
            self.wait = WAIT_MIN;
            if self.ledger.well() {
                log::info!(target: "wpgen::sink", "output {} works again", self.ledger.name);
            }
        }
    }
}
