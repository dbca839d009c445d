//! What librdkafka reports, as findings: the row, the guide's words, and what mends it.
//!
//! librdkafka tells in one line of text what it has found, and a code that says less; so both are looked at. What takes
//! more steps to find out, `source test` does ([`crate::trial`]).

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::diagnosis::{Code, Diagnostic};
use crate::escape::escape_outside;

/// Bytes of librdkafka's words that are shown: they name a broker, a step and what OpenSSL says.
const SHOWN_BYTES_MAX: usize = 400;

/// What librdkafka reports about `who`, as a finding.
pub fn blame(who: &str, error: RDKafkaErrorCode, text: &str) -> Diagnostic {
    // It counts those that were down a moment before it says that all are.
    let uncounted = text.strip_prefix("0/").and_then(|counted| counted.split_once(' '));
    let text = uncounted.filter(|_| error == RDKafkaErrorCode::AllBrokersDown).map_or(text, |(_, text)| text);
    let said = crate::escape::escape_outside_to(text.as_bytes(), SHOWN_BYTES_MAX);
    match code(error, text) {
        Some(Code::WP202) => refused(who, error, &said),
        Some(Code::WP203) => topic(who, error, &said),
        Some(Code::WP204) => group(who, error, &said),
        Some(Code::WP206) => denied_id(&format!("{who}: {said}")),
        Some(code) => Diagnostic::error(code, format!("{who}: Failed to connect to Kafka cluster: {said}"))
            .help("correct 'brokers', or start the broker; it is tried again all the time")
            .help("wpgen source test: tells for each broker the step that fails"),
        None => Diagnostic::plain(format!("{who}: Kafka: {said}")),
    }
}

/// The row of what librdkafka reports, if it has one.
pub fn code(error: RDKafkaErrorCode, text: &str) -> Option<Code> {
    use RDKafkaErrorCode as E;
    Some(match error {
        E::Authentication
        | E::SSL
        | E::SaslAuthenticationFailed
        | E::UnsupportedSASLMechanism
        | E::IllegalSASLState
        | E::ClusterAuthorizationFailed
        | E::SecurityDisabled => Code::WP202,
        // Without a certificate of ours: TLS 1.3 says so behind the handshake.
        E::BrokerTransportFailure if is_alert(text) => Code::WP202,
        // What hangs up as soon as it is asked something mostly wants TLS, or to know who asks.
        E::BrokerTransportFailure if text.contains("security.protocol") || text.contains("SSL handshake") => {
            Code::WP202
        }
        E::UnknownTopicOrPartition
        | E::UnknownTopic
        | E::UnknownPartition
        | E::InvalidTopic
        | E::TopicAuthorizationFailed => Code::WP203,
        E::PollExceeded
        | E::InvalidSessionTimeout
        | E::GroupAuthorizationFailed
        | E::InconsistentGroupProtocol
        | E::InvalidGroupId
        | E::UnknownMemberId
        | E::IllegalGeneration
        | E::RebalanceInProgress
        | E::AssignmentLost
        | E::Fenced => Code::WP204,
        E::TransactionalIdAuthorizationFailed => Code::WP206,
        E::BrokerTransportFailure
        | E::AllBrokersDown
        | E::Resolve
        | E::OperationTimedOut
        | E::RequestTimedOut
        | E::NetworkException
        | E::BrokerNotAvailable
        | E::CoordinatorNotAvailable
        | E::MessageTimedOut
        | E::TimedOutQueue => Code::WP201,
        _ => return None,
    })
}

/// Whether the broker refuses us by an alert of TLS, as OpenSSL words it.
fn is_alert(text: &str) -> bool {
    text.contains("SSL alert number")
        || text.contains("alert bad certificate")
        || text.contains("alert certificate required")
}

fn refused(who: &str, error: RDKafkaErrorCode, said: &str) -> Diagnostic {
    if is_alert(said) {
        return Diagnostic::error(Code::WP202, format!("{who}: SSL handshake failed: the broker refuses us: {said}"))
            .help("it may want a certificate of ours: config = { ssl_certificate_location = \"...\", ssl_key_location = \"...\" }")
            .help("wpgen source test: shows the certificates, and which check fails");
    }
    if said.contains("SSL handshake failed") || error == RDKafkaErrorCode::SSL {
        let finding = Diagnostic::error(Code::WP202, format!("{who}: SSL handshake failed: {said}"));
        return finding
            .help("name the authority that signed the broker's certificate: config = { ssl_ca_location = \"/etc/wpgen/ca.pem\" }")
            .help("wpgen source test: shows the certificate, and which check it fails");
    }
    if said.contains("security.protocol") {
        let message = format!("{who}: SASL authentication failed: the broker hangs up: {said}");
        return Diagnostic::error(Code::WP202, message)
            .help("config = { security_protocol = \"SASL_PLAINTEXT\" }, or \"SSL\", or \"SASL_SSL\": as the broker's listener has it")
            .help("wpgen source test: tells what the listener speaks");
    }
    let finding = Diagnostic::error(Code::WP202, format!("{who}: SASL authentication failed: {said}"));
    if said.contains("mechanism handshake failed") || error == RDKafkaErrorCode::UnsupportedSASLMechanism {
        return finding.help("config = { sasl_mechanisms = \"...\" }: one of those that the broker supports");
    }
    if error == RDKafkaErrorCode::ClusterAuthorizationFailed {
        return finding.help(
            "the user is known, but an ACL is missing: kafka-acls.sh --add --allow-principal User:NAME",
        );
    }
    finding.help("correct sasl_username and sasl_password in 'config'")
}

