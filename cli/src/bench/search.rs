//! Looks for the highest rate that holds, with as few trials as possible.
//!
//! Pure. It doubles until a rate fails, then halves the gap on a logarithmic scale. A rate that failed is tried once more
//! before it counts, because a machine may have had something else to do.

/// The first rate that is tried.
const FIRST: f64 = 10_000.0;
/// No rate outside of these is tried.
const LOWEST: f64 = 100.0;
const HIGHEST: f64 = 100e6;
/// The search ends when the lowest rate that failed is within this factor of the highest that held.
const PRECISE: f64 = 1.05;

/// A search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    held: Option<f64>,
    failed: Option<f64>,
    /// A rate that failed once.
    doubted: Option<f64>,
}

impl Search {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self { held: None, failed: None, doubted: None }
    }

    /// The rate to be tried next; none when the search is over.
    pub fn next(&self) -> Option<f64> {
        let next = match (self.held, self.failed) {
            _ if self.doubted.is_some() => self.doubted?,
            (None, None) => FIRST,
            (Some(held), None) => held * 2.0,
            (None, Some(failed)) => failed / 2.0,
            (Some(held), Some(failed)) if failed / held <= PRECISE => return None,
            (Some(held), Some(failed)) => (held * failed).sqrt(),
        };
        (LOWEST..=HIGHEST).contains(&next).then(|| next.round())
    }

    /// Takes the outcome of a trial.
    pub fn tried(&mut self, rate: f64, holds: bool) {
        if holds {
            self.held = Some(self.held.map_or(rate, |held| held.max(rate)));
            self.doubted = None;
        } else if self.doubted == Some(rate) {
            self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
            self.doubted = None;
        } else {
            self.doubted = Some(rate);
        }
    }

    /// The highest rate that held.
    pub fn found(&self) -> Option<f64> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(mut holds: impl FnMut(f64) -> bool) -> (Option<f64>, u32) {
        let (mut search, mut trials) = (Search::new(), 0);
        while let Some(rate) = search.next() {
            search.tried(rate, holds(rate));
            trials += 1;
            assert!(trials < 60, "it ends");
        }
        (search.found(), trials)
    }

    proptest! {
        #[test]
        fn it_finds_what_holds(limit in 200.0f64..50e6) {
            let (found, trials) = search(|rate| rate <= limit);
            let found = found.unwrap();
            // Rates are whole numbers.
            prop_assert!(found <= limit && found * PRECISE + 1.0 >= limit, "{} for {}", found, limit);
            prop_assert!(trials <= 50);
        }
    }

    #[test]
    fn nothing_may_hold() {
        assert_eq!(search(|_| false).0, None);
    }

    #[test]
    fn one_bad_moment_is_forgiven() {
        let mut first = true;
        let (found, _) =
            search(|rate| rate <= 300_000.0 && !(rate > 100_000.0 && std::mem::take(&mut first)));
        assert!(found.is_some_and(|found| found > 280_000.0), "{found:?}");
    }
}
