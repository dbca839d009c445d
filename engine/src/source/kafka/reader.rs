//! The reader: one thread a source, which owns the consumer.
//!
//! In turns: serve events, take messages while there is room, send parcels off, pause partitions whose shard does not keep
//! up, commit what a checkpoint has. It waits for messages when there is room, and for events when there is none. When the source is stopped
//! it takes no more, waits until the shards are done with what they have and a checkpoint has it, commits, and leaves the
//! group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::group::{Member, Place, Seat};
use super::parcel::{PARCEL_BYTES, Parcel};
use crate::kafka::native::{Consumer, Stretch, TAKEN_MAX};
use crate::kafka::topics::create;
use crate::memory::{Charge, Memory, Use};
use crate::source::stop::Stop;

/// What may wait between the reader and all shards; beyond it messages stay with librdkafka.
pub const WAITING_BYTES_MAX: usize = 16 << 20;
/// The least that may wait of one partition before it is paused.
const SHARE_BYTES_MIN: usize = 512 << 10;
/// And for how long its shard must have taken nothing: librdkafka throws away what it has fetched of a partition that is
/// paused, and asks the broker for it again. Half of what a fast consumer gets was such, where a burst was enough.
const STILL: Duration = Duration::from_millis(500);
/// What of one partition may be waiting for room in its shard's mailbox: then no more is taken of any, before it is paused.
const BUILDING_BYTES_MAX: usize = 2 * PARCEL_BYTES;
/// How long it waits for messages or events.
const WAIT: Duration = Duration::from_millis(50);
/// Between two looks at whether there is room again.
const ROOM_LOOK: Duration = Duration::from_millis(5);

/// What a reader works with.
pub struct Reader {
    /// The consumer.
    pub consumer: Consumer<Member>,
    /// What its callbacks know.
    pub member: Arc<Member>,
    /// Topics, or patterns that begin with `^`.
    pub topics: Vec<String>,
    /// The settings to make topics with, if those that do not exist are made.
    pub create_with: Option<rdkafka::ClientConfig>,
    /// The engine's memory.
    pub memory: Arc<Memory>,
    /// Empty parcels, for the reader to fill.
    pub spare: Arc<ArrayQueue<Parcel>>,
    /// Raised when the source must stop.
    pub stop: Stop,
    /// Raised when nobody waits for it any more.
    pub abandoned: Stop,
    /// What librdkafka fetches ahead.
    pub _fetched: Charge,
}

impl Reader {
    /// Reads until it is stopped.
    pub fn run(self) {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if let Some(create_with) = &self.create_with {
            create(&self.member.voice, create_with, &topics);
        }
        if let Err(error) = self.consumer.inner().subscribe(&topics) {
            self.member.voice.error(&error);
        }
        let mut committed = Instant::now();
        let mut is_well = true;
        while is_well && !self.stop.is_raised() {
            let has_room = self.has_room();
            is_well = self.serve_events(if has_room { Duration::ZERO } else { ROOM_LOOK });
            if has_room {
                self.take();
            } else {
                // What did not fit into a mailbox may fit now.
                self.send_all(0);
            }
            self.pause_and_resume();
            if committed.elapsed() >= self.member.commit_pause() {
                committed = Instant::now();
                self.commit();
            }
        }
        self.farewell();
    }

