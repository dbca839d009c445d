//! A transactional sink: for who reads what is committed, each record is there once, whoever is killed when.
//!
//! The oracle reads the topic as `read_committed`. That the tests would see what is there twice is shown by reading it as
//! `read_uncommitted` as well, where aborted transactions are.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker::{Broker, plain};
use crate::cli::run;
use crate::flow::{place, while_giving, while_sending};
use crate::harness::{Random, Started, until, until_ok};
use crate::oracle::{
    Found, Sender, all_of, all_of_level, all_there, committed, in_key_order, is_open, make_topic, members,
    message, number_of, own_name,
};
use crate::stage::{Stage, Words};

const PARTITIONS: i32 = 12;
const SESSION: &str = "config = { session_timeout_ms = 6000, heartbeat_interval_ms = 1000 }";

/// The numbers of messages of ours.
pub fn numbers(found: &[Found]) -> Vec<u64> {
    found.iter().map(|one| number_of(one.payload.as_deref().unwrap())).collect()
}

/// Everything that is committed of a topic of one partition: each of `0..upto` once, and in the order of its key.
pub fn exactly_once(brokers: &str, topic: &str, upto: u64) {
    until("no transaction is open", || !is_open(brokers, topic));
    let numbers = numbers(&all_of(brokers, topic));
    all_there(&numbers, upto, 0);
    assert!(in_key_order(&numbers));
}

/// Messages that are in a topic, aborted ones as well.
pub fn with_aborted(brokers: &str, topic: &str) -> u64 {
    all_of_level(brokers, topic, "read_uncommitted").len() as u64
}

/// Topics `from` and `to`, and a group.
pub fn places(brokers: &str, what: &str) -> (String, String, String) {
    let (from, group) = place(brokers, what);
    let to = own_name(&format!("{what}-to"));
    make_topic(brokers, &to, 1);
    (from, to, group)
}

/// Waits until a group has committed so many messages of a topic.
pub fn await_committed(stage: &Stage, brokers: &str, group: &str, topic: &str, sent: u64) {
    until_ok("all is committed", || {
        let found = committed(brokers, group, topic, PARTITIONS);
        let status = || crate::harness::status(stage.site.folder());
        if found == sent as i64 { Ok(()) } else { Err(format!("{found} of {sent}: {}", status())) }
    });
}

/// An engine between two topics, killed again and again while messages come.
pub fn killed(brokers: &str, seed: u64, kills: usize) {
    let (from, to, group) = places(brokers, "exactly");
    let stage = Stage::piping(brokers, (&from, SESSION), &group, &to, "");
    let _words = Words(&stage);
    let mut random = Random::new(seed);
    let mut engine = Some(stage.start());
    let sent = while_sending(brokers, &from, || {
        for _ in 0..kills {
            let before = committed(brokers, &group, &from, PARTITIONS);
            until("something has come", || committed(brokers, &group, &from, PARTITIONS) > before);
            random.pause_ms(700);
            engine.take().into_iter().for_each(Stage::kill);
            engine = Some(stage.start());
        }
    });
    await_committed(&stage, brokers, &group, &from, sent);
    engine.into_iter().for_each(Started::stop);
    let aborted = with_aborted(brokers, &to) - sent;
    eprintln!("seed {seed}, transactional: {sent} messages, {aborted} aborted");
    exactly_once(brokers, &to, sent);
}

/// An engine from files to a topic, killed again and again while a file grows and another one comes.
pub fn killed_with_files(brokers: &str, seed: u64, kills: usize) {
    const CHUNK: u64 = 20_000;
    let to = own_name("exactly-files");
    make_topic(brokers, &to, 1);
    let stage = Stage::writing(brokers, &to, "transactional = true");
    let _words = Words(&stage);
    let text = |from: u64| (from..from + CHUNK).map(|number| message(number) + "\n").collect::<String>();
    let upto = AtomicU64::new(0);
    let grow = |name: &str| {
        use std::io::Write as _;
        let from = upto.fetch_add(CHUNK, Ordering::Relaxed);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(stage.site.path(name));
        file.unwrap().write_all(text(from).as_bytes()).unwrap();
    };
    let mut random = Random::new(seed);
    grow("in/a.log");
    let mut engine = stage.start();
    for kill in 0..kills {
        // One that is new each time: its id is given out in a run that is killed.
        grow(&format!("in/{kill}.log"));
        grow("in/a.log");
        until("something has left", || stage.source()["records_in"].as_u64().is_some_and(|n| n > 0));
        random.pause_ms(400);
        Stage::kill(engine);
        engine = stage.start();
    }
    let all = upto.load(Ordering::Relaxed);
    until("all of it is there", || all_of(brokers, &to).len() as u64 >= all);
    engine.stop();
    let aborted = with_aborted(brokers, &to) - all;
    eprintln!("seed {seed}, transactional, of files: {all} records, {aborted} aborted");
    all_there(&numbers(&all_of(brokers, &to)), all, 0);
}

