//! WP2xx: Kafka.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP201,
        phrases: &["Failed to connect to Kafka cluster", "Connection refused", "Timeout while connecting to Kafka"],
        finds: "for each broker: name resolution, TCP, TLS, API version, metadata; the step that fails, and its time",
        mend: "correct 'brokers', or open the way to the step that fails",
        explain: "\
A broker is reached in steps, and the finding names the one that fails. A broker answers with the addresses it
advertises: when the first connection works and the next does not, it is those that cannot be reached from here.",
        fails: "brokers = \"kafka1:9093\"      # the TLS port, without TLS",
        works: "brokers = [\"kafka1:9092\", \"kafka2:9092\"]",
    },
    Entry {
        code: Code::WP202,
        phrases: &["SASL authentication failed", "SSL handshake failed"],
        finds: "the mechanisms the broker offers against the one set; the certificate's subject, expiry and failed check",
        mend: "set sasl_mechanisms to one the broker offers, or name the authority that signed its certificate",
        explain: "\
Without sasl_mechanisms librdkafka assumes GSSAPI (Kerberos), which is seldom meant: set it. A failed handshake is
a certificate that has expired, was signed by an unknown authority, or is for another name.",
        fails: "config = { security_protocol = \"SASL_SSL\", sasl_username = \"u\", sasl_password = \"...\" }",
        works: "config = { security_protocol = \"SASL_SSL\", sasl_mechanisms = \"PLAIN\", ... }",
    },
    Entry {
        code: Code::WP203,
        phrases: &["Topic not found", "Unknown topic or partition"],
        finds: "topics of a near name on the broker, and whether making one is allowed",
        mend: "correct 'topic', or make it: create_topics = true",
        explain: "\
The broker knows no topic of this name, or we may not see it: a missing right to describe a topic looks the same.
A topic that begins with ^ is a regular expression and may match none for now.",
        fails: "topic = \"app_log\"",
        works: "topic = \"app_logs\"",
    },
    Entry {
        code: Code::WP204,
        phrases: &["Consumer group rebalance failed", "Max poll interval exceeded"],
        finds: "members and generation of the group, the time between polls, and what the sink took",
        mend: "raise session_timeout_ms or max_poll_interval_ms, or mend the sink that holds up",
        explain: "\
A member that does not answer in time is put out of its group, and its partitions move. wpgen pauses partitions
under backpressure and stays in the group, so this points at the network, or at another member of the group.",
        fails: "config = { session_timeout_ms = 1000 }",
        works: "config = { session_timeout_ms = 30000, heartbeat_interval_ms = 3000 }",
    },
    Entry {
        code: Code::WP205,
        phrases: &["consumer lag"],
        finds: "lag for each partition and its trend, and the stage that limits",
        mend: "widen the stage that limits; more partitions where one consumer is not enough",
        explain: "\
Producers write faster than is read here. Lag that grows evenly on all partitions comes from our side (sink,
CPU, network); on a single one, from a key that gets most of the messages.",
        fails: "config = { fetch_min_bytes = 1 } with a sink that syncs each batch",
        works: "config = { fetch_min_bytes = 102400 }",
    },
];
