//! A producer that does not live to hear how its commit ended: the engine is killed at it, or librdkafka gives its producer
//! up. What the broker has counts, once; what it has not is sent again.

use crate::exactly::{await_committed, exactly_once, places, with_aborted};
use crate::flow::{seeds, while_giving, while_sending};
use crate::front::{Blow, Front};
use crate::harness::{Random, until};
use crate::oracle::{make_topic, message, own_name};
use crate::stage::{Stage, Words};

/// Records a second, from a file.
const A_SECOND: u64 = 5000;
const SESSION: &str = "config = { session_timeout_ms = 6000, heartbeat_interval_ms = 1000 }";

/// Runs an engine between two topics, while `strikes` are made at it; whether some of it was aborted.
fn piped(front: &Front, what: &str, strikes: impl FnOnce(&Stage)) -> bool {
    let brokers = front.brokers();
    let (from, to, group) = places(&brokers, what);
    let stage = Stage::piping(&brokers, (&from, SESSION), &group, &to, "");
    let _words = Words(&stage);
    let sent = while_sending(&brokers, &from, || strikes(&stage));
    let engine = stage.start();
    await_committed(&stage, &brokers, &group, &from, sent);
    engine.stop();
    exactly_once(&brokers, &to, sent);
    with_aborted(&brokers, &to) > sent
}

/// As [`piped`], from a file that grows.
fn filed(front: &Front, what: &str, strikes: impl FnOnce(&Stage)) -> bool {
    use std::io::Write as _;
    let (brokers, to) = (front.brokers(), own_name(what));
    make_topic(&brokers, &to, 1);
    let stage = Stage::writing(&brokers, &to, "transactional = true");
    let _words = Words(&stage);
    let mut file = std::fs::File::create(stage.site.path("in/a.log")).unwrap();
    let append = |numbers: std::ops::Range<u64>| {
        let text: String = numbers.map(|number| message(number) + "\n").collect();
        file.write_all(text.as_bytes()).unwrap();
    };
    let written = while_giving(A_SECOND, append, || strikes(&stage));
    let engine = stage.start();
    until("nothing waits", || {
        let source = stage.source();
        source["lag_bytes"].as_u64() == Some(0) && source["delivered"] == source["records_in"]
    });
    engine.stop();
    exactly_once(&brokers, &to, written);
    with_aborted(&brokers, &to) > written
}

/// Kills an engine at a commit, so many times; whether the broker has done it is as the seed says, or as is asked.
fn killed(front: &Front, stage: &Stage, kills: usize, mut is_done: impl FnMut() -> bool) {
    for _ in 0..kills {
        let engine = stage.start();
        front.strike(Blow { is_done: is_done(), is_refused: false });
        Stage::kill(engine);
    }
}

/// Has the engine's producer fail at a commit.
fn refused(front: &Front, stage: &Stage, is_done: bool) {
    let engine = stage.start();
    front.strike(Blow { is_done, is_refused: true });
    until("there is another producer", || stage.log().contains("the producer is begun anew"));
    // And that one commits.
    front.strike(Blow { is_done: true, is_refused: true });
    until("there is a third one", || stage.log().matches("the producer is begun anew").count() > 1);
    engine.stop();
    assert!(!stage.log().contains("WP206"), "nobody else has its id");
}

/// One behind the other: a test of its own for each would only wait for the front, in the place of one that has work.
#[test]
fn a_commit_whose_end_nobody_hears_is_there_once() {
    let Some(front) = Front::shared() else { return };
    for is_done in [false, true] {
        eprintln!("kill -9 between sending and the end of a commit, which is done: {is_done}");
        // What the engine had sent and not committed is aborted by the next one.
        let aborted = piped(&front, "ending", |stage| killed(&front, stage, 1, || is_done));
        assert!(is_done || aborted, "what was sent is seen by who looks for it");
        let aborted = filed(&front, "ending-file", |stage| killed(&front, stage, 1, || is_done));
        assert!(is_done || aborted, "what was sent is seen by who looks for it");
        eprintln!("a producer that fails at a commit, which is done: {is_done}; the next one finds out");
        let aborted = piped(&front, "outcome", |stage| refused(&front, stage, is_done));
        assert_eq!(aborted, !is_done, "what is committed is not sent again");
        let aborted = filed(&front, "outcome-file", |stage| refused(&front, stage, is_done));
        assert_eq!(aborted, !is_done, "what is committed is not sent again");
    }
}

#[test]
fn seeded_kills_at_a_commit_repeat_nothing() {
    for seed in seeds(0) {
        let Some(front) = Front::shared() else { return };
        let mut random = Random::new(seed);
        let mut kills = |stage: &Stage| killed(&front, stage, 3, || random.below(2) == 1);
        piped(&front, "endings", &mut kills);
        filed(&front, "endings-file", &mut kills);
        eprintln!("seed {seed}: killed at three commits each, and nothing is there twice");
    }
}
