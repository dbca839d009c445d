//! A trial of Kafka: every broker by itself, step by step; then, through librdkafka, what they are asked for.
//!
//! Nothing joins a group, commits, or makes a topic: what runs elsewhere notices nothing.

mod cluster;
mod reach;
mod settings;
mod tls;
mod wire;

use super::{Step, Steps};
use crate::config::SourceConfig;
use crate::config::kafka::ClientConfig;
use crate::diagnosis::Diagnostic;
use crate::sink::kafka::KafkaParams as SinkParams;
use crate::source::kafka::KafkaParams as SourceParams;
use cluster::{Cluster, Makes};
use settings::Settings;

/// Brokers of one entry that are tried.
const BROKERS_MAX: usize = 16;

/// Tries a source.
pub(super) fn source(key: &str, params: &SourceParams) -> Vec<Step> {
    let group = params.group_id.clone().unwrap_or_else(|| format!("{key}_group"));
    let mut steps = Steps::default();
    let Some(cluster) = reach(&params.brokers.0, &params.config, &group, &mut steps) else { return steps.0 };
    let Some(topics) =
        steps.step("topic", || cluster.topics(&params.topic.0, Makes::when(params.create_topics)))
    else {
        return steps.0;
    };
    if steps.step("group", || cluster.group(&group, &params.config)).is_some() {
        steps.step("lag", || cluster.lag(&topics, &params.start));
    }
    steps.0
}

/// Tries a sink; a topic that depends on the source is tried as this one would have it.
pub(super) fn sink(params: &SinkParams, source: Option<&SourceConfig>) -> Vec<Step> {
    let mut steps = Steps::default();
    let Some(cluster) = reach(&params.brokers.0, &params.config, "wpgen_trial", &mut steps) else {
        return steps.0;
    };
    let key = source.map_or("source", |source| &source.key);
    let topic = params.topic.as_deref().unwrap_or_default().replace("{source}", key);
    let topic = steps.step("topic", || cluster.topics(std::slice::from_ref(&topic), Makes::FirstMessage));
    if params.transactional && topic.is_some() {
        steps.step("transactions", || Ok(((), untried(params))));
    }
    steps.0
}

/// Why the right to a transactional.id is not tried: the broker answers only who takes the id, and that puts out the engine
/// which has it.
fn untried(params: &SinkParams) -> String {
    let id = params.transactional_id.as_deref().map_or("its own id".to_owned(), |id| format!("'{id}'"));
    format!(
        "not tried, as asking would stop an engine that uses {id}; a start says WP206 where there is no right to it"
    )
}

/// Every broker, then the cluster behind them; nothing when none can be reached, or it does not answer.
fn reach(brokers: &[String], config: &ClientConfig, group: &str, steps: &mut Steps) -> Option<Cluster> {
    let settings = match Settings::of(config) {
        Ok(settings) => settings,
        Err(finding) => return steps.step("config", || Err(finding)),
    };
    let all: Vec<&str> = brokers.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    let client = steps.step("config", || Cluster::new(&all.join(","), config, group))?;
    let tried = all.iter().take(BROKERS_MAX);
    let results: Vec<(Vec<Step>, bool)> = std::thread::scope(|scope| {
        let settings = &settings;
        let threads: Vec<_> =
            tried.map(|broker| scope.spawn(move || reach::broker(broker, settings))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let reached = results.iter().any(|(_, well)| *well);
    steps.0.extend(results.into_iter().flat_map(|(steps, _)| steps));
    if !reached {
        return None;
    }
    steps.step("metadata", || client.metadata().map(|found| ((), found)))?;
    Some(client)
}

/// A finding in front of which stands nobody's name: the table has it already.
fn about(error: rdkafka::types::RDKafkaErrorCode, text: &str) -> Diagnostic {
    crate::kafka::blame::blame("the cluster", error, text)
}
