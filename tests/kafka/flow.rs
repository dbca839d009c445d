//! Messages from Kafka into files and from files into Kafka, while engines and brokers are killed.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::broker::{Broker, plain};
use crate::exactly;
use crate::harness::{Random, Started, fifo, until, until_ok};
use crate::oracle::{
    Sender, all_of, all_there, committed, delete_topic, in_key_order, key, make_topic, make_topic_with,
    members, message, number_of, own_name,
};
use crate::stage::Stage;

const PARTITIONS: i32 = 12;

/// A topic of twelve partitions, and a group, that are nobody else's.
pub fn place(brokers: &str, what: &str) -> (String, String) {
    let topic = own_name(what);
    make_topic(brokers, &topic, PARTITIONS);
    (topic, own_name("group"))
}

#[test]
fn in_equals_out_by_key_order_and_what_is_durable_is_committed() {
    const MESSAGES: u64 = 200_000;
    let Some(brokers) = plain() else { return };
    let (topic, group) = place(&brokers, "equal");
    Sender::new(&brokers, &topic).numbers(0, MESSAGES);
    let stage = Stage::reading(&brokers, &topic, &group, "");
    let engine = stage.start();
    stage.await_lines(MESSAGES as usize);
    until("all is committed", || committed(&brokers, &group, &topic, PARTITIONS) == MESSAGES as i64);
    let source = stage.source();
    assert_eq!(
        (source["records_in"].as_u64(), source["errors"].as_u64()),
        (Some(MESSAGES), Some(0)),
        "{source}"
    );
    engine.stop();
    let numbers = stage.numbers();
    all_there(&numbers, MESSAGES, 0);
    assert!(in_key_order(&numbers));
    // The next one begins where this one ended.
    Sender::new(&brokers, &topic).numbers(MESSAGES, MESSAGES + 10);
    let engine = stage.start();
    stage.await_lines(MESSAGES as usize + 10);
    engine.stop();
    all_there(&stage.numbers(), MESSAGES + 10, 0);
}

/// Messages a second that are sent while something is struck.
const A_SECOND: u64 = 20_000;

/// Gives numbers from 0 on, so many a second, while `strikes` are made; how many there were in the end.
pub fn while_giving(a_second: u64, mut give: impl FnMut(Range<u64>) + Send, strikes: impl FnOnce()) -> u64 {
    let ending = AtomicBool::new(false);
    let until_ended = || {
        let (began, mut next) = (Instant::now(), 0);
        while !ending.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_millis() as u64 * a_second / 1000).max(next);
            give(next..due);
            next = due;
            std::thread::sleep(Duration::from_millis(2));
        }
        next
    };
    std::thread::scope(|scope| {
        let giver = scope.spawn(until_ended);
        // Also when a strike fails: the scope waits for the giver.
        let struck = std::panic::catch_unwind(std::panic::AssertUnwindSafe(strikes));
        ending.store(true, Ordering::Relaxed);
        let given = giver.join().unwrap();
        struck.unwrap_or_else(|why| std::panic::resume_unwind(why));
        given
    })
}

/// Sends while `strikes` are made; how many messages there are in the end.
pub fn while_sending(brokers: &str, topic: &str, strikes: impl FnOnce()) -> u64 {
    let sender = Sender::new(brokers, topic);
    let send = |number| sender.send(Some(key(number).as_bytes()), Some(message(number).as_bytes()));
    let sent = while_giving(A_SECOND, |numbers| numbers.for_each(send), strikes);
    sender.flush();
    sent
}

/// Waits until each of `0..upto` is in one of the outputs, as long as more of them come.
pub fn await_all(stages: &[&Stage], upto: u64) -> Vec<u64> {
    let mut before = 0;
    loop {
        let (mut numbers, mut there) = (Vec::new(), 0);
        until_ok("more has come out", || {
            numbers = stages.iter().flat_map(|stage| stage.numbers()).collect();
            let mut found = vec![false; usize::try_from(upto).unwrap()];
            numbers.iter().for_each(|number| found[usize::try_from(*number).unwrap()] = true);
            there = found.iter().filter(|found| **found).count() as u64;
            let how = || stages.iter().map(|stage| stage.source().to_string()).collect::<Vec<_>>();
            if there == upto || there > before {
                Ok(())
            } else {
                Err(format!("{there} of {upto}: {:?}", how()))
            }
        });
        if there == upto {
            return numbers;
        }
        before = there;
    }
}

