//! How a run ended: what was not delivered and what was not kept, on the console, in the log, and in the data folder for
//! `source stop`.
//!
//! Invariants: the note in the data folder names the process, so that an older one is never taken for it; it is there
//! before nobody answers at the socket any more. A process that ends without one did not end well.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::engine::Observer;
use engine::status::{SourceStatus, Status};

use crate::logging::{Flush, SAID};
use crate::printer::Printer;
use crate::progress::{count, duration};

/// The note's name in the data folder.
const NAME: &str = "ended";
/// How long a second signal waits for its last words.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// What keeps a run from having ended well, a sentence each; nothing where it did.
pub fn failings(settled: bool, limit: Duration, status: &Status) -> Vec<String> {
    let mut all = Vec::new();
    if !settled {
        let limit = duration(limit);
        all.push(format!("not everything that was taken could be delivered within {limit}"));
        all.extend(undelivered_by(status));
        all.extend(status.sources.iter().filter_map(unread));
    }
    all.extend(checkpoint(status));
    all
}

/// What was taken and is not delivered, and the sinks that did not take it.
fn undelivered_by(status: &Status) -> Vec<String> {
    let sinks = status.sinks.iter().map(|sink| (sink, ""));
    let leaving = status.leaving.iter().map(|sink| (sink, ", which was taken out,"));
    let untaken = sinks.chain(leaving).filter_map(|(sink, which)| {
        Some(format!("sink '{}'{which} has not taken {}", sink.key, sink.owed()?))
    });
    status.sources.iter().filter_map(undelivered).chain(untaken).collect()
}

/// What of a source was taken and is not delivered, and what becomes of it.
fn undelivered(source: &SourceStatus) -> Option<String> {
    let (were, they) = match source.in_flight() {
        0 => return None,
        1 => ("1 record was".to_owned(), "it is"),
        n => (format!("{} records were", count(n)), "they are"),
    };
    let fate = match source.repeats {
        true => "the next start reads again from there".to_owned(),
        false => format!("{they} lost, since the sender does not send again"),
    };
    Some(format!("source '{}': {were} taken and not delivered: {fate}", source.key))
}

/// What the kernel had taken for a source that was stopped, and what becomes of it.
fn unread(source: &SourceStatus) -> Option<String> {
    let bytes = Some(source.unread_bytes).filter(|bytes| *bytes > 0)?;
    Some(format!(
        "source '{}': {} bytes had arrived and were not read: they are lost, since the sender does not send again",
        source.key,
        count(bytes)
    ))
}

fn checkpoint(status: &Status) -> Option<String> {
    let why = status.checkpoint.as_ref()?.trouble.as_ref()?;
    Some(format!(
        "the last checkpoint could not be written: {why}; \
         the next start goes on from the one before, and reads again what came since"
    ))
}

/// Says it on the console, whatever is logged, and in the log.
pub fn say(failings: &[String], printer: &Printer) {
    for failing in failings {
        printer.error(failing);
        log::error!(target: SAID, "{failing}");
    }
}

/// Leaves the note of this process in the data folder.
pub fn note(data_dir: &Path, failings: &[String]) {
    let mut text = format!("{}\n", std::process::id());
    failings.iter().for_each(|failing| {
        // A String takes every write.
        let _ = writeln!(text, "{failing}");
    });
    if let Err(e) = fs::write(data_dir.join(NAME), text) {
        log::warn!(target: "wpgen::start", "{}: {e}; `source stop` cannot tell how it ended", data_dir.join(NAME).display());
    }
}

/// Takes the note of an earlier process away.
pub fn forget(data_dir: &Path) {
    match fs::remove_file(data_dir.join(NAME)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            log::warn!(target: "wpgen::start", "{}: {e}", data_dir.join(NAME).display());
        }
        _ => {}
    }
}

/// What kept a process from ending well, as its note has it; `None` where it left no note.
pub fn read(data_dir: &Path, pid: u64) -> Option<Vec<String>> {
    let text = fs::read_to_string(data_dir.join(NAME)).ok()?;
    let mut lines = text.lines();
    let is_its = lines.next().and_then(|line| line.parse().ok()) == Some(pid);
    is_its.then(|| lines.map(str::to_owned).collect())
}

