//! What a client of librdkafka reports: counted always, told at most once a minute for each kind, kept for those who ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::blame::blame;
use crate::diagnosis::{Code, Diagnostic, HELP};
use crate::source::seldom::Seldom;

/// The voice of one source or sink.
pub struct Voice {
    who: String,
    errors: AtomicU64,
    said: Mutex<HashMap<Option<Code>, Seldom>>,
    trouble: Mutex<Option<Trouble>>,
    rejected: Mutex<Seldom>,
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
            said: Mutex::default(),
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

    /// Counts an error that is told elsewhere.
    pub fn count(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
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
            log::info!(target: "wpgen::kafka", "{}: Kafka answers again", self.who);
        }
    }

    /// Something failed.
    pub fn failed(&self, error: RDKafkaErrorCode, text: &str) {
        self.tell(blame(&self.who, error, text));
    }

    /// Something failed that is a finding already.
    pub fn tell(&self, finding: Diagnostic) {
        self.count();
        let times = lock(&self.said).entry(finding.code).or_default().happened(1);
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
        assert_eq!(voice.errors(), 3);
        assert!(voice.trouble().is_some_and(|trouble| trouble.starts_with("[WP201] source 'k'")));
        voice.well();
        assert_eq!((voice.errors(), voice.trouble()), (3, None));
    }
}
