//! A wake, as `tokio::sync::Notify` documents it: `notify_one` wakes one who waits or is kept for the next, and
//! `notify_waiters` reaches every [`Notified`] that was made before it, and nobody else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;

/// The wake.
#[derive(Debug)]
pub struct Notify {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A wake that nobody waited for.
    kept: bool,
    /// Calls of `notify_waiters`.
    calls: usize,
    /// Who waits, the longest first.
    waiting: Vec<(usize, Option<Waker>)>,
    next: usize,
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

impl Notify {
    /// A wake that was not given.
    pub fn new() -> Self {
        Self { state: Mutex::new(State::default()) }
    }

    /// Wakes one, now or later.
    pub fn notify_one(&self) {
        let mut state = self.state.lock().unwrap();
        if state.waiting.is_empty() {
            state.kept = true;
        } else if let (_, Some(waker)) = state.waiting.remove(0) {
            drop(state);
            waker.wake();
        }
    }

    /// Wakes all who wait now.
    pub fn notify_waiters(&self) {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
    }

    /// The next wake.
    pub fn notified(&self) -> Notified<'_> {
        let calls = self.state.lock().unwrap().calls;
        Notified { notify: self, calls, place: None }
    }
}

/// Somebody who waits, from the first poll or `enable` on.
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    calls: usize,
    place: Option<usize>,
}

impl Notified<'_> {
    /// Begins to wait; whether it is woken already.
    pub fn enable(self: Pin<&mut Self>) -> bool {
        self.get_mut().step(None)
    }

    fn step(&mut self, waker: Option<&Waker>) -> bool {
        let mut state = self.notify.state.lock().unwrap();
        if state.calls != self.calls {
            return true;
        }
        match self.place {
            None if state.kept => {
                state.kept = false;
                true
            }
            None => {
                let place = state.next;
                state.next += 1;
                state.waiting.push((place, waker.cloned()));
                self.place = Some(place);
                false
            }
            Some(place) => match state.waiting.iter_mut().find(|(other, _)| *other == place) {
                Some((_, there)) => {
                    *there = waker.cloned().or(there.take());
                    false
                }
                None => true,
            },
        }
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.get_mut().step(Some(cx.waker())) { Poll::Ready(()) } else { Poll::Pending }
    }
}
