//! From parameters to a source: its consumer is made here, so that what librdkafka refuses refuses the start. It joins its
//! group when the source runs.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::book::Book;
use super::deliver::Rules;
use super::group::Member;
use super::params::{KafkaParams, Start};
use super::source::{KafkaSource, Settings};
use crate::assemble::Making;
use crate::diagnosis::Diagnostic;
use crate::kafka::assigned::Membership;
use crate::kafka::blame::unmade;
use crate::kafka::client;
use crate::kafka::native::Consumer;
use crate::kafka::voice::Voice;
use crate::source::part::Source;

/// Empty parcels that are kept.
const SPARE_PARCELS: usize = 32;

/// A Kafka source.
///
/// # Errors
/// Settings that librdkafka refuses.
pub fn make(making: &Making<'_>, params: &KafkaParams) -> Result<Arc<dyn Source>, Diagnostic> {
    let tags = making.config.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect();
    let rules = Rules {
        key: Arc::clone(&making.config.key),
        host: Arc::clone(making.host),
        tags,
        split: params.split,
        encode: params.encode,
        spare: Arc::new(ArrayQueue::new(SPARE_PARCELS)),
    };
    let next = Arc::clone(making.next_input);
    let group = group(&rules.key, params);
    let persist = Some(Arc::clone(making.persist));
    let book = Book::new(Arc::clone(&rules.key), group, making.before, next, persist);
    let made = source(rules, params, book, making.shards);
    Ok(Arc::new(made.map_err(|finding| finding.at(making.config.place.clone()))?))
}

/// The group it is a member of.
fn group(key: &str, params: &KafkaParams) -> String {
    params.group_id.clone().unwrap_or_else(|| format!("{key}_group"))
}

/// A source of these rules.
pub(super) fn source(
    rules: Rules,
    params: &KafkaParams,
    book: Book,
    shards: usize,
) -> Result<KafkaSource, Diagnostic> {
    let who = format!("source '{}'", rules.key);
    let group = group(&rules.key, params);
    let mut config = client::consumer(&params.brokers.0, &group, &params.config);
    config.set("auto.offset.reset", if params.start == Start::Latest { "latest" } else { "earliest" });
    let membership = Membership::new(group.clone());
    let voice = Arc::new(Voice::new(who.clone()));
    let member = Member::new(voice, params.start.clone(), Arc::new(book), Arc::clone(&membership));
    let made = config.create_with_context(member).map_err(|error| unmade(&who, &error))?;
    let consumer = Consumer::new(made, membership)
        .ok_or_else(|| Diagnostic::plain(format!("{who}: librdkafka makes no queue for messages")))?;
    let member = Arc::clone(consumer.context());
    member.set_diversion(consumer.diversion());
    let (brokers, topics) = (params.brokers.0.join(","), params.topic.0.join(", "));
    let settings = Settings {
        rules: Arc::new(rules),
        topics: params.topic.0.clone(),
        create_with: params.create_topics.then(|| client::admin(&params.brokers.0, &params.config)),
        opened: format!("kafka {brokers}, topic {topics}, group {group}"),
        fetched_bytes: client::fetched_bytes(&config),
        shards,
    };
    Ok(KafkaSource::new(settings, consumer, member))
}
