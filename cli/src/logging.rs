//! The log: `{time} [LEVEL] [target] {message}`, into `<log.dir>/wpgen.log` and, when asked, onto the console.
//!
//! Owns the filter and the way from a caller to the writer thread. Invariants: a caller never waits, never touches a
//! disk and never holds more than [`MESSAGE_BYTES_MAX`] of text; the queue is bounded by [`QUEUE_LINES`], and what does not
//! fit is dropped, counted, and the count is logged; one line stays one line, whatever was in the message.
//! It refuses to fail: without a folder to write to, one warning says so and lines go to the console. And it refuses to
//! hide errors from the console: what RUST_LOG and the level leave out of them is left out of the file alone.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::diagnosis::HELP;
use env_filter::Filter;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use log::{Level, LevelFilter, Metadata, Record};

use crate::logfile::LogFile;
use crate::printer::{Paint, Printer, Style};

/// Lines that wait for the writer thread; further ones are dropped and counted.
const QUEUE_LINES: usize = 8192;
/// Bytes of one message; the rest is cut off and its length told.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// How long a process that ends waits for its last lines.
const FLUSH_WAIT: Duration = Duration::from_secs(3);
/// How often a log file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The target of what the printer has said already: for the file alone.
pub const SAID: &str = "wpgen::end";
/// What targets begin with, ours and those of the crates that log by themselves: RUST_LOG that names none of them would
/// leave everything out.
const TARGETS: [&str; 20] = [
    SAID,
    "wpgen::alert",
    "wpgen::checkpoint",
    "wpgen::file",
    "wpgen::io",
    "wpgen::kafka",
    "wpgen::log",
    "wpgen::net",
    "wpgen::notify",
    "wpgen::panic",
    "wpgen::reload",
    "wpgen::rescue",
    "wpgen::sink",
    "wpgen::start",
    "wpgen::statistics",
    "wpgen::syslog",
    "engine::",
    "rustls",
    "rdkafka",
    "librdkafka",
];

/// What of the log goes to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Warnings and errors, as messages for people.
    Short,
    /// Every line as in the file.
    Full,
}

/// Where the log goes and how much of it there is.
#[derive(Debug)]
pub struct LogOptions {
    /// The folder of wpgen.log; none for commands that only use the console.
    pub folder: Option<PathBuf>,
    /// From `--log-level` or `[log].level`.
    pub level: LevelFilter,
    /// RUST_LOG, which wins over the level.
    pub rust_log: Option<String>,
    /// What goes to the console.
    pub console: Console,
}

/// The running log; [`Log::finish`] writes out what is queued.
#[derive(Debug)]
pub struct Log {
    queue: SyncSender<Item>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Item {
    Line(Line),
    /// Write out what came before, and say so.
    Flush(Sender<()>),
    /// No more lines will come.
    Finish,
}

#[derive(Debug)]
struct Line {
    at: Timestamp,
    level: Level,
    target: String,
    message: String,
    /// Whether it goes to the file. Errors that do not are for the console.
    filed: bool,
}

/// A way to have the log written out, from any thread.
#[derive(Clone, Debug)]
pub struct Flush(SyncSender<Item>);

impl Flush {
    /// Waits until what was logged before is written, or the time is over.
    pub fn wait(&self, at_most: Duration) {
        let (tell, told) = channel();
        if self.0.try_send(Item::Flush(tell)).is_ok() {
            let _ = told.recv_timeout(at_most);
        }
    }
}

struct Logger {
    filter: Filter,
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// Starts the log for this process. Called once.
pub fn start(options: LogOptions, printer: &Arc<Printer>) -> Log {
    let (filter, complaint) = filter(options.level, options.rust_log.as_deref());
    let (queue, lines) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let level = filter.filter().max(LevelFilter::Error);
    let told = Arc::clone(printer);
    let mut writer = Writer {
        file: None,
        folder: options.folder,
        retry_at: Instant::now(),
        console: options.console,
        printer: Arc::clone(printer),
        zone: TimeZone::system(),
        dropped: Arc::clone(&dropped),
        told: false,
    };
    writer.open();
    let writer = std::thread::Builder::new().name("wpgen-log".into()).spawn(move || writer.run(&lines)).ok();
    if log::set_boxed_logger(Box::new(Logger { filter, queue: queue.clone(), dropped })).is_ok() {
        log::set_max_level(level);
        log_panics();
    }
    match complaint {
        Some(complaint) if level >= LevelFilter::Warn => log::warn!(target: "wpgen::log", "{complaint}"),
        Some(complaint) => told.warning(&complaint),
        None => {}
    }
    Log { queue, writer }
}

/// A panic is a bug of ours; where nobody sees standard error, only the log can tell of it.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log::error!(target: "wpgen::panic", "{panic}");
        before(panic);
    }));
}

