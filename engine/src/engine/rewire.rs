//! Changing what runs: sources and sinks come, go and change their routes, while the others never notice.
//!
//! Only mechanism: which ones, and in which order, is decided by [`crate::reload`]. Each change is an order to every
//! shard, done between two turns. What a source that stops or a sink that leaves still has is delivered; whoever waits
//! for that waits for a bounded time, and it goes on behind their back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{ANSWER_MAX, Engine, POLL, Running, Unanswered, lock};
use crate::batch::SinkId;
use crate::checkpoint::Snapshot;
use crate::keeper::{Keeper, Persist};
use crate::rescue::Forgotten;
use crate::shard::Leaving;
use crate::sink::route::{Sink, Where};

/// The longest wait for a checkpoint that says what runs: a start without it reads on from the one before.
const KEEP_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// An id for a new sink: none that is in use, and none of those `taken` by sinks that are not known yet.
    pub(crate) fn free_sink_id(&self, taken: &[SinkId]) -> Option<SinkId> {
        let leaving = self.shared.leaving();
        let sinks = self.shared.sinks();
        let used: Vec<SinkId> =
            sinks.iter().chain(leaving.iter().map(|l| &l.sink)).map(|sink| sink.id()).collect();
        (0..SinkId::MAX).find(|id| !used.contains(id) && !taken.contains(id))
    }

    /// Makes a sink known to all shards. Nobody feeds it yet.
    pub(crate) fn add_sink(&self, sink: Arc<dyn Sink>) {
        let known = Arc::clone(&sink);
        self.shared.order_all(move |shard| shard.add_sink(Arc::clone(&known)));
        lock(&self.shared.sinks).push(sink);
    }

    /// Makes a sink known to all shards that takes another one's place, once that is removed with it as its heir.
    pub(crate) fn add_heir(&self, sink: Arc<dyn Sink>) {
        let known = Arc::clone(&sink);
        self.shared.order_all(move |shard| shard.add_heir(Arc::clone(&known)));
        lock(&self.shared.sinks).push(sink);
    }

    /// The sink with this key.
    pub(crate) fn sink(&self, key: &str) -> Option<Arc<dyn Sink>> {
        self.shared.sinks().into_iter().find(|sink| sink.status().key == key)
    }

    /// Takes a sink out: nobody feeds it from now on, and it is closed when it has written what it was given, or an
    /// heir has that.
    pub(crate) fn remove_sink(&self, sink: &Arc<dyn Sink>, heir: Option<&Arc<dyn Sink>>) -> Arc<Leaving> {
        let leaving = Leaving::new(Arc::clone(sink), heir.cloned(), self.shared.links.len());
        lock(&self.shared.leaving).push(Arc::clone(&leaving));
        lock(&self.shared.sinks).retain(|other| !Arc::ptr_eq(other, sink));
        let order = Arc::clone(&leaving);
        self.shared.order_all(move |shard| shard.leave(Arc::clone(&order)));
        leaving
    }

    /// The sink with this key that was taken out and is not closed yet; of several the last one, which has what those before
    /// it did not deliver.
    pub(crate) fn leaving(&self, key: &str) -> Option<Arc<dyn Sink>> {
        let leaving = self.shared.leaving();
        leaving.iter().rfind(|leaving| leaving.sink.status().key == key).map(|last| Arc::clone(&last.sink))
    }

    /// Gives a sink what one that leaves without an heir does not deliver soon. It must have been made known by
    /// [`Engine::add_heir`].
    pub(crate) fn inherit(&self, from: SinkId, heir: SinkId) {
        self.shared.order_all(move |shard| shard.inherit(from, heir));
    }

    /// What lies on disk for sinks that are not configured.
    pub(crate) fn tell_forgotten_rescues(&self, forgotten: Vec<Forgotten>) {
        *lock(&self.shared.forgotten) = forgotten;
    }

    fn numbers(&self, key: &str) -> Vec<u64> {
        let running = self.shared.running();
        let of_key = running.iter().filter(|r| r.source.key() == key && !r.stop.is_raised());
        of_key.map(|r| r.number).collect()
    }

    /// From now on a sink takes of a source what `takes` says, in the place of `before` if that took of it.
    pub(crate) fn connect(&self, source: &str, sink: &Arc<dyn Sink>, takes: &Where, before: Option<SinkId>) {
        for number in self.numbers(source) {
            let (sink, takes) = (Arc::clone(sink), takes.clone());
            self.shared.order_all(move |shard| shard.connect(number, &sink, &takes, before));
        }
    }

    /// A sink takes nothing more of a source.
    pub(crate) fn disconnect(&self, source: &str, sink: SinkId) {
        for number in self.numbers(source) {
            self.shared.order_all(move |shard| shard.disconnect(number, sink));
        }
    }

    /// Holds sources back, or lets them go on: their sockets stay as they are, and nothing is read.
    pub(crate) fn hold(&self, sources: &[&str], held: bool) {
        for number in sources.iter().flat_map(|key| self.numbers(key)) {
            self.shared.order_all(move |shard| shard.hold(number, held));
        }
    }

    /// Waits until sources that are held have nothing on its way; `false` when the time is over first.
    pub(crate) fn wait_quiet(&self, sources: &[&str], until: Instant) -> bool {
        let numbers: Arc<[u64]> = sources.iter().flat_map(|key| self.numbers(key)).collect();
        self.wait_for(until, move |shard| numbers.iter().all(|number| shard.is_quiet(*number)))
    }

    /// Asks a source to stop, and says how long whoever asks waits.
    pub(crate) fn stop_source(&self, key: &str, at_most: Duration) {
        self.with_key(key, |running| running.stop(at_most));
    }

    /// A source that was asked to stop is configured no more: it is forgotten when it has ended.
    pub(crate) fn forget_source(&self, key: &str) {
        self.with_key(key, |running| {
            if running.stop.is_raised() {
                running.leaving.store(true, Ordering::Release);
            }
        });
    }

    /// The same for all that are not configured; what there is to say of those whose positions are forgotten with them.
    pub(crate) fn forget_sources_without(&self, is_configured: impl Fn(&str) -> bool) -> Vec<String> {
        let running = self.shared.running();
        let others = running.iter().filter(|running| !is_configured(running.source.key()));
        let new = others.filter(|r| r.stop.is_raised() && !r.leaving.swap(true, Ordering::AcqRel));
        new.filter_map(|running| self.forgotten(running)).collect()
    }

    fn with_key(&self, key: &str, act: impl Fn(&Running)) {
        self.shared.running().iter().filter(|r| r.source.key() == key).for_each(|r| act(r));
    }

    /// Waits until a source that was asked to stop has ended; `false` when the time is over first.
    pub(crate) fn wait_source(&self, key: &str, until: Instant) -> bool {
        loop {
            let running = self.shared.running();
            let mut stopping = running.iter().filter(|r| r.source.key() == key && r.stop.is_raised());
            if stopping.all(|r| r.has_ended()) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sources and sinks are told in this order from now on.
    pub(crate) fn put_in_order(&self, sources: &[&str], sinks: &[&str]) {
        let at = |keys: &[&str], key: &str| keys.iter().position(|other| *other == key).unwrap_or(usize::MAX);
        lock(&self.shared.running).sort_by_key(|r| at(sources, r.source.key()));
        lock(&self.shared.sinks).sort_by_key(|sink| at(sinks, &sink.status().key));
    }

    /// How far everything is; not when a shard does not answer until then.
    pub(crate) fn snapshot(&self, until: Instant) -> Result<Snapshot, Unanswered> {
        self.shared.snapshot(until)
    }

    /// Whether every shard takes orders: what one that hangs would do late.
    pub(crate) fn answers(&self, until: Instant) -> Result<(), Unanswered> {
        self.shared.ask_all(until, |_| ()).map(|_| ())
    }

    /// Where new inputs get their identities from.
    pub(crate) fn next_input(&self) -> &Arc<AtomicU64> {
        &self.shared.next_input
    }

    /// Shards that run.
    pub(crate) fn shards(&self) -> usize {
        self.shared.links.len()
    }

    /// A way for new sinks to ask for a checkpoint; none in an engine that keeps none.
    pub(crate) fn persist(&self) -> Option<Persist> {
        self.keeper.as_ref().map(Keeper::persist)
    }

    /// Has the checkpoint say what runs now. A failure is the keeper's to tell and to try again.
    pub(crate) fn keep_now(&self) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.write_now(KEEP_MAX);
        }
    }
}

