//! When messages are due: at a fixed rate, as fast as they go, rising, or in bursts.
//!
//! Pure: time is passed in, as seconds since the run began. Invariant: the plan depends on the clock alone and never on how
//! far the sender got, so a sender that fell behind knows how late each message is.

use std::str::FromStr;

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the receiver takes them.
    Max,
    /// So many a second.
    Fixed(f64),
    /// From so many a second to so many a second, over the whole duration.
    Ramp {
        /// At the beginning.
        from: f64,
        /// At the end.
        to: f64,
    },
    /// So many at once, again and again.
    Burst {
        /// Messages of one burst.
        count: f64,
        /// Seconds from one to the next.
        every_s: f64,
    },
}

const FORMS: &str = "expected a number a second (10000, 50k, 1M), max, ramp:1000..50000 or burst:5000/1s";

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.split_once(':') {
            None if text == "max" => Some(Self::Max),
            None => number(text).map(Self::Fixed),
            Some(("ramp", ends)) => ends
                .split_once("..")
                .and_then(|(from, to)| Some(Self::Ramp { from: number(from)?, to: number(to)? })),
            Some(("burst", parts)) => parts.split_once('/').and_then(|(count, every)| {
                let every_s = engine::config::units::parse_duration(every)?.as_secs_f64();
                (every_s > 0.0).then_some(Self::Burst { count: number(count)?, every_s })
            }),
            Some(_) => None,
        };
        read.ok_or_else(|| FORMS.to_owned())
    }
}

/// `10000`, `50k`, `1M`; at least one.
fn number(text: &str) -> Option<f64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let value = digits.parse::<f64>().ok()? * unit;
    (1.0..=1e9).contains(&value).then_some(value)
}

/// The plan of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    rate: Rate,
    /// How long a ramp rises.
    duration_s: f64,
    /// Messages of the whole run; none when time alone ends it.
    count: Option<u64>,
}

impl Plan {
    /// A plan; of a ramp without a duration, it rises until all messages are sent.
    pub fn new(rate: Rate, duration_s: Option<f64>, count: Option<u64>) -> Self {
        let by_count = match (rate, count) {
            (Rate::Ramp { from, to }, Some(count)) => count as f64 / ((from + to) / 2.0),
            _ => f64::INFINITY,
        };
        Self { rate, duration_s: duration_s.unwrap_or(by_count), count }
    }

    /// Messages of the whole run; none when time alone ends it.
    pub fn count(&self) -> Option<u64> {
        self.count
    }

    /// Messages that are due `now_s` seconds after the beginning.
    pub fn due(&self, now_s: f64) -> u64 {
        let now_s = now_s.min(self.duration_s);
        // The first is due at once.
        let due = match self.rate {
            Rate::Max => u64::MAX,
            Rate::Fixed(rate) => (now_s * rate) as u64 + 1,
            Rate::Ramp { from, to } => {
                (now_s * (from + (to - from) * now_s / (2.0 * self.duration_s))) as u64 + 1
            }
            Rate::Burst { count, every_s } => (((now_s / every_s).floor() + 1.0) * count) as u64,
        };
        // What would be due at the very end belongs to the time behind it.
        due.min(self.total())
    }

    /// When message `n` is due, in seconds since the beginning; at full speed always at once.
    pub fn due_at(&self, n: u64) -> f64 {
        let n = n as f64;
        match self.rate {
            Rate::Max => 0.0,
            Rate::Fixed(rate) => n / rate,
            // The time at which the area under the ramp is n.
            Rate::Ramp { from, to } if (to - from).abs() > 1e-9 => {
                let slope = (to - from) / self.duration_s;
                ((from * from + 2.0 * slope * n).max(0.0).sqrt() - from) / slope
            }
            Rate::Ramp { from, .. } => n / from,
            Rate::Burst { count, every_s } => (n / count).floor() * every_s,
        }
    }

    /// Messages of the whole run; at full speed as many as there is time for.
    pub fn total(&self) -> u64 {
        let by_time = match self.rate {
            _ if self.duration_s.is_infinite() => u64::MAX,
            Rate::Max => u64::MAX,
            Rate::Fixed(rate) => (self.duration_s * rate).round() as u64,
            Rate::Ramp { from, to } => (self.duration_s * (from + to) / 2.0).round() as u64,
            Rate::Burst { count, every_s } => ((self.duration_s / every_s).ceil() * count) as u64,
        };
        by_time.min(self.count.unwrap_or(u64::MAX))
    }

