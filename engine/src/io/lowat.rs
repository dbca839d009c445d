//! When a connection's wake-ups are worth bundling: the rule behind the adaptive SO_RCVLOWAT, without the socket.
//!
//! A sender that makes one call a message wakes its receiver for each. A connection with many small completions is
//! *raised*: the kernel then wakes for 16 KiB and more at once. What waits below that mark is fetched by the tick, from
//! every raised connection, so a message waits one tick at most. A fetch that finds next to nothing lowers its
//! connection again; as long as it finds several messages, one read has taken the place of as many wake-ups.

/// Length of a tick, nanoseconds.
pub(super) const TICK_NS: u64 = 5_000_000;
/// The first mark of a raised connection, bytes.
const RAISED_MIN: u32 = 16 << 10;
/// The highest mark, bytes.
const RAISED_MAX: u32 = 64 << 10;
/// Completions within a tick that make a connection worth raising, or its mark worth doubling.
const MANY: u32 = 4;
/// Mean size of a completion below which raising pays, bytes.
const SMALL: u32 = 4 << 10;
/// Messages that a tick must bring for the connection to stay raised.
const BUNDLE: u32 = 2;

/// What the socket's mark has to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// What it is.
    Keep,
    /// So many bytes.
    Set(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not raised for now: an answer is awaited.
    Interactive,
    /// Never raised.
    Fixed,
    /// Each byte wakes.
    Low,
    /// Only so many bytes wake.
    Raised(u32),
}

/// One connection's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowat {
    state: State,
    /// Completions and bytes since `since_ns`, or since the last tick when raised.
    completions: u32,
    bytes: u32,
    since_ns: u64,
    /// The smallest of those completions: about one message.
    message_bytes: u32,
}

impl Lowat {
    /// A connection that may be raised, or never.
    pub(super) fn new(adaptive: bool) -> Self {
        let state = if adaptive { State::Low } else { State::Fixed };
        Self { state, completions: 0, bytes: 0, since_ns: 0, message_bytes: u32::MAX }
    }

    /// Whether the tick has to fetch what waits.
    pub(super) fn is_raised(&self) -> bool {
        matches!(self.state, State::Raised(_))
    }

    /// Forbids raising, or allows it again where it was allowed in the beginning.
    pub(super) fn set_interactive(&mut self, interactive: bool) -> Mark {
        let (was_raised, was_interactive) = (self.is_raised(), self.state == State::Interactive);
        if self.state != State::Fixed && interactive != was_interactive {
            let state = if interactive { State::Interactive } else { State::Low };
            *self = Self { state, ..Self::new(true) };
        }
        if was_raised && !self.is_raised() { Mark::Set(1) } else { Mark::Keep }
    }

    /// A completion of `bytes` bytes came.
    #[inline]
    pub(super) fn received(&mut self, bytes: u32, now_ns: u64) -> Mark {
        match self.state {
            State::Fixed | State::Interactive => Mark::Keep,
            State::Low => self.received_low(bytes, now_ns),
            State::Raised(mark) => {
                self.completions += 1;
                if self.completions >= MANY && mark < RAISED_MAX {
                    return self.raise(mark * 2);
                }
                Mark::Keep
            }
        }
    }

    fn received_low(&mut self, bytes: u32, now_ns: u64) -> Mark {
        if now_ns.saturating_sub(self.since_ns) > TICK_NS {
            *self = Self { since_ns: now_ns, ..Self::new(true) };
        }
        self.completions += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.message_bytes = self.message_bytes.min(bytes);
        if self.completions < MANY {
            return Mark::Keep;
        }
        if self.bytes / self.completions >= SMALL {
            *self = Self { since_ns: now_ns, ..Self::new(true) };
            return Mark::Keep;
        }
        self.raise(RAISED_MIN)
    }

    fn raise(&mut self, mark: u32) -> Mark {
        self.state = State::Raised(mark);
        self.completions = 0;
        Mark::Set(mark)
    }

    /// A tick found `bytes` bytes waiting.
    pub(super) fn fetched(&mut self, bytes: u32) -> Mark {
        if !self.is_raised() {
            return Mark::Keep;
        }
        // What the mark brought since the last tick counts, too.
        let came = std::mem::take(&mut self.completions) > 0;
        if came || bytes >= self.message_bytes.saturating_mul(BUNDLE) {
            return Mark::Keep;
        }
        *self = Self::new(true);
        Mark::Set(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised() -> Lowat {
        let mut it = Lowat::new(true);
        let marks: Vec<Mark> = (0..MANY.into()).map(|i| it.received(250, i)).collect();
        assert_eq!(marks.last(), Some(&Mark::Set(RAISED_MIN)));
        assert!(marks[..marks.len() - 1].iter().all(|m| *m == Mark::Keep));
        it
    }

    #[test]
    fn many_small_completions_raise_and_silence_lowers() {
        let mut it = raised();
        it.received(16 << 10, 0);
        assert_eq!(it.fetched(0), Mark::Keep, "the mark brought something in this tick");
        assert!(it.is_raised());
        assert_eq!(it.fetched(0), Mark::Set(1));
        assert!(!it.is_raised());
        assert_eq!(it.fetched(0), Mark::Keep, "it is low already");
    }

    #[test]
    fn it_stays_raised_while_ticks_bring_several_messages() {
        let mut it = raised();
        assert!((0..10).all(|_| it.fetched(500) == Mark::Keep));
        assert_eq!(it.fetched(499), Mark::Set(1));
    }

    #[test]
    fn the_smallest_completion_is_a_message() {
        let mut it = Lowat::new(true);
        let marks: Vec<Mark> = [9000, 250, 500, 250].into_iter().map(|bytes| it.received(bytes, 0)).collect();
        assert_eq!(marks[3], Mark::Set(RAISED_MIN));
        assert_eq!(it.fetched(500), Mark::Keep);
    }

    #[test]
    fn a_fast_connection_climbs_to_the_highest_mark() {
        let mut it = raised();
        let marks: Vec<Mark> =
            (0..100).map(|i| it.received(16 << 10, i)).filter(|m| *m != Mark::Keep).collect();
        assert_eq!(marks, [Mark::Set(32 << 10), Mark::Set(64 << 10)]);
    }

    #[test]
    fn slow_or_large_or_fixed_connections_stay_low() {
        let mut slow = Lowat::new(true);
        assert!((0..100).all(|i| slow.received(250, i * TICK_NS) == Mark::Keep));
        let mut large = Lowat::new(true);
        assert!((0..100).all(|i| large.received(SMALL, i) == Mark::Keep));
        let mut fixed = Lowat::new(false);
        assert!((0..100).all(|i| fixed.received(1, i) == Mark::Keep));
        let mut it = raised();
        assert_eq!(it.set_interactive(true), Mark::Set(1));
        assert_eq!(it.set_interactive(true), Mark::Keep);
        assert!((0..100).all(|_| it.received(250, 0) == Mark::Keep));
        assert_eq!(it.set_interactive(false), Mark::Keep);
        assert!((0..100).any(|_| it.received(250, 0) != Mark::Keep));
        assert_eq!((fixed.set_interactive(true), fixed.set_interactive(false)), (Mark::Keep, Mark::Keep));
        assert!((0..100).all(|_| fixed.received(1, 0) == Mark::Keep), "fixed for good");
    }
}
