//! Work done where it arrives: a queue, and one future that empties it on the spot.
//!
//! The worker is polled by its own task, which is where it is woken when a sink has credit again, and in the very
//! callback that brings something, so that in the usual case a segment is framed, parsed and encoded while it is hot and
//! its buffer is free before the turn ends. While the worker waits, what arrives stays queued, in order. The queue has
//! no bound of its own: whoever puts something in bounds it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::source::part::Part;

/// What arrived and is not worked up yet, in order.
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    /// Whether the worker is in the middle of an item.
    busy: Cell<bool>,
    closed: Cell<bool>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: RefCell::default(), busy: Cell::new(false), closed: Cell::new(false) }
    }
}

impl<T> Queue<T> {
    /// The next item, `None` after the last one. Nothing is woken: whoever adds an item polls the worker.
    pub async fn next(&self) -> Option<T> {
        self.busy.set(false);
        let item = std::future::poll_fn(|_| {
            let item = self.items.borrow_mut().pop_front();
            match item {
                None if !self.closed.get() => Poll::Pending,
                item => Poll::Ready(item),
            }
        });
        item.await.inspect(|_| self.busy.set(true))
    }

    /// Adds an item; whether the worker would take it at once.
    fn put(&self, item: T) -> bool {
        let mut items = self.items.borrow_mut();
        items.push_back(item);
        items.len() == 1 && !self.busy.get()
    }
}

/// A queue and its worker.
pub struct Desk<T> {
    queue: Rc<Queue<T>>,
    /// `None` once it has ended.
    worker: RefCell<Option<Part>>,
    /// Wakes the worker's task.
    waker: RefCell<Waker>,
}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        let waker = RefCell::new(Waker::noop().clone());
        Self { queue: Rc::default(), worker: RefCell::new(None), waker }
    }
}

impl<T> Desk<T> {
    /// Gives it its worker, which takes from [`Desk::queue`] until it gets `None`.
    pub fn employ(&self, worker: Part) {
        *self.worker.borrow_mut() = Some(worker);
    }

    /// What arrives for the worker.
    pub fn queue(&self) -> &Rc<Queue<T>> {
        &self.queue
    }

    /// Adds an item and, if the worker is free, has it worked up here and now.
    pub fn put(&self, item: T) {
        if self.queue.put(item) {
            self.work_now();
        }
    }

    /// No more will come: the worker ends when it has worked up what is there.
    pub fn close(&self) {
        self.queue.closed.set(true);
        self.work_now();
    }

    /// The worker's task: waits until it has ended.
    pub async fn ended(&self) {
        std::future::poll_fn(|cx| {
            self.waker.borrow_mut().clone_from(cx.waker());
            self.poll(cx)
        })
        .await;
    }

    fn work_now(&self) {
        let waker = self.waker.borrow();
        if self.poll(&mut Context::from_waker(&waker)).is_ready() {
            waker.wake_by_ref();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut worker = self.worker.borrow_mut();
        let Some(working) = &mut *worker else { return Poll::Ready(()) };
        let ended = working.as_mut().poll(cx);
        if ended.is_ready() {
            *worker = None;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Notify;

    #[test]
    fn items_are_worked_up_where_they_arrive_and_wait_in_order_behind_one_that_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let done = Rc::new(RefCell::new(Vec::new()));
        let free = Rc::new(Notify::new());
        let desk = Desk::<u32>::default();
        let (queue, list, gate) = (Rc::clone(desk.queue()), Rc::clone(&done), Rc::clone(&free));
        desk.employ(Box::pin(async move {
            while let Some(item) = queue.next().await {
                if item == 2 {
                    gate.notified().await;
                }
                list.borrow_mut().push(item);
            }
        }));
        runtime.block_on(async {
            tokio::join!(desk.ended(), async {
                desk.put(1);
                assert_eq!(*done.borrow(), [1], "at once");
                (2..5).for_each(|item| desk.put(item));
                assert_eq!(*done.borrow(), [1], "the second waits");
                free.notify_one();
                while done.borrow().len() < 4 {
                    tokio::task::yield_now().await;
                }
                desk.put(5);
                desk.close();
            });
        });
        assert_eq!(*done.borrow(), [1, 2, 3, 4, 5]);
    }
}
