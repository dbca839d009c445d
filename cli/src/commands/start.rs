//! `source start`: opens everything, runs until done or told to stop, drains, tells how it went.
//!
//! Invariants: signals are blocked before the first thread starts; the log is written out before the process ends,
//! whichever way it ends; whoever waits for a daemon learns whether it came up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use engine::admin::socket::Socket;
use engine::admin::tcp::{Bound, Served};
use engine::admin::{Control, Refusal};
use engine::assemble;
use engine::config::{AdminListen, Config};
use engine::diagnosis::{Diagnostic, Diagnostics};
use engine::engine::{Engine, Observer};
use engine::reload::{self, Reloaded};
use engine::status::Status;
use log::LevelFilter;

use super::{DONE, FAILED, NOT_LOADED, configuration, daemon};
use crate::logging::{self, Console, Log, LogOptions};
use crate::printer::{Printer, Style, terminal_columns};
use crate::progress::{self, Progress};
use crate::signals::{self, Signal, Stop};
use crate::table::width;

/// How often signals are looked for; the end of the work is noticed at once.
const TICK: Duration = Duration::from_millis(50);
/// How often the progress line is written anew.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long the admin API waits for a reload.
const RELOAD_MAX: Duration = Duration::from_secs(80);

/// How long a shard may take to answer before it is said to hang: a turn takes milliseconds.
const ALIVE_MAX: Duration = Duration::from_secs(3);

/// What the main thread is told while it runs the engine.
#[derive(Debug)]
enum Event {
    Signal(Signal),
    /// Somebody outside wants the configuration read anew.
    Reload(Sender<Result<Reloaded, Refusal>>),
}

/// What was typed.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: PathBuf,
    /// The log on the console as well.
    pub no_daemon: bool,
    /// Go to the background.
    pub daemon: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// How much to log.
    pub log_level: Option<LevelFilter>,
}

/// Runs to the end and gives the exit code.
pub fn run(options: &Options, printer: &Arc<Printer>) -> u8 {
    let Some(loaded) = configuration::load(&options.config, printer) else { return NOT_LOADED };
    let mut config = loaded.config;
    // Before the fork: afterwards the folder is another one.
    match std::path::absolute(&config.file) {
        Ok(path) => config.file = path,
        Err(e) => return fail(printer, &format!("{}: {e}", config.file.display())),
    }
    let pid_file = match options.pid_file.as_deref().map(std::path::absolute).transpose() {
        Ok(path) => path,
        Err(e) => return fail(printer, &format!("--pid-file: {e}")),
    };
    let mut parent = None;
    if options.daemon {
        match daemon::fork() {
            Ok(daemon::Side::Parent(code)) => return code,
            Ok(daemon::Side::Child(waiting)) => parent = Some(waiting),
            Err(e) => return fail(printer, &format!("cannot go to the background: {e}")),
        }
    }
    let signals = match signals::block() {
        Ok(signals) => signals,
        Err(e) => return fail(printer, &format!("cannot take signals: {e}")),
    };
    let log = start_log(options, &config, printer);
    let (events, queue) = channel();
    if let Err(e) = signals.forward(events.clone(), Event::Signal) {
        return fail(printer, &format!("cannot take signals: {e}"));
    }
    let code = opened(config, printer, events, &queue, Terminal { parent, pid_file });
    log.finish();
    code
}

/// Who is told when everything is open.
struct Terminal {
    parent: Option<daemon::Waiting>,
    pid_file: Option<PathBuf>,
}

fn opened(
    mut config: Config,
    printer: &Arc<Printer>,
    events: Sender<Event>,
    queue: &Receiver<Event>,
    terminal: Terminal,
) -> u8 {
    let refused = |all| {
        printer.line(&configuration::text(&Diagnostics { all, dropped: 0 }, printer.err_paint()));
        FAILED
    };
    let admin = match bind_admin(&config, printer) {
        Ok(bound) => bound,
        Err(finding) => return refused(vec![finding]),
    };
    let engine = match assemble::start(&config) {
        Ok(engine) => engine,
        Err(all) => return refused(all),
    };
    tell_opened(engine.opened(), printer);
    let outside = Arc::new(Outside { observer: engine.observer(), events, stopping: AtomicBool::new(false) });
    let socket = listen(&config.engine.data_dir, Arc::clone(&outside), printer);
    let admin = admin.and_then(|bound| serve(bound, Arc::clone(&outside), printer));
    // Behind the lock on the data folder, so that a second engine leaves the first one's file alone.
    let pid_file = match PidFile::write(terminal.pid_file) {
        Ok(held) => held,
        Err((path, e)) => return fail(printer, &format!("cannot write {}: {e}", path.display())),
    };
    if let Some(parent) = terminal.parent
        && let Err(e) = parent.ready()
    {
        return fail(printer, &format!("cannot leave the terminal: {e}"));
    }
    let stop = watch(&engine, &mut config, queue, printer);
    outside.stopping.store(true, Ordering::Release);
    let drain_timeout = config.engine.drain_timeout;
    let (settled, status) = engine.drain(drain_timeout);
    drop(pid_file);
    drop(admin);
    drop(socket);
    ended(stop, settled, drain_timeout, &status, printer)
}

/// One line for each thing that is open, below each other.
fn tell_opened(opened: Vec<(String, Vec<String>)>, printer: &Printer) {
    let widest = opened.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    for (key, lines) in opened {
        for line in lines {
            let gap = " ".repeat(widest - width(&key));
            printer.note(&format!("{}{gap}  {line}", printer.err_paint().text(Style::Bold, &key)));
            log::info!(target: "wpgen::start", "{key}: {line}");
        }
    }
}