/// The filter, and what was wrong with RUST_LOG.
fn filter(level: LevelFilter, rust_log: Option<&str>) -> (Filter, Option<String>) {
    let by_level = || env_filter::Builder::new().filter_level(level).build();
    let Some(text) = rust_log.filter(|t| !t.trim().is_empty()) else { return (by_level(), None) };
    let unusable =
        |why: &str| Some(format!("RUST_LOG={text:?} has no effect, and level {level} holds: {why}"));
    match env_filter::Builder::new().try_parse(text) {
        Ok(_) if !names_something(text) => (by_level(), unusable("it names no level and no target there is")),
        Ok(builder) => (builder.build(), None),
        Err(e) => (by_level(), unusable(&e.to_string())),
    }
}

/// Whether a directive is a level for everything, or begins as a target does.
fn names_something(rust_log: &str) -> bool {
    let directives = rust_log.split('/').next().unwrap_or_default().split(',').map(str::trim);
    let mut named = directives.filter(|directive| !directive.is_empty());
    named.any(|directive| {
        let name = directive.split('=').next().unwrap_or_default();
        let begins = |target: &&str| target.starts_with(name) || name.starts_with(*target);
        directive.parse::<LevelFilter>().is_ok() || (!name.is_empty() && TARGETS.iter().any(begins))
    })
}

impl Log {
    /// A way for other threads to have it written out.
    pub fn flush(&self) -> Flush {
        Flush(self.queue.clone())
    }

