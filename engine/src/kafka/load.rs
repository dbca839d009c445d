//! A producer of single messages for load tests: librdkafka with the engine's settings, and what became of the messages,
//! counted.
//!
//! Invariants: of each message that was handed over one report comes, from [`Load::poll`] or [`Load::give_up`], within
//! [`DELIVERY_MAX`] of when it was handed over; all messages of a producer are in one partition, in the order in which they
//! were handed over, and none is there twice.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::blame::{blame, unmade};
use super::client;
use crate::config::kafka::ClientConfig;
use crate::diagnosis::{Code, Diagnostic};
use crate::escape::escape_outside;

/// How long the delivery of a message is tried: long enough for another broker to become its partition's leader.
pub const DELIVERY_MAX: Duration = Duration::from_secs(30);
/// How long the cluster may take to tell of the topic before anything is sent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long what was given up may take to be reported.
const GIVE_UP_MAX: Duration = Duration::from_secs(1);
/// What is known of messages where nothing else is.
const UNACKNOWLEDGED: &str = "the brokers have not acknowledged what was sent";
/// KiB that a producer holds, so that many of them fit into the memory.
const HELD_KIB: usize = 16 << 10;
/// Bytes of a message: more than `bench` makes, so that the topic's own limit is the one that is met.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// What became of messages since that was asked last.
#[derive(Debug, Default)]
pub struct Told {
    /// Messages that the cluster has.
    pub taken: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that it has not acknowledged. It may have some of them all the same.
    pub refused: u64,
    /// Why, of the first of them.
    pub error: Option<Diagnostic>,
}

/// A producer for one topic.
pub struct Load {
    producer: BaseProducer<Reports>,
    topic: String,
    key: String,
}

/// What librdkafka reports, when it is polled.
struct Reports {
    who: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    told: Told,
    /// What kept it from the cluster last: that a message was not delivered in time says less.
    trouble: Option<(RDKafkaErrorCode, String)>,
}

impl Load {
    /// Opens a producer, and asks the cluster for the topic. `who` begins each finding; all messages have `key`.
    ///
    /// # Errors
    /// The cluster is not reached, or has no such topic.
    pub fn open(brokers: &str, topic: &str, key: String, who: String) -> Result<Self, Diagnostic> {
        let mut config = client::producer(&[brokers.to_owned()], &ClientConfig::default());
        config
            .set("message.timeout.ms", DELIVERY_MAX.as_millis().to_string())
            .set("queue.buffering.max.kbytes", HELD_KIB.to_string())
            .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
            .remove("statistics.interval.ms");
        let unmade = |error| unmade(&who, &error);
        let reports = Reports { who: who.clone(), seen: Mutex::default() };
        let producer = BaseProducer::from_config_and_context(&config, reports).map_err(unmade)?;
        let load = Self { producer, topic: topic.to_owned(), key };
        load.ask()?;
        Ok(load)
    }

    fn ask(&self) -> Result<(), Diagnostic> {
        let answer = self.producer.client().fetch_metadata(Some(&self.topic), ANSWER_MAX);
        // What librdkafka has to say of a failure's reason waits among its reports, of which a poll takes one.
        (0..self.producer.in_flight_count()).for_each(|_| self.poll(Duration::ZERO));
        let reports = self.producer.context();
        let answer = answer.map_err(|error| reports.blame(&error, "the brokers do not answer"))?;
        let wrong = answer.topics().iter().find_map(|topic| topic.error());
        match wrong.map(RDKafkaErrorCode::from) {
            // It is being made.
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(()),
            Some(code) => Err(blame(&reports.who, code, &format!("topic '{}': {code}", self.topic))),
        }
    }

    /// Hands a message over; `false` where librdkafka holds as many as it may.
    ///
    /// # Errors
    /// The message is refused.
    pub fn send(&self, payload: &[u8]) -> Result<bool, Diagnostic> {
        let record = BaseRecord::<str, [u8]>::to(&self.topic).key(&self.key).payload(payload);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(self.producer.context().blame(&error, UNACKNOWLEDGED)),
        }
    }

    /// Takes reports for so long.
    pub fn poll(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// What was reported since this was called last.
    pub fn told(&self) -> Told {
        std::mem::take(&mut self.producer.context().seen().told)
    }

    /// Gives up what the cluster has not acknowledged, and takes the reports of that.
    pub fn give_up(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        // What is not reported by then is counted by who handed it over.
        let _ = self.producer.flush(GIVE_UP_MAX);
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Load").field("topic", &self.topic).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Reports {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blame(&self, error: &KafkaError, silence: &str) -> Diagnostic {
        self.seen().blame(&self.who, error, silence)
    }
}

impl Seen {
    /// What is wrong. Of a cluster that does not answer, what kept us from it; `silence`, where nobody knows.
    fn blame(&self, who: &str, error: &KafkaError, silence: &str) -> Diagnostic {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        match (&self.trouble, says_little(code)) {
            (Some((code, why)), true) => blame(who, *code, why),
            (None, true) => Diagnostic::error(Code::WP201, format!("{who}: {silence}")),
            (_, false) if code == RDKafkaErrorCode::MessageSizeTooLarge => {
                blame(who, code, &code.to_string())
                    .help("the topic's max.message.bytes says how large one may be")
            }
            (_, false) => blame(who, code, &code.to_string()),
        }
    }
}

/// Whether it says that there was no answer, and not why.
fn says_little(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::MessageTimedOut
            | E::OperationTimedOut
            | E::PurgeQueue
            | E::PurgeInflight
            | E::BrokerTransportFailure
            | E::AllBrokersDown
            | E::Fatal
    )
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = escape_outside(line.as_bytes());
        log::debug!(target: "wpgen::kafka", "{}: librdkafka: {level:?} {facility}: {line}", self.who);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut seen = self.seen();
        // That all are down follows from what was said of each.
        if seen.trouble.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            seen.trouble = Some((code, reason.to_owned()));
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut seen = self.seen();
        match result {
            Ok(message) => {
                seen.told.taken += 1;
                seen.told.bytes += message.payload().map_or(0, <[u8]>::len) as u64;
                seen.trouble = None;
            }
            Err((error, _)) => {
                seen.told.refused += 1;
                if seen.told.error.is_none() {
                    let finding = seen.blame(&self.who, error, UNACKNOWLEDGED);
                    seen.told.error = Some(finding);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_told_with_what_kept_us_from_one_and_a_refusal_as_it_is() {
        let produced = KafkaError::MessageProduction;
        let told = |seen: &Seen, code| seen.blame("k", &produced(code), UNACKNOWLEDGED).message;
        let mut seen = Seen::default();
        let late = RDKafkaErrorCode::MessageTimedOut;
        assert_eq!(told(&seen, late), format!("k: {UNACKNOWLEDGED}"));
        seen.trouble = Some((RDKafkaErrorCode::BrokerTransportFailure, "b:1: refused".to_owned()));
        assert_eq!(told(&seen, late), "k: Failed to connect to Kafka cluster: b:1: refused");
        let refused = told(&seen, RDKafkaErrorCode::UnknownTopicOrPartition);
        assert!(refused.starts_with("k: Topic not found") && !refused.contains("b:1"), "{refused}");
    }
}
