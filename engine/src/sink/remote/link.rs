//! A connection that is made again when it breaks: which address, after which pause, and what status says meanwhile.
//!
//! The addresses are tried in their order, one pause behind each round; the pause doubles and begins anew when a peer has
//! acknowledged something. A connection that worked and broke begins with the first address again; one that broke before
//! anything was delivered counts as its address's failure, so that a peer that accepts and hangs up is passed over.
//! While the connection is to another than the first address, that one is tried now and then, and gone back to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{sleep, timeout};

use super::wire::Wire;
use super::{Figures, Settings, host_of};
use crate::batch::ShardId;

/// How often a link in trouble says so in the log.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long a peer may take to close a connection that is left in order. It has everything then.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One shard's connection.
pub(super) struct Link {
    pub(super) settings: Arc<Settings>,
    pub(super) figures: Arc<Figures>,
    /// The connection, while there is one.
    pub(super) wire: Option<Wire>,
    shard: ShardId,
    /// The address to try next; of a connection, the one it is to.
    turn: usize,
    /// Whether anything was delivered on this connection.
    is_proven: bool,
    /// The pause behind the next round.
    pause: Duration,
    /// What is left to wait before the next attempt.
    rest: Option<Duration>,
    is_troubled: bool,
    /// Whether the log knows of the trouble, and when it was told of one last.
    is_told: bool,
    said: Option<Instant>,
    /// An attempt at the first address beside a connection to another, and when the last one began.
    attempt: Option<oneshot::Receiver<Wire>>,
    attempted: Instant,
    /// What came of it.
    first: Option<Wire>,
}

impl Link {
    /// A link without a connection.
    pub(super) fn new(shard: ShardId, settings: Arc<Settings>, figures: Arc<Figures>) -> Self {
        let pause = settings.pause_min;
        Self {
            settings,
            figures,
            wire: None,
            shard,
            turn: 0,
            is_proven: false,
            pause,
            rest: None,
            is_troubled: false,
            is_told: false,
            said: None,
            attempt: None,
            attempted: Instant::now(),
            first: None,
        }
    }

    /// One attempt to connect, behind the pause that is due.
    pub(super) async fn open(&mut self) {
        if self.first.is_some() {
            return self.change();
        }
        if let Some(rest) = self.rest.take() {
            sleep(rest).await;
        }
        let attempt = Wire::connect(self.address(), self.settings.tls.as_ref());
        let opened = timeout(self.settings.connect_timeout, attempt).await;
        match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(wire) => {
                self.wire = Some(wire);
                self.is_proven = false;
                self.attempted = Instant::now();
            }
            Err(error) => {
                self.troubled(format!("[WP303] cannot connect to {}: {error}", self.address()));
                self.next_address();
            }
        }
    }

    /// Whether every address has failed, and a pause is due.
    pub(super) fn is_resting(&self) -> bool {
        self.rest.is_some()
    }

    /// The connection broke.
    pub(super) fn broken(&mut self, error: io::Error) {
        self.wire = None;
        let error = match &self.settings.tls {
            Some(client) => client.in_words(host_of(self.address()), error),
            None => error,
        };
        self.troubled(format!("the connection to {} broke: {error}", self.address()));
        if self.is_proven {
            self.turn = 0;
            self.rest = Some(jittered(self.settings.pause_min));
        } else {
            self.next_address();
        }
    }

    /// The connection is left as it is, with what was written to it.
    pub(super) fn leave(&mut self) {
        self.wire = None;
    }

    /// The peer has closed a connection on which nothing was waiting: no trouble yet.
    pub(super) fn closed(&mut self) {
        self.wire = None;
        self.turn = 0;
    }

    /// The peer has acknowledged more.
    pub(super) fn well(&mut self) {
        self.is_proven = true;
        self.pause = self.settings.pause_min;
        if std::mem::take(&mut self.is_troubled) {
            self.figures.troubles().remove(&self.shard);
            if std::mem::take(&mut self.is_told) {
                log::info!(target: "wpgen::sink", "sink '{}': {} takes records again", self.settings.key, self.address());
            }
        }
    }

    /// The peer takes nothing for a while; the connection stands.
    pub(super) fn stalled(&mut self) {
        if !self.is_troubled {
            self.tell(format!("{} takes no more for now", self.address()));
        }
    }

    /// Whether the first address answers again, while the connection is to another. Asks now and then, and never waits.
    pub(super) fn first_is_back(&mut self) -> bool {
        if self.turn == 0 || self.first.is_some() {
            return self.first.is_some();
        }
        match self.attempt.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(wire)) => self.first = Some(wire),
            Some(Err(TryRecvError::Empty)) => return false,
            Some(Err(TryRecvError::Closed)) | None if self.attempted.elapsed() < self.settings.pause_max => {}
            Some(Err(TryRecvError::Closed)) | None => self.try_first(),
        }
        self.first.is_some()
    }

    fn try_first(&mut self) {
        let (tell, told) = oneshot::channel();
        self.attempt = Some(told);
        self.attempted = Instant::now();
        let settings = Arc::clone(&self.settings);
        tokio::task::spawn_local(async move {
            let attempt = Wire::connect(&settings.addresses[0], settings.tls.as_ref());
            if let Ok(Ok(wire)) = timeout(settings.connect_timeout, attempt).await {
                let _ = tell.send(wire);
            }
        });
    }

    /// Goes on with the connection to the first address. The peer has acknowledged all that was written to the other.
    pub(super) fn change(&mut self) {
        if let Some(other) = std::mem::replace(&mut self.wire, self.first.take()) {
            tokio::task::spawn_local(other.finish(LAST_WORDS));
        }
        (self.turn, self.is_proven, self.attempt) = (0, false, None);
        log::info!(target: "wpgen::sink", "sink '{}': back to {}", self.settings.key, self.address());
    }

    /// Ends the connection in order.
    pub(super) async fn finish(self) {
        if let Some(wire) = self.wire {
            wire.finish(LAST_WORDS).await;
        }
    }

    fn address(&self) -> &str {
        &self.settings.addresses[self.turn]
    }

    fn next_address(&mut self) {
        self.turn += 1;
        if self.turn == self.settings.addresses.len() {
            self.turn = 0;
            self.rest = Some(jittered(self.pause));
            self.pause = (self.pause * 2).min(self.settings.pause_max.max(self.settings.pause_min));
        }
    }

    fn troubled(&mut self, what: String) {
        self.figures.errors.fetch_add(1, Ordering::Relaxed);
        self.tell(what);
    }

    fn tell(&mut self, what: String) {
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            self.said = Some(Instant::now());
            self.is_told = true;
            log::warn!(target: "wpgen::sink", "sink '{}': {what}; its records wait", self.settings.key);
        }
        self.is_troubled = true;
        self.figures.troubles().insert(self.shard, what);
    }
}

/// A pause between half of it and all of it, so that many engines do not come back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // The lowest bits of a clock are as good as dice here.
    let share = now.subsec_nanos().wrapping_mul(2_654_435_761) >> 16;
    pause / 2 + pause.mul_f64(f64::from(share) / f64::from(1 << 17))
}