#[test]
fn kill_9_repeats_nothing_that_is_committed() {
    let Some(brokers) = plain() else { return };
    killed(&brokers, 11, 3);
}

#[test]
fn kill_9_repeats_nothing_of_files_that_is_committed() {
    let Some(brokers) = plain() else { return };
    killed_with_files(&brokers, 12, 3);
}

/// Has an engine stand still, by a signal, while a transaction of its is open in a topic.
fn stop_within(engine: &Started, brokers: &str, to: &str) {
    until("it stops with a transaction open", || {
        engine.signal(libc::SIGSTOP);
        // What it had sent may be on its way for a moment, also the end of the transaction.
        let found = with_aborted(brokers, to) > 0 && (0..50).all(|_| is_open(brokers, to));
        if !found {
            engine.signal(libc::SIGCONT);
        }
        found
    });
}

#[test]
fn what_was_open_when_the_engine_was_killed_is_aborted_and_sent_again() {
    let Some(brokers) = plain() else { return };
    let (from, to, group) = places(&brokers, "open");
    let stage = Stage::piping(&brokers, (&from, SESSION), &group, &to, "transaction_interval = \"1s\"");
    let _words = Words(&stage);
    let mut engine = Some(stage.start());
    let sent = while_sending(&brokers, &from, || {
        let killed = engine.take().unwrap();
        stop_within(&killed, &brokers, &to);
        Stage::kill(killed);
        engine = Some(stage.start());
    });
    await_committed(&stage, &brokers, &group, &from, sent);
    engine.into_iter().for_each(Started::stop);
    exactly_once(&brokers, &to, sent);
    assert!(with_aborted(&brokers, &to) > sent, "what was aborted is seen by who looks for it");
}

