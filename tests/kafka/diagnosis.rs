//! WP201 to WP206, provoked for real, as `source test` and `connectors test` tell them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::broker::{Broker, PASSWORD, SESSION_MS_MIN, plain};
use crate::cli::{Ran, run};
use crate::harness::{Site, fifo, until, until_ok};
use crate::oracle::{Sender, committed, make_topic, own_name};
use crate::stage::Stage;

/// What is tried, and what `source test` says.
struct Trial {
    site: Site,
    ran: Ran,
}

impl Trial {
    /// Of a source with these brokers, topic, and further lines.
    fn source(brokers: &str, topic: &str, more: &str) -> Self {
        let site = Site::empty();
        let source = format!("brokers = \"{brokers}\"\ntopic = \"{topic}\"\n{more}");
        site.configure_source("auto", "kafka_src", &source, "path = \"out\"");
        let ran = run(site.folder(), &["source", "test", "--source-id", "app"]);
        Self { site, ran }
    }

    /// What it says, however the table breaks its lines.
    fn words(&self) -> String {
        self.ran.out.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// That it fails so: the code, and words of cause and mend.
    fn fails(&self, code: &str, words: &[&str]) {
        assert_eq!(self.ran.code, Some(1), "{}", self.ran.out);
        for word in [&[code], words].concat() {
            assert!(self.words().contains(word), "{word:?} is not in {}{}", self.ran.out, self.ran.err);
        }
    }

    fn is_well(&self, words: &[&str]) {
        assert_eq!(self.ran.code, Some(0), "{}{}", self.ran.out, self.ran.err);
        for word in words {
            assert!(self.words().contains(word), "{word:?} is not in {}", self.ran.out);
        }
    }
}

/// The `config` of a source that signs in.
fn signed(mechanism: &str, user: &str, password: &str) -> String {
    format!(
        "config = {{ security_protocol = \"SASL_PLAINTEXT\", {mechanism} sasl_username = \"{user}\", \
         sasl_password = \"{password}\" }}"
    )
}

const PLAIN: &str = "sasl_mechanisms = \"PLAIN\",";
const SCRAM: &str = "sasl_mechanisms = \"SCRAM-SHA-256\",";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn every_step_of_a_broker_that_is_well_is_told_with_its_time() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("well");
    make_topic(&broker.plain(), &topic, 3);
    Sender::new(&broker.plain(), &topic).numbers(0, 1000);
    let steps = ["resolve", "connect", "versions", "sign in", "metadata", "topic", "group", "lag"];
    for (brokers, more, words) in [
        (broker.plain(), String::new(), ["not asked for", "1000 messages on 3 partitions"]),
        (broker.sasl(), signed(PLAIN, "good", PASSWORD), ["PLAIN is taken, of ", "3 partitions"]),
        (broker.sasl(), signed(SCRAM, "good", PASSWORD), ["SCRAM-SHA-256 is taken, of ", " is new"]),
        (
            broker.trusted(),
            format!(
                "config = {{ security_protocol = \"SSL\", ssl_ca_location = \"{}\" }}",
                broker.authority().display()
            ),
            ["TLS 1.3, verified; certificate of CN=server, until ", "3 partitions"],
        ),
    ] {
        let trial = Trial::source(&brokers, &topic, &more);
        trial.is_well(&[&steps[..], &words, &["ms "]].concat());
    }
    assert_eq!(committed(&broker.plain(), "app_group", &topic, 3), 0, "a trial commits nothing");
    let by_pattern = Trial::source(&broker.plain(), "^well-", "");
    by_pattern.is_well(&["^well- is for ", &topic]);
}

#[test]
fn wp201_a_broker_that_is_down_a_wrong_port_and_a_wrong_name() {
    let port = free_port();
    let trial = Trial::source(&format!("127.0.0.1:{port}"), "t", "");
    trial.fails(
        "[WP201]",
        &[
            "Failed to connect to Kafka cluster",
            "Connection refused (os error 111)",
            &format!("nothing listens on port {port} of this machine"),
            "start the broker, or correct the port in 'brokers'",
        ],
    );
    Trial::source("no-such-host.invalid:9092", "t", "")
        .fails("[WP201]", &["cannot resolve 'no-such-host.invalid'", "/etc/hosts"]);
}

