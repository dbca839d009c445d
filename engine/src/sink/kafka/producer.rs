//! The producer that all owners of a sink share. An idempotent producer that has lost its place in a partition's sequence is
//! broken for good; another one takes its place, and what the broken one had is sent again.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use crate::kafka::cargo::{Cargo, Producer};
use crate::kafka::voice::Voice;

/// What librdkafka calls back, on the producer's thread.
pub struct Reports {
    voice: Arc<Voice>,
}

/// The producer, and what its successor is made with.
pub struct Shared {
    config: ClientConfig,
    /// Where errors go.
    pub voice: Arc<Voice>,
    now: Mutex<Arc<Producer<Reports>>>,
}

impl Shared {
    /// A producer of these settings.
    ///
    /// # Errors
    /// What librdkafka refuses.
    pub fn new(config: ClientConfig, voice: Arc<Voice>) -> KafkaResult<Self> {
        let now = Mutex::new(make(&config, &voice)?);
        Ok(Self { config, voice, now })
    }

    /// The producer to use now.
    pub fn now(&self) -> Arc<Producer<Reports>> {
        Arc::clone(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the producer if it is broken for good.
    pub fn renew_if_broken(&self) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((code, why)) = now.inner().client().fatal_error() else { return };
        self.voice.failed(code, &format!("the producer is begun anew: {why}"));
        self.replace(&mut now);
    }

    /// Replaces the producer; whether there is another one.
    pub fn renew(&self) -> bool {
        self.replace(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, now: &mut Arc<Producer<Reports>>) -> bool {
        match make(&self.config, &self.voice) {
            Ok(next) => {
                let broken = std::mem::replace(now, next);
                // It waits for a thread of its own, and for what it can still report.
                let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(broken));
                true
            }
            Err(error) => {
                self.voice.error(&error);
                false
            }
        }
    }
}

fn make(config: &ClientConfig, voice: &Arc<Voice>) -> KafkaResult<Arc<Producer<Reports>>> {
    let reports = Reports { voice: Arc::clone(voice) };
    Ok(Arc::new(Producer::new(ThreadedProducer::from_config_and_context(config, reports)?)))
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.voice.log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.voice.connected();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        // Whoever makes transactions hears of it as well, and knows what it means.
        if code != RDKafkaErrorCode::Fenced {
            self.voice.failed(code, reason);
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Cargo>;

    fn delivery(&self, result: &DeliveryResult<'_>, cargo: Arc<Cargo>) {
        cargo.report(result.as_ref().err().map(|(error, message)| {
            (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), message.payload())
        }));
    }
}