    /// Serves rebalances, errors and statistics. After a fatal error (another member has our static identity) it is over.
    fn serve_events(&self, wait: Duration) -> bool {
        match self.consumer.inner().poll(wait) {
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                self.member.voice.error(&error);
                return false;
            }
            Some(Err(error)) => self.member.voice.error(&error),
            // Messages come by another way.
            Some(Ok(_)) => debug_assert!(false, "a message that was not diverted"),
            None => {}
        }
        true
    }

    fn waiting_bytes(seats: &HashMap<Place, Seat>) -> usize {
        seats.values().map(Seat::waiting_bytes).sum()
    }

    fn has_room(&self) -> bool {
        let seats = self.member.seats();
        let waiting = Self::waiting_bytes(&seats);
        let is_stuck = |seat: &Seat| !seat.is_paused && seat.building.bytes() >= BUILDING_BYTES_MAX;
        waiting == 0
            || (waiting < WAITING_BYTES_MAX && !seats.values().any(is_stuck) && self.memory.has(PARCEL_BYTES))
    }

    /// Takes messages and sends them off.
    fn take(&self) {
        // What did not fit into a mailbox goes first.
        let wait = if self.send_all(0) { WAIT } else { ROOM_LOOK };
        let taken = self.consumer.take(wait, |stretch| self.put(&stretch));
        if taken > 0 {
            self.member.voice.well();
        }
        self.send_all(if taken == TAKEN_MAX { PARCEL_BYTES } else { 0 });
    }

    /// Puts messages into the parcel of their partition. Those whose partition has gone are another member's.
    fn put(&self, stretch: &Stretch<'_>) {
        let Some(first) = stretch.iter().next() else { return };
        if let Some((code, text)) = first.error() {
            let text = format!("{}/{}: {text}", first.topic(), first.partition());
            return self.member.voice.failed(code, &text);
        }
        let mut seats = self.member.seats();
        let Some(seat) = seats.get_mut(&(first.topic().into(), first.partition())) else { return };
        for taken in stretch.iter() {
            if seat.building.is_empty() {
                seat.building = self.spare.pop().unwrap_or_default();
            }
            seat.building.push(&taken);
            if seat.building.bytes() >= PARCEL_BYTES {
                self.send(seat);
            }
        }
    }

    /// Sends off what has at least so many bytes; whether all of it could be.
    fn send_all(&self, least: usize) -> bool {
        let mut seats = self.member.seats();
        let mut all = true;
        for seat in seats.values_mut() {
            if !seat.building.is_empty() && seat.building.bytes() >= least {
                all &= self.send(seat);
            }
        }
        all
    }

    fn send(&self, seat: &mut Seat) -> bool {
        let mut parcel = std::mem::take(&mut seat.building);
        let bytes = parcel.bytes();
        let charge = |bytes| self.memory.charge(bytes).used_for(Use::Kafka);
        parcel.charge = Some(parcel.charge.take().unwrap_or_else(|| charge(bytes.max(PARCEL_BYTES))));
        match seat.partition.send(parcel) {
            Ok(()) => true,
            Err(parcel) => {
                seat.building = parcel;
                false
            }
        }
    }

    /// Pauses partitions whose shard has its share and takes none of it, and resumes those whose shard has caught up.
    fn pause_and_resume(&self) {
        let mut seats = self.member.seats();
        let share = (WAITING_BYTES_MAX / seats.len().max(1)).max(SHARE_BYTES_MIN);
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        let now = Instant::now();
        for seat in seats.values_mut() {
            let (waiting, is_still) = (seat.waiting_bytes(), seat.still_for(now) >= STILL);
            let is_full = waiting >= share || seat.building.bytes() >= BUILDING_BYTES_MAX;
            let list = match seat.is_paused {
                false if is_full && is_still => &mut pause,
                true if waiting <= share / 4 => &mut resume,
                _ => continue,
            };
            list.add_partition(&seat.partition.topic, seat.partition.number);
            seat.is_paused = !seat.is_paused;
        }
        drop(seats);
        let consumer = self.consumer.inner();
        let paused = if pause.count() > 0 { consumer.pause(&pause) } else { Ok(()) };
        let resumed = if resume.count() > 0 { consumer.resume(&resume) } else { Ok(()) };
        if let Err(error) = paused.and(resumed) {
            self.member.voice.error(&error);
        }
    }

    fn commit(&self) {
        if let Some(offsets) = self.member.to_commit() {
            self.member.commit(self.consumer.inner(), &offsets, CommitMode::Async);
        }
    }

    /// Takes no more, lets the shards finish, commits and leaves.
    fn farewell(self) {
        let mut committed = Instant::now();
        let mut has_asked = false;
        loop {
            let mut seats = self.member.seats();
            // Those that come only now as well.
            seats.values_mut().for_each(|seat| {
                seat.partition.end();
                seat.building = Parcel::default();
            });
            let all_left = seats.values().all(|seat| seat.partition.has_left());
            let all_kept = all_left && seats.values().all(|seat| self.member.book.is_kept(&seat.partition));
            drop(seats);
            if all_kept || self.abandoned.is_raised() {
                break;
            }
            if all_left && !has_asked {
                has_asked = true;
                self.member.book.ask();
            }
            self.serve_events(ROOM_LOOK);
            if committed.elapsed() >= self.member.commit_pause() {
                committed = Instant::now();
                self.commit();
            }
        }
        // What is not done by now is not committed by a sink either: this member leaves.
        self.member.seats().values().for_each(|seat| seat.partition.assigned.lose());
        if let Some(offsets) = self.member.to_commit_at_last() {
            let mode = if self.abandoned.is_raised() { CommitMode::Async } else { CommitMode::Sync };
            self.member.commit(self.consumer.inner(), &offsets, mode);
        }
        log::debug!(target: "wpgen::kafka", "{}: leaves its group", self.member.voice.who());
    }
}
