//! The member of the group: what librdkafka calls back, all of it on the reader's thread, while that polls.
//!
//! Partitions that come are given to shards in turn. Before some are given up, what of them is on its way to the sinks is
//! waited for, for a bounded time, and what is durable then is committed; what is not, the next member reads again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc::UnboundedSender;

use super::begin;
use super::book::Book;
use super::params::Start;
use super::parcel::Parcel;
use super::partition::Partition;
use crate::kafka::assigned::{Assigned, Membership};
use crate::kafka::native::Diversion;
use crate::kafka::voice::Voice;

/// Between two commits at least, and behind one that failed.
const COMMIT_PAUSE: Duration = Duration::from_millis(50);
const COMMIT_AGAIN: Duration = Duration::from_secs(1);
/// How long what is on its way is waited for before a partition is given up. The group waits with us.
const REVOKE_MAX: Duration = Duration::from_secs(10);
/// Between two looks while waiting, in case a wake is missed.
const LOOK: Duration = Duration::from_millis(20);
/// The same for a checkpoint, which takes no longer than a sync.
const LOOK_KEPT: Duration = Duration::from_millis(2);
/// How long the coordinator may take to say what is committed.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Topic and partition.
pub type Place = (Arc<str>, i32);

/// An assigned partition, on the reader's side.
#[derive(Debug)]
pub struct Seat {
    /// What the shard has of it.
    pub partition: Arc<Partition>,
    /// What will be sent next.
    pub building: Parcel,
    /// Whether librdkafka was told to send none.
    pub is_paused: bool,
    /// Parcels that its shard was done with at the last look, and when that or nothing waiting was seen last.
    moved: (u64, Instant),
}

impl Seat {
    /// A partition of which nothing came yet.
    pub fn new(partition: Arc<Partition>) -> Self {
        Self { partition, building: Parcel::default(), is_paused: false, moved: (0, Instant::now()) }
    }

    /// Bytes that came and are not delivered.
    pub fn waiting_bytes(&self) -> usize {
        self.partition.waiting_bytes() + self.building.bytes()
    }

    /// How long its shard has taken nothing of what waits.
    pub fn still_for(&mut self, now: Instant) -> Duration {
        let taken = self.partition.parcels_taken();
        if taken != self.moved.0 || self.waiting_bytes() == 0 {
            self.moved = (taken, now);
        }
        now.saturating_duration_since(self.moved.1)
    }
}

/// See above.
pub struct Member {
    /// Where errors go.
    pub voice: Arc<Voice>,
    /// Where a group without offsets begins.
    pub start: Start,
    /// What is known of its partitions.
    pub book: Arc<Book>,
    /// What it is in its group.
    pub membership: Arc<Membership>,
    seats: Mutex<HashMap<Place, Seat>>,
    /// The parts of the source on the shards, and whose turn it is.
    parts: Mutex<(Vec<UnboundedSender<Arc<Partition>>>, usize)>,
    diversion: OnceLock<Weak<Diversion>>,
    /// Whether the last commit that was answered has failed.
    commit_failed: AtomicBool,
}

impl Member {
    /// A member without partitions.
    pub fn new(voice: Arc<Voice>, start: Start, book: Arc<Book>, membership: Arc<Membership>) -> Self {
        Self {
            voice,
            start,
            book,
            membership,
            seats: Mutex::default(),
            parts: Mutex::default(),
            diversion: OnceLock::new(),
            commit_failed: AtomicBool::new(false),
        }
    }

