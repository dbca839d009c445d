//! The producer that all owners of a sink share. An idempotent producer that has lost its place in a partition's sequence is
//! broken for good; another one takes its place, and what the broken one had is sent again. So it is with one whose cluster
//! takes nothing, when a rescue is to have what it holds: only what librdkafka has forgotten may go to disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::statistics::Statistics;

use crate::kafka::cargo::{Cargo, Producer};
use crate::kafka::voice::Voice;

/// How long reports of what a producer had are waited for, before it is gone.
const REPORTS_MAX: Duration = Duration::from_secs(10);

/// How soon it is tried again whether nobody hands anything over to a producer any more.
const SHARED_AGAIN: Duration = Duration::from_millis(1);

/// What librdkafka calls back, on the producer's thread.
pub struct Reports {
    voice: Arc<Voice>,
    /// Messages that a broker has acknowledged.
    delivered: Arc<AtomicU64>,
}

/// The producer, and what its successor is made with.
pub struct Shared {
    config: ClientConfig,
    /// Where errors go.
    pub voice: Arc<Voice>,
    delivered: Arc<AtomicU64>,
    now: Mutex<Current>,
}

/// The producer, and how many there were before it.
#[derive(Clone)]
struct Current {
    producer: Arc<Producer<Reports>>,
    number: u64,
}

impl Shared {
    /// A producer of these settings.
    ///
    /// # Errors
    /// What librdkafka refuses.
    pub fn new(config: ClientConfig, voice: Arc<Voice>) -> KafkaResult<Self> {
        let delivered = Arc::default();
        let now = Mutex::new(Current { producer: make(&config, &voice, &delivered)?, number: 0 });
        Ok(Self { config, voice, delivered, now })
    }

    /// The producer to use now.
    pub fn now(&self) -> Arc<Producer<Reports>> {
        self.numbered().0
    }

    /// The producer to use now, and its number: whoever has messages with one gives none to the next before they are
    /// reported, so that they stay in order.
    pub fn numbered(&self) -> (Arc<Producer<Reports>>, u64) {
        let Current { producer, number } = self.current().clone();
        (producer, number)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that brokers have acknowledged.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How long messages wait for others that can go with them.
    pub fn linger(&self) -> Duration {
        let of = |name| self.config.get(name).and_then(|ms| ms.parse::<f64>().ok());
        let ms = of("linger.ms").or_else(|| of("queue.buffering.max.ms")).unwrap_or(0.0);
        Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
    }

    /// Replaces the producer if it is broken for good.
    pub fn renew_if_broken(&self) {
        let mut now = self.current();
        let Some((code, why)) = now.producer.inner().client().fatal_error() else { return };
        self.voice.failed(code, &format!("the producer is begun anew: {why}"));
        self.replace(&mut now, end);
    }

    /// Replaces the producer; whether there is another one.
    pub fn renew(&self) -> bool {
        self.replace(&mut self.current(), drop)
    }

    /// Takes from the producer of that number what it has, which is reported as purged; another one takes its place.
    /// Whether that is so.
    pub fn abandon(&self, number: u64) -> bool {
        let mut now = self.current();
        now.number != number || self.replace(&mut now, end)
    }

    fn replace(&self, now: &mut Current, end: fn(Arc<Producer<Reports>>)) -> bool {
        match make(&self.config, &self.voice, &self.delivered) {
            Ok(producer) => {
                let before = std::mem::replace(now, Current { producer, number: now.number + 1 });
                // It waits for a thread of its own, and for what it can still report.
                let _ =
                    std::thread::Builder::new().name("kafka-end".into()).spawn(move || end(before.producer));
                true
            }
            Err(error) => {
                self.voice.error(&error);
                false
            }
        }
    }
}

/// Has a producer report everything that it has. It is dropped here, and not by who is just handing something over to it.
fn end(mut producer: Arc<Producer<Reports>>) {
    loop {
        producer.inner().purge(PurgeConfig::default().queue().inflight());
        // What does not come in time comes when it is dropped.
        let _ = producer.inner().flush(REPORTS_MAX);
        match Arc::try_unwrap(producer) {
            Ok(last) => return drop(last),
            Err(shared) => producer = shared,
        }
        std::thread::sleep(SHARED_AGAIN);
    }
}

fn make(
    config: &ClientConfig,
    voice: &Arc<Voice>,
    delivered: &Arc<AtomicU64>,
) -> KafkaResult<Arc<Producer<Reports>>> {
    let reports = Reports { voice: Arc::clone(voice), delivered: Arc::clone(delivered) };
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
        if result.is_ok() {
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        cargo.report(result.as_ref().err().map(|(error, message)| {
            (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), message.payload())
        }));
    }
}