#[test]
fn wp201_what_answers_is_no_kafka() {
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in garbage.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    Trial::source(&at.to_string(), "t", "")
        .fails("[WP201]", &["what answers is no Kafka: \"HTTP\"", "the port of a Kafka listener"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    Trial::source(&silent.local_addr().unwrap().to_string(), "t", "")
        .fails("[WP201]", &["it does not answer within 3 s"]);
}

#[test]
fn of_two_brokers_the_one_that_is_down_is_named_and_the_other_is_asked() {
    let Some(brokers) = plain() else { return };
    let topic = own_name("two");
    make_topic(&brokers, &topic, 1);
    let trial = Trial::source(&format!("127.0.0.1:{},{brokers}", free_port()), &topic, "");
    trial.fails("[WP201]", &["Connection refused", "lag"]);
    let corrected = Trial::source(&brokers, &topic, "");
    corrected.is_well(&["all well"]);
}

#[test]
fn wp202_a_wrong_password_mechanism_and_none_at_all() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("signed");
    make_topic(&broker.plain(), &topic, 1);
    for mechanism in [PLAIN, SCRAM] {
        Trial::source(&broker.sasl(), &topic, &signed(mechanism, "good", "wrong")).fails(
            "[WP202]",
            &[
                "SASL authentication failed",
                "Authentication failed",
                "correct sasl_username and sasl_password",
            ],
        );
    }
    Trial::source(&broker.sasl(), &topic, &signed("sasl_mechanisms = \"SCRAM-SHA-512\",", "good", PASSWORD))
        .fails(
            "[WP202]",
            &[
                "does not take the mechanism 'SCRAM-SHA-512'",
                "SCRAM-SHA-256",
                "config = { sasl_mechanisms = ",
            ],
        );
    // Without a mechanism librdkafka wants Kerberos, which it may not even have.
    Trial::source(&broker.sasl(), &topic, &signed("", "good", PASSWORD))
        .fails("[WP202]", &["librdkafka assumes GSSAPI (Kerberos)", "sasl_mechanisms = \"PLAIN\""]);
    Trial::source(&broker.sasl(), &topic, "").fails(
        "[WP202]",
        &["this listener asks who we are", "it offers ", "security_protocol = \"SASL_PLAINTEXT\""],
    );
    Trial::source(&broker.plain(), &topic, &signed(PLAIN, "good", PASSWORD))
        .fails("[WP202]", &["this listener does not ask who anybody is"]);
}

#[test]
fn wp202_an_expired_certificate_an_untrusted_one_and_the_wrong_kind_of_port() {
    let Some(broker) = Broker::shared() else { return };
    let tls = |ca: &std::path::Path| {
        format!("config = {{ security_protocol = \"SSL\", ssl_ca_location = \"{}\" }}", ca.display())
    };
    let ours = tls(&broker.authority());
    Trial::source(&broker.expired(), "t", &ours).fails(
        "[WP202]",
        &[
            "SSL handshake failed",
            "has expired",
            "certificate of CN=old, until 2021-01-02 00:00 UTC",
            "renew it",
        ],
    );
    Trial::source(&broker.trusted(), "t", &tls(&broker.authority().with_file_name("stranger.pem"))).fails(
        "[WP202]",
        &[
            "is signed by none of the authorities in ",
            "stranger.pem",
            "certificate of CN=server",
            "ssl_ca_location",
        ],
    );
    Trial::source(&broker.trusted(), "t", &tls(&broker.authority().with_file_name("namesake.pem"))).fails(
        "[WP202]",
        &["has only the name of one in ", "namesake.pem", "certificate of CN=server", "ssl_ca_location"],
    );
    Trial::source(&broker.trusted(), "t", "")
        .fails("[WP202]", &["speaks TLS only, and none is configured", "security_protocol = \"SSL\""]);
    Trial::source(&broker.plain(), "t", &ours)
        .fails("[WP202]", &["SSL handshake failed", "this listener speaks Kafka without TLS"]);
}

/// The `config` of a source that signs in within TLS, as the broker's `secret` listener wants it.
fn secret(broker: &Broker, password: &str) -> String {
    format!(
        "config = {{ security_protocol = \"SASL_SSL\", sasl_mechanisms = \"SCRAM-SHA-512\", sasl_username = \"good\", \
         sasl_password = \"{password}\", ssl_ca_location = \"{}\" }}",
        broker.authority().display()
    )
}

/// The `config` of a source with a certificate of its own.
fn mutual(broker: &Broker) -> String {
    let (certificate, key) = broker.client();
    format!(
        "config = {{ security_protocol = \"SSL\", ssl_ca_location = \"{}\", ssl_certificate_location = \"{}\", \
         ssl_key_location = \"{}\" }}",
        broker.authority().display(),
        certificate.display(),
        key.display()
    )
}

#[test]
fn scram_sha_512_in_tls_and_a_certificate_of_our_own_read_and_write() {
    let Some(broker) = Broker::shared() else { return };
    for (brokers, more) in [(broker.secret(), secret(broker, PASSWORD)), (broker.mutual(), mutual(broker))] {
        let topic = own_name("secret");
        make_topic(&broker.plain(), &topic, 3);
        let writing = Stage::writing(&brokers, &topic, &more);
        let text: String = (0..1000).map(|number| crate::oracle::message(number) + "\n").collect();
        std::fs::write(writing.site.path("in/a.log"), text).unwrap();
        let engine = writing.start();
        let stage = Stage::reading(&brokers, &topic, &own_name("group"), &more);
        let reading = stage.start();
        stage.await_lines(1000);
        engine.stop();
        reading.stop();
        crate::oracle::all_there(&stage.numbers(), 1000, 0);
        Trial::source(&brokers, &topic, &more).is_well(&["1000 messages on 3 partitions"]);
    }
}

#[test]
fn wp202_a_wrong_password_in_tls_and_no_certificate_where_one_is_wanted() {
    let Some(broker) = Broker::shared() else { return };
    Trial::source(&broker.secret(), "t", &secret(broker, "wrong"))
        .fails("[WP202]", &["SASL authentication failed", "correct sasl_username and sasl_password"]);
    let without = format!(
        "config = {{ security_protocol = \"SSL\", ssl_ca_location = \"{}\" }}",
        broker.authority().display()
    );
    let nobody = Trial::source(&broker.mutual(), "t", &without);
    let words = ["SSL handshake failed", "the broker refuses us", "ssl_certificate_location"];
    nobody.fails("[WP202]", &words);
    let stage = Stage::reading(&broker.mutual(), "t", &own_name("group"), &without);
    let engine = stage.start();
    until_ok("it says so", || {
        let log = stage.log();
        if log.contains("WP202") && log.contains("SSL handshake failed") { Ok(()) } else { Err(log) }
    });
    engine.stop();
}

#[test]
fn wp203_a_topic_that_is_not_there_and_one_that_we_may_not_see() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("app_logs");
    make_topic(&broker.plain(), &topic, 1);
    let near = topic.replace("logs", "log");
    let trial = Trial::source(&broker.plain(), &near, "");
    let mend = format!("topic = \"{topic}\"");
    trial.fails(
        "[WP203]",
        &["Topic not found: ", "Unknown topic or partition", &mend, "auto.create.topics.enable = false"],
    );
    Trial::source(&broker.plain(), &topic, "").is_well(&["1 partitions"]);
    Trial::source(&broker.plain(), &near, "create_topics = true").is_well(&["a start makes it"]);
    Trial::source(&broker.sasl(), &topic, &signed(PLAIN, "poor", PASSWORD))
        .fails("[WP203]", &["no right to the topic (TOPIC_AUTHORIZATION_FAILED)", "kafka-acls.sh"]);
}

