//! What a client of librdkafka reports: kept for those who ask, and told at most once a minute for each kind.
//!
//! One attempt to reach a broker that is down is reported many times: by each of librdkafka's connections, by each request
//! that waits, by each partition. So an error of one kind is counted once in the time of an attempt ([`ATTEMPT`]), until all
//! is well again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::blame::blame;
use crate::diagnosis::{Code, Diagnostic, HELP};
use crate::source::seldom::Seldom;

/// librdkafka's longest pause between two attempts to connect.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The voice of one source or sink.
pub struct Voice {
    who: String,
    errors: AtomicU64,
    kinds: Mutex<HashMap<Option<Code>, Kind>>,
    trouble: Mutex<Option<Trouble>>,
    rejected: Mutex<Seldom>,
}

/// What is known of errors of one kind.
#[derive(Default)]
struct Kind {
    said: Seldom,
    /// When one was counted last, since all was well.
    counted: Option<Instant>,
}

impl Kind {
    /// Whether this one is of an attempt that is not counted yet.
    fn counts(&mut self, now: Instant) -> bool {
        let counts = self.counted.is_none_or(|at| now.saturating_duration_since(at) >= ATTEMPT);
        if counts {
            self.counted = Some(now);
        }
        counts
    }
}

/// What is in the way.
struct Trouble {
    code: Option<Code>,
    message: String,
    /// Whether the log knows of it.
    is_told: bool,
}

impl Voice {
    /// The voice of `who`: "source 'k'".
    pub fn new(who: String) -> Self {
        Self {
            who,
            errors: AtomicU64::new(0),
            kinds: Mutex::default(),
            trouble: Mutex::default(),
            rejected: Mutex::default(),
        }
    }

    /// Whose voice it is.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Errors so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// What is in the way now, if anything is.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref().map(|trouble| trouble.message.clone())
    }

    /// The cluster does what it is asked.
    pub fn well(&self) {
        self.mended(|_| true);
    }

    /// A broker is there, and has let us in.
    pub fn connected(&self) {
        self.mended(|code| matches!(code, Some(Code::WP201 | Code::WP202)));
    }

    fn mended(&self, is_over: impl Fn(Option<Code>) -> bool) {
        let mut trouble = lock(&self.trouble);
        if let Some(over) = trouble.take_if(|trouble| is_over(trouble.code))
            && over.is_told
        {
            lock(&self.kinds).entry(over.code).or_default().counted = None;
            log::info!(target: "wpgen::kafka", "{}: Kafka answers again", self.who);
        }
    }

    /// Something failed.
    pub fn failed(&self, error: RDKafkaErrorCode, text: &str) {
        self.tell(blame(&self.who, error, text));
    }

    /// Something failed that is a finding already.
    pub fn tell(&self, finding: Diagnostic) {
        let times = {
            let mut kinds = lock(&self.kinds);
            let kind = kinds.entry(finding.code).or_default();
            if !kind.counts(Instant::now()) {
                None
            } else {
                self.errors.fetch_add(1, Ordering::Relaxed);
                kind.said.happened(1)
            }
        };
        let code = finding.code.map(|code| format!("[{code}] ")).unwrap_or_default();
        let message = format!("{code}{}", finding.message);
        if let Some(times) = times {
            let help = finding.help.iter().fold(String::new(), |all, help| all + HELP + help);
            let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
            log::warn!(target: "wpgen::kafka", "{message}{times}{help}");
        }
        let mut trouble = lock(&self.trouble);
        let is_told = times.is_some() || trouble.as_ref().is_some_and(|trouble| trouble.is_told);
        *trouble = Some(Trouble { code: finding.code, message, is_told });
    }

    /// A record is no message that any broker would take, and is left out.
    pub fn left_out(&self, topic: &str, bytes: u32, code: RDKafkaErrorCode) {
        let Some(times) = lock(&self.rejected).happened(1) else { return };
        log::warn!(
            target: "wpgen::kafka",
            "{}: a record of {bytes} bytes is no message for topic {topic} and is left out: {code} ({times} such records); \
             message_max_bytes in 'config' and the topic's max.message.bytes say how large one may be",
            self.who
        );
    }

    /// An error of librdkafka's crate.
    pub fn error(&self, error: &KafkaError) {
        let text = error.to_string();
        self.failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), &text);
    }

    /// A line of librdkafka's own log. Whatever matters of it comes as an error too.
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = crate::escape::escape_outside(line.as_bytes());
        if matches!(level, RDKafkaLogLevel::Warning) && facility == "OFFSET" {
            // What lay between is gone from the broker.
            return self.tell(Diagnostic::plain(format!(
                "{}: messages were deleted before they were read: {line}",
                self.who
            )));
        }
        if facility == "MAXPOLL" {
            // The event that follows does not say by how much.
            return self.failed(RDKafkaErrorCode::PollExceeded, &line);
        }
        log::debug!(target: "wpgen::kafka", "{}: librdkafka: {level:?} {facility}: {line}", self.who);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_counted_and_kept_until_all_is_well() {
        let voice = Voice::new("source 'k'".into());
        for _ in 0..3 {
            voice.failed(RDKafkaErrorCode::BrokerTransportFailure, "127.0.0.1:1/bootstrap: refused");
        }
        assert_eq!(voice.errors(), 1, "they are of one attempt");
        voice.failed(RDKafkaErrorCode::UnknownTopic, "t");
        assert_eq!(voice.errors(), 2);
        assert!(voice.trouble().is_some_and(|trouble| trouble.starts_with("[WP201] source 'k'")));
        voice.well();
        assert_eq!((voice.errors(), voice.trouble()), (2, None));
    }

    #[test]
    fn each_attempt_counts_and_the_first_one_after_all_was_well() {
        let (mut kind, now) = (Kind::default(), Instant::now());
        let counts = [0, 1, 9, 10, 11, 20].map(|s| kind.counts(now + Duration::from_secs(s)));
        assert_eq!(counts, [true, false, false, true, false, true]);
        let voice = Voice::new("source 'k'".into());
        for _ in 0..3 {
            voice.failed(RDKafkaErrorCode::BrokerTransportFailure, "refused");
            voice.connected();
        }
        assert_eq!(voice.errors(), 3);
    }
}
