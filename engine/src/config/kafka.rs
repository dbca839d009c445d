//! librdkafka's properties as the configuration writes them.
//!
//! Either a table, whose keys write `_` for `.`, or an array of `"key=value"`. Java's clients have other names; those are
//! refused with librdkafka's counterpart, since librdkafka would only say that it does not know them. What would break the
//! promise of delivery is refused with the reason.

use std::collections::BTreeMap;
use std::fmt;

use super::params::{Param, Shape, wrong_type, wrong_value};
use super::tree::{Node, Table, Value};
#[cfg(feature = "kafka")]
use crate::diagnosis::nearest_of;
use crate::diagnosis::{Code, Diagnostic, Findings, Place};

/// librdkafka's properties, by their dotted names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ClientConfig(pub BTreeMap<String, String>);

impl fmt::Debug for ClientConfig {
    /// Names only where a value is a secret: a configuration is logged.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |key: &str| {
            ["password", "secret", "token", "jaas", "key.pem"].iter().any(|word| key.contains(word))
        };
        out.debug_map().entries(self.0.iter().map(|(k, v)| (k, if hidden(k) { "***" } else { v }))).finish()
    }
}

/// Names of Java's clients, and what librdkafka has for it.
const JAVA: &[(&str, &str)] = &[
    (
        "max.poll.records",
        "it hands over single messages; 'queued.max.messages.kbytes' bounds what it fetches ahead",
    ),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("buffer.memory", "queue.buffering.max.kbytes"),
    ("max.block.ms", "message.timeout.ms"),
    ("max.request.size", "message.max.bytes"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("ssl.truststore.location", "ssl.ca.location (a PEM file; a JKS store must be converted)"),
    ("ssl.truststore.password", "ssl.ca.location needs no password"),
    ("ssl.truststore.type", "ssl.ca.location takes PEM"),
    (
        "ssl.keystore.type",
        "ssl.keystore.location takes PKCS#12; PEM goes to ssl.certificate.location and ssl.key.location",
    ),
    ("ssl.enabled.protocols", "it takes what OpenSSL offers"),
    ("ssl.protocol", "it takes what OpenSSL offers"),
    ("sasl.jaas.config", "sasl.username and sasl.password"),
    ("sasl.login.callback.handler.class", "sasl.oauthbearer.method"),
    ("key.deserializer", "records are bytes: leave it out"),
    ("value.deserializer", "records are bytes: leave it out"),
    ("key.serializer", "records are bytes: leave it out"),
    ("value.serializer", "records are bytes: leave it out"),
    ("partitioner.class", "partitioner"),
    ("interceptor.classes", "plugin.library.paths"),
    ("metadata.max.idle.ms", "topic.metadata.refresh.interval.ms"),
    ("exclude.internal.topics", "topic.blacklist"),
    ("default.api.timeout.ms", "socket.timeout.ms"),
];

/// Names both kinds of client have under the same spelling: `sasl.mechanism` is an alias librdkafka takes.
const ALIASES: &[(&str, &str)] = &[("sasl.mechanism", "sasl.mechanisms")];

/// Properties that would break the promise of delivery, or that a parameter of its own sets.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "offsets are committed when every sink has the records, never before"),
    ("enable.auto.offset.store", "offsets are stored when every sink has the records, never before"),
    (
        "auto.commit.interval.ms",
        "offsets are committed when every sink has the records; checkpoint_interval says how often",
    ),
    ("enable.idempotence", "it is always on: without it a retry may double or reorder records"),
    ("enable.partition.eof", "the engine has its own use for it"),
    ("bootstrap.servers", "'brokers' says it"),
    ("metadata.broker.list", "'brokers' says it"),
    ("group.id", "'group_id' says it"),
    ("auto.offset.reset", "'start' says it"),
    ("transactional.id", "'transactional' says it"),
];

