//! From a configuration to what runs: opens the checkpoint, the sinks, the sources, and wires them.
//!
//! Everything that can refuse a start refuses it here, before a record is read; all refusals are gathered and told
//! together, as findings with the place in the configuration.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::batch::SinkId;
use crate::checkpoint::{self, Group, Snapshot, Store};
use crate::config::{Config, SinkConfig, SourceConfig, top::IoMode};
use crate::diagnosis::{Code, Diagnostic};
use crate::engine::{Aside, Engine, Keeping, Wired, Wiring};
use crate::io::{Backend, affinity, host, probe};
use crate::keeper::{Keeper, Persist};
use crate::memory::Memory;
use crate::pool::ARENA_BYTES;
use crate::rescue::{self, Forgotten, Rescue, Rescued};
use crate::sink::SinkParams;
use crate::sink::blackhole::Blackhole;
use crate::sink::console::Stdout;
use crate::sink::file::params::{Existing, FileParams};
use crate::sink::file::{FileSink, OpenError, Settings};
use crate::sink::remote::Remote;
use crate::sink::route::{Batches, Sink, Where};
use crate::source::file::params::{Mode, Start};
use crate::source::part::Source;
use crate::source::syslog::Protocol;
use crate::source::{self, SourceParams, file};
use crate::trial::{refused, with_mend};

/// What a source is made with, beside its own configuration.
pub struct Making<'a> {
    /// Its configuration.
    pub config: &'a SourceConfig,
    /// What the last run knew.
    pub before: &'a Snapshot,
    /// The engine's next free identity.
    pub next_input: &'a Arc<AtomicU64>,
    /// This machine's name.
    pub host: &'a Arc<str>,
    /// The folder of the engine's own log.
    pub log_dir: &'a Path,
    /// What one of its key ran with a moment ago: it goes on where that stopped, whatever `start` says.
    pub goes_on: Option<&'a SourceParams>,
    /// Whether every sink it feeds does without order.
    pub unordered: bool,
    /// Shards that will run.
    pub shards: usize,
    /// Asks for a checkpoint.
    pub persist: &'a Persist,
}

/// Starts an engine as configured.
///
/// # Errors
/// Every reason why it cannot start.
pub fn start(config: &Config) -> Result<Engine, Vec<Diagnostic>> {
    let backend = backend(config).map_err(|refused| vec![refused])?;
    let data_dir = &config.engine.data_dir;
    let (store, before) = Store::open(data_dir).map_err(|e| vec![unopened(data_dir, &e)])?;
    let keeper = Keeper::new();
    let persist = keeper.persist();
    let mut findings = Vec::new();
    let forgotten = forgotten(config);
    forgotten.iter().for_each(|left| log::warn!(target: "wpgen::rescue", "{left}"));
    let (sinks, made) = make_sinks(config, &before, &persist, &mut findings);
    let next_input = Arc::new(AtomicU64::new(before.next_input));
    let workers = config.shards(affinity::available());
    let given = Given { before: &before, next_input: &next_input, persist: &persist, shards: workers };
    let sources = make_sources(config, &made, &given, &mut findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    let allowed = affinity::allowed();
    let cpus = (0..workers).map(|i| (workers <= allowed.len()).then(|| allowed[i])).collect();
    let aside = Aside::new(config, &before);
    let keeping = Some(Keeping { keeper, store, interval: config.engine.checkpoint_interval, aside });
    let memory = Memory::new(config.engine.memory_limit.0);
    let wiring = Wiring { cpus, backend, sinks, sources, keeping, next_input, memory };
    let engine = Engine::start(wiring)
        .map_err(|error| vec![plain(format!("the engine's threads cannot be set up: {error}"))])?;
    engine.tell_forgotten_rescues(forgotten);
    Ok(engine)
}

/// Why the data folder cannot be had now, looked at before anything else is taken: another engine has it.
pub fn locked(config: &Config) -> Option<Diagnostic> {
    let data_dir = &config.engine.data_dir;
    checkpoint::locked(data_dir).map(|error| unopened(data_dir, &error))
}

/// Which way to the kernel, said in one line when it is not the one hoped for.
fn backend(config: &Config) -> Result<Backend, Diagnostic> {
    let wanted = config.engine.io;
    if wanted == IoMode::Epoll {
        return Ok(Backend::Epoll);
    }
    match probe::uring() {
        Ok(()) => Ok(Backend::Uring),
        Err(refusal) if wanted == IoMode::Auto => {
            log::warn!(target: "wpgen::io", "io_uring is refused, running on epoll with the same results: {refusal}");
            Ok(Backend::Epoll)
        }
        Err(refusal) => Err(plain(format!("io = \"uring\", but io_uring is refused: {}", refusal.cause))
            .help(refusal.mend)
            .help("or let the engine choose: io = \"auto\"")),
    }
}

fn plain(message: String) -> Diagnostic {
    Diagnostic::plain(message)
}

fn unopened(data_dir: &Path, error: &checkpoint::OpenError) -> Diagnostic {
    let message = format!("data_dir {}: {error}", data_dir.display());
    let diagnostic = match error {
        checkpoint::OpenError::Locked(_) => Diagnostic::error(Code::WP104, message),
        checkpoint::OpenError::Io { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
            Diagnostic::error(Code::WP102, message)
        }
        _ => plain(message),
    };
    let diagnostic = error.note().into_iter().fold(diagnostic, Diagnostic::note);
    error.help().into_iter().fold(diagnostic, Diagnostic::help)
}

/// A sink that runs, with its configuration.
struct Made<'a> {
    index: usize,
    config: &'a SinkConfig,
}