/// What a second signal still has said before it ends the process.
#[derive(Clone)]
pub struct LastWords {
    printer: Arc<Printer>,
    flush: Flush,
    engine: Arc<OnceLock<(Observer, PathBuf)>>,
}

impl LastWords {
    /// Nothing to say until there is an engine.
    pub fn new(printer: &Arc<Printer>, flush: Flush) -> Self {
        Self { printer: Arc::clone(printer), flush, engine: Arc::default() }
    }

    /// From now on there is.
    pub fn of(&self, observer: Observer, data_dir: &Path) {
        // A process has one engine.
        let _ = self.engine.set((observer, data_dir.to_owned()));
    }

    /// Says what is not delivered, as far as that takes no time: an engine that hangs or a console that nobody reads must
    /// not keep the process. Whether there is nothing that is not.
    pub fn say(&self, signal: &'static str) -> bool {
        let (tell, told) = channel();
        let this = self.clone();
        let said = std::thread::Builder::new().name("wpgen-last".into()).spawn(move || {
            let is_delivered = this.say_all(signal);
            // Nobody waits any more.
            let _ = tell.send(is_delivered);
        });
        said.is_ok() && told.recv_timeout(LAST_WORDS_MAX).unwrap_or(false)
    }

    fn say_all(&self, signal: &str) -> bool {
        let Some((observer, data_dir)) = self.engine.get() else { return true };
        let status = observer.status();
        let mut failings = vec![format!("stopped at once, by a second signal ({signal})")];
        failings.extend(undelivered_by(&status));
        failings.extend(status.sources.iter().filter_map(unread));
        note(data_dir, &failings);
        say(&failings, &self.printer);
        self.flush.wait(LAST_WORDS_MAX);
        failings.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use engine::status::{CheckpointStatus, SinkState, SinkStatus};

    use super::*;

    fn source(key: &str, repeats: bool, left: u64) -> SourceStatus {
        SourceStatus {
            key: key.into(),
            repeats,
            records_in: left + 3,
            delivered: 3,
            ..SourceStatus::default()
        }
    }

    #[test]
    fn what_is_left_is_told_by_source_and_what_becomes_of_it() {
        let sources = vec![source("udp", false, 1000), source("f", true, 1), source("tcp", false, 0)];
        let mut status = Status { sources, ..Status::default() };
        status.sources[2].unread_bytes = 1 << 20;
        let limit = Duration::from_secs(1);
        assert_eq!(failings(true, limit, &status), Vec::<String>::new());
        let said = [
            "not everything that was taken could be delivered within 1.0 s",
            "source 'udp': 1,000 records were taken and not delivered: \
             they are lost, since the sender does not send again",
            "source 'f': 1 record was taken and not delivered: the next start reads again from there",
            "source 'tcp': 1,048,576 bytes had arrived and were not read: \
             they are lost, since the sender does not send again",
        ];
        assert_eq!(failings(false, limit, &status), said);
        let sink = |key: &str, batches_in_flight| SinkStatus {
            key: key.into(),
            batches_in_flight,
            state: SinkState::Waiting("refused".into()),
            ..SinkStatus::default()
        };
        (status.sinks, status.leaving) = (vec![sink("up", 0), sink("slow", 1)], vec![sink("fw", 8)]);
        let sinks = [
            "sink 'slow' has not taken 1 batch: refused",
            "sink 'fw', which was taken out, has not taken 8 batches: refused",
        ];
        assert_eq!(failings(false, limit, &status)[3..5], sinks);
        let trouble = Some("disk full".to_owned());
        status.checkpoint = Some(CheckpointStatus { trouble, ..CheckpointStatus::default() });
        assert!(failings(true, limit, &status)[0].contains("checkpoint could not be written: disk full"));
    }

    #[test]
    fn a_note_is_of_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let pid = u64::from(std::process::id());
        assert_eq!(read(folder.path(), pid), None);
        note(folder.path(), &[]);
        assert_eq!(read(folder.path(), pid), Some(Vec::new()));
        note(folder.path(), &["a".into(), "b".into()]);
        assert_eq!(read(folder.path(), pid), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read(folder.path(), pid + 1), None);
        forget(folder.path());
        assert_eq!(read(folder.path(), pid), None);
    }
}
