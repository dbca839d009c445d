//! librdkafka's settings: what the engine sets, and what the configuration says over it.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::kafka;

/// Between two reports of a client's statistics, from which the lag is read, in milliseconds.
const STATISTICS_MS: u64 = 2000;
/// What a consumer fetches ahead, KiB: enough for a few fetches, and little beside `memory_limit`.
pub const FETCHED_KIB: u64 = 16 << 10;

/// How long no more is fetched of a partition when that much is waiting. librdkafka's second is ten times as long as a fast
/// source takes for all of it.
const FETCH_AGAIN_MS: u64 = 20;

/// Between two questions whether the topics that are read are still there, and which ones a `^regex` is for by now. Of a topic
/// that is deleted librdkafka learns in no other way, and five minutes, as it has it, is long for a source that has gone silent.
const REFRESH_MS: u64 = 10_000;

/// librdkafka's own, where nothing else is said.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;

/// What the configuration may say otherwise.
const BOTH: &[(&str, &str)] = &[("client.id", "wpgen")];
const CONSUMER: &[(&str, &str)] = &[("partition.assignment.strategy", "cooperative-sticky")];
/// A sink waits as long as it takes.
const PRODUCER: &[(&str, &str)] = &[("message.timeout.ms", "0")];

/// What librdkafka says against a property, when it does not take it.
pub fn refusal(name: &str, value: &str) -> Option<String> {
    // To set it loads the libraries it names.
    if name == "plugin.library.paths" {
        return None;
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(_, why, ..)) => Some(why),
        Err(error) => Some(error.to_string()),
        Ok(_) => None,
    }
}

fn client(brokers: &[String], given: &kafka::ClientConfig, defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in BOTH.iter().chain(defaults) {
        config.set(*name, *value);
    }
    for (name, value) in &given.0 {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers.join(","));
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// The settings of a consumer of a group.
pub fn consumer(brokers: &[String], group: &str, given: &kafka::ClientConfig) -> ClientConfig {
    let mut config = client(brokers, given, CONSUMER);
    let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    for (name, value) in fixed {
        config.set(name, value);
    }
    set_unless_given(&mut config, "queued.max.messages.kbytes", FETCHED_KIB);
    set_unless_given(&mut config, "fetch.queue.backoff.ms", FETCH_AGAIN_MS);
    set_unless_given(&mut config, "topic.metadata.refresh.interval.ms", REFRESH_MS);
    set_unless_given(&mut config, "statistics.interval.ms", STATISTICS_MS);
    config
}

fn set_unless_given(config: &mut ClientConfig, name: &str, value: u64) {
    if config.get(name).is_none() {
        config.set(name, value.to_string());
    }
}

/// The settings of somebody who makes topics.
pub fn admin(brokers: &[String], given: &kafka::ClientConfig) -> ClientConfig {
    client(brokers, given, &[])
}

/// What a consumer of these settings may fetch ahead, bytes.
pub fn fetched_bytes(config: &ClientConfig) -> usize {
    let kib = config.get("queued.max.messages.kbytes").and_then(|kib| kib.parse::<usize>().ok());
    kib.unwrap_or(FETCHED_KIB as usize).saturating_mul(1024)
}

/// The settings of a producer that neither loses nor doubles by itself.
pub fn producer(brokers: &[String], given: &kafka::ClientConfig) -> ClientConfig {
    let mut config = client(brokers, given, PRODUCER);
    config.set("enable.idempotence", "true");
    set_unless_given(&mut config, "statistics.interval.ms", STATISTICS_MS);
    config
}

/// The settings of a producer of transactions. What is not acknowledged within one is aborted with it, so no message has a
/// time of its own.
pub fn transactional_producer(brokers: &[String], given: &kafka::ClientConfig, id: &str) -> ClientConfig {
    let mut config = client(brokers, given, &[]);
    config.set("enable.idempotence", "true").set("transactional.id", id);
    set_unless_given(&mut config, "statistics.interval.ms", STATISTICS_MS);
    config
}

/// How long a transaction of a producer of these settings may be open, before the broker aborts it.
pub fn transaction_timeout(config: &ClientConfig) -> Duration {
    let ms = config.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(TRANSACTION_TIMEOUT_MS))
}

/// The settings of somebody who only reads what is committed, and is no member of any group.
pub fn reader(brokers: &[String], group: &str, given: &kafka::ClientConfig) -> ClientConfig {
    let mut config = consumer(brokers, group, given);
    config.set("isolation.level", "read_committed").remove("statistics.interval.ms");
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_over_the_defaults_and_not_over_the_promise() {
        let mut given = kafka::ClientConfig::default();
        for (name, value) in [
            ("client.id", "mine"),
            ("enable.auto.commit", "true"),
            ("enable.idempotence", "false"),
            ("queued.max.messages.kbytes", "100"),
        ] {
            given.0.insert(name.into(), value.into());
        }
        let brokers = ["a:1".to_owned(), "b:2".to_owned()];
        let config = consumer(&brokers, "g", &given);
        let get = |name| config.get(name);
        assert_eq!((get("client.id"), get("bootstrap.servers")), (Some("mine"), Some("a:1,b:2")));
        assert_eq!((get("enable.auto.commit"), get("group.id")), (Some("false"), Some("g")));
        assert_eq!(fetched_bytes(&config), 100 << 10);
        assert_eq!(producer(&brokers, &given).get("enable.idempotence"), Some("true"));
    }
}
