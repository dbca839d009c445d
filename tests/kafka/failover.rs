//! A node of a cluster of three is killed while engines read and write, and comes back: the others go on, and so do the
//! engines, without a restart of anything.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::Instant;

use crate::broker::Broker;
use crate::cluster::{Cluster, OF_GROUPS, OF_TRANSACTIONS};
use crate::exactly::{self, await_committed, exactly_once, numbers};
use crate::flow::{await_all, place, seeds, while_giving};
use crate::harness::{Random, Started, status, until, until_ok};
use crate::oracle::{Sender, all_of, all_there, committed_each, end, key, make_topic, message, own_name};
use crate::stage::{Stage, Words};

const PARTITIONS: i32 = 12;
/// Each second, into each of two ways.
const A_SECOND: u64 = 4000;
const SESSION: &str = "config = { session_timeout_ms = 6000, heartbeat_interval_ms = 1000 }";

/// What is struck.
#[derive(Clone, Copy, Debug)]
enum Whom {
    /// Who leads the first partition of a topic that is read and written, and some more of it.
    Leader,
    /// The coordinator of the groups.
    OfGroups,
    /// The coordinator of the transactions.
    OfTransactions,
    /// Anyone.
    Node(usize),
}

impl Whom {
    fn of<'a>(self, cluster: &'a Cluster, topic: &str) -> &'a Broker {
        match self {
            Self::Leader => cluster.leader(topic),
            Self::OfGroups => cluster.leader(OF_GROUPS),
            Self::OfTransactions => cluster.leader(OF_TRANSACTIONS),
            Self::Node(number) => cluster.node(number),
        }
    }
}

/// Kills a node in the middle of work, sees that it goes on without it, and again when the node has come back.
fn strike(cluster: &Cluster, node: &Broker, random: &mut Random, mut goes_on: impl FnMut()) {
    goes_on();
    random.pause_ms(500);
    let mut at = Instant::now();
    let mut told = |what: &str| {
        eprintln!("{:5.1} s: {what}", at.elapsed().as_secs_f64());
        at = Instant::now();
    };
    node.kill();
    goes_on();
    told("it goes on without the node");
    node.restart();
    cluster.await_copies();
    told("the node is back, and has caught up");
    goes_on();
    told("it goes on with the node");
}

/// Waits until a group has gone on in each partition of a topic.
fn group_goes_on(stage: &Stage, brokers: &str, group: &str, topic: &str) {
    let before = committed_each(brokers, group, topic, PARTITIONS);
    until_ok("offsets of each partition are committed", || {
        let now = committed_each(brokers, group, topic, PARTITIONS);
        let goes_on = now.iter().zip(&before).all(|(now, before)| now > before);
        if goes_on { Ok(()) } else { Err(format!("{before:?}, {now:?}: {}", status(stage.site.folder()))) }
    });
}

/// A file that lines are appended to.
fn growing(stage: &Stage) -> File {
    OpenOptions::new().create(true).append(true).open(stage.site.path("in/a.log")).unwrap()
}

fn append(file: &mut File, numbers: std::ops::Range<u64>) {
    let text: String = numbers.map(|number| message(number) + "\n").collect();
    file.write_all(text.as_bytes()).unwrap();
}

/// One engine writes a file into a topic, another one reads the topic into a file.
fn written_and_read(cluster: &Cluster, struck: &[Whom], seed: u64) {
    let brokers = cluster.brokers();
    let (topic, group) = place(&brokers, "failover");
    let writer = Stage::writing(&brokers, &topic, "");
    let reader = Stage::reading(&brokers, &topic, &group, SESSION);
    let _words = (Words(&writer), Words(&reader));
    let engines: Vec<Started> = [&writer, &reader].into_iter().map(Stage::start).collect();
    let (mut file, mut random) = (growing(&writer), Random::new(seed));
    let written = while_giving(
        A_SECOND,
        |numbers| append(&mut file, numbers),
        || {
            group_goes_on(&reader, &brokers, &group, &topic);
            for whom in struck {
                let node = whom.of(cluster, &topic);
                strike(cluster, node, &mut random, || group_goes_on(&reader, &brokers, &group, &topic));
            }
        },
    );
    await_all(&[&reader], written);
    engines.into_iter().for_each(Started::stop);
    let (sent, out) = (numbers(&all_of(&brokers, &topic)), reader.numbers());
    eprintln!(
        "seed {seed}, {struck:?}: {written} records, {} repeats in the topic, {} in the file",
        sent.len() as u64 - written,
        out.len() - sent.len()
    );
    // Kafka knows a message that is sent again, and the file goes back to where the group is.
    all_there(&sent, written, 0);
    all_there(&out, written, 0);
}

