//! The engine's view of a Kafka source: a part on each shard, one reader's thread behind all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::deliver::{Rules, deliver_all};
use super::group::Member;
use super::parcel::Parcel;
use super::partition::Partition;
use super::reader::Reader;
use crate::checkpoint::{self, Snapshot};
use crate::kafka::native::Consumer;
use crate::kafka::voice::Voice;
use crate::memory::Use;
use crate::source::part::{Part, Source, Surroundings};
use crate::source::stop::Stop;
use crate::status::PartitionLag;

/// How long leaving the group may take once everything is delivered, for each shard. It is left in the background then.
pub(super) const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// What a source is made of.
pub struct Settings {
    /// How records are made.
    pub rules: Arc<Rules>,
    /// Topics, or patterns that begin with `^`.
    pub topics: Vec<String>,
    /// The settings to make topics with, if those that do not exist are made.
    pub create_with: Option<rdkafka::ClientConfig>,
    /// For people: brokers and group.
    pub opened: String,
    /// What librdkafka may fetch ahead.
    pub fetched_bytes: usize,
    /// Shards that will run.
    pub shards: usize,
}

/// See above.
pub struct KafkaSource {
    settings: Settings,
    spare: Arc<ArrayQueue<Parcel>>,
    member: Arc<Member>,
    /// Until the reader has it.
    consumer: Mutex<Option<Consumer<Member>>>,
    /// Raised when the reader is to stop.
    stop: Stop,
    /// Parts that have not ended.
    parts_left: AtomicUsize,
    /// Raised when all parts have ended before the reader did.
    abandoned: Stop,
    /// Raised when the reader has left the group.
    ended: Stop,
}

impl KafkaSource {
    /// A source with its consumer, which has not joined its group.
    pub fn new(settings: Settings, consumer: Consumer<Member>, member: Arc<Member>) -> Self {
        let spare = Arc::clone(&settings.rules.spare);
        let consumer = Mutex::new(Some(consumer));
        let parts_left = AtomicUsize::new(settings.shards);
        Self {
            settings,
            spare,
            member,
            consumer,
            stop: Stop::default(),
            parts_left,
            abandoned: Stop::default(),
            ended: Stop::default(),
        }
    }

    fn voice(&self) -> &Voice {
        &self.member.voice
    }

    /// Starts the reader's thread.
    fn start(&self, around: &Surroundings) {
        let consumer = self.consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(consumer) = consumer else { return };
        let memory = Arc::clone(around.shard.memory());
        let reader = Reader {
            consumer,
            member: Arc::clone(&self.member),
            topics: self.settings.topics.clone(),
            create_with: self.settings.create_with.clone(),
            _fetched: memory.charge(self.settings.fetched_bytes).used_for(Use::Kafka),
            memory,
            spare: Arc::clone(&self.spare),
            stop: self.stop.clone(),
            abandoned: self.abandoned.clone(),
        };
        let ended = self.ended.clone();
        let thread = std::thread::Builder::new().name(format!("kafka-{}", self.settings.rules.key));
        let started = thread.spawn(move || {
            // However it ends.
            let _ended = Raised(ended);
            reader.run();
        });
        if let Err(error) = started {
            around.counters.errors.add(1);
            log::error!(target: "wpgen::kafka", "{}: its thread cannot be started: {error}", self.voice().who());
            self.ended.raise();
        }
    }

    async fn deliver(&self, around: Surroundings) {
        let _ended = PartEnded(self);
        let (part, mut partitions) = mpsc::unbounded_channel::<Arc<Partition>>();
        if self.member.enter(part) == self.settings.shards {
            self.start(&around);
        }
        let (open, closed): (Rc<RefCell<Vec<Open>>>, Rc<Notify>) = Default::default();
        let (mut is_asked, mut farewell) = (false, None);
        loop {
            let is_over = is_asked && open.borrow().is_empty();
            farewell = is_over.then(|| farewell.unwrap_or_else(|| Instant::now() + FAREWELL_MAX));
            tokio::select! {
                biased;
                () = around.shard.settled() => note_durable(&around, &open.borrow()),
                Some(partition) = partitions.recv() => {
                    let begin = partition.begin.unwrap_or(0);
                    let slot = Rc::new(Cell::new(around.shard.settle().open(partition.id(), begin)));
                    open.borrow_mut().push((Rc::clone(&slot), Arc::clone(&partition)));
                    let (rules, around, open) = (Arc::clone(&self.settings.rules), around.clone(), Rc::clone(&open));
                    let closed = Rc::clone(&closed);
                    let book = Arc::clone(&self.member.book);
                    tokio::task::spawn_local(async move {
                        deliver_all(Arc::clone(&partition), book, rules, around, slot).await;
                        // In the same turn: nobody asks for a window that is closed.
                        open.borrow_mut().retain(|(_, other)| !Arc::ptr_eq(other, &partition));
                        closed.notify_one();
                    });
                }
                () = around.stop.raised(), if !is_asked => {
                    is_asked = true;
                    self.stop.raise();
                }
                () = self.ended.raised() => break,
                () = closed.notified() => {}
                () = sleep_until(farewell), if is_over => break,
            }
        }
        // One that came while the part ended is nobody's.
        partitions.close();
        while let Ok(partition) = partitions.try_recv() {
            partition.leave();
        }
        // A reader that ended by itself has left nothing behind; what is delivered settles with the lanes.
        open.borrow().iter().for_each(|(_, partition)| partition.end());
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

/// A partition that is open on a shard, and its window.
type Open = (Rc<Cell<u32>>, Arc<Partition>);

/// Notes how far each partition is durable.
fn note_durable(around: &Surroundings, open: &[Open]) {
    let settle = around.shard.settle();
    open.iter().for_each(|(slot, partition)| partition.set_durable(settle.low(slot.get())));
}

/// Raises a flag when it goes.
struct Raised(Stop);

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// Counts a part that ends. One without partitions ends soon; what others still deliver keeps the reader in its group.
struct PartEnded<'a>(&'a KafkaSource);

impl Drop for PartEnded<'_> {
    fn drop(&mut self) {
        if self.0.parts_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.abandoned.raise();
        }
    }
}

impl Source for KafkaSource {
    fn key(&self) -> &str {
        &self.settings.rules.key
    }

    fn opened(&self) -> Vec<String> {
        vec![self.settings.opened.clone()]
    }

    fn buffer_bytes(&self) -> u64 {
        0
    }

    fn run(self: Arc<Self>, around: Surroundings) -> Part {
        Box::pin(async move { self.deliver(around).await })
    }

    fn places(&self, low: &HashMap<u64, u64>) -> Vec<checkpoint::Partition> {
        self.member.book.places(low)
    }

    fn kept(&self, snapshot: &Snapshot) {
        self.member.book.kept(snapshot);
    }

    fn revision(&self) -> u64 {
        self.member.book.revision()
    }

    fn errors(&self) -> u64 {
        self.voice().errors()
    }

    fn partitions(&self) -> Vec<PartitionLag> {
        let seats = self.member.seats();
        let mut all: Vec<PartitionLag> = seats
            .values()
            .map(|seat| PartitionLag {
                topic: seat.partition.topic.to_string(),
                partition: seat.partition.number,
                messages: seat.partition.lag(),
            })
            .collect();
        all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        all
    }

    fn trouble(&self) -> Option<String> {
        self.voice().trouble()
    }
}
