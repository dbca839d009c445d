//! The engine's view of a Kafka sink: its outlets, its figures, how it is.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::owner::{self, Outlet};
use super::params::KafkaParams;
use super::producer::Shared;
use crate::batch::{Origin, SinkId};
use crate::diagnosis::{Code, Diagnostic};
use crate::kafka::blame::unmade;
use crate::kafka::client;
use crate::kafka::voice::Voice;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::sink::template::Template;
use crate::status::{SinkState, SinkStatus};

/// Longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// What became of what the sink was given, on all shards.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) rejected: AtomicU64,
}

/// A Kafka sink.
pub struct KafkaSink {
    id: SinkId,
    key: String,
    format: Format,
    topic: Template,
    message_key: Option<Template>,
    opened: String,
    producer: Arc<Shared>,
    figures: Arc<Figures>,
    outlets: Mutex<Outlets>,
}

/// The outlets, by number and by what they are.
#[derive(Default)]
struct Outlets {
    numbers: HashMap<Outlet, u32>,
    all: Vec<Outlet>,
}

impl KafkaSink {
    /// A sink with its producer, which connects by itself.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn open(id: SinkId, key: &str, params: &KafkaParams) -> Result<Arc<Self>, Diagnostic> {
        let who = format!("sink '{key}'");
        let config = client::producer(&params.brokers.0, &params.config);
        let voice = Arc::new(Voice::new(who.clone()));
        let producer = Shared::new(config, voice).map_err(|error| unmade(&who, &error))?;
        let topic = params.topic.clone().unwrap_or_default();
        let parse = |text: &str| {
            let wrong = |error| Diagnostic::error(Code::WP404, format!("{who}: '{text}': {error}"));
            Template::parse(text).map_err(wrong)
        };
        Ok(Arc::new(Self {
            id,
            key: key.to_owned(),
            format: params.format,
            message_key: params.key.as_deref().map(parse).transpose()?,
            opened: format!("kafka {}, topic {topic}, {}", params.brokers.0.join(","), params.format.name()),
            topic: parse(&topic)?,
            producer: Arc::new(producer),
            figures: Arc::default(),
            outlets: Mutex::default(),
        }))
    }

    fn outlets(&self) -> MutexGuard<'_, Outlets> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text as a topic can be named: what Kafka does not allow becomes `_`.
fn topic_name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut name: String =
        text.chars().map(|c| if allowed(c) { c } else { '_' }).take(TOPIC_BYTES_MAX).collect();
    if matches!(&*name, "" | "." | "..") {
        name.push('_');
    }
    name
}

impl Sink for KafkaSink {
    fn id(&self) -> SinkId {
        self.id
    }

    fn format(&self) -> Option<Format> {
        Some(self.format)
    }

    fn outlet(&self, origin: &Origin) -> u32 {
        let topic = topic_name(&self.topic.text(origin));
        let key = self.message_key.as_ref().map(|key| key.text(origin));
        let outlet = Outlet { topic, key };
        let mut outlets = self.outlets();
        if let Some(number) = outlets.numbers.get(&outlet) {
            return *number;
        }
        let number = u32::try_from(outlets.all.len()).expect("there are far fewer topics than 2^32");
        outlets.all.push(outlet.clone());
        outlets.numbers.insert(outlet, number);
        number
    }

    fn outlet_name(&self, outlet: u32) -> String {
        let outlets = self.outlets();
        outlets.all.get(outlet as usize).map_or_else(String::new, |outlet| outlet.topic.clone())
    }

    fn wants_ends(&self) -> bool {
        true
    }

    fn start_owner(&self, shard: &Rc<Shard>, outlet: u32, intake: Rc<Intake>) {
        let outlet = self.outlets().all.get(outlet as usize).cloned();
        let Some(outlet) = outlet else { return };
        let (producer, figures) = (Arc::clone(&self.producer), Arc::clone(&self.figures));
        tokio::task::spawn_local(owner::own(Rc::clone(shard), intake, outlet, producer, figures));
    }

    fn status(&self) -> SinkStatus {
        let figures = &self.figures;
        let get = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        SinkStatus {
            key: self.key.clone(),
            records: get(&figures.records),
            bytes: get(&figures.bytes),
            repeated: get(&figures.repeated),
            batches_in_flight: get(&figures.batches),
            errors: self.producer.voice.errors() + get(&figures.rejected),
            state: self.producer.voice.trouble().map_or(SinkState::Ready, SinkState::Waiting),
            rescue: None,
        }
    }

    fn opened(&self) -> Vec<String> {
        vec![self.opened.clone()]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_as_kafka_allows() {
        for (text, name) in
            [("logs_app.1-x", "logs_app.1-x"), ("logs/a b:é", "logs_a_b__"), ("", "_"), ("..", ".._")]
        {
            assert_eq!(topic_name(text), name);
        }
        assert_eq!(topic_name(&"x".repeat(300)).len(), TOPIC_BYTES_MAX);
    }
}
