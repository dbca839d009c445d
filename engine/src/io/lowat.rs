//! When a connection's wake-ups are worth bundling: the rule behind the adaptive SO_RCVLOWAT, without the socket.
//!
//! A sender that makes one call a message wakes its receiver for each. A connection with many small completions is
//! *raised*: the kernel then wakes for 16 KiB and more at once. What waits below that mark is fetched by the tick: a
//! raised connection that was silent for a whole tick is lowered, which makes the kernel deliver. If that brought
//! several messages, bundling pays and the connection is raised again at once; so a message waits two ticks at most.

/// Length of a tick, nanoseconds.
pub(super) const TICK_NS: u64 = 3_000_000;
/// The first mark of a raised connection, bytes.
const RAISED_MIN: u32 = 16 << 10;
/// The highest mark, bytes.
const RAISED_MAX: u32 = 64 << 10;
/// Completions within a tick that make a connection worth raising.
const MANY: u32 = 4;
/// Mean size of a completion below which raising pays, bytes.
const SMALL: u32 = 4 << 10;
/// Messages' worth of bytes that a lowering must bring for the next raise.
const BUNDLE: u32 = 3;

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
    /// Never raised: an answer is awaited, or it is no TCP.
    Fixed,
    /// Each byte wakes.
    Low,
    /// Only so many bytes wake.
    Raised(u32),
    /// Lowered by the tick, to see what waits.
    Probing,
}

/// One connection's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowat {
    state: State,
    /// Completions and bytes since `since_ns`, or since the last tick when raised.
    completions: u32,
    bytes: u32,
    since_ns: u64,
    /// Mean completion when it was raised: about one message.
    message_bytes: u32,
}

impl Lowat {
    /// A connection that may be raised, or never.
    pub(super) fn new(adaptive: bool) -> Self {
        let state = if adaptive { State::Low } else { State::Fixed };
        Self { state, completions: 0, bytes: 0, since_ns: 0, message_bytes: 0 }
    }

    /// Whether the tick has to look at it.
    pub(super) fn needs_tick(&self) -> bool {
        matches!(self.state, State::Raised(_) | State::Probing)
    }

    /// Allows or forbids raising.
    pub(super) fn set_adaptive(&mut self, adaptive: bool) -> Mark {
        let was_raised = matches!(self.state, State::Raised(_));
        if adaptive == (self.state != State::Fixed) {
            return Mark::Keep;
        }
        *self = Self::new(adaptive);
        if was_raised { Mark::Set(1) } else { Mark::Keep }
    }

    /// A completion of `bytes` bytes came.
    #[inline]
    pub(super) fn received(&mut self, bytes: u32, now_ns: u64) -> Mark {
        match self.state {
            State::Fixed => Mark::Keep,
            State::Low => self.received_low(bytes, now_ns),
            State::Raised(mark) => {
                self.completions += 1;
                if self.completions >= MANY && mark < RAISED_MAX {
                    self.completions = 1;
                    return self.raise(mark * 2);
                }
                Mark::Keep
            }
            State::Probing if bytes >= BUNDLE * self.message_bytes => {
                self.completions = 0;
                self.raise(RAISED_MIN)
            }
            State::Probing => {
                *self = Self::new(true);
                Mark::Keep
            }
        }
    }

    fn received_low(&mut self, bytes: u32, now_ns: u64) -> Mark {
        if now_ns.saturating_sub(self.since_ns) > TICK_NS {
            (self.completions, self.bytes, self.since_ns) = (0, 0, now_ns);
        }
        self.completions += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.completions < MANY {
            return Mark::Keep;
        }
        let mean = self.bytes / self.completions;
        if mean >= SMALL {
            (self.completions, self.bytes) = (0, 0);
            return Mark::Keep;
        }
        self.message_bytes = mean.max(1);
        self.completions = 1;
        self.raise(RAISED_MIN)
    }

    fn raise(&mut self, mark: u32) -> Mark {
        self.state = State::Raised(mark);
        Mark::Set(mark)
    }

    /// A tick passed.
    pub(super) fn tick(&mut self) -> Mark {
        match self.state {
            State::Raised(_) if self.completions == 0 => {
                self.state = State::Probing;
                Mark::Set(1)
            }
            State::Raised(_) => {
                self.completions = 0;
                Mark::Keep
            }
            State::Probing => {
                *self = Self::new(true);
                Mark::Keep
            }
            State::Low | State::Fixed => Mark::Keep,
        }
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
        assert_eq!(it.tick(), Mark::Keep, "there was a completion in this tick");
        assert_eq!(it.tick(), Mark::Set(1));
        assert!(it.needs_tick());
        assert_eq!(it.tick(), Mark::Keep);
        assert!(!it.needs_tick(), "nothing waited");
    }

    #[test]
    fn a_bundle_that_waited_raises_again() {
        let mut it = raised();
        it.tick();
        it.tick();
        assert_eq!(it.received(1000, 0), Mark::Set(RAISED_MIN));
        assert_eq!(it.tick(), Mark::Set(1), "what came after the bundle waits one tick");
        assert_eq!(it.received(749, 0), Mark::Keep);
        assert!(!it.needs_tick());
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
        assert_eq!(it.set_adaptive(false), Mark::Set(1));
        assert_eq!(it.set_adaptive(false), Mark::Keep);
        assert_eq!(it.set_adaptive(true), Mark::Keep);
    }
}
