//! `bench send` into a topic, and `bench verify` of what a source wrote of it.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::broker::{Broker, plain};
use crate::cli::{Ran, run, wpgen};
use crate::flow::place;
use crate::harness::until;
use crate::oracle::{all_of, make_topic, own_name};
use crate::stage::Stage;

/// Sends into a topic, with the arguments `more`.
fn send(folder: &Path, to: &str, more: &[&str]) -> (Ran, Value) {
    let ran = run(folder, &[&["bench", "send", "--json", "--to", to], more].concat());
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    (ran, report)
}

#[test]
fn what_is_sent_into_a_topic_is_verified_behind_its_source() {
    let Some(brokers) = plain() else { return };
    let (topic, group) = place(&brokers, "load");
    let stage = Stage::reading(&brokers, &topic, &group, "");
    let engine = stage.start();
    let (folder, to) = (stage.site.folder(), format!("kafka://{brokers}/{topic}"));
    let (ran, sent) = send(folder, &to, &["--connections", "3", "--threads", "2", "--count", "20000"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!((&sent["sent"], &sent["io"]), (&20_000.into(), &"librdkafka".into()), "{sent}");
    assert_eq!((&sent["target"], &sent["unsent"]), (&to.as_str().into(), &Value::Null), "{sent}");
    let paced = ["--rate", "500", "--duration", "1s", "--format", "ndjson"];
    let (ran, paced) = send(folder, &to, &paced);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let all = 20_000 + paced["sent"].as_u64().unwrap();
    assert!(all > 20_000 && paced["asked_per_s"] == 500.0, "{paced}");
    stage.await_lines(usize::try_from(all).unwrap());
    engine.stop();
    let ran = run(folder, &["bench", "verify", "--json", "--sent", &all.to_string(), "out"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let account: Value = serde_json::from_str(&ran.out).unwrap();
    let of = |key: &str| account[key].as_u64().unwrap();
    assert_eq!((of("received"), of("lost"), of("duplicated"), of("corrupted")), (all, 0, 0, 0), "{account}");
    assert_eq!(of("reordered"), 0, "a connection's messages are in one partition: {account}");
    assert_eq!((of("connections"), of("connections_without_end")), (4, 0), "{account}");
}

#[test]
fn a_topic_that_cannot_be_written_to_is_told_before_anything_is_sent() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (brokers, words) in [
        ("127.0.0.1:1", ["[WP201]", "start the broker"]),
        (&broker.plain(), ["[WP203]", "make the topic"]),
        (&broker.sasl(), ["[WP20", "without TLS and SASL"]),
        (&broker.trusted(), ["[WP20", "without TLS and SASL"]),
    ] {
        let to = format!("kafka://{brokers}/{}", own_name("nowhere"));
        let ran = run(folder.path(), &["bench", "send", "--to", &to, "--count", "10"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{to}: {}", ran.err);
        let begins = ran.err.starts_with(&format!("error: cannot send to {to}: "));
        assert!(begins && words.iter().all(|word| ran.err.contains(word)), "{}", ran.err);
    }
}

#[test]
fn messages_that_the_topic_refuses_are_counted_and_said() {
    let Some(brokers) = plain() else { return };
    let (topic, _) = place(&brokers, "large");
    let folder = tempfile::tempdir().unwrap();
    let to = format!("kafka://{brokers}/{topic}");
    let (ran, report) = send(folder.path(), &to, &["--count", "100", "--size", "1MiB"]);
    let counted = (ran.code, &report["sent"], &report["unsent"], &report["limit"]);
    assert_eq!(counted, (Some(1), &0.into(), &100.into(), &"error".into()), "{report}");
    assert!(ran.err.contains("100 messages could not be sent"), "{}", ran.err);
    assert!(ran.err.contains("max.message.bytes"), "{}", ran.err);
    assert_eq!(all_of(&brokers, &topic), []);
}

#[test]
fn what_a_broker_that_dies_has_not_acknowledged_is_counted_as_unsent() {
    const MESSAGES: u64 = 10_000_000;
    let Some(broker) = Broker::start() else { return };
    let (brokers, topic) = (broker.plain(), own_name("dies"));
    make_topic(&brokers, &topic, 3);
    let folder = tempfile::tempdir().unwrap();
    let (to, count) = (format!("kafka://{brokers}/{topic}"), MESSAGES.to_string());
    let args =
        ["bench", "send", "--json", "--to", &to, "--count", &count, "--rate", "5k", "--connections", "4"];
    let child = wpgen(folder.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("something is there", || all_of(&brokers, &topic).len() > 1000);
    broker.kill();
    // Who does not want to wait until the messages' time is over asks for the end.
    // SAFETY: the process is our child and has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let ran = Ran::from(child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let of = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((ran.code, of("sent") + of("unsent")), (Some(130), MESSAGES), "{report}");
    assert!(
        ran.err.contains("[WP201]") && ran.err.contains("may be in the topic all the same"),
        "{}",
        ran.err
    );
    broker.restart();
    let found = all_of(&brokers, &topic).len() as u64;
    assert!(found >= of("sent") && of("sent") > 1000, "{found} are there, {report}");
}