/// Frees sinks that are closed, on a thread of its own: a client in one waits for threads of its own as it goes, and they for
/// a server of names that does not answer. Whoever is just done with one should not be the last who has it.
pub(super) fn let_go(gone: Vec<Arc<Leaving>>) {
    let free = move || {
        let until = Instant::now() + ANSWER_MAX;
        let is_shared =
            |gone: &Arc<Leaving>| Arc::strong_count(gone) > 1 || Arc::strong_count(&gone.sink) > 1;
        while gone.iter().any(is_shared) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
    };
    // Where there is no thread they are freed here.
    let _ = std::thread::Builder::new().name("sinks-end".into()).spawn(free);
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;
    use crate::io::Backend;
    use crate::shard::{Intake, Shard};
    use crate::sink::format::Format;
    use crate::source::playground::start;
    use crate::status::SinkStatus;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A sink that tells on which thread it is freed.
    struct Telling(mpsc::Sender<Option<String>>);

    impl Drop for Telling {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().map(str::to_owned));
        }
    }

    impl Sink for Telling {
        fn id(&self) -> SinkId {
            0
        }

        fn format(&self) -> Option<Format> {
            None
        }

        fn start_owner(&self, _shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
            intake.ended();
        }

        fn status(&self) -> SinkStatus {
            SinkStatus::default()
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn a_sink_that_is_closed_is_freed_by_nobody_who_has_something_else_to_do() {
        let engine = start(Backend::Epoll, &[]);
        let (tell, told) = mpsc::channel();
        let sink: Arc<dyn Sink> = Arc::new(Telling(tell));
        engine.add_sink(Arc::clone(&sink));
        let leaving = engine.remove_sink(&sink, None);
        assert!(leaving.wait(Instant::now() + PATIENCE));
        assert!(engine.shared.leaving().is_empty());
        // Whoever still has it goes on first.
        std::thread::sleep(10 * POLL);
        drop((sink, leaving));
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().as_deref(), Some("sinks-end"));
        assert!(engine.drain(PATIENCE).0);
    }
}