    /// The assigned partitions.
    pub fn seats(&self) -> MutexGuard<'_, HashMap<Place, Seat>> {
        lock(&self.seats)
    }

    /// Adds the part of a shard, and returns how many there are.
    pub fn enter(&self, part: UnboundedSender<Arc<Partition>>) -> usize {
        let mut parts = lock(&self.parts);
        parts.0.push(part);
        parts.0.len()
    }

    /// Says where messages are to come; once.
    pub fn set_diversion(&self, diversion: Weak<Diversion>) {
        let _ = self.diversion.set(diversion);
    }

    /// Offsets that a checkpoint has and that are not committed.
    pub fn to_commit(&self) -> Option<TopicPartitionList> {
        let seats = self.seats();
        let is_new = |partition: &Partition, offset| partition.is_new(offset);
        list(&self.book, seats.values().map(|seat| &*seat.partition), is_new)
    }

    /// The same, with those whose commit is not answered: what was committed last is to be known.
    pub fn to_commit_at_last(&self) -> Option<TopicPartitionList> {
        let seats = self.seats();
        last(&self.book, seats.values())
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        if let Start::Timestamp(ms) = self.start
            && let Err(error) = begin_at(consumer, list, ms)
        {
            // Where the group has offsets, they count; else the beginning.
            self.voice.error(&error);
        }
        let beginnings = begin::begin(self, consumer, list);
        let diversion = self.diversion.get().and_then(Weak::upgrade);
        let mut names = Vec::new();
        for (element, beginning) in list.elements().iter().zip(beginnings) {
            let (topic, number): (Arc<str>, i32) = (element.topic().into(), element.partition());
            if let Some(diversion) = &diversion {
                diversion.divert(&topic, number);
            }
            names.push(format!("{topic}/{number}"));
            let assigned = Assigned::new(Arc::clone(&topic), number, Arc::clone(&self.membership));
            let partition = Arc::new(Partition::new(assigned, beginning, std::thread::current()));
            self.seat(&partition);
            let seat = Seat::new(partition);
            if let Some(before) = self.seats().insert((topic, number), seat) {
                before.partition.end();
                before.partition.assigned.lose();
            }
        }
        if !names.is_empty() {
            self.voice.well();
            log::info!(target: "wpgen::kafka", "{}: reads {}", self.voice.who(), names.join(", "));
        }
    }

    /// Gives a partition to the shard whose turn it is.
    fn seat(&self, partition: &Arc<Partition>) {
        let mut parts = lock(&self.parts);
        let (all, turn) = &mut *parts;
        *turn += 1;
        let part = all.get(*turn % all.len().max(1));
        // A part that has ended takes none: the engine drains, and no message of it is read.
        if part.is_none_or(|part| part.send(Arc::clone(partition)).is_err()) {
            partition.leave();
        }
    }

    /// Takes partitions away; commits what is durable of them unless they are lost already.
    fn revoked(&self, consumer: &BaseConsumer<Self>, revoked: &TopicPartitionList) {
        let is_lost = consumer.assignment_lost();
        let gone: Vec<Seat> = {
            let mut seats = self.seats();
            let place = |topic: &str, number| (Arc::<str>::from(topic), number);
            revoked
                .elements()
                .iter()
                .filter_map(|element| seats.remove(&place(element.topic(), element.partition())))
                .collect()
        };
        gone.iter().for_each(|seat| seat.partition.end());
        let until = Instant::now() + REVOKE_MAX;
        while !is_lost && !gone.iter().all(|seat| seat.partition.has_left()) && Instant::now() < until {
            std::thread::park_timeout(LOOK);
        }
        gone.iter().for_each(|seat| seat.partition.assigned.lose());
        if !is_lost {
            self.wait_kept(&gone, until);
        }
        let names: Vec<String> =
            gone.iter().map(|seat| format!("{}/{}", seat.partition.topic, seat.partition.number)).collect();
        if names.is_empty() {
            return;
        }
        let how = if is_lost { "lost, another member has them" } else { "given up" };
        log::info!(target: "wpgen::kafka", "{}: {how}: {}", self.voice.who(), names.join(", "));
        if let Some(offsets) = last(&self.book, gone.iter()).filter(|_| !is_lost) {
            self.commit(consumer, &offsets, CommitMode::Sync);
        }
    }

    /// Waits for a checkpoint with what was taken away: beyond it nothing is committed.
    fn wait_kept(&self, gone: &[Seat], until: Instant) {
        let is_kept = || gone.iter().all(|seat| self.book.is_kept(&seat.partition));
        if !is_kept() {
            self.book.ask();
        }
        while !is_kept() && Instant::now() < until {
            std::thread::park_timeout(LOOK_KEPT);
        }
    }

    /// How long after a commit the next one may follow.
    pub fn commit_pause(&self) -> Duration {
        if self.commit_failed.load(Ordering::Relaxed) { COMMIT_AGAIN } else { COMMIT_PAUSE }
    }

    /// The group has these.
    fn committed(&self, offsets: &TopicPartitionList) {
        self.commit_failed.store(false, Ordering::Relaxed);
        for element in offsets.elements() {
            if let (Offset::Offset(offset), Ok(())) = (element.offset(), element.error()) {
                self.book.committed(&(element.topic().into(), element.partition()), offset);
            }
        }
    }

    /// Commits offsets.
    pub fn commit(&self, consumer: &BaseConsumer<Self>, offsets: &TopicPartitionList, mode: CommitMode) {
        match consumer.commit(offsets, mode) {
            Ok(()) => {
                if matches!(mode, CommitMode::Sync) {
                    self.committed(offsets);
                }
            }
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                self.voice.error(&error);
                self.not_committed(offsets);
            }
        }
    }

    /// They are tried again with the next ones.
    fn not_committed(&self, offsets: &TopicPartitionList) {
        self.commit_failed.store(true, Ordering::Relaxed);
        let seats = self.seats();
        for element in offsets.elements() {
            if let Some(seat) = seats.get(&(Arc::from(element.topic()), element.partition())) {
                seat.partition.set_committed(-1);
            }
        }
    }
}

