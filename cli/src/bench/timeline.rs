//! How much there was at which time, for rates and plots.
//!
//! Pure; bounded: when it is full, every second sample is forgotten and half as many are taken from then on.

use std::time::Duration;

/// Samples at most: at ten a second, the first seven minutes are kept in full.
const SAMPLES_MAX: usize = 4096;
/// How often a sample is taken at first.
const EVERY: Duration = Duration::from_millis(100);

/// A moment, and what there was by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Messages so far.
    pub messages: u64,
    /// Bytes so far.
    pub bytes: u64,
}

/// The samples of a run.
#[derive(Clone, Debug)]
pub struct Timeline {
    samples: Vec<Sample>,
    every: Duration,
}

impl Timeline {
    /// None yet.
    pub fn new() -> Self {
        Self { samples: Vec::new(), every: EVERY }
    }

    /// Takes a sample when it is time for one.
    pub fn see(&mut self, at: Duration, messages: u64, bytes: u64) {
        if self.samples.last().is_some_and(|last| at < last.at + self.every) {
            return;
        }
        self.samples.push(Sample { at, messages, bytes });
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }

    /// Messages a second between each two samples, at the second one's time in seconds.
    pub fn rates(&self) -> Vec<(f64, f64)> {
        let rate = |pair: &[Sample]| {
            let seconds = (pair[1].at - pair[0].at).as_secs_f64();
            (pair[1].at.as_secs_f64(), pair[1].messages.saturating_sub(pair[0].messages) as f64 / seconds)
        };
        self.samples.windows(2).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_between_samples_and_samples_are_not_taken_too_often() {
        let mut timeline = Timeline::new();
        for ms in 0..=500 {
            timeline.see(Duration::from_millis(ms), ms * 10, 0);
        }
        let rates = timeline.rates();
        assert_eq!(rates.len(), 5);
        assert!(rates.iter().all(|(_, rate)| (*rate - 10_000.0).abs() < 1e-6), "{rates:?}");
    }

    #[test]
    fn it_is_bounded() {
        let mut timeline = Timeline::new();
        for n in 0..100_000 {
            timeline.see(Duration::from_millis(n * 100), n, 0);
        }
        assert!((SAMPLES_MAX / 4..SAMPLES_MAX).contains(&timeline.samples.len()));
        assert!(timeline.rates().iter().all(|(_, rate)| (*rate - 10.0).abs() < 1e-6));
    }
}
