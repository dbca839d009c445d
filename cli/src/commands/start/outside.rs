//! The engine as it is seen from outside: what the admin API is answered with, and where it listens.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::admin::socket::{NAME, Socket};
use engine::admin::tcp::{Bound, Served};
use engine::admin::{Control, Refusal};
use engine::alert::Alerts;
use engine::config::{AdminListen, Config};
use engine::diagnosis::Diagnostic;
use engine::engine::Observer;
use engine::reload::Reloaded;
use engine::status::Status;

use super::watch::Event;
use crate::printer::Printer;
use crate::signals::{Signal, Stop};

/// How long whoever asked for a reload waits for what comes of it: longer than its own limit, and what is opened at its end.
const RELOAD_MAX: Duration = Duration::from_secs(40);
/// How long a shard may take to answer before it is said to hang: a turn takes milliseconds.
const ALIVE_MAX: Duration = Duration::from_secs(3);

/// The engine, looked at from any thread and changed by the main thread alone.
pub struct Outside {
    observer: Observer,
    started: Instant,
    alerts: Mutex<Alerts>,
    wishes: Wishes,
}

impl Outside {
    /// A view whose wishes go to the main thread as events.
    pub fn new(observer: Observer, events: Sender<Event>) -> Arc<Self> {
        let wishes = Wishes { events, stopping: Mutex::new(false) };
        Arc::new(Self { observer, started: Instant::now(), alerts: Mutex::default(), wishes })
    }

    /// From now on nothing is changed any more; who waits for a change in this queue is told.
    pub fn is_stopping(&self, queue: &Receiver<Event>) {
        self.wishes.end(queue);
    }

    /// Whether every shard answers within the time; while the engine ends, there is nobody to ask.
    pub fn is_alive_within(&self, at_most: Duration) -> bool {
        *self.wishes.stopping() || self.observer.is_alive(at_most)
    }

    /// The sources' alerts.
    pub fn alerts(&self) -> MutexGuard<'_, Alerts> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the engine for its alerts.
    pub fn look(&self) {
        let status = self.observer.status();
        self.alerts().look(self.started.elapsed(), &status);
    }
}

impl Control for Outside {
    fn status(&self) -> Status {
        Status { alerts: self.alerts().status(self.started.elapsed()), ..self.observer.status() }
    }

    fn is_alive(&self) -> bool {
        self.is_alive_within(ALIVE_MAX)
    }

    fn stop(&self) {
        // When nobody takes events any more, it is stopping already.
        let _ = self.wishes.events.send(Event::Signal(Signal::Drain(Stop::Terminate)));
    }

    fn reload(&self) -> Result<Reloaded, Refusal> {
        self.wishes.reload(RELOAD_MAX)
    }
}

/// What the main thread is asked for. Every wish is in its queue before the last look at that, or refused.
struct Wishes {
    events: Sender<Event>,
    /// It drains: events are not looked at any more. Held while a wish is sent.
    stopping: Mutex<bool>,
}

impl Wishes {
    fn stopping(&self) -> MutexGuard<'_, bool> {
        self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, queue: &Receiver<Event>) {
        *self.stopping() = true;
        for event in queue.try_iter() {
            if let Event::Reload(answer) = event {
                // Whoever asked may have gone.
                let _ = answer.send(Err(Refusal::Stopping));
            }
        }
    }

    fn reload(&self, at_most: Duration) -> Result<Reloaded, Refusal> {
        let (answer, answered) = channel();
        {
            let stopping = self.stopping();
            if *stopping || self.events.send(Event::Reload(answer)).is_err() {
                return Err(Refusal::Stopping);
            }
        }
        answered.recv_timeout(at_most).unwrap_or_else(|why| match why {
            RecvTimeoutError::Timeout => Err(Refusal::GoingOn),
            RecvTimeoutError::Disconnected => Err(Refusal::Stopping),
        })
    }
}

/// Where the admin API listens; dropping it ends that.
#[derive(Debug)]
pub struct Doors {
    _socket: Option<Socket>,
    _admin: Option<Served>,
}

/// Binds the address of the admin API, if there is to be one. The default gives way where it is taken; one that was
/// chosen does not.
pub fn bind(config: &Config, printer: &Printer) -> Result<Option<Bound>, Diagnostic> {
    let AdminListen::On(at) = config.admin.listen else { return Ok(None) };
    match Bound::bind(at, config.admin.token_file.0.as_deref()) {
        Ok(bound) => Ok(Some(bound)),
        Err(finding) if config.admin_listen_given => Err(finding),
        Err(finding) => {
            printer.warning(&format!("no admin API: {}", finding.message));
            printer.note("  help: choose another address, or none: [admin] listen = \"\"");
            Ok(None)
        }
    }
}

/// Answers from now on, at the socket in the data folder and at the address.
pub fn open(data_dir: &Path, bound: Option<Bound>, outside: &Arc<Outside>, printer: &Printer) -> Doors {
    let control = || Arc::clone(outside) as Arc<dyn Control>;
    let socket = Socket::bind(data_dir, control()).map_err(|e| {
        let path = data_dir.join(NAME);
        printer
            .warning(&format!("{}: {e}; list, status and stop will not reach this engine", path.display()));
    });
    let admin = bound.and_then(|bound| {
        let served =
            bound.serve(control()).map_err(|e| printer.warning(&format!("no admin API: {e}"))).ok()?;
        log::info!(target: "wpgen::start", "admin API: http://{}", served.address());
        Some(served)
    });
    Doors { _socket: socket.ok(), _admin: admin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes() -> (Arc<Wishes>, Receiver<Event>) {
        let (events, queue) = channel();
        (Arc::new(Wishes { events, stopping: Mutex::new(false) }), queue)
    }

    #[test]
    fn who_asks_as_the_engine_begins_to_stop_is_told() {
        let (wishes, queue) = wishes();
        let asking = Arc::clone(&wishes);
        let asked = std::thread::spawn(move || asking.reload(Duration::from_secs(3600)));
        let event = queue.recv().unwrap();
        // It is in the queue, and the main thread has looked at that for the last time.
        wishes.events.send(event).unwrap();
        wishes.end(&queue);
        assert_eq!(asked.join().unwrap().unwrap_err(), Refusal::Stopping);
        assert_eq!(wishes.reload(Duration::from_secs(3600)).unwrap_err(), Refusal::Stopping);
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn who_asks_for_a_reload_that_goes_on_is_told_so() {
        let (wishes, _queue) = wishes();
        assert_eq!(wishes.reload(Duration::from_millis(1)).unwrap_err(), Refusal::GoingOn);
    }
}
