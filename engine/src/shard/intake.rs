//! What lies between a shard and the owner of an outlet: batches on their way, and with a guard those that came back.

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
    closed: Cell<bool>,
    ended: Cell<bool>,
    end: Notify,
    guard: Option<Guard>,
}

/// Who stands in front of an intake, and what the owner gave back to it.
#[derive(Debug)]
struct Guard {
    outer: Rc<Intake>,
    returned: RefCell<VecDeque<Box<Batch>>>,
}

/// The other side of an intake, for who stands between the lanes and an owner.
impl Intake {
    /// An intake whose owner can give batches back; whoever takes from `outer` is told when it does, or ends.
    pub fn guarded(outer: &Rc<Self>) -> Rc<Self> {
        let guard = Guard { outer: Rc::clone(outer), returned: RefCell::default() };
        Rc::new(Self { guard: Some(guard), ..Self::default() })
    }

    /// Whether the owner can give batches back.
    pub fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// The owner cannot write a batch: to be called in the order of batches, for all that it has.
    ///
    /// # Panics
    /// If nobody stands in front.
    pub fn give_back(&self, batch: Box<Batch>) {
        let guard = self.guard.as_ref().expect("only a guarded intake takes batches back");
        guard.returned.borrow_mut().push_back(batch);
        guard.outer.arrived.notify_one();
    }

    /// What the owner gave back since the last call.
    pub fn take_returned(&self) -> VecDeque<Box<Batch>> {
        self.guard.as_ref().map(|guard| guard.returned.take()).unwrap_or_default()
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
        if self.guard.as_ref().is_some_and(|guard| !guard.returned.borrow().is_empty()) {
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
        if let Some(guard) = &self.guard {
            guard.outer.arrived.notify_one();
        }
    }

    /// Waits until the owner has ended.
    pub(super) async fn until_ended(&self) {
        while !self.ended.get() {
            self.end.notified().await;
        }
    }
}
