//! The engine as it is seen from outside: what the admin API is answered with, and where it listens.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
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

/// How long a reload may take before whoever asked is told that there is no answer.
const RELOAD_MAX: Duration = Duration::from_secs(80);
/// How long a shard may take to answer before it is said to hang: a turn takes milliseconds.
const ALIVE_MAX: Duration = Duration::from_secs(3);

/// The engine, looked at from any thread and changed by the main thread alone.
pub struct Outside {
    observer: Observer,
    started: Instant,
    alerts: Mutex<Alerts>,
    events: Sender<Event>,
    /// It drains: events are not looked at any more.
    stopping: AtomicBool,
}

impl Outside {
    /// A view whose wishes go to the main thread as events.
    pub fn new(observer: Observer, events: Sender<Event>) -> Arc<Self> {
        let (alerts, stopping) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { observer, started: Instant::now(), alerts, events, stopping })
    }

    /// From now on nothing is changed any more.
    pub fn is_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether every shard answers within the time; while the engine ends, there is nobody to ask.
    pub fn is_alive_within(&self, at_most: Duration) -> bool {
        self.stopping.load(Ordering::Acquire) || self.observer.is_alive(at_most)
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
        let _ = self.events.send(Event::Signal(Signal::Drain(Stop::Terminate)));
    }

    fn reload(&self) -> Result<Reloaded, Refusal> {
        let (answer, answered) = channel();
        if self.stopping.load(Ordering::Acquire) || self.events.send(Event::Reload(answer)).is_err() {
            return Err(Refusal::Stopping);
        }
        answered.recv_timeout(RELOAD_MAX).unwrap_or(Err(Refusal::Stopping))
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
