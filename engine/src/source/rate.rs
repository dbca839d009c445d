//! A source's limit of records a second, shared by its shards without a lock.
//!
//! One number says when all records taken so far would have come at the limit's pace. Up to a second's worth may come at
//! once. Pure: the time is passed in.

use std::sync::atomic::{AtomicU64, Ordering};

/// Fractions of a nanosecond, so that limits of many millions a second are kept.
const FRACTION_BITS: u32 = 6;
const SECOND: u64 = 1_000_000_000 << FRACTION_BITS;

/// A limit of records a second.
#[derive(Debug)]
pub struct Rate {
    /// From one record to the next.
    interval: u64,
    /// When the records taken so far are over, at the limit's pace.
    over: AtomicU64,
}

impl Rate {
    /// At most `per_second` records a second; none for 0.
    pub fn new(per_second: u64) -> Option<Self> {
        (per_second > 0).then(|| Self { interval: (SECOND / per_second).max(1), over: AtomicU64::new(0) })
    }

    /// How many records may be taken at a time, so that they come at the limit's pace and not in heaps: a tenth of a second's.
    pub fn at_once(&self) -> usize {
        usize::try_from(SECOND / 10 / self.interval).unwrap_or(usize::MAX).max(1)
    }

    /// Takes `n` records and says how many nanoseconds to wait before the next.
    pub fn take(&self, n: u64, now_ns: u64) -> u64 {
        let now = now_ns << FRACTION_BITS;
        let add = |over: u64| over.max(now).saturating_add(self.interval.saturating_mul(n));
        let over = self.over.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |over| Some(add(over)));
        let over = add(over.unwrap_or(now));
        over.saturating_sub(now).saturating_sub(SECOND) >> FRACTION_BITS
    }

    /// Takes as many of `n` records as the limit admits now; the others are to be dropped.
    pub fn admit(&self, n: u64, now_ns: u64) -> u64 {
        let now = now_ns << FRACTION_BITS;
        let room = |over: u64| n.min((now + SECOND).saturating_sub(over.max(now)) / self.interval);
        let before = self.over.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |over| {
            Some(over.max(now) + room(over) * self.interval)
        });
        before.map_or(0, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_records_is_free_and_then_the_pace_holds() {
        let rate = Rate::new(1000).unwrap();
        assert_eq!(rate.take(1000, 5), 0);
        assert_eq!(rate.take(500, 5), 500_000_000);
        assert_eq!(rate.take(1, 2_000_000_000), 0, "rest restores it");
        assert!(Rate::new(0).is_none());
        assert_eq!(
            [1, 1000, 10_000_000].map(|limit| Rate::new(limit).unwrap().at_once()),
            [1, 100, 1_000_000]
        );
    }

    #[test]
    fn what_is_beyond_the_limit_is_not_admitted() {
        let rate = Rate::new(10).unwrap();
        assert_eq!(rate.admit(100, 0), 10);
        assert_eq!(rate.admit(100, 0), 0);
        assert_eq!(rate.admit(100, 250_000_000), 2);
        assert_eq!(rate.admit(1, 9_000_000_000), 1);
    }

    #[test]
    fn high_limits_are_kept_within_two_percent() {
        let rate = Rate::new(50_000_000).unwrap();
        let waits: u64 = rate.take(200_000_000, 0);
        assert!((2_950_000_000..=3_050_000_000).contains(&waits), "{waits}");
    }
}
