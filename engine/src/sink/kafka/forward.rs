//! The owner of an outlet of a transactional sink on one shard: sends batches on to the one that makes the transactions, in
//! order, and home when it has decided.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::outlets::Outlets;
use super::send::Figures;
use super::transactor::Letter;
use crate::batch::Batch;
use crate::shard::{Intake, Shard};

/// Between two looks whether the sink has stopped, when all it still has is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// What all owners of a sink share.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) outlets: Arc<Mutex<Outlets>>,
    pub(super) letters: UnboundedSender<Letter>,
    pub(super) figures: Arc<Figures>,
    /// Whether the sink sends nothing any more, and gives nothing back.
    pub(super) has_stopped: Arc<AtomicBool>,
}

/// Sends on until there are no more and all are home. What a sink that has stopped holds is not waited for: it counts as not
/// delivered.
pub(super) async fn forward(shard: Rc<Shard>, intake: Rc<Intake>, number: u32, post: Post) {
    let (home, mut decided) = unbounded_channel();
    let mut out = 0_usize;
    let is_done = |out: usize| {
        let is_last = intake.is_closed() && intake.is_empty();
        is_last && (out == 0 || post.has_stopped.load(Ordering::Acquire))
    };
    while !is_done(out) {
        tokio::select! {
            biased;
            // The other end of it is held here.
            Some((batch, verdict)) = decided.recv(), if out > 0 => {
                out -= 1;
                shard.send_home(batch, verdict);
            }
            batch = intake.next(), if !intake.is_closed() || !intake.is_empty() => {
                if let Some(batch) = batch {
                    out += usize::from(post.send(batch, number, &home));
                }
            }
            () = tokio::time::sleep(LOOK), if out > 0 && intake.is_closed() => {}
        }
    }
    intake.ended();
}

impl Post {
    /// Whether it went out.
    fn send(&self, batch: Box<Batch>, number: u32, home: &UnboundedSender<super::transactor::Home>) -> bool {
        let outlet = self.outlets.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned();
        let Some(outlet) = outlet else { return false };
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        // Where nobody makes transactions any more it counts as not delivered.
        self.letters.send(Letter { batch, outlet, home: home.clone() }).is_ok()
    }
}