#[test]
fn wp204_a_session_that_the_broker_does_not_take_and_an_interval_below_it() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("sessions");
    make_topic(&broker.plain(), &topic, 1);
    Trial::source(&broker.plain(), &topic, "config = { session_timeout_ms = 1000 }").fails(
        "[WP204]",
        &[
            "Consumer group rebalance failed",
            &format!("the broker takes {SESSION_MS_MIN} to "),
            "group.min.session.timeout.ms",
            "config = { session_timeout_ms = 45000 }",
        ],
    );
    Trial::source(&broker.plain(), &topic, "config = { max_poll_interval_ms = 1000 }").fails(
        "[WP204]",
        &["Max poll interval exceeded", "session.timeout.ms", "max_poll_interval_ms = 300000"],
    );
}

#[test]
fn wp204_a_group_that_we_may_not_use() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("half");
    make_topic(&broker.plain(), &topic, 1);
    broker.allow("poor", "Read", ["--topic", &topic]);
    Trial::source(&broker.sasl(), &topic, &signed(PLAIN, "poor", PASSWORD)).fails(
        "[WP204]",
        &["no right to the group (GROUP_AUTHORIZATION_FAILED)", "kafka-acls.sh", "--group GROUP"],
    );
}

#[test]
fn wp205_a_sink_that_stalls_while_messages_come() {
    let Some(brokers) = plain() else { return };
    let topic = own_name("lag");
    make_topic(&brokers, &topic, 3);
    let stage = Stage::reading(&brokers, &topic, &own_name("group"), "");
    fifo(&stage.out());
    let engine = stage.start();
    let sending = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sender = Sender::new(&brokers, &topic);
            let mut next = 0;
            while sending.load(Ordering::Relaxed) {
                sender.numbers(next, next + 100);
                next += 100;
            }
        });
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_ok("doctor tells the lag, where it is and what limits", || {
                let out = run(stage.site.folder(), &["doctor", "--json"]).out;
                let words = ["WP205", "messages behind", "most of it on", "its sinks limit"];
                if words.iter().all(|word| out.contains(word)) { Ok(()) } else { Err(out) }
            });
        }));
        sending.store(false, Ordering::Relaxed);
        told.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    Stage::kill(engine);
}