impl Param for ClientConfig {
    const SHAPE: Shape = Shape::Either(&Shape::Map, &Shape::List(&Shape::Text("\"key=value\"")));

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let mut config = Self::default();
        let before = findings.errors();
        match &node.value {
            Value::Table(table) => config.read_table(table, findings),
            Value::Array(items) => config.read_array(items, name, findings),
            _ => wrong_type(node, name, &Self::SHAPE, findings),
        }
        (findings.errors() == before).then_some(config)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl ClientConfig {
    fn read_table(&mut self, table: &Table, findings: &mut Findings) {
        for entry in &table.entries {
            let value = match &entry.value.value {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(value) => value.to_string(),
                _ => {
                    wrong_type(
                        &entry.value,
                        &entry.key,
                        &Shape::Text("a string, a number, true or false"),
                        findings,
                    );
                    continue;
                }
            };
            self.put(&entry.key, value, entry.place(), findings);
        }
    }

    fn read_array(&mut self, items: &[Node], name: &str, findings: &mut Findings) {
        for item in items {
            let Some(text) = item.as_text() else {
                wrong_type(item, name, &Shape::Text("a string \"key=value\""), findings);
                continue;
            };
            match text.split_once('=') {
                Some((key, value)) => self.put(key.trim(), value.trim().to_owned(), item.place(), findings),
                None => {
                    wrong_value(item, name, &format!("'{text}' has no '=' between key and value"), findings)
                }
            }
        }
    }

    fn put(&mut self, written: &str, value: String, place: Place, findings: &mut Findings) {
        let key = written.replace('_', ".");
        if let Some((_, why)) = REFUSED.iter().find(|(name, _)| *name == key) {
            let message = format!("property '{written}' is refused: {why}");
            findings.push(Diagnostic::error(Code::WP404, message).at(place).help("leave it out"));
            return;
        }
        let key = ALIASES.iter().find(|(name, _)| *name == key).map_or(key, |(_, name)| (*name).to_owned());
        if let Some((_, counterpart)) = JAVA.iter().find(|(name, _)| *name == key) {
            let message =
                format!("property '{written}' is one of Java's clients, librdkafka does not have it");
            findings.push(
                Diagnostic::error(Code::WP404, message).at(place).help(format!("librdkafka: {counterpart}")),
            );
            return;
        }
        if let Some(finding) = refused(written, &key, &value) {
            findings.push(finding.at(place));
            return;
        }
        if self.0.insert(key.clone(), value).is_some() {
            let message = format!("property '{key}' is there twice ('_' and '.' are the same)");
            findings.push(Diagnostic::error(Code::WP404, message).at(place));
        }
    }
}

/// What librdkafka says of a property that it does not take.
#[cfg(feature = "kafka")]
fn refused(written: &str, key: &str, value: &str) -> Option<Diagnostic> {
    let why = crate::kafka::client::refusal(key, value)?;
    if !why.starts_with("No such configuration property") {
        return Some(Diagnostic::error(Code::WP404, format!("wrong value for property '{written}': {why}")));
    }
    let finding = Diagnostic::error(Code::WP404, format!("unknown parameter '{written}' of librdkafka"));
    let written_as =
        |name: &str| if written.contains('.') { name.to_owned() } else { name.replace('.', "_") };
    let near =
        nearest_of(key, COMMON.iter().copied()).map(|near| format!("did you mean '{}'?", written_as(near)));
    Some(finding.help_if(near).help("its CONFIGURATION.md lists all properties"))
}

#[cfg(not(feature = "kafka"))]
fn refused(_: &str, _: &str, _: &str) -> Option<Diagnostic> {
    None
}

/// Properties that are often set: a near one is probably meant.
#[cfg(feature = "kafka")]
const COMMON: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "check.crcs",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "delivery.timeout.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "log.connection.close",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "topic.blacklist",
    "topic.metadata.refresh.interval.ms",
    "transaction.timeout.ms",
];

/// What may stand in front of a broker.
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// Tells brokers that are missing or not `host:port`.
pub fn check_brokers(brokers: &[String], of: &str, table: &Table, findings: &mut Findings) {
    if brokers.is_empty() {
        let finding = Diagnostic::error(Code::WP404, format!("{of} needs 'brokers'")).at(table.place());
        findings.push(finding.help("name one or more:\nbrokers = \"kafka1:9092,kafka2:9092\""));
    }
    for broker in brokers {
        let (protocol, host) = broker.split_once("://").unwrap_or((PROTOCOLS[0], broker));
        if !PROTOCOLS.iter().any(|known| protocol.eq_ignore_ascii_case(known)) {
            let message = format!(
                "wrong value for 'brokers': '{broker}' is not \"host:port\": Kafka has no {protocol}://"
            );
            let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("brokers"));
            findings.push(finding.help(format!("brokers = \"{}\"", host.trim_end_matches('/'))));
            continue;
        }
        let port = host.rsplit_once(':').map(|(_, port)| port);
        if host.is_empty() || port.is_some_and(|port| !host.ends_with(']') && port.parse::<u16>().is_err()) {
            let message = format!("wrong value for 'brokers': '{broker}' is not \"host:port\"");
            findings.push(Diagnostic::error(Code::WP404, message).at(table.place_of("brokers")));
        }
    }
}