    /// Messages a second on average, when the plan has a rate.
    pub fn asked(&self) -> Option<f64> {
        match self.rate {
            Rate::Max => None,
            Rate::Fixed(rate) => Some(rate),
            Rate::Ramp { from, to } => Some((from + to) / 2.0),
            Rate::Burst { count, every_s } => Some(count / every_s),
        }
    }

    /// Whether messages go as fast as they are taken.
    pub fn is_max(&self) -> bool {
        self.rate == Rate::Max
    }
}

/// One of several senders that share a plan: it sends every `of`-th message, from number `which` on.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The plan of all together.
    pub plan: Plan,
    /// Which of them.
    pub which: u64,
    /// How many they are.
    pub of: u64,
}

impl Share {
    /// Messages of this share that are due.
    pub fn due(&self, now_s: f64) -> u64 {
        self.of_all(self.plan.due(now_s))
    }

    /// Messages of this share in the whole run.
    pub fn total(&self) -> u64 {
        self.of_all(self.plan.total())
    }

    /// When message `n` of this share is due.
    pub fn due_at(&self, n: u64) -> f64 {
        self.plan.due_at(n * self.of + self.which)
    }

    fn of_all(&self, all: u64) -> u64 {
        if all == u64::MAX { all } else { (all + self.of - 1 - self.which) / self.of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(text: &str, duration_s: f64) -> Plan {
        Plan::new(text.parse().unwrap(), Some(duration_s), None)
    }

    #[test]
    fn rates_are_read() {
        for (text, rate) in [
            ("max", Rate::Max),
            ("10000", Rate::Fixed(10_000.0)),
            ("50k", Rate::Fixed(50_000.0)),
            ("1.5M", Rate::Fixed(1_500_000.0)),
            ("ramp:1k..50k", Rate::Ramp { from: 1000.0, to: 50_000.0 }),
            ("burst:5000/500ms", Rate::Burst { count: 5000.0, every_s: 0.5 }),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        for text in ["", "0", "-1", "fast", "ramp:1", "burst:5", "burst:5/0", "burst:5/1", "NaN", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_has_as_many_messages_as_its_rate_and_time_make() {
        assert_eq!(plan("1000", 2.5).total(), 2500);
        assert_eq!(plan("ramp:1000..3000", 2.0).total(), 4000);
        assert_eq!(plan("burst:100/1s", 2.5).total(), 300);
        assert_eq!(plan("max", 2.5).total(), u64::MAX);
        assert_eq!(Plan::new(Rate::Max, None, Some(7)).total(), 7);
        assert_eq!(Plan::new("ramp:1000..3000".parse().unwrap(), None, Some(4000)).due(1.0), 1501);
        assert_eq!(plan("1000", 2.0).due(9.0), 2000, "nothing is due behind the end");
    }

    #[test]
    fn a_burst_is_due_at_once() {
        let plan = plan("burst:100/1s", 10.0);
        assert_eq!((plan.due(0.0), plan.due(0.999), plan.due(1.0)), (100, 100, 200));
        assert_eq!((plan.due_at(99), plan.due_at(100)), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn a_message_is_due_when_its_time_has_come(
            text in prop::sample::select(vec!["7", "1000", "333k", "ramp:10..5000", "ramp:500..5", "burst:17/30ms"]),
            now_s in 0.0f64..10.0,
        ) {
            let plan = plan(text, 10.0);
            let due = plan.due(now_s);
            prop_assume!(due > 0 && due < plan.total());
            prop_assert!(plan.due_at(due - 1) <= now_s + 1e-9);
            prop_assert!(plan.due_at(due) >= now_s - 1e-9);
        }

        #[test]
        fn shares_make_the_whole(of in 1u64..9, now_s in 0.0f64..10.0) {
            let plan = plan("777", 10.0);
            let share = |which| Share { plan, which, of };
            prop_assert_eq!((0..of).map(|w| share(w).due(now_s)).sum::<u64>(), plan.due(now_s));
            prop_assert_eq!((0..of).map(|w| share(w).total()).sum::<u64>(), plan.total());
            for n in 0..of {
                prop_assert_eq!(share(n).due_at(3), plan.due_at(3 * of + n));
            }
        }
    }
}