fn make_sinks<'a>(
    config: &'a Config,
    before: &Snapshot,
    persist: &Persist,
    findings: &mut Vec<Diagnostic>,
) -> (Vec<Arc<dyn Sink>>, Vec<Made<'a>>) {
    let (mut sinks, mut made) = (Vec::new(), Vec::new());
    for sink in config.sinks.iter().filter(|s| s.enable) {
        let next_input = before.next_input;
        let running = transactional(config, sink, sinks.len(), next_input, persist)
            .unwrap_or_else(|| make_sink(sinks.len(), sink, known(config, sink, before), persist));
        match running.and_then(|running| with_rescue(&config.engine.data_dir, sink, running, persist)) {
            Ok(running) => {
                made.push(Made { index: sinks.len(), config: sink });
                sinks.push(running);
            }
            Err(finding) => findings.push(*finding),
        }
    }
    (sinks, made)
}

/// Makes the sink, if it is one that makes transactions.
#[cfg(feature = "kafka")]
pub(crate) fn transactional(
    config: &Config,
    sink: &SinkConfig,
    index: usize,
    next_input: u64,
    persist: &Persist,
) -> Option<Result<Arc<dyn Sink>, Box<Diagnostic>>> {
    use crate::sink::kafka::{Footing, KafkaSink};
    let SinkParams::Kafka(params) = &sink.params else { return None };
    if !params.transactional {
        return None;
    }
    let id = u16::try_from(index).expect("sinks are far fewer than 65 536");
    let is_file = |source: &&SourceConfig| matches!(&source.params, SourceParams::File(_)) && source.enable;
    let has_files = config.sources.iter().filter(is_file).any(|source| sink.sources.takes(&source.key));
    let made = checkpoint::identity(&config.engine.data_dir).map_err(|error| {
        let file = config.engine.data_dir.join(checkpoint::IDENTITY_NAME);
        refused(format!("sink '{}': {}: {error}", sink.key, file.display()), &file, &error)
    });
    let made = made.and_then(|identity| {
        let footing = Footing { identity, next_input, persist: Arc::clone(persist), has_files };
        KafkaSink::open_transactional(id, &sink.key, params, footing)
    });
    Some(made.map(|made| made as Arc<dyn Sink>).map_err(|finding| Box::new(finding.at(sink.place.clone()))))
}

/// No sink makes transactions in this build.
#[cfg(not(feature = "kafka"))]
pub(crate) fn transactional(
    _: &Config,
    _: &SinkConfig,
    _: usize,
    _: u64,
    _: &Persist,
) -> Option<Result<Arc<dyn Sink>, Box<Diagnostic>>> {
    None
}

/// What becomes of bytes that no checkpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They go: their records come again. So in the middle of a run, where a checkpoint may be without the groups.
    Cut,
    /// Whole lines stay, for nothing that feeds the sink comes again; unless something did once: then it is as written.
    Keep,
    /// What the checkpoint says of each group.
    #[default]
    AsWritten,
}

/// What the last run left of a sink.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// What it has committed.
    pub(crate) groups: Vec<Group>,
    /// What becomes of what its files have beyond that.
    pub(crate) rest: Rest,
}

