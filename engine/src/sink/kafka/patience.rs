//! How long an owner with a rescue waits for a cluster before it gives back what it has. Pure.
//!
//! Two things make it give up: the whole sink delivers nothing, or this owner's records fail again and again while others'
//! are delivered. Each time that it has given up and delivered nothing since, it waits twice as long: where a rescue can
//! keep nothing, records are not taken from librdkafka faster than a slow link delivers them.

use std::time::{Duration, Instant};

/// A cluster that has taken nothing for so long counts as down.
const GIVEN_UP: Duration = Duration::from_secs(10);
/// The longest wait before it does.
const LONGEST: Duration = Duration::from_secs(300);
/// At the end, a cluster with which something is wrong already is waited for no longer than this.
pub(super) const ENDING: Duration = Duration::from_secs(1);

/// See above.
pub(super) struct Patience {
    first: Duration,
    limit: Duration,
    /// What the whole sink has delivered.
    delivered: u64,
    /// When that last grew, or there began to be something that could make it grow.
    moved: Instant,
    /// Since when this owner's records fail, and none is delivered.
    failing: Option<Instant>,
}

impl Patience {
    /// With a sink that lets records wait for others for `linger`.
    pub(super) fn new(linger: Duration, now: Instant) -> Self {
        let first = GIVEN_UP.max(linger.saturating_mul(2));
        Self { first, limit: first, delivered: 0, moved: now, failing: None }
    }

    /// There is something to deliver, after there was nothing.
    pub(super) fn begun(&mut self, delivered: u64, now: Instant) {
        (self.delivered, self.moved, self.failing) = (delivered, now, None);
    }

    /// What the whole sink has delivered until now.
    pub(super) fn seen(&mut self, delivered: u64, now: Instant) {
        if delivered != self.delivered {
            (self.delivered, self.moved) = (delivered, now);
        }
    }

    /// Records of this owner are delivered.
    pub(super) fn well(&mut self) {
        (self.limit, self.failing) = (self.first, None);
    }

    /// Records of this owner have failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failing.get_or_insert(now);
    }

    /// How long it waits.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether this owner's records have failed for so long, and none was delivered.
    pub(super) fn is_failing(&self, long: Duration, now: Instant) -> bool {
        self.failing.is_some_and(|at| since(at, now) >= long)
    }

    /// Whether the sink has delivered nothing for so long.
    pub(super) fn is_still(&self, long: Duration, now: Instant) -> bool {
        since(self.moved, now) >= long
    }

    /// Everything is given back.
    pub(super) fn gave_up(&mut self, now: Instant) {
        self.limit = self.limit.saturating_mul(2).min(LONGEST.max(self.first));
        (self.moved, self.failing) = (now, None);
    }
}

fn since(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Patience {
        fn is_over(&self, now: Instant) -> bool {
            self.is_still(self.limit(), now) || self.is_failing(self.limit(), now)
        }
    }

    /// One, and the time so many seconds later.
    fn fresh() -> (Patience, impl Fn(u64) -> Instant) {
        let begin = Instant::now();
        (Patience::new(Duration::from_millis(5), begin), move |second| begin + Duration::from_secs(second))
    }

    #[test]
    fn it_waits_as_long_as_the_sink_delivers_anything() {
        let (mut patience, at) = fresh();
        patience.begun(7, at(0));
        patience.seen(7, at(9));
        assert!(!patience.is_over(at(9)) && patience.is_still(ENDING, at(9)));
        patience.seen(8, at(9));
        assert!(!patience.is_over(at(18)) && patience.is_over(at(19)));
        patience.begun(8, at(30));
        assert!(!patience.is_over(at(39)), "there was nothing to deliver");
    }

    #[test]
    fn it_gives_up_records_that_fail_while_others_are_delivered() {
        let (mut patience, at) = fresh();
        for second in 0..30 {
            patience.seen(second, at(second));
            assert!(!patience.is_over(at(second)));
        }
        patience.failed(at(30));
        patience.failed(at(35));
        patience.seen(99, at(40));
        assert!(patience.is_over(at(40)), "since the first failure");
        patience.well();
        assert!(!patience.is_over(at(40)));
    }

    #[test]
    fn it_waits_twice_as_long_each_time_until_something_is_delivered() {
        let (mut patience, at) = fresh();
        patience.gave_up(at(0));
        assert!(!patience.is_over(at(19)) && patience.is_over(at(20)));
        (0..9).for_each(|_| patience.gave_up(at(20)));
        assert!(!patience.is_over(at(319)) && patience.is_over(at(320)), "not forever");
        patience.well();
        assert!(patience.is_over(at(30)));
    }

    #[test]
    fn records_that_wait_for_others_are_not_given_up() {
        let begin = Instant::now();
        let patience = Patience::new(Duration::from_secs(400), begin);
        assert!(!patience.is_over(begin + Duration::from_secs(799)));
        assert!(patience.is_over(begin + Duration::from_secs(800)));
    }
}
