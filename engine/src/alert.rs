//! Alerts that a source's tags ask for: errors a minute, and lag.
//!
//! Pure but for the log lines it writes: the time is passed in, and so is what is looked at. An alert of errors is active
//! while the last minute had as many as its threshold; one of lag while the lag was that large within the last minute.
//! So both clear themselves after one quiet minute, and neither flaps within one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Actions, SourceConfig};
use crate::status::{AlertStatus, SourceStatus, Status};

/// What counts as a while without trouble, and the time that errors are counted over.
const MINUTE: Duration = Duration::from_secs(60);
/// Errors are remembered in steps of this length: a bound on the memory of a source.
const STEP: Duration = Duration::from_secs(1);
/// Errors a minute from which on an alert is raised, without `alert_threshold`.
pub const ERRORS: u64 = 1;
/// Lag in bytes from which on an alert is raised, without `alert_threshold`.
pub const LAG_BYTES: u64 = 64 << 20;

/// The alerts of all sources.
#[derive(Debug, Default)]
pub struct Alerts {
    sources: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    key: Arc<str>,
    actions: Actions,
    errors: Option<Errors>,
    lag: Option<Lag>,
    /// Figures at the last line of statistics, and when that was.
    told: Option<(Duration, SourceStatus)>,
}

/// Errors of the last minute, in steps.
#[derive(Debug, Default)]
struct Errors {
    /// When, and how many there had been by then.
    seen: VecDeque<(Duration, u64)>,
    active: Option<Duration>,
    last_minute: u64,
}

#[derive(Debug, Default)]
struct Lag {
    active: Option<Duration>,
    /// When it was too large last.
    last: Duration,
    bytes: u64,
}

/// What a look has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Raised,
    Cleared,
}

impl Alerts {
    /// The alerts that these sources ask for. Those that they asked for before go on.
    pub fn configure(&mut self, sources: &[SourceConfig]) {
        let mut before = std::mem::take(&mut self.sources);
        self.sources = sources
            .iter()
            .filter(|source| source.enable)
            .map(|source| {
                let same = |old: &Watched| old.key == source.key && old.actions == source.actions;
                match before.iter().position(same) {
                    Some(at) => before.swap_remove(at),
                    None => Watched::new(source),
                }
            })
            .collect();
    }

    /// Looks at what is, at `now` since the start, and says what has changed. To be called about once a second.
    pub fn look(&mut self, now: Duration, status: &Status) {
        for watched in &mut self.sources {
            let Some(source) = status.sources.iter().find(|source| source.key == *watched.key) else {
                continue;
            };
            watched.look(now, source);
        }
    }

    /// Every alert that is asked for, and whether it is active.
    pub fn status(&self, now: Duration) -> Vec<AlertStatus> {
        self.sources.iter().flat_map(|watched| watched.status(now)).collect()
    }
}

impl Watched {
    fn new(source: &SourceConfig) -> Self {
        let actions = source.actions.clone();
        Self {
            key: Arc::clone(&source.key),
            errors: actions.alert_on_error.then(Errors::default),
            lag: actions.alert_on_lag.then(Lag::default),
            actions,
            told: None,
        }
    }

    fn look(&mut self, now: Duration, source: &SourceStatus) {
        let key = &self.key;
        if let Some(errors) = &mut self.errors {
            let most = self.actions.alert_threshold.unwrap_or(ERRORS);
            let turn = errors.look(now, source.errors + source.rejected + source.malformed, most);
            say(turn, key, "error", &format!("{} errors in a minute", errors.last_minute));
        }
        if let Some(lag) = &mut self.lag {
            let most = self.actions.alert_threshold.unwrap_or(LAG_BYTES);
            let turn = lag.look(now, source.lag_bytes, most);
            say(turn, key, "lag", &format!("{} bytes wait to be read", lag.bytes));
        }
        if self.actions.monitor {
            self.tell_statistics(now, source);
        }
    }

    /// The source's own line, once a minute.
    fn tell_statistics(&mut self, now: Duration, source: &SourceStatus) {
        let Some((since, before)) = &self.told else {
            self.told = Some((now, source.clone()));
            return;
        };
        if now < *since + MINUTE {
            return;
        }
        let more = |of: fn(&SourceStatus) -> u64| of(source).saturating_sub(of(before));
        log::info!(
            target: "wpgen::statistics",
            "source '{}': {} records, {} bytes, {} delivered, {} errors in {} s; {} in flight, lag {} bytes",
            self.key,
            more(|s| s.records_in),
            more(|s| s.bytes_in),
            more(|s| s.delivered),
            more(|s| s.errors),
            (now - *since).as_secs(),
            source.in_flight(),
            source.lag_bytes,
        );
        self.told = Some((now, source.clone()));
    }

    fn status(&self, now: Duration) -> Vec<AlertStatus> {
        let alert = |alert, active: Option<Duration>, message: String| AlertStatus {
            source: self.key.to_string(),
            alert,
            active_for: active.map(|since| now.saturating_sub(since)),
            message,
        };
        let errors = self.errors.as_ref();
        let errors =
            errors.map(|e| alert("error", e.active, format!("{} errors in the last minute", e.last_minute)));
        let lag =
            self.lag.as_ref().map(|l| alert("lag", l.active, format!("{} bytes wait to be read", l.bytes)));
        errors.into_iter().chain(lag).collect()
    }
}

