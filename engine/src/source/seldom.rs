//! What is said at most once a minute, however often it happens: a peer must not be able to fill the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

const SAY_EVERY: Duration = Duration::from_secs(60);

/// One kind of event.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Cell<Option<Instant>>,
    silent: Cell<u64>,
}

impl Seldom {
    /// Something happened `n` times. When it is to be said, the number of times since it was said last, these included.
    pub fn happened(&self, n: u64) -> Option<u64> {
        let times = self.silent.get() + n;
        if self.said.get().is_some_and(|said| said.elapsed() < SAY_EVERY) {
            self.silent.set(times);
            return None;
        }
        self.said.set(Some(Instant::now()));
        self.silent.set(0);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_next_are_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happened(3), Some(3));
        assert_eq!(seldom.happened(4), None);
        assert_eq!(seldom.silent.get(), 4);
    }
}
