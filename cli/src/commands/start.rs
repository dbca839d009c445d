//! `source start`: opens everything, runs until done or told to stop, drains, tells how it went.
//!
//! Invariants: signals are blocked before the first thread starts; the log is written out before the process ends,
//! whichever way it ends; whoever waits for a daemon learns whether it came up.

pub(super) mod ending;
mod outside;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use engine::assemble;
use engine::config::Config;
use engine::diagnosis::Diagnostics;
use engine::status::Status;
use log::LevelFilter;

use ending::LastWords;
use outside::Outside;
use watch::{Event, Watch};

use super::{DONE, FAILED, NOT_LOADED, configuration, daemon};
use crate::logging::{self, Console, Log, LogOptions};
use crate::notify::Notify;
use crate::printer::{Printer, Style};
use crate::progress;
use crate::signals::{self, Stop};
use crate::table::width;

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
    engine::doctor::raise_open_files();
    let signals = match signals::block() {
        Ok(signals) => signals,
        Err(e) => return fail(printer, &format!("cannot take signals: {e}")),
    };
    let log = start_log(options, &config, printer);
    let (events, queue) = channel();
    let last_words = LastWords::new(printer, log.flush());
    let ends = last_words.clone();
    if let Err(e) = signals.forward(events.clone(), Event::Signal, move |signal| ends.say(signal)) {
        return fail(printer, &format!("cannot take signals: {e}"));
    }
    let notify = Arc::new(Notify::new(configuration::variable));
    let code = opened(config, printer, events, &queue, Terminal { parent, pid_file, notify, last_words });
    log.finish();
    code
}

/// Who is told when everything is open, and when it is over at once.
struct Terminal {
    parent: Option<daemon::Waiting>,
    pid_file: Option<PathBuf>,
    notify: Arc<Notify>,
    last_words: LastWords,
}

fn opened(
    config: Config,
    printer: &Arc<Printer>,
    events: Sender<Event>,
    queue: &Receiver<Event>,
    terminal: Terminal,
) -> u8 {
    let refused = |all| {
        printer.line(&configuration::text(&Diagnostics { all, dropped: 0 }, printer.err_paint()));
        FAILED
    };
    // Whoever has it has the address of the admin API, too.
    if let Some(finding) = assemble::locked(&config) {
        return refused(vec![finding]);
    }
    let admin = match outside::bind(&config, printer) {
        Ok(bound) => bound,
        Err(finding) => return refused(vec![finding]),
    };
    let engine = match assemble::start(&config) {
        Ok(engine) => engine,
        Err(all) => return refused(all),
    };
    tell_opened(engine.opened(), printer);
    // The lock on the data folder is held: whoever left a note there is gone.
    let data_dir = config.engine.data_dir.clone();
    ending::forget(&data_dir);
    terminal.last_words.of(engine.observer(), &data_dir);
    let outside = Outside::new(engine.observer(), events);
    let doors = outside::open(&config.engine.data_dir, admin, &outside, printer);
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
    let notify = terminal.notify;
    watch::feed_watchdog(&notify, &outside);
    let (stop, config) = Watch::new(&engine, config, &outside, &notify, printer).run(queue);
    notify.stopping();
    outside.is_stopping(queue);
    let drain_timeout = config.engine.drain_timeout;
    let (settled, status) = engine.drain(drain_timeout);
    let failings = ending::failings(settled, drain_timeout, &status);
    ending::note(&data_dir, &failings);
    drop((pid_file, doors));
    ended(stop, &failings, &status, printer)
}

/// One line for each thing that is open, below each other.
fn tell_opened(opened: Vec<(String, Vec<String>)>, printer: &Printer) {
    let widest = opened.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    for (key, lines) in opened {
        for line in lines {
            let gap = " ".repeat(widest - width(&key));
            // Paths may hold anything.
            let mut shown = String::new();
            engine::escape::escape_controls(&mut shown, &line);
            printer.note(&format!("{}{gap}  {shown}", printer.err_paint().text(Style::Bold, &key)));
            log::info!(target: "wpgen::start", "{key}: {line}");
        }
    }
}

fn ended(stop: Option<Stop>, failings: &[String], status: &Status, printer: &Printer) -> u8 {
    printer.note(&progress::summary(status, printer.err_paint(), printer.err_columns()));
    log::info!(target: "wpgen::start", "{}", progress::sentence(status, crate::printer::Paint::PLAIN).trim_end());
    if !failings.is_empty() {
        ending::say(failings, printer);
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