fn say(turn: Option<Turn>, key: &str, alert: &str, what: &str) {
    match turn {
        Some(Turn::Raised) => log::warn!(target: "wpgen::alert", "source '{key}': alert {alert}: {what}"),
        Some(Turn::Cleared) => {
            log::info!(target: "wpgen::alert", "source '{key}': alert {alert} is over: a quiet minute");
        }
        None => {}
    }
}

/// Raises or clears.
fn turn(active: &mut Option<Duration>, bad: bool, now: Duration) -> Option<Turn> {
    match (active.is_some(), bad) {
        (false, true) => {
            *active = Some(now);
            Some(Turn::Raised)
        }
        (true, false) => {
            *active = None;
            Some(Turn::Cleared)
        }
        _ => None,
    }
}

impl Errors {
    fn look(&mut self, now: Duration, errors: u64, most: u64) -> Option<Turn> {
        // A source that was made anew counts from 0.
        if self.seen.back().is_some_and(|(_, before)| *before > errors) {
            self.seen.clear();
        }
        if self.seen.is_empty() {
            self.seen.push_back((now, 0));
        }
        // The one that is a minute old stays: what was counted since then is what counts.
        while self.seen.get(1).is_some_and(|(at, _)| *at + MINUTE <= now) {
            self.seen.pop_front();
        }
        let before = self.seen.front().map_or(0, |(_, before)| *before);
        self.last_minute = errors - before;
        if self.seen.back().is_none_or(|(at, _)| *at + STEP <= now) {
            self.seen.push_back((now, errors));
        }
        turn(&mut self.active, self.last_minute >= most.max(1), now)
    }
}

impl Lag {
    fn look(&mut self, now: Duration, bytes: u64, most: u64) -> Option<Turn> {
        self.bytes = bytes;
        let too_much = bytes >= most.max(1);
        if too_much {
            self.last = now;
        }
        let is_recent = self.active.is_some() && now < self.last + MINUTE;
        turn(&mut self.active, too_much || is_recent, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn errors_raise_once_and_clear_after_a_quiet_minute() {
        let mut errors = Errors::default();
        let look = |errors: &mut Errors, at, n| errors.look(seconds(at), n, 3);
        assert_eq!(look(&mut errors, 0, 0), None);
        assert_eq!(look(&mut errors, 1, 2), None, "below the threshold");
        assert_eq!(look(&mut errors, 2, 3), Some(Turn::Raised));
        for at in 3..61 {
            assert_eq!(look(&mut errors, at, 3), None, "it stays, and is said once: {at}");
        }
        assert_eq!(look(&mut errors, 61, 3), Some(Turn::Cleared), "the first two are over a minute old");
        assert_eq!(look(&mut errors, 63, 9), Some(Turn::Raised));
        assert!(errors.seen.len() <= 62, "bounded");
    }

    #[test]
    fn many_errors_slowly_are_no_alert_and_a_source_made_anew_counts_anew() {
        let mut errors = Errors::default();
        for n in 0..300u64 {
            assert_eq!(errors.look(seconds(n * 30), n, 4), None, "two a minute");
        }
        assert_eq!(errors.look(seconds(9000), 1, 4), None);
        assert_eq!(errors.look(seconds(9001), 4, 4), Some(Turn::Raised), "the first one counts");
        // Looked at far more often than once a second, it remembers no more.
        for ms in 0..100_000 {
            errors.look(seconds(9002) + Duration::from_millis(ms), 4, 4);
        }
        assert!(errors.seen.len() <= 62, "{}", errors.seen.len());
    }

    #[test]
    fn lag_clears_when_it_was_small_for_a_minute() {
        let mut lag = Lag::default();
        let look = |lag: &mut Lag, at, n| lag.look(seconds(at), n, 100);
        assert_eq!(look(&mut lag, 0, 99), None);
        assert_eq!(look(&mut lag, 1, 100), Some(Turn::Raised));
        assert_eq!(look(&mut lag, 30, 0), None);
        assert_eq!(look(&mut lag, 40, 500), None, "it came back within the minute");
        assert_eq!(look(&mut lag, 99, 0), None);
        assert_eq!(look(&mut lag, 100, 0), Some(Turn::Cleared));
    }

    #[test]
    fn only_what_tags_ask_for_is_watched() {
        let actions = Actions { alert_on_error: true, ..Actions::default() };
        let watched =
            Watched { key: "a".into(), errors: Some(Errors::default()), lag: None, actions, told: None };
        let mut alerts = Alerts { sources: vec![watched] };
        let source =
            SourceStatus { key: "a".into(), errors: 1, lag_bytes: u64::MAX, ..SourceStatus::default() };
        alerts.look(seconds(5), &Status { sources: vec![source], ..Status::default() });
        let status = alerts.status(seconds(7));
        assert_eq!(status.len(), 1);
        assert_eq!((status[0].alert, status[0].active_for), ("error", Some(seconds(2))));
        alerts.configure(&[]);
        assert!(alerts.status(seconds(8)).is_empty());
    }
}
