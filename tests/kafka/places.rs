//! Where a source of the checkpoint's goes on when its group, its topic or another member has changed meanwhile.

use crate::broker::plain;
use crate::flow::place;
use crate::harness::{until, until_ok};
use crate::oracle::{Sender, all_there, committed, delete_group, delete_topic, make_topic, put_back};
use crate::stage::Stage;

const PARTITIONS: i32 = 12;
const MESSAGES: u64 = 1200;

/// A topic with messages that an engine has read, and has stopped.
struct Read {
    brokers: String,
    topic: String,
    group: String,
    stage: Stage,
}

fn read(what: &str) -> Option<Read> {
    let brokers = plain()?;
    let (topic, group) = place(&brokers, what);
    Sender::new(&brokers, &topic).numbers(0, MESSAGES);
    let stage = Stage::reading(&brokers, &topic, &group, "");
    let engine = stage.start();
    stage.await_lines(MESSAGES as usize);
    engine.stop();
    let read = Read { brokers, topic, group, stage };
    assert_eq!(read.committed(), MESSAGES as i64, "all of it is committed when an engine has stopped");
    Some(read)
}

impl Read {
    fn committed(&self) -> i64 {
        committed(&self.brokers, &self.group, &self.topic, PARTITIONS)
    }

    /// Starts and stops an engine whose source is switched off, beside one that has nothing to read.
    fn runs_while_it_is_off(&self) {
        let path = self.stage.site.path("wpsrc.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        let idle = "\n[[sources]]\nkey = \"idle\"\nconnect = \"file_src\"\nparams = { path = \"idle*\" }\n";
        std::fs::write(&path, config.replace("key = \"app\"", "key = \"app\"\nenable = false") + idle)
            .unwrap();
        let engine = self.stage.start();
        assert_eq!(self.stage.source()["key"], "idle");
        engine.stop();
        std::fs::write(&path, config).unwrap();
    }

    /// Starts an engine again, and waits until the file has so many lines.
    fn goes_on_to(&self, lines: u64) {
        let engine = self.stage.start();
        until_ok("all of it is read", || {
            if self.stage.lines() as u64 >= lines { Ok(()) } else { Err(self.stage.log()) }
        });
        until("all is committed", || self.committed() == MESSAGES as i64);
        engine.stop();
        assert_eq!(self.stage.lines() as u64, lines);
    }
}

#[test]
fn a_group_that_is_put_back_reads_again_what_is_in_the_file_already() {
    let Some(read) = read("back") else { return };
    put_back(&read.brokers, &read.group, &read.topic, PARTITIONS, 0);
    read.goes_on_to(2 * MESSAGES);
    all_there(&read.stage.numbers(), MESSAGES, MESSAGES as usize);
    assert!(read.stage.log().contains("the group's offset was put back"), "{}", read.stage.log());
}

#[test]
fn a_group_that_is_deleted_begins_anew() {
    let Some(read) = read("deleted") else { return };
    delete_group(&read.brokers, &read.group);
    read.goes_on_to(2 * MESSAGES);
    assert!(read.stage.log().contains("the group's offset was deleted"), "{}", read.stage.log());
}

#[test]
fn a_topic_that_is_made_anew_is_read_from_its_beginning() {
    let Some(read) = read("anew") else { return };
    delete_topic(&read.brokers, &read.topic);
    until("it can be made again", || {
        std::panic::catch_unwind(|| make_topic(&read.brokers, &read.topic, PARTITIONS)).is_ok()
    });
    Sender::new(&read.brokers, &read.topic).numbers(0, MESSAGES);
    read.goes_on_to(2 * MESSAGES);
}

#[test]
fn what_another_member_has_read_meanwhile_is_not_read_again() {
    let Some(read) = read("other") else { return };
    Sender::new(&read.brokers, &read.topic).numbers(MESSAGES, 2 * MESSAGES);
    let other = Stage::reading(&read.brokers, &read.topic, &read.group, "");
    let engine = other.start();
    other.await_lines(MESSAGES as usize);
    engine.stop();
    Sender::new(&read.brokers, &read.topic).numbers(2 * MESSAGES, 3 * MESSAGES);
    let engine = read.stage.start();
    read.stage.await_lines(2 * MESSAGES as usize);
    engine.stop();
    let numbers = [read.stage.numbers(), other.numbers()].concat();
    all_there(&numbers, 3 * MESSAGES, 0);
}

/// The group forgets commits that were on their way; the checkpoint does not, nor in a run in which the source is off.
#[test]
fn what_is_in_the_checkpoint_and_not_committed_is_not_read_again() {
    let Some(read) = read("behind") else { return };
    // As an engine that was killed before its first commit would have left them.
    delete_group(&read.brokers, &read.group);
    let path = read.stage.site.path("data/checkpoint");
    let text = std::fs::read_to_string(&path).unwrap();
    let body: String = text.split_once('\n').unwrap().1.lines().map(uncommitted).collect();
    let head = format!("wpgen-checkpoint 2 {:08x} {:012}\n", crc32(body.as_bytes()), body.len());
    std::fs::write(&path, head + &body).unwrap();
    read.runs_while_it_is_off();
    Sender::new(&read.brokers, &read.topic).numbers(MESSAGES, 2 * MESSAGES);
    let engine = read.stage.start();
    read.stage.await_lines(2 * MESSAGES as usize);
    engine.stop();
    all_there(&read.stage.numbers(), 2 * MESSAGES, 0);
    assert_eq!(read.committed(), 2 * MESSAGES as i64);
}

/// A line of a checkpoint, without what is known to be committed.
fn uncommitted(line: &str) -> String {
    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
    if let Some(partition) = line.get_mut("partition").and_then(|partition| partition.as_object_mut()) {
        assert!(partition.remove("committed").is_some());
    }
    format!("{line}\n")
}

/// CRC-32 bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(byte), step)
    })
}
