//! Strikes at a broker and at members of a group, at times that a seed gives.

use crate::broker::{Broker, plain};
use crate::flow::{await_all, place, seeds, while_sending};
use crate::harness::{Random, Started, until};
use crate::oracle::{all_there, in_key_order, members};
use crate::stage::Stage;

const CONFIG: &str = "config = { session_timeout_ms = 6000, heartbeat_interval_ms = 1000 }";

/// The broker is killed and comes back, while an engine reads and messages are sent.
#[test]
fn seeded_strikes_at_the_broker_lose_nothing() {
    let Some(broker) = Broker::start() else { return };
    for seed in seeds(1) {
        let brokers = broker.plain();
        let (topic, group) = place(&brokers, "struck");
        // A broker that is back is found soon.
        let config = CONFIG.replace(" }", ", reconnect_backoff_max_ms = 1000 }");
        let stage = Stage::reading(&brokers, &topic, &group, &config);
        let mut random = Random::new(seed);
        let engine = stage.start();
        let sent = while_sending(&brokers, &topic, || {
            let before = stage.lines();
            until("something has come", || stage.lines() > before);
            random.pause_ms(1000);
            broker.kill();
            random.pause_ms(1500);
            broker.restart();
            let before = stage.lines();
            until("it goes on", || stage.lines() > before);
        });
        let numbers = await_all(&[&stage], sent);
        let errors = stage.source()["errors"].as_u64();
        engine.stop();
        eprintln!("seed {seed}: {sent} messages, {} repeats, errors {errors:?}", numbers.len() as u64 - sent);
        all_there(&numbers, sent, numbers.len());
        assert!(in_key_order(&numbers), "seed {seed}");
    }
}

/// A member is killed while another one joins, and comes back: what its file loses by that, nobody else may think is done.
#[test]
fn seeded_strikes_at_a_member_in_a_rebalance_lose_nothing() {
    let Some(brokers) = plain() else { return };
    for seed in seeds(1) {
        let (topic, group) = place(&brokers, "rebalanced");
        let stages: Vec<Stage> = (0..3).map(|_| Stage::reading(&brokers, &topic, &group, CONFIG)).collect();
        let mut random = Random::new(seed);
        let mut engines: Vec<Option<Started>> = stages[..2].iter().map(|stage| Some(stage.start())).collect();
        let sent = while_sending(&brokers, &topic, || {
            until("both have a share", || stages[..2].iter().all(|stage| stage.lines() > 0));
            random.pause_ms(500);
            engines.push(Some(stages[2].start()));
            random.pause_ms(1500);
            let struck = random.below(2);
            engines[struck].take().into_iter().for_each(Stage::kill);
            random.pause_ms(8000);
            engines[struck] = Some(stages[struck].start());
            until("all three are in the group", || {
                let (state, members) = members(&brokers, &group);
                state == "Stable" && members.len() == 3
            });
        });
        let numbers = await_all(&stages.iter().collect::<Vec<_>>(), sent);
        engines.into_iter().flatten().for_each(Started::stop);
        let numbers_after: Vec<u64> = stages.iter().flat_map(Stage::numbers).collect();
        eprintln!("seed {seed}: {sent} messages, {} repeats", numbers_after.len() as u64 - sent);
        all_there(&numbers_after, sent, numbers.len());
    }
}