/// The offsets to commit of some partitions, noted as committed.
fn list<'a>(
    book: &Book,
    partitions: impl Iterator<Item = &'a Partition>,
    is_wanted: impl Fn(&Partition, i64) -> bool,
) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        // What a sink commits in its transactions is not committed here: an older offset could come in behind a newer one.
        let is_wanted = |offset: &i64| is_wanted(partition, *offset) && !partition.assigned.is_taken();
        let Some(offset) = book.to_commit(partition).filter(is_wanted) else { continue };
        if list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(offset)).is_ok() {
            partition.set_committed(offset);
        }
    }
    (list.count() > 0).then_some(list)
}

/// The offsets of partitions that go away.
fn last<'a>(book: &Book, seats: impl Iterator<Item = &'a Seat>) -> Option<TopicPartitionList> {
    list(book, seats.map(|seat| &*seat.partition), |partition, _| !book.is_committed(partition))
}

/// Where the group has no offset, the first message that is not older than `ms`; behind the last one where all are older.
fn begin_at(consumer: &BaseConsumer<Member>, list: &mut TopicPartitionList, ms: i64) -> KafkaResult<()> {
    let committed = consumer.committed_offsets(list.clone(), ANSWER_MAX)?;
    let mut unknown = TopicPartitionList::new();
    for element in committed.elements() {
        if !matches!(element.offset(), Offset::Offset(_)) {
            unknown.add_partition_offset(element.topic(), element.partition(), Offset::Offset(ms))?;
        }
    }
    if unknown.count() == 0 {
        return Ok(());
    }
    for found in consumer.offsets_for_times(unknown, ANSWER_MAX)?.elements() {
        let offset = match found.offset() {
            offset @ Offset::Offset(_) => offset,
            _ => Offset::End,
        };
        list.set_partition_offset(found.topic(), found.partition(), offset)?;
    }
    Ok(())
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.voice.log(level, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.voice.connected();
        }
        for ((topic, number), seat) in self.seats().iter() {
            let topic = statistics.topics.get(&**topic);
            if let Some(partition) = topic.and_then(|topic| topic.partitions.get(number)) {
                seat.partition.seen(partition.hi_offset, partition.committed_offset);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_incremental = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(consumer, list);
                let assigned =
                    if is_incremental { consumer.incremental_assign(list) } else { consumer.assign(list) };
                // One that comes back is as it was left: paused, and nobody would ever know.
                assigned.and_then(|()| if list.count() > 0 { consumer.resume(list) } else { Ok(()) })
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.revoked(consumer, list);
                if is_incremental { consumer.incremental_unassign(list) } else { consumer.unassign() }
            }
            other => {
                self.voice.error(&KafkaError::Rebalance(other.into()));
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            self.voice.error(&error);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.committed(offsets),
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => {
                self.voice.error(&error);
                self.not_committed(offsets);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
