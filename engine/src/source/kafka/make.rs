//! From parameters to a source: its consumer is made here, so that what librdkafka refuses refuses the start. It joins its
//! group when the source runs.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::deliver::Rules;
use super::group::Member;
use super::params::{KafkaParams, Start};
use super::source::{KafkaSource, Settings};
use crate::assemble::Making;
use crate::diagnosis::Diagnostic;
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
    let key = &making.config.key;
    let who = format!("source '{key}'");
    let group = params.group_id.clone().unwrap_or_else(|| format!("{key}_group"));
    let mut config = client::consumer(&params.brokers.0, &group, &params.config);
    config.set("auto.offset.reset", if params.start == Start::Latest { "latest" } else { "earliest" });
    let refused = |error| unmade(&who, &error).at(making.config.place.clone());
    let member = Member::new(Arc::new(Voice::new(who.clone())), params.start.clone());
    let made = config.create_with_context(member).map_err(refused)?;
    let consumer = Consumer::new(made).ok_or_else(|| {
        Diagnostic::plain(format!("{who}: librdkafka makes no queue")).at(making.config.place.clone())
    })?;
    let member = Arc::clone(consumer.context());
    member.set_diversion(consumer.diversion());
    let rules = Rules {
        key: Arc::clone(key),
        host: Arc::clone(making.host),
        tags: making.config.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        split: params.split,
        encode: params.encode,
        spare: Arc::new(ArrayQueue::new(SPARE_PARCELS)),
    };
    let settings = Settings {
        rules: Arc::new(rules),
        topics: params.topic.0.clone(),
        create_with: params.create_topics.then(|| client::admin(&params.brokers.0, &params.config)),
        opened: format!(
            "kafka {}, topic {}, group {group}",
            params.brokers.0.join(","),
            params.topic.0.join(", ")
        ),
        commit_interval: making.checkpoint_interval,
        fetched_bytes: client::fetched_bytes(&config),
        shards: making.shards,
    };
    Ok(Arc::new(KafkaSource::new(settings, consumer, member)))
}