#[test]
fn wp206_a_transactional_id_that_we_may_not_use() {
    let Some(broker) = Broker::shared() else { return };
    let (from, to, group, id) = (own_name("from"), own_name("to"), own_name("group"), own_name("id"));
    make_topic(&broker.plain(), &from, 1);
    make_topic(&broker.plain(), &to, 1);
    for (operation, thing) in
        [("Read", ["--topic", &from]), ("Write", ["--topic", &to]), ("Read", ["--group", &group])]
    {
        broker.allow("poor", operation, thing);
    }
    let denied = signed(PLAIN, "poor", PASSWORD);
    let more = format!("{denied}\ntransactional_id = \"{id}\"");
    let words = [
        "WP206",
        "no right to the transactional.id (TRANSACTIONAL_ID_AUTHORIZATION_FAILED)",
        "--transactional-id ID",
    ];
    // What takes files must know what it has of them, and does not start.
    let filed = Stage::writing(&broker.sasl(), &to, &format!("transactional = true\n{more}"));
    let ran = run(filed.site.folder(), &["source", "start"]);
    assert_ne!(ran.code, Some(0));
    assert!(words.iter().all(|word| ran.err.contains(word)), "{}", ran.err);
    let stage = Stage::piping(&broker.sasl(), (&from, &denied), &group, &to, &more);
    let engine = stage.start();
    Sender::new(&broker.plain(), &from).numbers(0, 10);
    until_ok("it says so", || {
        let log = stage.log();
        if words.iter().all(|word| log.contains(word)) { Ok(()) } else { Err(log) }
    });
    let state = run(stage.site.folder(), &["source", "status", "--json"]).out;
    assert!(state.contains("WP206"), "{state}");
    broker.allow("poor", "Write", ["--transactional-id", &id]);
    until_ok("it goes on by itself", || {
        let found = committed(&broker.plain(), &group, &from, 1);
        if found == 10 { Ok(()) } else { Err(stage.log()) }
    });
    engine.stop();
    let told = stage.log().matches("WP206").count();
    assert!(told <= 3, "told seldom, and not {told} times: {}", stage.log());
}

