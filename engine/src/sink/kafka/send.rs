//! The engine's view of a Kafka sink: its outlets, its figures, how it is.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::producer::Producer as _;

use super::forward::{Post, forward};
use super::outlets::{Outlet, Outlets, Whose};
use super::owner;
use super::params::{KafkaParams, topic_name};
use super::positions::{self, Positions};
use super::producer::Shared;
use super::transactor::{self, CALL_MAX, Works};
use super::witness::Witness;
use crate::batch::{Batch, Origin, SinkId};
use crate::diagnosis::{Code, Diagnostic};
use crate::kafka::assigned::{Assigned, Fault, Takes};
use crate::kafka::blame::{blame, unmade};
use crate::kafka::client;
use crate::kafka::voice::Voice;
use crate::keeper::Persist;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::Sink;
use crate::sink::template::Template;
use crate::status::{SinkState, SinkStatus};

/// How long a broker is waited for at the start, by a sink that must know what it has.
const RECALL_MAX: Duration = Duration::from_secs(30);
/// Between two attempts.
const RECALL_AGAIN: Duration = Duration::from_millis(200);

/// What became of what the sink was given, on all shards.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) rejected: AtomicU64,
}

impl Figures {
    /// A batch is delivered, but for what of it was rejected.
    pub(super) fn delivered(&self, batch: &Batch) {
        let left_out: u32 = batch.tickets.iter().map(|ticket| ticket.rejected).sum();
        self.batches.fetch_sub(1, Ordering::Relaxed);
        self.records.fetch_add((batch.records - left_out).into(), Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes().len() as u64, Ordering::Relaxed);
    }
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
    outlets: Arc<Mutex<Outlets>>,
    transactions: Option<Transactions>,
}

/// What a transactional sink has besides.
struct Transactions {
    post: Post,
    /// How far inputs are that it has from before.
    before: HashMap<u64, u64>,
}

/// What the transactions of a sink stand on.
pub struct Footing {
    /// The identity of the data folder.
    pub identity: String,
    /// The next id that an input gets.
    pub next_input: u64,
    /// Asks for a checkpoint.
    pub persist: Persist,
    /// Whether files feed it, so that it must know what it has of them.
    pub has_files: bool,
}

impl KafkaSink {
    /// A sink with its producer, which connects by itself.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn open(id: SinkId, key: &str, params: &KafkaParams) -> Result<Arc<Self>, Diagnostic> {
        Self::made(id, key, params, &client::producer(&params.brokers.0, &params.config))
    }

    /// A sink that makes transactions. Where files feed it, it first learns what it has of them, and that takes a broker.
    ///
    /// # Errors
    /// Settings that librdkafka refuses; what it has of files cannot be known.
    pub fn open_transactional(
        id: SinkId,
        key: &str,
        params: &KafkaParams,
        footing: Footing,
    ) -> Result<Arc<Self>, Diagnostic> {
        let mine = || format!("wpgen-{}-{key}", footing.identity);
        let name = params.transactional_id.clone().unwrap_or_else(mine);
        let config = client::transactional_producer(&params.brokers.0, &params.config, &name);
        let made = Self::made(id, key, params, &config)?;
        let mut sink = Arc::into_inner(made).expect("nobody else has it yet");
        let begun = begin(&sink, params, &config, name, footing)?;
        sink.opened.push_str(&begun.0);
        sink.transactions = Some(begun.1);
        Ok(Arc::new(sink))
    }

    fn made(
        id: SinkId,
        key: &str,
        params: &KafkaParams,
        config: &ClientConfig,
    ) -> Result<Arc<Self>, Diagnostic> {
        let who = format!("sink '{key}'");
        let voice = Arc::new(Voice::new(who.clone()));
        let producer = Shared::new(config.clone(), voice).map_err(|error| unmade(&who, &error))?;
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
            outlets: Arc::default(),
            transactions: None,
        }))
    }

    fn outlets(&self) -> MutexGuard<'_, Outlets> {
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts what makes the transactions; also says so, for people.
fn begin(
    sink: &KafkaSink,
    params: &KafkaParams,
    config: &ClientConfig,
    name: String,
    footing: Footing,
) -> Result<(String, Transactions), Diagnostic> {
    let (brokers, given) = (&params.brokers.0, &params.config);
    let who = sink.producer.voice.who().to_owned();
    let mut positions = Positions {
        who: who.clone(),
        topic: params.state_topic.clone(),
        prefix: positions::prefix(&footing.identity, &sink.key),
        admin: client::admin(brokers, given),
        reader: client::reader(brokers, &name, given),
        persist: footing.persist,
        is_made: false,
        known: HashSet::new(),
    };
    let mut before = HashMap::new();
    if footing.has_files {
        before = recall(&sink.producer, &mut positions, footing.next_input)?;
    }
    let has_stopped: Arc<AtomicBool> = Arc::default();
    let said = format!(", transactions as {name}");
    let works = Works {
        producer: Arc::clone(&sink.producer),
        figures: Arc::clone(&sink.figures),
        positions,
        witness: Witness { who: who.clone(), brokers: brokers.clone(), config: given.clone() },
        id: name,
        interval: params.transaction_interval,
        open_max: client::transaction_timeout(config),
        is_known: footing.has_files,
        has_stopped: Arc::clone(&has_stopped),
    };
    let letters = transactor::start(&sink.key, works)
        .map_err(|error| Diagnostic::plain(format!("{who}: its thread cannot be started: {error}")))?;
    let post =
        Post { outlets: Arc::clone(&sink.outlets), letters, figures: Arc::clone(&sink.figures), has_stopped };
    Ok((said, Transactions { post, before }))
}