/// Makes a sink that goes on with what `past` says it has committed.
pub(crate) fn make_sink(
    index: usize,
    sink: &SinkConfig,
    past: Past,
    persist: &Persist,
) -> Result<Arc<dyn Sink>, Box<Diagnostic>> {
    let id = u16::try_from(index).expect("sinks are far fewer than 65 536");
    let made = |made: Result<Arc<Remote>, Diagnostic>| match made {
        Ok(remote) => Ok(remote as Arc<dyn Sink>),
        Err(finding) => Err(Box::new(finding.at(sink.place.clone()))),
    };
    match &sink.params {
        SinkParams::Blackhole(_) => Ok(Blackhole::new(id, &sink.key)),
        SinkParams::Stdout(params) => Ok(Stdout::new(id, &sink.key, params.format)),
        SinkParams::File(params) => make_file_sink(id, sink, params, past, persist),
        SinkParams::Tcp(params) => made(Remote::tcp(id, &sink.key, params)),
        SinkParams::Syslog(params) => made(Remote::syslog(id, &sink.key, params)),
        #[cfg(feature = "kafka")]
        SinkParams::Kafka(params) => match crate::sink::kafka::KafkaSink::open(id, &sink.key, params) {
            Ok(kafka) => Ok(kafka),
            Err(finding) => Err(Box::new(finding.at(sink.place.clone()))),
        },
        #[cfg(not(feature = "kafka"))]
        SinkParams::Kafka(_) => {
            Err(Box::new(not_built("sink", &sink.key, sink.params.kind().name).at(sink.place.clone())))
        }
    }
}

/// The kind of rescue that a sink can have.
fn rescue_kind(params: &SinkParams) -> Option<rescue::Kind> {
    match params {
        SinkParams::File(_) => Some(rescue::Kind::File),
        SinkParams::Tcp(_) | SinkParams::Syslog(_) => Some(rescue::Kind::Connection),
        SinkParams::Kafka(params) if !params.transactional => Some(rescue::Kind::Kafka),
        _ => None,
    }
}

/// Puts a rescue in front of a sink that is to have one, or for which an earlier run left something.
pub(crate) fn with_rescue(
    data_dir: &Path,
    config: &SinkConfig,
    sink: Arc<dyn Sink>,
    persist: &Persist,
) -> Result<Arc<dyn Sink>, Box<Diagnostic>> {
    let Some(kind) = rescue_kind(&config.params) else { return Ok(sink) };
    if !config.common.rescue && !rescue::is_used(data_dir, &config.key) {
        return Ok(sink);
    }
    let most = if config.common.rescue { config.common.rescue_bytes.0 } else { 0 };
    let persist = matches!(kind, rescue::Kind::File).then(|| Arc::clone(persist));
    let rescue = Rescue::open(data_dir, &config.key, kind, most, persist)
        .map_err(|error| plain(format!("sink '{}': {error}", config.key)).at(config.place.clone()))?;
    Ok(Rescued::new(sink, rescue))
}

/// Rescued records that nobody will send.
pub(crate) fn forgotten(config: &Config) -> Vec<Forgotten> {
    let sends = |sink: &&SinkConfig| sink.enable && rescue_kind(&sink.params).is_some();
    let keys: Vec<&str> = config.sinks.iter().filter(sends).map(|sink| &*sink.key).collect();
    rescue::forgotten(&config.engine.data_dir, &keys)
}

/// What the last run committed of a sink. A file that is begun anew, by sources that begin anew, has no past.
fn known(config: &Config, sink: &SinkConfig, before: &Snapshot) -> Past {
    let truncates = matches!(&sink.params, SinkParams::File(file) if file.existing == Existing::Truncate);
    let begins_anew = |source: &SourceConfig| matches!(&source.params, SourceParams::File(file) if file.start == Start::Beginning && file.mode == Mode::Once);
    let feeding = || config.sources.iter().filter(|s| s.enable && sink.sources.takes(&s.key));
    if truncates && feeding().all(begins_anew) {
        return Past::default();
    }
    let groups = before.groups.iter().filter(|g| g.sink == *sink.key).cloned().collect();
    let comes_again = rescue::is_used(&config.engine.data_dir, &sink.key)
        || feeding().any(|source| source.params.can_repeat());
    Past { groups, rest: if comes_again { Rest::AsWritten } else { Rest::Keep } }
}

fn make_file_sink(
    id: SinkId,
    sink: &SinkConfig,
    params: &FileParams,
    past: Past,
    persist: &Persist,
) -> Result<Arc<dyn Sink>, Box<Diagnostic>> {
    let at = |finding: Diagnostic| Box::new(finding.at(sink.place.clone()));
    let settings = Settings::new(params, jiff::tz::TimeZone::system())
        .ok_or_else(|| at(Diagnostic::error(Code::WP404, format!("sink '{}' has no path", sink.key))))?;
    match FileSink::open(id, &sink.key, settings, past, Arc::clone(persist)) {
        Ok(running) => Ok(running),
        Err(error @ OpenError::Busy { .. }) => {
            let finding = Diagnostic::error(Code::WP104, format!("sink '{}': {error}", sink.key));
            let OpenError::Busy { holder, .. } = error else { return Err(at(finding)) };
            Err(at(with_mend(finding, holder.as_ref())))
        }
        Err(error @ OpenError::Io { .. }) => {
            let message = format!("sink '{}': {error}", sink.key);
            let OpenError::Io { path, error } = &error else { return Err(at(plain(message))) };
            Err(at(refused(message, path, error)))
        }
        Err(error) => Err(at(plain(format!("sink '{}': {error}", sink.key)))),
    }
}

