//! The sink that produces to Kafka.

use std::time::Duration;

use crate::config::kafka::{ClientConfig, check_brokers};
use crate::config::kinds::Check;
use crate::config::params::params;
use crate::config::tree::Table;
use crate::config::types::OneOrMany;
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::format::Format;
use crate::sink::template::Template;

/// Longest name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

params! {
    /// The parameters of a kafka sink.
    pub struct KafkaParams {
        /// The brokers to begin with, as "host:port".
        brokers: OneOrMany<String>;
        /// The topic; may hold {source}.
        topic: Option<String>;
        /// The key of each message; may hold {source}, {host} and {tag:name}.
        key: Option<String>;
        /// Any of librdkafka's properties; `_` in a key means `.`.
        config: ClientConfig;
        /// Whether batches are transactions: exactly once from Kafka and from files, for who reads read_committed.
        transactional: bool = false;
        /// The transactional.id, which no other engine may use; without it one of the data folder and the sink's key.
        transactional_id: Option<String>;
        /// How long a transaction goes on before it is committed.
        transaction_interval: Duration = "100ms", in 1..=10_000;
        /// The compacted topic that holds how far files are in committed transactions; it is made where there is none.
        state_topic: String = "wpgen-state";
        /// How a record is written.
        format: Format = "raw";
    }
}

impl Check for KafkaParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        check_brokers(&self.brokers.0, "a kafka sink", table, findings);
        self.check_transactional(table, findings);
        for (name, text) in [("topic", &self.topic), ("key", &self.key)] {
            check_template(name, text.as_deref().unwrap_or("x"), table, findings);
        }
        if let Some(topic) = &self.topic {
            check_topic(topic, table, findings);
        }
        if self.topic.is_none() {
            let finding = Diagnostic::error(Code::WP404, "a kafka sink needs 'topic'").at(table.place());
            findings.push(finding.help("name where it writes:\ntopic = \"logs_{source}\""));
        }
    }
}

impl KafkaParams {
    fn check_transactional(&self, table: &Table, findings: &mut Findings) {
        let wrong = |name: &str, why: &str, mend: &str| {
            let message = format!("wrong value for '{name}': {why}");
            Diagnostic::error(Code::WP404, message).at(table.place_of(name)).help(mend)
        };
        if !self.transactional {
            let idle = ["transactional_id", "transaction_interval", "state_topic"];
            for name in idle.into_iter().filter(|name| table.get(name).is_some()) {
                findings.push(wrong(name, "there are no transactions", "transactional = true"));
            }
            return;
        }
        if self.transactional_id.as_deref().is_some_and(str::is_empty) {
            let mend = "name one that no other engine uses, or leave it out";
            findings.push(wrong("transactional_id", "it is empty", mend));
        }
        if topic_name(&self.state_topic) != self.state_topic {
            let mend = "letters, digits, '.', '_' and '-', at most 249 of them";
            findings.push(wrong(
                "state_topic",
                &format!("'{}' cannot be a topic's name", self.state_topic),
                mend,
            ));
        }
    }
}

/// Tells what is wrong with a topic's or a key's text.
fn check_template(name: &str, text: &str, table: &Table, findings: &mut Findings) {
    let wrong = match Template::parse(text) {
        Err(error) => error.to_string(),
        Ok(template) if template.has_date() => "a date cannot stand there".to_owned(),
        Ok(_) => return,
    };
    let message = format!("wrong value for '{name}': '{text}': {wrong}");
    let finding = Diagnostic::error(Code::WP404, message).at(table.place_of(name));
    findings.push(finding.help("what may be put in is {source}, {host} and {tag:name}"));
}

/// Tells of a topic that no topic can be called, whatever is put into it.
fn check_topic(text: &str, table: &Table, findings: &mut Findings) {
    let Ok(template) = Template::parse(text) else { return };
    let is_whole = template.is_single();
    let is_name = |text: &str| if is_whole { topic_name(text) == text } else { text.chars().all(allowed) };
    if let Some(wrong) = template.literals().find(|text| !is_name(text)) {
        let message = format!("wrong value for 'topic': '{wrong}' cannot be in a topic's name");
        let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("topic"));
        findings.push(finding.help("letters, digits, '.', '_' and '-', at most 249 of them"));
    }
}

/// Whether Kafka allows it in the name of a topic.
fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The text as a topic can be named: what Kafka does not allow becomes `_`.
pub(super) fn topic_name(text: &str) -> String {
    let mut name: String =
        text.chars().map(|c| if allowed(c) { c } else { '_' }).take(TOPIC_BYTES_MAX).collect();
    if matches!(&*name, "" | "." | "..") {
        name.push('_');
    }
    name
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