fn topic(who: &str, error: RDKafkaErrorCode, said: &str) -> Diagnostic {
    if error == RDKafkaErrorCode::TopicAuthorizationFailed {
        return denied_topic(&format!("{who}: {said}"));
    }
    Diagnostic::error(Code::WP203, format!("{who}: Topic not found: {said}"))
        .help("correct 'topic', or make it: create_topics = true")
        .help("wpgen source test: names topics of a near name")
}

/// An ACL keeps us from a topic; `what` names it.
pub fn denied_topic(what: &str) -> Diagnostic {
    Diagnostic::error(Code::WP203, format!("{what}: no right to the topic (TOPIC_AUTHORIZATION_FAILED)"))
        .note("the broker knows who we are, and its ACLs do not let that user describe, read or write the topic")
        .help("kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Read --operation Describe --topic TOPIC")
}

/// An ACL keeps us from a group; `what` names it.
pub fn denied_group(what: &str) -> Diagnostic {
    let message = format!(
        "{what}: Consumer group rebalance failed: no right to the group (GROUP_AUTHORIZATION_FAILED)"
    );
    Diagnostic::error(Code::WP204, message)
        .note("the broker knows who we are, and its ACLs do not let that user read in the group")
        .help("kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Read --group GROUP")
        .help("or give 'group_id' a group it may use")
}

fn group(who: &str, error: RDKafkaErrorCode, said: &str) -> Diagnostic {
    match error {
        RDKafkaErrorCode::GroupAuthorizationFailed => denied_group(&format!("{who}: {said}")),
        RDKafkaErrorCode::PollExceeded => {
            let finding =
                Diagnostic::error(Code::WP204, format!("{who}: Max poll interval exceeded: {said}"));
            between_polls(said)
                .into_iter()
                .fold(finding, Diagnostic::note)
                .note("the group has taken the partitions away; they come back by themselves")
                .help("raise it: config = { max_poll_interval_ms = 300000 }")
        }
        RDKafkaErrorCode::InvalidSessionTimeout => session(who, said),
        _ => Diagnostic::error(Code::WP204, format!("{who}: Consumer group rebalance failed: {said}"))
            .help("raise it: config = { session_timeout_ms = 45000, heartbeat_interval_ms = 3000 }"),
    }
}

/// The time between two polls, of "(6000ms) exceeded by 255ms".
fn between_polls(said: &str) -> Option<String> {
    let number = |text: &str| text.split_once("ms")?.0.parse::<u64>().ok();
    let allowed = number(said.split_once("interval (")?.1)?;
    let over = number(said.split_once("exceeded by ")?.1)?;
    Some(format!("{} ms went by between two polls, and {allowed} are allowed", allowed + over))
}

fn session(who: &str, said: &str) -> Diagnostic {
    Diagnostic::error(Code::WP204, format!("{who}: Consumer group rebalance failed: {said}"))
        .note("the broker takes session_timeout_ms from its group.min.session.timeout.ms to group.max.session.timeout.ms only")
        .help("config = { session_timeout_ms = 45000, heartbeat_interval_ms = 3000 }")
}

/// An ACL keeps us from a transactional.id; `what` names it.
pub fn denied_id(what: &str) -> Diagnostic {
    let message = format!("{what}: no right to the transactional.id (TRANSACTIONAL_ID_AUTHORIZATION_FAILED)");
    Diagnostic::error(Code::WP206, message)
        .note("the broker knows who we are, and its ACLs do not let that user write in transactions of this id")
        .help("kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Write --operation Describe --transactional-id ID")
        .help("or give 'transactional_id' one that it may use")
}