/// One engine makes transactions of a topic, another one of a file.
fn in_transactions(cluster: &Cluster, struck: &[Whom], seed: u64) {
    let brokers = cluster.brokers();
    let (from, to, group) = exactly::places(&brokers, "failover-exactly");
    let of_files = own_name("failover-files");
    make_topic(&brokers, &of_files, 1);
    let piping = Stage::piping(&brokers, (&from, SESSION), &group, &to, "");
    let writer = Stage::writing(&brokers, &of_files, "transactional = true");
    let _words = (Words(&piping), Words(&writer));
    let engines: Vec<Started> = [&piping, &writer].into_iter().map(Stage::start).collect();
    let (mut file, mut random) = (growing(&writer), Random::new(seed));
    let sender = Sender::new(&brokers, &from);
    let give = |numbers: std::ops::Range<u64>| {
        let send = |number| sender.send(Some(key(number).as_bytes()), Some(message(number).as_bytes()));
        numbers.clone().for_each(send);
        append(&mut file, numbers);
    };
    let given = while_giving(A_SECOND, give, || {
        group_goes_on(&piping, &brokers, &group, &from);
        for whom in struck {
            strike(cluster, whom.of(cluster, &from), &mut random, || {
                let before = end(&brokers, &of_files, "read_committed");
                until("transactions of the file are committed", || {
                    end(&brokers, &of_files, "read_committed") > before
                });
                group_goes_on(&piping, &brokers, &group, &from);
            });
        }
    });
    sender.flush();
    await_committed(&piping, &brokers, &group, &from, given);
    until("all of the file is delivered", || writer.source()["delivered"].as_u64() == Some(given));
    engines.into_iter().for_each(Started::stop);
    let aborted = [&to, &of_files].map(|topic| exactly::with_aborted(&brokers, topic) - given);
    let anew = [&piping, &writer].map(|stage| stage.log().matches("the producer is begun anew").count());
    eprintln!(
        "seed {seed}, {struck:?}, transactional: {given} messages each, {aborted:?} aborted, {anew:?} producers anew"
    );
    exactly_once(&brokers, &to, given);
    exactly_once(&brokers, &of_files, given);
}

#[test]
fn a_leader_of_partitions_is_killed_and_engines_go_on() {
    let Some(cluster) = Cluster::shared() else { return };
    written_and_read(&cluster, &[Whom::Leader], 1);
}

/// One behind the other: a test of its own for each would only wait for the cluster, in the place of one that has work.
#[test]
#[ignore = "it takes minutes; README names its command"]
fn a_coordinator_is_killed_and_engines_go_on() {
    let Some(cluster) = Cluster::shared() else { return };
    eprintln!("the coordinator of the group");
    written_and_read(&cluster, &[Whom::OfGroups], 2);
    eprintln!("the coordinators of transactions");
    in_transactions(&cluster, &[Whom::OfTransactions, Whom::OfGroups], 3);
    eprintln!("the leader of positions, before a start");
    starts_while_the_leader_of_positions_is_dead(&cluster);
}

/// An engine that must know its positions starts while their leader is dead.
fn starts_while_the_leader_of_positions_is_dead(cluster: &Cluster) {
    const EACH: u64 = 1000;
    let (brokers, to) = (cluster.brokers(), own_name("failover-start"));
    make_topic(&brokers, &to, 1);
    let stage = Stage::writing(&brokers, &to, "transactional = true");
    let _words = Words(&stage);
    let mut file = growing(&stage);
    let mut run = |from: u64| {
        append(&mut file, from..from + EACH);
        let engine = stage.start();
        until("all is delivered", || stage.source()["delivered"].as_u64() == Some(EACH));
        engine.stop();
    };
    run(0);
    let node = cluster.leader("wpgen-state");
    node.kill();
    run(EACH);
    exactly_once(&brokers, &to, 2 * EACH);
}

/// As many as are asked for: the others strike at each of these once.
#[test]
fn seeded_strikes_at_a_cluster_lose_nothing() {
    for seed in seeds(0) {
        let Some(cluster) = Cluster::shared() else { return };
        let mut random = Random::new(seed);
        let any = Whom::Node(random.below(3));
        // Without transactions, nobody coordinates any.
        let whom = [Whom::Leader, Whom::OfGroups, any, Whom::OfTransactions];
        match seed % 2 {
            0 => in_transactions(&cluster, &[whom[random.below(4)]], seed),
            _ => written_and_read(&cluster, &[whom[random.below(3)]], seed),
        }
    }
}
