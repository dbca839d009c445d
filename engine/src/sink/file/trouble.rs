//! What an owner does when the world says no: it waits longer and longer, says so once a minute, and goes on.
//!
//! Invariant: only a step that is at least as far as the one that failed ends the trouble, or a device that can be opened
//! and not written would be opened and written again without a pause.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ledger::Ledger;

/// The first wait, and the longest: who opens a FIFO or frees a disk should not wait for us.
const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(500);
/// At most one line in this time.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What an owner tries, in the order it comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attempt {
    Opening,
    Checkpoint,
    Cutting,
    Writing,
    Syncing,
}

impl Attempt {
    fn words(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Checkpoint => "writing the checkpoint",
            Self::Cutting => "cutting",
            Self::Writing => "writing",
            Self::Syncing => "syncing",
        }
    }
}

/// An owner's patience.
#[derive(Debug)]
pub(super) struct Patience {
    ledger: Arc<Ledger>,
    wait: Duration,
    failing: Option<Attempt>,
    said: Option<Instant>,
}

impl Patience {
    /// Full patience.
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, wait: WAIT_MIN, failing: None, said: None }
    }

    /// Something failed: waits before the next attempt.
    pub(super) async fn failed(&mut self, what: Attempt, error: &dyn Display) {
        let words = format!("{}: {error}", what.words());
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            log::warn!(target: "wpgen::sink", "output {}: {words}; its records wait", self.ledger.name);
            self.said = Some(Instant::now());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ledger.failed(words, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        tokio::time::sleep(self.next_wait(what)).await;
    }

    fn next_wait(&mut self, failing: Attempt) -> Duration {
        // The further one stays: what comes before it may fail meanwhile, and does not end it.
        self.failing = self.failing.max(Some(failing));
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait
    }

    /// It worked.
    pub(super) fn worked(&mut self, what: Attempt) {
        if self.failing.is_some_and(|failing| failing <= what) {
            self.failing = None;
            self.wait = WAIT_MIN;
            if self.ledger.well() {
                log::info!(target: "wpgen::sink", "output {} works again", self.ledger.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;
    use crate::checkpoint::Group;
    use crate::sink::template::Template;

    #[test]
    fn what_can_be_opened_and_not_written_is_tried_ever_more_rarely() {
        let outlet = Template::parse("/dev/full").unwrap().outlet(&Origin::new("", ""));
        let mut patience = Patience::new(Arc::new(Ledger::new(outlet, Group::default(), true)));
        let mut waits = Vec::new();
        for _ in 0..10 {
            patience.worked(Attempt::Opening);
            waits.push(patience.next_wait(Attempt::Writing));
        }
        assert_eq!(waits[..3], [5, 10, 20].map(Duration::from_millis));
        assert_eq!(waits[9], WAIT_MAX);
        patience.worked(Attempt::Writing);
        assert_eq!(patience.next_wait(Attempt::Syncing), WAIT_MIN);
        patience.worked(Attempt::Writing);
        assert_eq!(patience.next_wait(Attempt::Syncing), 2 * WAIT_MIN);
    }
}