#[test]
fn an_engine_that_is_killed_before_a_checkpoint_was_due_comes_back_with_its_id() {
    use std::io::Write as _;
    let Some(brokers) = plain() else { return };
    let to = own_name("first");
    make_topic(&brokers, &to, 1);
    let stage = Stage::writing(&brokers, &to, "transactional = true\ntransaction_interval = \"10s\"");
    let _words = Words(&stage);
    let config = String::from_utf8(stage.site.read("wpsrc.toml")).unwrap();
    let seldom = config.replace("[engine]\n", "[engine]\ncheckpoint_interval = \"1h\"\n");
    std::fs::write(stage.site.path("wpsrc.toml"), seldom).unwrap();
    let mut file = std::fs::File::create(stage.site.path("in/a.log")).unwrap();
    let mut engine = Some(stage.start());
    let give = |numbers: std::ops::Range<u64>| {
        let text: String = numbers.map(|number| message(number) + "\n").collect();
        file.write_all(text.as_bytes()).unwrap();
    };
    let sent = while_giving(2000, give, || {
        let killed = engine.take().unwrap();
        stop_within(&killed, &brokers, &to);
        Stage::kill(killed);
        engine = Some(stage.start());
    });
    // Another id would have them wait for the end of the transaction that the first one left open: a minute.
    until("all of it is there", || all_of(&brokers, &to).len() as u64 >= sent);
    engine.into_iter().for_each(Started::stop);
    exactly_once(&brokers, &to, sent);
    let log = stage.log();
    let ids: Vec<&str> =
        log.split("transactions as ").skip(1).filter_map(|rest| rest.split(';').next()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
}

#[test]
fn an_engine_that_stands_still_longer_than_a_transaction_may_be_open_goes_on() {
    let Some(brokers) = plain() else { return };
    let (from, to, group) = places(&brokers, "still");
    let short = "transaction_interval = \"1s\"\nconfig = { transaction_timeout_ms = 3000 }";
    let stage = Stage::piping(&brokers, (&from, SESSION), &group, &to, short);
    let _words = Words(&stage);
    let engine = stage.start();
    let sent = while_sending(&brokers, &from, || {
        stop_within(&engine, &brokers, &to);
        until("the broker ends its transaction", || !is_open(&brokers, &to));
        let before = committed(&brokers, &group, &from, PARTITIONS);
        engine.signal(libc::SIGCONT);
        until("it goes on", || committed(&brokers, &group, &from, PARTITIONS) > before);
    });
    await_committed(&stage, &brokers, &group, &from, sent);
    engine.stop();
    assert!(stage.log().contains("the producer is begun anew"), "{}", stage.log());
    assert!(!stage.log().contains("WP206"), "nobody else has its id");
    exactly_once(&brokers, &to, sent);
}

#[test]
fn a_reload_that_changes_the_sink_repeats_nothing() {
    const EACH: u64 = 20_000;
    let Some(brokers) = plain() else { return };
    let (one, two) = (own_name("before"), own_name("after"));
    make_topic(&brokers, &one, 1);
    make_topic(&brokers, &two, 1);
    let stage = Stage::writing(&brokers, &one, "transactional = true");
    let _words = Words(&stage);
    let write = |from: u64| {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(stage.site.path("in/a.log"));
        let text: String = (from..from + EACH).map(|number| message(number) + "\n").collect();
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    let engine = stage.start();
    let figure = |name: &str| stage.source()[name].as_u64().unwrap_or(0);
    write(0);
    // The broker has made what it needs for transactions, which takes longer than a reload waits.
    until("its transactions go", || figure("delivered") == EACH);
    write(EACH);
    until("something has left", || figure("records_in") > EACH);
    let config = std::fs::read_to_string(stage.site.path("wpsrc.toml")).unwrap();
    std::fs::write(stage.site.path("wpsrc.toml"), config.replace(&*one, &two)).unwrap();
    let ran = run(stage.site.folder(), &["source", "reload"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    write(2 * EACH);
    until("all of it is delivered", || figure("delivered") == 3 * EACH);
    engine.stop();
    let found = [all_of(&brokers, &one), all_of(&brokers, &two)].concat();
    all_there(&numbers(&found), 3 * EACH, 0);
    assert!(!all_of(&brokers, &two).is_empty());
    assert!(!stage.log().contains("WP206"), "the newer one waits for the older one");
}

#[test]
fn a_broker_that_is_killed_and_comes_back_repeats_nothing() {
    let Some(broker) = Broker::start() else { return };
    let brokers = broker.plain();
    let (from, to, group) = places(&brokers, "exactly-broker");
    // A broker that is back is found soon.
    let soon = "reconnect_backoff_max_ms = 1000 }";
    let session = SESSION.replace(" }", &format!(", {soon}"));
    let stage = Stage::piping(&brokers, (&from, &session), &group, &to, &format!("config = {{ {soon}"));
    let _words = Words(&stage);
    let engine = stage.start();
    let sent = while_sending(&brokers, &from, || {
        for _ in 0..2 {
            let before = committed(&brokers, &group, &from, PARTITIONS);
            until("something has come", || committed(&brokers, &group, &from, PARTITIONS) > before + 1000);
            broker.kill();
            broker.restart();
        }
    });
    await_committed(&stage, &brokers, &group, &from, sent);
    engine.stop();
    exactly_once(&brokers, &to, sent);
}

#[test]
fn of_two_engines_with_one_id_the_older_one_stops_and_says_so() {
    let Some(brokers) = plain() else { return };
    let (from, to, group) = places(&brokers, "fenced");
    let id = format!("transactional_id = \"{}\"", own_name("id"));
    let pipe = || Stage::piping(&brokers, (&from, SESSION), &group, &to, &id);
    let (older, newer) = (pipe(), pipe());
    let first = older.start();
    Sender::new(&brokers, &from).numbers(0, 1000);
    await_committed(&older, &brokers, &group, &from, 1000);
    let second = newer.start();
    until("both are in the group", || members(&brokers, &group).1.len() == 2);
    // Each has a share: the older one tries to write its own.
    Sender::new(&brokers, &from).numbers(1000, 3000);
    until("the older one says why it stops", || older.log().contains("[WP206]"));
    assert!(older.log().contains("transactional_id"), "{}", older.log());
    let state = run(older.site.folder(), &["source", "status", "--json"]).out;
    assert!(state.contains("WP206"), "{state}");
    Stage::kill(first);
    await_committed(&newer, &brokers, &group, &from, 3000);
    assert!(!newer.log().contains("WP206"), "{}", newer.log());
    second.stop();
    exactly_once(&brokers, &to, 3000);
}

#[test]
fn partitions_that_move_between_engines_repeat_nothing() {
    let Some(brokers) = plain() else { return };
    let (from, to, group) = places(&brokers, "moved");
    // Nobody comes back with the id of one that is killed: what it has open is in the way until the broker ends it.
    let short = "config = { transaction_timeout_ms = 5000 }";
    let stages: Vec<Stage> =
        (0..3).map(|_| Stage::piping(&brokers, (&from, SESSION), &group, &to, short)).collect();
    let mut engines: Vec<Started> = stages[..2].iter().map(Stage::start).collect();
    let at_work = |count: usize| {
        until("they are in the group, and at work", || {
            let (state, members) = members(&brokers, &group);
            state == "Stable" && members.len() == count
        });
        let before = committed(&brokers, &group, &from, PARTITIONS);
        until("it goes on", || committed(&brokers, &group, &from, PARTITIONS) > before + 5000);
    };
    let sent = while_sending(&brokers, &from, || {
        at_work(2);
        engines.push(stages[2].start());
        at_work(3);
        engines.remove(1).stop();
        at_work(2);
        Stage::kill(engines.remove(0));
        at_work(1);
    });
    await_committed(&stages[2], &brokers, &group, &from, sent);
    engines.into_iter().for_each(Started::stop);
    exactly_once(&brokers, &to, sent);
}

#[test]
fn a_message_that_no_broker_takes_is_left_out_and_the_rest_is_there_once() {
    let Some(brokers) = plain() else { return };
    let (from, group) = place(&brokers, "large");
    let to = own_name("large-to");
    crate::oracle::make_topic_with(&brokers, &to, 1, &[("max.message.bytes", "20000")]);
    let sender = Sender::new(&brokers, &from);
    sender.numbers(0, 500);
    sender.send(Some(b"k"), Some(&vec![b'l'; 50_000]));
    sender.numbers(500, 1000);
    let stage = Stage::piping(&brokers, (&from, SESSION), &group, &to, "config = { batch_size = 10000 }");
    let _words = Words(&stage);
    let engine = stage.start();
    await_committed(&stage, &brokers, &group, &from, 1001);
    let source = stage.source();
    engine.stop();
    assert_eq!(
        (source["delivered"].as_u64(), source["rejected"].as_u64()),
        (Some(1000), Some(1)),
        "{source}"
    );
    exactly_once(&brokers, &to, 1000);
}

#[test]
fn a_checkpoint_that_is_older_than_the_topic_of_positions_is_refused() {
    let Some(brokers) = plain() else { return };
    let to = own_name("restored");
    make_topic(&brokers, &to, 1);
    let stage = Stage::writing(&brokers, &to, "transactional = true");
    let file =
        |name: &str, number: u64| std::fs::write(stage.site.path(name), message(number) + "\n").unwrap();
    file("in/a.log", 0);
    let engine = stage.start();
    until("the first one is there", || all_of(&brokers, &to).len() == 1);
    engine.stop();
    let checkpoint = stage.site.path("data/checkpoint");
    let old = std::fs::read(&checkpoint).unwrap();
    file("in/b.log", 1);
    let engine = stage.start();
    until("the second one is there", || all_of(&brokers, &to).len() == 2);
    engine.stop();
    std::fs::write(&checkpoint, old).unwrap();
    let ran = run(stage.site.folder(), &["source", "start"]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.err.contains("older than what topic wpgen-state knows"), "{}", ran.err);
    // Without a checkpoint all is new: it is read again, and nothing is taken for something else.
    std::fs::remove_file(&checkpoint).unwrap();
    let engine = stage.start();
    until("both are there again", || all_of(&brokers, &to).len() == 4);
    engine.stop();
}