    /// Writes out what is queued and closes the file. Waits [`FLUSH_WAIT`] at most: a dead disk must not hold the exit.
    pub fn finish(mut self) {
        let Some(writer) = self.writer.take() else { return };
        let deadline = Instant::now() + FLUSH_WAIT;
        let mut told = self.queue.try_send(Item::Finish).is_ok();
        while !(told && writer.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            told = told || self.queue.try_send(Item::Finish).is_ok();
        }
        if writer.is_finished() {
            // The writer thread does not panic; if it did, the lines are lost either way.
            let _ = writer.join();
        }
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let filed = self.filter.matches(record);
        if !filed && (record.level() != Level::Error || record.target() == SAID) {
            return;
        }
        let mut message = Bounded { text: String::new(), cut_bytes: 0 };
        // Bounded takes every write; a Display that fails leaves what it wrote so far.
        let _ = message.write_fmt(*record.args());
        let line = Line {
            at: Timestamp::now(),
            level: record.level(),
            target: record.target().to_owned(),
            message: message.finish(),
            filed,
        };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// A message that stops growing at [`MESSAGE_BYTES_MAX`].
struct Bounded {
    text: String,
    cut_bytes: usize,
}

impl Bounded {
    fn finish(mut self) -> String {
        if self.cut_bytes > 0 {
            let _ = write!(self.text, "... ({} more bytes)", self.cut_bytes);
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        // Once something is cut, everything behind it is.
        let room = if self.cut_bytes > 0 { 0 } else { MESSAGE_BYTES_MAX - self.text.len() };
        let taken = text.floor_char_boundary(room);
        self.text.push_str(&text[..taken]);
        self.cut_bytes += text.len() - taken;
        Ok(())
    }
}

struct Writer {
    file: Option<LogFile>,
    folder: Option<PathBuf>,
    /// When a folder that could not be written is tried again.
    retry_at: Instant,
    console: Console,
    printer: Arc<Printer>,
    zone: TimeZone,
    dropped: Arc<AtomicU64>,
    /// The warning about the file was given.
    told: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Item>) {
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(Item::Line(line)) => self.line(&line),
                Ok(Item::Flush(told)) => self.flush_for(&told),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Item::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            }
            // All that waits goes out together: one write to the file.
            let mut more = 0;
            while more < QUEUE_LINES {
                match lines.try_recv() {
                    Ok(Item::Line(line)) => self.line(&line),
                    Ok(Item::Flush(told)) => self.flush_for(&told),
                    Ok(Item::Finish) => return self.end(),
                    Err(_) => break,
                }
                more += 1;
            }
            self.tell_dropped();
            self.flush();
            if self.file_is_missing() && Instant::now() >= self.retry_at {
                self.open();
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.tell_dropped();
        self.flush();
    }

    fn line(&mut self, line: &Line) {
        let text = format_line(line, &self.zone);
        match self.console {
            _ if line.target == SAID => {}
            Console::Short if !self.file_is_missing() || !line.filed => self.short(line),
            _ => self.printer.line(&paint_level(self.printer.err_paint(), line.level, &text)),
        }
        if let Some(file) = self.file.as_mut().filter(|_| line.filed)
            && let Err(e) = file.line(&text)
        {
            self.give_up_file(&e.to_string());
        }
    }

    fn short(&self, line: &Line) {
        let mut message = String::new();
        engine::escape::escape_controls(&mut message, &line.message);
        let mut parts = message.split(HELP);
        let (code, text) = coded(parts.next().unwrap_or_default());
        match line.level {
            Level::Error => self.printer.error_of(code.as_deref(), &text),
            Level::Warn => self.printer.warning_of(code.as_deref(), &text),
            _ => return,
        }
        parts.for_each(|help| self.printer.help(help));
    }

    fn flush_for(&mut self, told: &Sender<()>) {
        self.flush();
        // Whoever asked may have waited long enough.
        let _ = told.send(());
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(e) = file.flush()
        {
            self.give_up_file(&e.to_string());
        }
    }

    fn file_is_missing(&self) -> bool {
        self.folder.is_some() && self.file.is_none()
    }

    /// Opens the file when there should be one; a failure is told once, then tried again in silence.
    fn open(&mut self) {
        let Some(folder) = self.folder.as_deref().filter(|_| self.file.is_none()) else { return };
        match LogFile::open(folder) {
            Ok(file) => self.file = Some(file),
            Err(e) => {
                let why = format!("{}: {e}", folder.display());
                self.give_up_file(&why);
            }
        }
    }

    fn give_up_file(&mut self, why: &str) {
        self.file = None;
        self.retry_at = Instant::now() + RETRY;
        if !self.told {
            self.told = true;
            self.printer
                .warning(&format!("the log cannot be written ({why}); it goes to the console instead"));
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let message =
                format!("{dropped} log lines were dropped: they came faster than they could be written");
            self.line(&Line {
                at: Timestamp::now(),
                level: Level::Warn,
                target: "wpgen::log".into(),
                message,
                filed: true,
            });
        }
    }
}

/// Takes the code out of a message that has one, as `source 'app': [WP101] file not found`.
fn coded(message: &str) -> (Option<String>, String) {
    let at = message.find("[WP").filter(|at| message[at + 1..].find(']').is_some_and(|len| len == 5));
    let Some(at) = at else { return (None, message.to_owned()) };
    let (code, rest) = message[at + 1..].split_at(5);
    let rest = rest.trim_start_matches(']').trim_start();
    (Some(code.to_owned()), format!("{}{rest}", &message[..at]))
}

fn format_line(line: &Line, zone: &TimeZone) -> String {
    let time = line.at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z");
    let mut text = format!("{time} [{}] [{}] ", line.level, line.target);
    engine::escape::escape_controls(&mut text, &line.message);
    text
}

fn paint_level(paint: Paint, level: Level, text: &str) -> String {
    let style = match level {
        Level::Error => Style::Red,
        Level::Warn => Style::Yellow,
        Level::Info => return text.to_owned(),
        Level::Debug | Level::Trace => Style::Dim,
    };
    paint.text(style, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        let at = Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap();
        Line { at, level: Level::Warn, target: "engine::source".into(), message: message.into(), filed: true }
    }

    #[test]
    fn a_line_has_local_time_level_target_and_stays_one_line() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(
            format_line(&line("bad\nline \x1b[2J"), &zone),
            "2023-11-15T00:13:20.123+02:00 [WARN] [engine::source] bad\\nline \\x1b[2J"
        );
    }

    #[test]
    fn the_code_of_a_message_is_found_where_there_is_one() {
        for (message, code, text) in [
            ("source 'a': [WP101] file not found: x", Some("WP101"), "source 'a': file not found: x"),
            ("[WP506] Connection limit reached", Some("WP506"), "Connection limit reached"),
            ("no [WP code] here", None, "no [WP code] here"),
            ("[WP", None, "[WP"),
        ] {
            assert_eq!(coded(message), (code.map(String::from), text.to_owned()));
        }
    }

    #[test]
    fn a_message_is_bounded_and_says_what_was_cut() {
        for (len, cut) in [
            (0, 0),
            (MESSAGE_BYTES_MAX, 0),
            (MESSAGE_BYTES_MAX + 1, 1),
            (3 * MESSAGE_BYTES_MAX, 2 * MESSAGE_BYTES_MAX),
        ] {
            let mut bounded = Bounded { text: String::new(), cut_bytes: 0 };
            for part in "x".repeat(len).as_bytes().chunks(1000) {
                bounded.write_str(std::str::from_utf8(part).unwrap()).unwrap();
            }
            assert_eq!(bounded.cut_bytes, cut);
            assert!(bounded.finish().len() <= MESSAGE_BYTES_MAX + 40);
        }
    }

    #[test]
    fn rust_log_wins_over_the_level_and_a_bad_one_is_told() {
        let (by_level, none) = filter(LevelFilter::Warn, None);
        assert_eq!((by_level.filter(), none), (LevelFilter::Warn, None));
        let (by_env, none) = filter(LevelFilter::Warn, Some("info,engine::source=trace"));
        assert_eq!((by_env.filter(), none), (LevelFilter::Trace, None));
        let (kept, complaint) = filter(LevelFilter::Warn, Some("info,=,=/x/"));
        assert!(complaint.is_some() && kept.filter() == LevelFilter::Warn);
        for typo in ["inof", "!!!", "foo=", "wpgen::fiel=debug", "=info", ","] {
            let (kept, complaint) = filter(LevelFilter::Warn, Some(typo));
            assert!(complaint.is_some() && kept.filter() == LevelFilter::Warn, "{typo}");
        }
        for known in ["off", "wpgen=trace", "w", "wpgen::kafka::x=debug", "inof,rustls=debug", "engine"] {
            assert_eq!(filter(LevelFilter::Warn, Some(known)).1, None, "{known}");
        }
        assert_eq!(filter(LevelFilter::Warn, Some(" ")).1, None, "an empty one is none");
    }
}