/// One engine, killed again and again while messages come.
fn killed(brokers: &str, seed: u64, kills: usize) {
    let (topic, group) = place(brokers, "killed");
    let stage = Stage::reading(brokers, &topic, &group, "config = { session_timeout_ms = 6000 }");
    let mut random = Random::new(seed);
    let mut engine = Some(stage.start());
    let sent = while_sending(brokers, &topic, || {
        for _ in 0..kills {
            let before = stage.lines();
            until("something has come", || stage.lines() > before);
            random.pause_ms(700);
            engine.take().into_iter().for_each(Stage::kill);
            engine = Some(stage.start());
        }
    });
    let numbers = await_all(&[&stage], sent);
    engine.into_iter().for_each(Started::stop);
    eprintln!("seed {seed}: {sent} messages, {} repeats", numbers.len() as u64 - sent);
    all_there(&numbers, sent, 0);
    assert!(in_key_order(&numbers), "seed {seed}");
}

#[test]
fn kill_9_of_the_engine_loses_nothing_and_repeats_nothing() {
    let Some(brokers) = plain() else { return };
    killed(&brokers, 1, 2);
}

/// As many seeds as WPGEN_KAFKA_FAULTS says; a few where it says nothing.
pub fn seeds(few: u64) -> impl Iterator<Item = u64> {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = asked("WPGEN_KAFKA_SEED").unwrap_or(100);
    (from..from + asked("WPGEN_KAFKA_FAULTS").unwrap_or(few))
        .inspect(|seed| eprintln!("WPGEN_KAFKA_SEED={seed} WPGEN_KAFKA_FAULTS=1 runs this one again"))
}

/// As many as are asked for: the others kill in each of these ways once.
#[test]
fn seeded() {
    for seed in seeds(0) {
        let Some(brokers) = plain() else { return };
        let kills = 1 + (seed % 3) as usize;
        killed(&brokers, seed, kills);
        exactly::killed(&brokers, seed, kills);
        exactly::killed_with_files(&brokers, seed, kills);
    }
}

#[test]
fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(broker) = Broker::start() else { return };
    let brokers = broker.plain();
    let (topic, group) = place(&brokers, "broker");
    let stage = Stage::reading(&brokers, &topic, &group, "config = { session_timeout_ms = 6000 }");
    let engine = stage.start();
    let sent = while_sending(&brokers, &topic, || {
        until("something has come", || stage.lines() > 1000);
        broker.kill();
        until("the engine says what is in the way", || stage.log().contains("WP201"));
        let errors = || stage.source()["errors"].as_u64().unwrap();
        assert!(errors() > 0, "errors are counted");
        let (before, since) = (errors(), Instant::now());
        broker.restart();
        let (counted, seconds) = (errors() - before, since.elapsed().as_secs());
        eprintln!("{counted} errors in {seconds} s without a broker");
        assert!(counted <= (seconds / 10 + 1) * 4, "{counted} in {seconds} s: one an attempt of each kind");
        let before = stage.lines();
        until("it goes on", || stage.lines() > before);
    });
    let numbers = await_all(&[&stage], sent);
    let told = stage.log().matches("WP201").count();
    assert!(told < 5, "told seldom, and not {told} times");
    let back = stage.log().matches("Kafka answers again").count();
    assert!((1..=2).contains(&back), "that it is back is told once, and not {back} times: {}", stage.log());
    engine.stop();
    all_there(&numbers, sent, numbers.len());
}

#[test]
fn a_broker_that_is_down_at_the_start_is_waited_for() {
    let Some(broker) = Broker::start() else { return };
    let brokers = broker.plain();
    let (topic, group) = place(&brokers, "later");
    Sender::new(&brokers, &topic).numbers(0, 1000);
    broker.kill();
    let stage = Stage::reading(&brokers, &topic, &group, "");
    let engine = stage.start();
    until("it says so", || stage.log().contains("[WP201]") || stage.log().contains("WP201"));
    broker.restart();
    stage.await_lines(1000);
    engine.stop();
    all_there(&stage.numbers(), 1000, 0);
}