/// What all sources are made with.
struct Given<'a> {
    before: &'a Snapshot,
    next_input: &'a Arc<AtomicU64>,
    persist: &'a Persist,
    shards: usize,
}

fn make_sources(
    config: &Config,
    made: &[Made<'_>],
    given: &Given<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Wired> {
    let Given { before, next_input, persist, shards } = *given;
    let host: Arc<str> = host::name().into();
    let mut sources = Vec::new();
    for source in config.sources.iter().filter(|s| s.enable) {
        let feeds: Vec<&Made<'_>> = made.iter().filter(|m| m.config.sources.takes(&source.key)).collect();
        let making = Making {
            config: source,
            before,
            next_input,
            host: &host,
            log_dir: &config.log.dir,
            goes_on: None,
            unordered: unordered(config, &source.key),
            shards,
            persist,
        };
        let routes = feeds.iter().map(|m| (m.index, takes(m.config))).collect();
        match make_source(&making) {
            Ok(running) => sources.push(Wired { source: running, routes }),
            Err(found) => findings.extend(found),
        }
    }
    sources
}

/// Makes a source.
pub(crate) fn make_source(making: &Making<'_>) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
    match &making.config.params {
        SourceParams::File(params) => file::make::make(making, params),
        SourceParams::Syslog(params) if params.protocol == Protocol::Udp => {
            source::datagram::syslog(making, params).map_err(|found| vec![found])
        }
        SourceParams::Syslog(params) => source::stream::syslog(making, params).map_err(|found| vec![found]),
        SourceParams::Tcp(params) => source::stream::tcp(making, params).map_err(|found| vec![found]),
        #[cfg(feature = "kafka")]
        SourceParams::Kafka(params) => source::kafka::make::make(making, params).map_err(|found| vec![found]),
        #[cfg(not(feature = "kafka"))]
        SourceParams::Kafka(_) => {
            let kind = making.config.params.kind().name;
            Err(vec![not_built("source", &making.config.key, kind).at(making.config.place.clone())])
        }
        SourceParams::Mqtt(_) => {
            let kind = making.config.params.kind().name;
            Err(vec![not_built("source", &making.config.key, kind).at(making.config.place.clone())])
        }
    }
}

/// What `batch_bytes` may be at least.
const BATCH_BYTES_MIN: u64 = 4096;

/// What a sink takes of the sources that feed it, and in what batches.
pub(crate) fn takes(sink: &SinkConfig) -> Where {
    let most = match &sink.params {
        // A file is full to the batch.
        SinkParams::File(file) => file.rotate.0.as_ref().and_then(|rotate| rotate.size).map(|size| size.0),
        _ => None,
    };
    let bytes = most.unwrap_or(u64::MAX).max(BATCH_BYTES_MIN).min(sink.common.batch_bytes.0);
    let bytes = usize::try_from(bytes).unwrap_or(ARENA_BYTES).min(ARENA_BYTES);
    Where { batches: Batches { bytes, linger: sink.common.linger }, ..sink.condition.clone() }
}

/// Whether every sink that a source feeds does without order.
pub(crate) fn unordered(config: &Config, source: &str) -> bool {
    let mut feeds = config.sinks.iter().filter(|sink| sink.enable && sink.sources.takes(source));
    feeds.all(|sink| (!sink.common.ordered || is_counting(sink)) && !is_transactional(sink))
}

/// A sink that only counts promises no order.
fn is_counting(sink: &SinkConfig) -> bool {
    matches!(sink.params, SinkParams::Blackhole(_))
}

/// How far a file is in its transactions is one position, and so is what comes before it.
fn is_transactional(sink: &SinkConfig) -> bool {
    matches!(&sink.params, SinkParams::Kafka(kafka) if kafka.transactional)
}

fn not_built(what: &str, key: &str, kind: &str) -> Diagnostic {
    plain(format!("{what} '{key}': this build does not have the kind '{kind}' yet"))
        .help("set enable = false on it, or remove it; `wpgen connectors list` shows the kinds there are")
}
