//! `rescue = true` on a Kafka sink: a broker that is away for long, kill -9 meanwhile and amid the sending, and everything
//! there in order when the broker is back.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;

use serde_json::Value;

use crate::broker::Broker;
use crate::flow::place;
use crate::harness::{status, until, until_ok};
use crate::oracle::{all_of, all_there, message, number_of};
use crate::stage::{Stage, Words};

/// A segment of the rescue, and the batches from it that a sink may have: what may come twice after a kill. No message of
/// ours is shorter than this.
const REPEATS_MAX: usize = ((8 + 4) << 20) / 216;

/// A broker that is back is found soon.
const MORE: &str = "key = \"{source}\"\nconfig = { reconnect_backoff_max_ms = 1000 }";

fn append(stage: &Stage, numbers: Range<u64>) {
    let text: String = numbers.map(|number| message(number) + "\n").collect();
    let file = OpenOptions::new().create(true).append(true).open(stage.site.path("in/a.log"));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn rescue(stage: &Stage) -> Value {
    status(stage.site.folder())["sinks"][0]["rescue"].take()
}

/// Waits until the checkpoint has all of the file: nothing of it is read again.
fn await_checkpoint(stage: &Stage) {
    let position = format!("\"position\":{}", stage.site.read("in/a.log").len());
    until_ok("the checkpoint has all of the file", || {
        let text = String::from_utf8_lossy(&stage.site.read("data/checkpoint")).into_owned();
        let how = || format!("{} {}", stage.source(), rescue(stage));
        if text.contains(&position) { Ok(()) } else { Err(how()) }
    });
}

#[test]
fn what_a_broker_that_is_down_does_not_take_survives_kill_9_and_is_sent_first() {
    const EACH: u64 = 50_000;
    let Some(broker) = Broker::start() else { return };
    let brokers = broker.plain();
    let (topic, _) = place(&brokers, "rescued");
    let stage = Stage::writing(&brokers, &topic, MORE);
    stage.rescue();
    let _words = Words(&stage);
    let engine = stage.start();
    append(&stage, 0..EACH);
    await_checkpoint(&stage);
    assert_eq!(rescue(&stage)["kept_records"], 0, "a broker that takes it has it");
    broker.kill();
    append(&stage, EACH..2 * EACH);
    await_checkpoint(&stage);
    assert_eq!(rescue(&stage)["records"].as_u64(), Some(EACH));
    Stage::kill(engine);
    let engine = stage.start();
    append(&stage, 2 * EACH..3 * EACH);
    await_checkpoint(&stage);
    assert_eq!(rescue(&stage)["records"].as_u64(), Some(2 * EACH));
    broker.restart();
    until("some of it is sent", || rescue(&stage)["sent_records"].as_u64() > Some(0));
    Stage::kill(engine);
    let engine = stage.start();
    append(&stage, 3 * EACH..4 * EACH);
    await_checkpoint(&stage);
    until_ok("nothing is on disk", || {
        let rescue = rescue(&stage);
        if rescue["bytes"] == 0 { Ok(()) } else { Err(rescue) }
    });
    engine.stop();
    let found = all_of(&brokers, &topic);
    let numbers: Vec<u64> = found.iter().map(|one| number_of(one.payload.as_deref().unwrap())).collect();
    eprintln!("{} repeats of {}", numbers.len() as u64 - 4 * EACH, 4 * EACH);
    all_there(&numbers, 4 * EACH, REPEATS_MAX);
    assert!(found.iter().all(|one| one.partition == found[0].partition), "one key is one partition");
    let mut next = 0;
    for number in numbers {
        assert!(number <= next, "{number} is there before {next}");
        next = next.max(number + 1);
    }
}
