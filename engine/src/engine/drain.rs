//! The end of an engine: everything that was taken is delivered, the checkpoint is written, the threads end. Whatever hangs
//! in a call to the kernel is not waited for longer than is said, and ends with the process.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{ANSWER_MAX, Engine, POLL};
use crate::shard::Shard;
use crate::status::Status;

/// However little time is left, a shard that is asked whether it has come to rest has the time of a long turn.
const ANSWER_LEAST: Duration = Duration::from_secs(1);

impl Engine {
    /// Stops taking, lets the sinks have everything that was taken, writes the checkpoint, ends the shards. Returns
    /// whether all of it was settled within `at_most`, and the last status. Where the disk does not answer the checkpoint, or
    /// a shard does not end, it takes [`ANSWER_MAX`] longer for each.
    pub fn drain(self, at_most: Duration) -> (bool, Status) {
        self.drain_within(at_most, ANSWER_MAX)
    }

    fn drain_within(mut self, at_most: Duration, answer_max: Duration) -> (bool, Status) {
        let until = Instant::now() + at_most;
        let (running, lost) = (self.shared.running(), self.shared.lost());
        running.iter().for_each(|running| running.stop(at_most));
        let mut settled = self.parts.wait(at_most) && self.shared.lost() == lost;
        self.shared.order_all(|shard| shard.seal_all());
        settled &= self.wait_for(until, |shard| shard.settle().is_all_idle());
        self.shared.order_all(|shard| shard.close_intakes());
        settled &= self.wait_for(until, |shard| shard.owners() == 0);
        if let Some(keeper) = self.keeper.take() {
            settled &= keeper.stop(answer_max);
        }
        let status = self.status();
        self.shared.order_all(|shard| shard.end());
        let until = Instant::now() + answer_max;
        for (worker, thread) in self.threads.into_iter().enumerate() {
            if !await_end(thread, until) {
                settled = false;
                log::error!(
                    target: "wpgen::start",
                    "worker {worker} does not end: a call to the kernel hangs, as one to a disk that does not answer; it ends \
                     with the process"
                );
            }
        }
        (settled, status)
    }

    /// Asks every shard until all say yes, or the time is over.
    pub(super) fn wait_for(
        &self,
        until: Instant,
        condition: impl Fn(&Shard) -> bool + Clone + Send + 'static,
    ) -> bool {
        loop {
            let condition = condition.clone();
            let answer_until = until.max(Instant::now() + ANSWER_LEAST);
            let answers = self.shared.ask_all(answer_until, move |shard| condition(shard));
            if answers.is_ok_and(|answers| answers.into_iter().all(|yes| yes)) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Waits for the end of a thread until then; whether it has ended, and well.
pub(crate) fn await_end(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(POLL);
    }
    thread.join().is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::io::Backend;
    use crate::shard::Order;
    use crate::source::playground::start;

    #[test]
    fn a_worker_that_hangs_is_not_waited_for() {
        const SOON: Duration = Duration::from_millis(1);
        let engine = start(Backend::Epoll, &[]);
        let (answers, disk) = mpsc::channel::<()>();
        let hang: Order = Box::new(move |_| {
            let _ = disk.recv();
        });
        assert!(engine.shared.links[0].orders.send(hang).is_ok());
        let silent = engine.answers(Instant::now() + 50 * SOON).expect_err("it hangs");
        let spent = silent.spent.expect("the kernel counts threads");
        assert!(spent.slept > spent.ran + spent.waited, "it sleeps in a call: {silent}");
        let (settled, _) = engine.drain_within(SOON, SOON);
        assert!(!settled, "it is told");
        drop(answers);
    }
}
