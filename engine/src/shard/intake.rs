//! What lies between a shard and the owner of an outlet: batches on their way, and those that came back.
//!
//! Batches come back in two cases. A guard stands in front, and the owner cannot write; or the shard recalls everything,
//! because another sink takes the owner's place.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::batch::Batch;

/// What a sink's owner is given: batches, in order of sending.
#[derive(Debug, Default)]
pub struct Intake {
    queue: RefCell<VecDeque<Box<Batch>>>,
    arrived: Notify,
    opened: Cell<bool>,
    open: Notify,
    closed: Cell<bool>,
    ended: Cell<bool>,
    end: Notify,
    /// The intake of who stands in front.
    outer: Option<Rc<Intake>>,
    /// What the owner gave back.
    returned: RefCell<VecDeque<Box<Batch>>>,
    recall: Cell<Recall>,
    recalled: Notify,
}

/// Whether the owner is to give back everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Recall {
    #[default]
    No,
    Asked,
    Done,
}

/// The other side of an intake, for who stands between the lanes and an owner.
impl Intake {
    /// An intake whose owner can give batches back; whoever takes from `outer` is told when it does, or ends.
    pub fn guarded(outer: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { outer: Some(Rc::clone(outer)), ..Self::default() })
    }

    /// Whether the owner can give batches back at any time.
    pub fn is_guarded(&self) -> bool {
        self.outer.is_some()
    }

    /// The owner cannot write a batch, or is not to: to be called in the order of batches, for all that it has.
    pub fn give_back(&self, batch: Box<Batch>) {
        debug_assert!(self.is_guarded() || self.is_recalled(), "somebody must want it");
        self.returned.borrow_mut().push_back(batch);
        if let Some(outer) = &self.outer {
            outer.arrived.notify_one();
        }
    }

    /// What the owner gave back since the last call.
    pub fn take_returned(&self) -> VecDeque<Box<Batch>> {
        self.returned.take()
    }

    /// Has the owner give back everything, and waits until it has. It must be one that listens, and have something.
    pub(super) async fn recall(&self) -> VecDeque<Box<Batch>> {
        self.recall.set(Recall::Asked);
        self.recalled.notify_waiters();
        while self.recall.get() != Recall::Done {
            self.recalled.notified().await;
        }
        self.take_returned()
    }

    /// Whether the owner is to give back everything.
    pub fn is_recalled(&self) -> bool {
        self.recall.get() == Recall::Asked
    }

    /// Waits until it is.
    pub async fn until_recalled(&self) {
        while !self.is_recalled() {
            self.recalled.notified().await;
        }
    }

    /// The owner has given back everything.
    pub fn all_given_back(&self) {
        self.recall.set(Recall::Done);
        self.recalled.notify_waiters();
    }

    /// Its owner begins.
    pub(super) fn opened(&self) {
        self.opened.set(true);
        self.open.notify_waiters();
    }

    /// Waits until its owner has begun: until then it may be given more than what it was sent.
    pub(super) async fn until_opened(&self) {
        while !self.opened.get() {
            self.open.notified().await;
        }
    }

    /// Puts batches in front of all others.
    pub(super) fn put_first(&self, batches: impl DoubleEndedIterator<Item = Box<Batch>>) {
        let mut queue = self.queue.borrow_mut();
        batches.rev().for_each(|batch| queue.push_front(batch));
        self.arrived.notify_one();
    }

    /// What the owner was given and has not taken.
    pub fn take_all(&self) -> VecDeque<Box<Batch>> {
        self.queue.take()
    }

    /// Waits until a batch comes, one comes back, the intake is closed, or the owner behind has ended.
    pub async fn changed(&self) {
        self.arrived.notified().await;
    }

    /// Waits until the intake is closed.
    pub async fn until_closed(&self) {
        while !self.closed.get() {
            self.arrived.notified().await;
        }
    }

    /// Whether the owner has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }
}

impl Intake {
    /// The next batch; `None` when the engine drains and there is no more.
    pub async fn next(&self) -> Option<Box<Batch>> {
        loop {
            if let Some(batch) = self.try_next() {
                return Some(batch);
            }
            if self.closed.get() {
                return None;
            }
            self.arrived.notified().await;
        }
    }

    /// A batch that is there now. After the owner gave one back there is none until that was taken: what came behind
    /// it must not overtake it.
    pub fn try_next(&self) -> Option<Box<Batch>> {
        if self.is_guarded() && !self.returned.borrow().is_empty() {
            return None;
        }
        self.queue.borrow_mut().pop_front()
    }

    /// Batches waiting.
    pub fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Whether the engine drains.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Puts a batch in.
    pub fn put(&self, batch: Box<Batch>) {
        self.queue.borrow_mut().push_back(batch);
        self.arrived.notify_one();
    }

    /// No more will come.
    pub fn close(&self) {
        self.closed.set(true);
        self.arrived.notify_one();
    }

    /// The owner has written, closed and ended.
    pub fn ended(&self) {
        self.ended.set(true);
        self.end.notify_waiters();
        if let Some(outer) = &self.outer {
            outer.arrived.notify_one();
        }
    }

    /// Waits until the owner has ended.
    pub(super) async fn until_ended(&self) {
        while !self.ended.get() {
            self.end.notified().await;
        }
    }
}
