//! The sink that produces to Kafka.

use crate::config::kafka::{ClientConfig, check_brokers};
use crate::config::kinds::Check;
use crate::config::params::params;
use crate::config::tree::Table;
use crate::config::types::OneOrMany;
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::format::Format;
use crate::sink::template::Template;

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
        /// Whether batches are transactions: exactly once from Kafka and from files.
        transactional: bool = false;
        /// How a record is written.
        format: Format = "raw";
    }
}

impl Check for KafkaParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        check_brokers(&self.brokers.0, "a kafka sink", table, findings);
        if self.transactional {
            let message = "'transactional' is not built yet: a kafka sink delivers at least once";
            let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("transactional"));
            findings
                .push(finding.help(
                    "leave it out: nothing is lost, and after a crash some records may be there twice",
                ));
        }
        for (name, text) in [("topic", &self.topic), ("key", &self.key)] {
            check_template(name, text.as_deref().unwrap_or("x"), table, findings);
        }
        if self.topic.is_none() {
            let finding = Diagnostic::error(Code::WP404, "a kafka sink needs 'topic'").at(table.place());
            findings.push(finding.help("name where it writes:\ntopic = \"logs_{source}\""));
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