/// Ends what an earlier run has left open, and reads how far files are.
fn recall(
    producer: &Shared,
    positions: &mut Positions,
    next_input: u64,
) -> Result<HashMap<u64, u64>, Diagnostic> {
    let until = Instant::now() + RECALL_MAX;
    let asking = "a transactional sink that takes files must know what it has of them before it begins: \
                  the engine starts when Kafka answers";
    while let Err(error) = producer.now().inner().init_transactions(CALL_MAX) {
        let fault = Fault::from(error);
        if fault.takes == Takes::Producer || Instant::now() >= until {
            return Err(blame(producer.voice.who(), fault.code, &fault.text).note(asking));
        }
        std::thread::sleep(RECALL_AGAIN);
    }
    let found = loop {
        match positions.make().and_then(|()| positions.read()) {
            Ok(found) => break found,
            Err(unknown) if unknown.may_pass && Instant::now() < until => {
                log::debug!(target: "wpgen::kafka", "{}", unknown.finding.message);
                std::thread::sleep(RECALL_AGAIN);
            }
            Err(unknown) => return Err(unknown.finding.note(asking)),
        }
    };
    match found.keys().max().filter(|input| **input >= next_input) {
        None => Ok(found),
        Some(input) => Err(older(producer.voice.who(), &positions.topic, *input, next_input)),
    }
}

fn older(who: &str, topic: &str, input: u64, next_input: u64) -> Diagnostic {
    let message = format!(
        "{who}: the checkpoint in data_dir is older than what topic {topic} knows: it gives out input {next_input} next, and \
         the topic has input {input}"
    );
    Diagnostic::plain(message)
        .note("with it, positions of other files would be taken for those of new ones, and records left out")
        .help("put the newest data_dir back; or begin anew without its checkpoint: then files are read from the beginning again")
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
        // Whose offsets they are is nothing to a sink that commits none.
        let assignment = origin.assignment.as_ref().filter(|_| self.transactions.is_some());
        let assigned = assignment.and_then(Assigned::of).map(Whose);
        self.outlets().number(Outlet { topic, key, assigned })
    }

    fn outlet_name(&self, outlet: u32) -> String {
        let outlets = self.outlets();
        outlets.get(outlet).map_or_else(String::new, |outlet| outlet.name())
    }

    fn outlet_named(&self, name: &str) -> Option<u32> {
        Some(self.outlets().number(Outlet::named(name)))
    }

    fn wants_ends(&self) -> bool {
        true
    }

    fn start_owner(&self, shard: &Rc<Shard>, outlet: u32, intake: Rc<Intake>) {
        if let Some(transactions) = &self.transactions {
            let post = transactions.post.clone();
            tokio::task::spawn_local(forward(Rc::clone(shard), intake, outlet, post));
            return;
        }
        let outlet = self.outlets().get(outlet).cloned();
        let Some(outlet) = outlet else { return };
        let (producer, figures) = (Arc::clone(&self.producer), Arc::clone(&self.figures));
        tokio::task::spawn_local(owner::own(Rc::clone(shard), intake, outlet, producer, figures));
    }

    fn positions_before(&self) -> HashMap<u64, u64> {
        self.transactions.as_ref().map_or_else(HashMap::new, |transactions| transactions.before.clone())
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