#[test]
fn a_running_engine_says_the_code_seldom_counts_and_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let topic = own_name("running");
    make_topic(&broker.plain(), &topic, 1);
    let nowhere = format!("127.0.0.1:{}", free_port());
    let wrong = signed(PLAIN, "good", "wrong");
    let denied = signed(PLAIN, "poor", PASSWORD);
    let untrusted = "config = { security_protocol = \"SSL\" }";
    let short = "config = { session_timeout_ms = 1000 }";
    for (brokers, topic, more, code, phrase) in [
        (&nowhere, &topic, "", "WP201", "Failed to connect to Kafka cluster"),
        (&broker.sasl(), &topic, &wrong, "WP202", "SASL authentication failed"),
        (&broker.expired(), &topic, untrusted, "WP202", "SSL handshake failed"),
        (&broker.plain(), &own_name("nowhere"), "", "WP203", "Topic not found"),
        (&broker.sasl(), &topic, &denied, "WP204", "no right to the group"),
        (&broker.plain(), &topic, short, "WP204", "Consumer group rebalance failed"),
    ] {
        let stage = Stage::reading(brokers, topic, &own_name("group"), more);
        let engine = stage.start();
        until_ok(&format!("it says {code}"), || {
            let log = stage.log();
            if log.contains(code) && log.contains(phrase) { Ok(()) } else { Err(log) }
        });
        until("errors are counted", || stage.source()["errors"].as_u64().is_some_and(|n| n > 0));
        let told = stage.log().matches(code).count();
        assert!(told <= 3, "told seldom, and not {told} times: {}", stage.log());
        engine.stop();
    }
}

#[test]
fn connectors_test_tells_the_same_steps_and_so_does_a_sink() {
    let Some(brokers) = plain() else { return };
    let topic = own_name("connector");
    make_topic(&brokers, &topic, 2);
    let site = Site::empty();
    let params = [format!("brokers={brokers}"), format!("topic={topic}")];
    let mut args = vec!["connectors", "test", "--id", "kafka_sink", "--params", "transactional=true"];
    params.iter().for_each(|param| args.extend(["--params", param]));
    let ran = run(site.folder(), &args);
    assert!(ran.code == Some(0) && ran.out.contains("not tried"), "what is left out is told: {}", ran.out);
    for id in ["kafka_src", "kafka_sink"] {
        let mut args = vec!["connectors", "test", "--id", id];
        params.iter().for_each(|param| args.extend(["--params", param]));
        let ran = run(site.folder(), &args);
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        assert!(
            ["resolve", "connect", "versions", "metadata", "2 partitions"]
                .iter()
                .all(|w| ran.out.contains(w)),
            "{}",
            ran.out
        );
        let down = format!("brokers=127.0.0.1:{}", free_port());
        args[5] = &down;
        let ran = run(site.folder(), &args);
        assert!(ran.code == Some(1) && ran.out.contains("[WP201]"), "{}{}", ran.out, ran.err);
    }
}

#[test]
fn doctor_tells_the_step_that_fails() {
    let trial = Trial::source(&format!("127.0.0.1:{}", free_port()), "t", "");
    let ran = run(trial.site.folder(), &["doctor", "--json"]);
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(ran.out.contains("WP201") && ran.out.contains("Connection refused"), "{}", ran.out);
}