#[test]
fn of_three_engines_in_a_group_the_others_take_over_when_one_is_killed() {
    let Some(brokers) = plain() else { return };
    let (topic, group) = place(&brokers, "three");
    let config = "config = { session_timeout_ms = 6000, heartbeat_interval_ms = 1000 }";
    let stages: Vec<Stage> = (0..3).map(|_| Stage::reading(&brokers, &topic, &group, config)).collect();
    let mut engines: Vec<Started> = stages.iter().map(Stage::start).collect();
    let sent = while_sending(&brokers, &topic, || {
        until("all three have a share", || stages.iter().all(|stage| stage.lines() > 100));
        Stage::kill(engines.remove(0));
        until("two are left, and at work", || {
            let (state, members) = members(&brokers, &group);
            state == "Stable" && members.len() == 2
        });
        let before: Vec<usize> = stages.iter().map(Stage::lines).collect();
        until("both go on", || (1..3).all(|i| stages[i].lines() > before[i]));
    });
    let numbers = await_all(&stages.iter().collect::<Vec<_>>(), sent);
    engines.into_iter().for_each(Started::stop);
    all_there(&numbers, sent, numbers.len());
}

#[test]
fn a_sink_that_stalls_longer_than_the_poll_interval_keeps_its_member_and_its_memory() {
    const MESSAGES: u64 = 400_000;
    let Some(brokers) = plain() else { return };
    let (topic, group) = place(&brokers, "stalled");
    Sender::new(&brokers, &topic).numbers(0, MESSAGES);
    let config =
        "config = { session_timeout_ms = 6000, max_poll_interval_ms = 6000, heartbeat_interval_ms = 1000 }";
    let stage = Stage::reading(&brokers, &topic, &group, config);
    fifo(&stage.out());
    let engine = stage.start();
    let member = || members(&brokers, &group);
    until("it is in the group", || member().1.len() == 1 && member().0 == "Stable");
    let joined = member();
    until("it takes no more", || {
        let before = stage.source()["records_in"].as_u64();
        std::thread::sleep(Duration::from_millis(500));
        before.is_some_and(|n| n > 0) && stage.source()["records_in"].as_u64() == before
    });
    let (mut memory, stalled) = (None, Instant::now());
    while stalled.elapsed() < Duration::from_secs(14) {
        assert_eq!(member(), joined, "after {:?}", stalled.elapsed());
        std::thread::sleep(Duration::from_millis(500));
        // On a busy machine it may have taken the last of it only now.
        if memory.is_none() && stalled.elapsed() > Duration::from_secs(7) {
            memory = Some(engine.memory_kib());
        }
    }
    let grown = engine.memory_kib().saturating_sub(memory.unwrap());
    assert!(grown < 8 << 10, "memory has grown by {grown} KiB");
    // Then it is read from, and everything comes.
    let mut reader = std::io::BufReader::new(std::fs::File::open(stage.out()).unwrap());
    let (mut numbers, mut line) = (Vec::new(), Vec::new());
    while (numbers.len() as u64) < MESSAGES {
        line.clear();
        assert!(std::io::BufRead::read_until(&mut reader, b'\n', &mut line).unwrap() > 0);
        numbers.push(number_of(&line[..line.len() - 1]));
    }
    assert_eq!(member(), joined);
    all_there(&numbers, MESSAGES, 0);
    until("all is committed", || committed(&brokers, &group, &topic, PARTITIONS) == MESSAGES as i64);
    engine.stop();
}

#[test]
fn nulls_and_large_messages_are_records_or_are_told() {
    let Some(brokers) = plain() else { return };
    let (topic, group) = (own_name("odd"), own_name("group"));
    make_topic_with(&brokers, &topic, 1, &[("max.message.bytes", "10000000")]);
    let sender = Sender::new(&brokers, &topic);
    let large = vec![b'l'; 1_000_000];
    let oversize = vec![b'o'; 5_000_000];
    for (key, payload) in [
        (None, Some(&b"first"[..])),
        (None, None),
        (Some(&b"k"[..]), None),
        (Some(&b""[..]), Some(&b""[..])),
        (None, Some(&large[..])),
        (None, Some(&oversize[..])),
        (None, Some(&b"last"[..])),
    ] {
        sender.send(key, payload);
    }
    sender.flush();
    let stage = Stage::reading(&brokers, &topic, &group, "");
    let engine = stage.start();
    until("the last one is there", || stage.site.read("out").ends_with(b"last\n"));
    until("all is committed", || committed(&brokers, &group, &topic, 1) == 7);
    let source = stage.source();
    engine.stop();
    let out = stage.site.read("out");
    let lines: Vec<&[u8]> = out.split(|b| *b == b'\n').collect();
    assert_eq!(lines[0], b"first");
    assert!(lines.contains(&&large[..]), "1 MB is a record as it is");
    let most = lines.iter().map(|line| line.len()).max().unwrap();
    assert!(most <= 5_000_000, "{most}");
    eprintln!("lines {:?}; {source}", lines.iter().map(|line| line.len()).collect::<Vec<_>>());
}