/// Another producer has taken the transactional.id of `who`.
pub fn fenced(who: &str, id: &str, said: &str) -> Diagnostic {
    let said = crate::escape::escape_outside_to(said.as_bytes(), SHOWN_BYTES_MAX);
    let message = format!("{who}: fenced: another producer uses the transactional.id '{id}': {said}");
    Diagnostic::error(Code::WP206, message)
        .note("nothing more is written, so that nothing is there twice; the sources of this sink wait")
        .help("find the other engine: it has this data folder's copy, or the same 'transactional_id'; stop one of the two")
        .help("or give each an id of its own (transactional_id), and restart this one")
}

/// Why librdkafka makes no client from a configuration.
pub fn unmade(who: &str, error: &KafkaError) -> Diagnostic {
    let plain = |text: &str| escape_outside(text.as_bytes());
    match error {
        KafkaError::ClientConfig(_, why, key, _) => {
            let message = format!("{who}: librdkafka refuses the property '{}': {}", plain(key), plain(why));
            Diagnostic::error(Code::WP404, message).help("librdkafka's CONFIGURATION.md lists its properties")
        }
        KafkaError::ClientCreation(why) if why.contains("mechanism") => {
            let message = format!("{who}: SASL authentication failed: {}", plain(why));
            Diagnostic::error(Code::WP202, message)
                .note("without sasl_mechanisms librdkafka assumes GSSAPI (Kerberos), which is seldom meant")
                .help("config = { sasl_mechanisms = \"PLAIN\" }, or SCRAM-SHA-256, SCRAM-SHA-512: as the broker offers it")
        }
        KafkaError::ClientCreation(why) if why.contains("max.poll.interval") || why.contains("session.timeout") => {
            Diagnostic::error(Code::WP204, format!("{who}: Max poll interval exceeded at once: {}", plain(why)))
                .help("config = { session_timeout_ms = 45000, max_poll_interval_ms = 300000 }")
        }
        KafkaError::ClientCreation(why) if why.contains("ssl.") || why.contains("SSL") => {
            Diagnostic::error(Code::WP202, format!("{who}: SSL handshake failed: {}", plain(why)))
                .help("the files of ssl_ca_location, ssl_certificate_location and ssl_key_location are PEM, and readable for us")
        }
        KafkaError::ClientCreation(why) => {
            Diagnostic::error(Code::WP404, format!("{who}: librdkafka makes no client of this: {}", plain(why)))
        }
        other => Diagnostic::plain(format!("{who}: Kafka: {}", plain(&other.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_has_its_row_and_the_guides_words() {
        use RDKafkaErrorCode as E;
        for (error, text, row, words) in [
            (
                E::BrokerTransportFailure,
                "b:1/bootstrap: Connect failed",
                Code::WP201,
                "Failed to connect to Kafka cluster",
            ),
            (E::Resolve, "b:1: Failed to resolve", Code::WP201, "Failed to connect to Kafka cluster"),
            (E::AllBrokersDown, "0/1 brokers are down", Code::WP201, "Kafka cluster: brokers are down"),
            (E::AllBrokersDown, "2/2 brokers are down", Code::WP201, "Kafka cluster: 2/2 brokers are down"),
            (E::SSL, "SSL handshake failed: certificate verify failed", Code::WP202, "SSL handshake failed"),
            (
                E::BrokerTransportFailure,
                "b:1: sslv3 alert bad certificate (SSL alert number 42)",
                Code::WP202,
                "SSL handshake failed: the broker refuses us",
            ),
            (E::Authentication, "Invalid username or password", Code::WP202, "SASL authentication failed"),
            (
                E::BrokerTransportFailure,
                "verify that security.protocol is right",
                Code::WP202,
                "the broker hangs up",
            ),
            (E::UnknownTopicOrPartition, "t", Code::WP203, "Topic not found"),
            (E::TopicAuthorizationFailed, "t", Code::WP203, "no right"),
            (E::PollExceeded, "by 12 ms", Code::WP204, "Max poll interval exceeded"),
            (E::GroupAuthorizationFailed, "g", Code::WP204, "Consumer group rebalance failed"),
            (E::TransactionalIdAuthorizationFailed, "i", Code::WP206, "no right to the transactional.id"),
        ] {
            let finding = blame("source 'k'", error, text);
            assert_eq!(finding.code, Some(row), "{finding:?}");
            assert!(
                finding.message.starts_with("source 'k'") && finding.message.contains(words),
                "{finding:?}"
            );
            assert!(!finding.help.is_empty(), "{finding:?}");
        }
        let late =
            "Application maximum poll interval (6000ms) exceeded by 255ms (adjust max.poll.interval.ms)";
        let finding = blame("s", E::PollExceeded, late);
        assert_eq!(finding.notes[0], "6255 ms went by between two polls, and 6000 are allowed");
        assert_eq!(blame("s", E::PollExceeded, "late").notes.len(), 1);
        assert_eq!(blame("s", E::BadMessage, "x\n").message, "s: Kafka: x\\n");
    }
}
