//! A small engine around a file source, and a sink that keeps what it is given: for the tests of this folder.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::known::Known;
use super::lines::LongLines;
use super::params::Compression;
use super::settings::Settings;
use super::source::{Once, OnceStart};
use super::told::Told;
use crate::batch::{SinkId, Verdict};
use crate::checkpoint::Input;
use crate::decode::{Encode, OnBad};
use crate::engine::{Engine, Wired, Wiring};
use crate::io::Backend;
use crate::shard::{Intake, Shard};
use crate::sink::format::Format;
use crate::sink::route::{Sink, Where};
use crate::source::part::Source;
use crate::status::{SinkStatus, Status};

/// Keeps the records of every batch, as raw text.
#[derive(Debug, Default)]
struct Keep {
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Sink for Keep {
    fn id(&self) -> SinkId {
        0
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Raw)
    }

    fn start_owner(&self, shard: &Rc<Shard>, _outlet: u32, intake: Rc<Intake>) {
        let (shard, kept) = (Rc::clone(shard), Arc::clone(&self.kept));
        tokio::task::spawn_local(async move {
            while let Some(batch) = intake.next().await {
                kept.lock().unwrap().extend_from_slice(batch.bytes());
                shard.send_home(batch, Verdict::Delivered);
            }
            intake.ended();
        });
    }

    fn status(&self) -> SinkStatus {
        SinkStatus::default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Keeps what is logged, for all tests of the process.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// What was logged of a path.
pub(super) fn logged(path: &Path) -> Vec<String> {
    let name = path.display().to_string();
    LOG.0.lock().unwrap().iter().filter(|line| line.contains(&name)).cloned().collect()
}

/// What a run came to.
pub(super) struct Outcome {
    /// The records, each with a newline behind it.
    pub(super) text: String,
    pub(super) status: Status,
    /// What a checkpoint would hold.
    pub(super) inputs: Vec<Input>,
}

/// Settings of a source that knows `inputs` and takes lines as they are.
pub(super) fn settings(inputs: &[Input]) -> Settings {
    let next = inputs.iter().map(|input| input.id).max().unwrap_or(0) + 1;
    Settings {
        key: "source".into(),
        host: "host".into(),
        tags: Vec::new(),
        max_line_bytes: 1 << 20,
        long_lines: LongLines::Split,
        encode: Encode::Text,
        on_bad: OnBad::Skip,
        multiline: None,
        compression: Compression::Auto,
        told: Told::new(&"source".into()),
        known: Arc::new(Known::new("source", inputs, Arc::new(AtomicU64::new(next)))),
    }
}

/// Reads `files` once, on both backends where there are two, which must agree.
pub(super) fn read_on_both(settings: impl Fn() -> Settings, files: &[impl AsRef<Path>]) -> Outcome {
    let epoll = read_on(settings(), files, Backend::Epoll);
    // Where io_uring is refused there is one backend only.
    if crate::io::probe::uring().is_ok() {
        let uring = read_on(settings(), files, Backend::Uring);
        assert!(uring.text == epoll.text, "the backends differ");
        assert_eq!(uring.inputs, epoll.inputs);
    }
    epoll
}

/// Reads `files` once.
pub(super) fn read(settings: Settings, files: &[impl AsRef<Path>]) -> Outcome {
    read_on(settings, files, Backend::Epoll)
}

fn read_on(settings: Settings, files: &[impl AsRef<Path>], backend: Backend) -> Outcome {
    // Another test may have been first.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let start = OnceStart { resume: true, parallel: false };
    let files: Vec<PathBuf> = files.iter().map(|file| file.as_ref().to_owned()).collect();
    let source = Arc::new(Once::new(settings, &files, Vec::new(), start));
    let sink = Arc::new(Keep::default());
    let kept = Arc::clone(&sink.kept);
    let engine = Engine::start(Wiring {
        cpus: vec![None],
        backend,
        sinks: vec![sink],
        sources: vec![Wired {
            source: Arc::clone(&source) as Arc<dyn Source>,
            routes: vec![(0, Where::default())],
        }],
        keeping: None,
        next_input: Arc::new(AtomicU64::new(1)),
        memory: crate::memory::Memory::unlimited(),
    })
    .unwrap();
    assert!(engine.wait(Duration::from_secs(30)), "the source does not end");
    let (settled, status) = engine.drain(Duration::from_secs(10));
    assert!(settled);
    let text = String::from_utf8(std::mem::take(&mut *kept.lock().unwrap())).unwrap();
    Outcome { text, status, inputs: source.inputs(&HashMap::new()) }
}