#[test]
fn what_is_not_base64_is_counted_and_told() {
    let Some(brokers) = plain() else { return };
    let (topic, group) = (own_name("base64"), own_name("group"));
    make_topic(&brokers, &topic, 1);
    let sender = Sender::new(&brokers, &topic);
    for payload in ["Zmlyc3Q=", "this is none!", "bGFzdA=="] {
        sender.send(None, Some(payload.as_bytes()));
    }
    sender.flush();
    let stage = Stage::reading(&brokers, &topic, &group, "encode = \"base64\"");
    let engine = stage.start();
    until("all is committed", || committed(&brokers, &group, &topic, 1) == 3);
    assert_eq!(stage.site.read("out"), b"first\nlast\n");
    assert_eq!(stage.source()["dropped"]["bad_line"].as_u64(), Some(1), "{}", stage.source());
    until("it is told", || stage.log().contains("Invalid base64 encoding"));
    engine.stop();
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_is_told_and_the_engine_goes_on() {
    let Some(brokers) = plain() else { return };
    let group = own_name("group");
    let (gone, stays) = (own_name("gone"), own_name("stays"));
    for topic in [&gone, &stays] {
        make_topic(&brokers, topic, 1);
        Sender::new(&brokers, topic).numbers(0, 10);
    }
    let stage = Stage::reading(&brokers, &format!("{gone},{stays}"), &group, "");
    let engine = stage.start();
    stage.await_lines(20);
    delete_topic(&brokers, &gone);
    until("it is told", || stage.log().contains("WP203"));
    Sender::new(&brokers, &stays).numbers(10, 20);
    stage.await_lines(30);
    engine.stop();
}

#[test]
fn a_broker_that_answers_garbage_is_told_and_nothing_breaks() {
    use std::io::{Read, Write};
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut random = Random::new(7);
        for stream in garbage.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let bytes: Vec<u8> = (0..2000).map(|_| random.below(256) as u8).collect();
            let _ = stream.write_all(&[&[0, 0, 7, 0xcc][..], &bytes].concat());
        }
    });
    let stage = Stage::reading(&at.to_string(), "t", "g", "");
    let engine = stage.start();
    until("it is told", || stage.log().contains("WP201") || stage.log().contains("WP202"));
    engine.stop();
}

#[test]
fn files_into_kafka_are_all_there_with_their_keys() {
    const MESSAGES: u64 = 100_000;
    let Some(brokers) = plain() else { return };
    let (topic, _) = place(&brokers, "sink");
    let stage = Stage::writing(&brokers, &topic, "key = \"{source}\"");
    let text: String = (0..MESSAGES).map(|number| message(number) + "\n").collect();
    std::fs::write(stage.site.path("in/a.log"), text).unwrap();
    let engine = stage.start();
    until("all is delivered", || stage.source()["delivered"].as_u64() == Some(MESSAGES));
    engine.stop();
    let found = all_of(&brokers, &topic);
    assert!(found.iter().all(|one| one.key.as_deref() == Some(b"app")), "the key is the source's");
    let numbers: Vec<u64> = found.iter().map(|one| number_of(one.payload.as_deref().unwrap())).collect();
    all_there(&numbers, MESSAGES, 0);
    assert!(numbers.is_sorted(), "one key is one partition, in order");
}

#[test]
fn kill_9_of_an_engine_that_writes_to_kafka_loses_nothing() {
    const MESSAGES: u64 = 300_000;
    let Some(brokers) = plain() else { return };
    let (topic, _) = place(&brokers, "resent");
    let stage = Stage::writing(&brokers, &topic, "");
    let text: String = (0..MESSAGES).map(|number| message(number) + "\n").collect();
    std::fs::write(stage.site.path("in/a.log"), text).unwrap();
    let mut engine = stage.start();
    for _ in 0..2 {
        until("something has left", || stage.source()["delivered"].as_u64().is_some_and(|n| n > 0));
        Stage::kill(engine);
        engine = stage.start();
    }
    until("nothing waits", || {
        let source = stage.source();
        source["lag_bytes"].as_u64() == Some(0) && source["delivered"] == source["records_in"]
    });
    engine.stop();
    let found = all_of(&brokers, &topic);
    let numbers: Vec<u64> = found.iter().map(|one| number_of(one.payload.as_deref().unwrap())).collect();
    eprintln!("{} repeats", numbers.len() as u64 - MESSAGES);
    all_there(&numbers, MESSAGES, numbers.len());
}
