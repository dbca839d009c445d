//! Kafka topics.

use crate::config::kafka::{ClientConfig, check_brokers};
use crate::config::kinds::Check;
use crate::config::params::{Param, Shape, params, words, wrong_type, wrong_value};
use crate::config::tree::{Node, Table, Value};
use crate::config::types::OneOrMany;
use crate::diagnosis::{Code, Diagnostic, Findings};

params! {
    /// The parameters of a kafka source.
    pub struct KafkaParams {
        /// The brokers to begin with, as "host:port".
        brokers: OneOrMany<String>;
        /// Topics to read; one that begins with `^` is a regular expression.
        topic: OneOrMany<String>;
        /// The consumer group; without it the source's key and "_group".
        group_id: Option<String>;
        /// Any of librdkafka's properties; `_` in a key means `.`.
        config: ClientConfig;
        /// Where a group without offsets begins: earliest, latest or a time.
        start: Start = "earliest";
        /// Whether topics that do not exist are made.
        create_topics: bool = false;
        /// Whether one message is one record or its lines are.
        split: Split = "none";
        /// How each record is decoded.
        encode: Encode = "text";
    }
}

words! {
    /// What a message is.
    pub enum Split {
        /// One record.
        None = "none",
        /// Its lines are records.
        Lines = "lines",
    }
}

words! {
    /// How a record is decoded.
    pub enum Encode {
        /// It stands for itself.
        Text = "text",
        /// Base64, standard or URL alphabet, padding optional.
        Base64 = "base64",
        /// Hexadecimal, either case.
        Hex = "hex",
    }
}

/// Where a group without offsets begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first message there is.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first one not older than this, in milliseconds since 1970.
    Timestamp(i64),
}

impl Param for Start {
    const SHAPE: Shape = Shape::Text("earliest, latest or a time as \"2026-01-31T00:00:00Z\"");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let text = match &node.value {
            Value::Text(text) | Value::Datetime(text) => text.as_str(),
            _ => {
                wrong_type(node, name, &Self::SHAPE, findings);
                return None;
            }
        };
        match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            time => match time.parse::<jiff::Timestamp>() {
                Ok(time) => Some(Self::Timestamp(time.as_millisecond())),
                Err(_) => {
                    wrong_value(node, name, &format!("'{time}' is not {}", Self::SHAPE.words()), findings);
                    None
                }
            },
        }
    }
}

impl Check for KafkaParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        check_brokers(&self.brokers.0, "a kafka source", table, findings);
        if self.topic.0.is_empty() {
            let finding = Diagnostic::error(Code::WP404, "a kafka source needs 'topic'").at(table.place());
            findings.push(finding.help("name what it reads:\ntopic = \"app_logs\""));
        }
        for (topic, why) in self.topic.0.iter().filter_map(|topic| Some((topic, wrong_topic(topic)?))) {
            let message = format!("wrong value for 'topic': '{topic}' {why}");
            findings.push(Diagnostic::error(Code::WP404, message).at(table.place_of("topic")));
        }
        if self.group_id.as_deref().is_some_and(str::is_empty) {
            let finding = Diagnostic::error(Code::WP404, "wrong value for 'group_id': it is empty");
            findings.push(
                finding
                    .at(table.place_of("group_id"))
                    .help("name the group, or leave it out: then it is the source's key and \"_group\""),
            );
        }
    }
}

/// Why there can be no such pattern of topics.
fn wrong_topic(topic: &str) -> Option<String> {
    if !topic.starts_with('^') {
        return None;
    }
    #[cfg(feature = "kafka")]
    if let Some(why) = crate::kafka::native::pattern_refusal(topic) {
        return Some(format!("is no regular expression: {why}"));
    }
    None
}