/// Runs until the sources are done or a stop is asked for.
fn watch(engine: &Engine, runs: &mut Config, queue: &Receiver<Event>, printer: &Printer) -> Option<Stop> {
    let mut progress = Progress::default();
    let mut next = Instant::now() + PROGRESS;
    let stop = loop {
        if engine.wait(TICK) {
            break None;
        }
        match queue.try_recv() {
            Ok(Event::Signal(Signal::Drain(stop))) => break Some(stop),
            Ok(Event::Signal(Signal::Reopen)) => {
                log::info!(target: "wpgen::start", "SIGHUP: outputs that were moved away are opened anew");
                engine.reopen_outputs();
                // What came of it is in the log.
                let _ = reload(engine, runs);
            }
            // Whoever asked may have gone.
            Ok(Event::Reload(answer)) => drop(answer.send(reload(engine, runs))),
            Err(_) => {}
        }
        if printer.shows_progress() && Instant::now() >= next {
            next += PROGRESS;
            printer.progress(&progress.line(&engine.status(), terminal_columns()));
        }
    };
    printer.progress("");
    if let Some(stop) = stop {
        log::info!(target: "wpgen::start", "{}: draining", stop.name());
        printer.note("stopping: delivering what was taken (once more to stop at once)");
    }
    stop
}

/// Reads the configuration anew and makes the engine run it. What comes of it is said in the log.
fn reload(engine: &Engine, runs: &mut Config) -> Result<Reloaded, Refusal> {
    let next = engine::config::load(&runs.file, &configuration::environment());
    let done = next.and_then(|next| {
        for finding in &next.warnings.all {
            log::warn!(target: "wpgen::reload", "{finding}");
        }
        reload::apply(engine, runs, &next.config)
    });
    match &done {
        Ok(Reloaded { changes, findings }) => {
            log::info!(target: "wpgen::reload", "the configuration was read anew: {changes}");
            findings.iter().for_each(|finding| log::error!(target: "wpgen::reload", "{finding}"));
        }
        Err(findings) => {
            log::error!(target: "wpgen::reload", "the configuration was refused, and nothing was changed");
            findings.all.iter().for_each(|finding| log::error!(target: "wpgen::reload", "{finding}"));
        }
    }
    done.map_err(Refusal::Findings)
}

fn ended(stop: Option<Stop>, settled: bool, limit: Duration, status: &Status, printer: &Printer) -> u8 {
    printer.note(&progress::summary(status, printer.err_paint(), printer.err_columns()));
    log::info!(target: "wpgen::start", "{}", progress::sentence(status, crate::printer::Paint::PLAIN).trim_end());
    if !settled {
        let limit = progress::duration(limit);
        printer.error(&format!("not everything that was taken could be delivered within {limit}"));
        printer.help("the next start reads again what was not delivered");
        return FAILED;
    }
    match stop {
        Some(stop) => stop.exit_code_drained(),
        // What could not be read or written was told when it happened; a script learns it here.
        None if status.sources.iter().any(|s| s.errors > 0) => FAILED,
        // An output that gave up; a reader that left early, as `head` does, counts no error.
        None if status.left_behind() > 0 && status.sinks.iter().any(|s| s.errors > 0) => FAILED,
        None => DONE,
    }
}

fn start_log(options: &Options, config: &Config, printer: &Arc<Printer>) -> Log {
    let options = LogOptions {
        folder: Some(config.log.dir.clone()),
        level: options.log_level.unwrap_or_else(|| configuration::level(config.log.level)),
        rust_log: configuration::variable("RUST_LOG"),
        console: if options.no_daemon { Console::Full } else { Console::Short },
    };
    logging::start(options, printer)
}

/// The address of the admin API, if there is to be one. The default gives way where it is taken; one that was chosen
/// does not.
fn bind_admin(config: &Config, printer: &Printer) -> Result<Option<Bound>, Diagnostic> {
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

fn serve(bound: Bound, outside: Arc<Outside>, printer: &Printer) -> Option<Served> {
    match bound.serve(outside) {
        Ok(served) => {
            log::info!(target: "wpgen::start", "admin API: http://{}", served.address());
            Some(served)
        }
        Err(e) => {
            printer.warning(&format!("no admin API: {e}"));
            None
        }
    }
}

fn listen(data_dir: &Path, outside: Arc<Outside>, printer: &Printer) -> Option<Socket> {
    match Socket::bind(data_dir, outside) {
        Ok(socket) => Some(socket),
        Err(e) => {
            let path = data_dir.join(engine::admin::socket::NAME);
            printer.warning(&format!(
                "{}: {e}; list, status and stop will not reach this engine",
                path.display()
            ));
            None
        }
    }
}

/// The engine as the admin API sees it: looked at from any thread, changed by the main thread alone.
struct Outside {
    observer: Observer,
    events: Sender<Event>,
    /// It drains: events are not looked at any more.
    stopping: AtomicBool,
}

impl Control for Outside {
    fn status(&self) -> Status {
        self.observer.status()
    }

    fn is_alive(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.observer.is_alive(ALIVE_MAX)
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

/// The file with our process id; dropping it removes it.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<PathBuf>) -> Result<Self, (PathBuf, std::io::Error)> {
        match path {
            Some(path) => match std::fs::write(&path, format!("{}\n", std::process::id())) {
                Ok(()) => Ok(Self(Some(path))),
                Err(e) => Err((path, e)),
            },
            None => Ok(Self(None)),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Somebody may have removed it, which was the aim.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn fail(printer: &Printer, why: &str) -> u8 {
    printer.error(why);
    FAILED
}
