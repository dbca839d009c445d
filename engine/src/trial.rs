//! A trial of what a configuration names: really find, open and read, without keeping, changing or delivering anything.
//!
//! Owns `source test` and `connectors test`. Invariants: sources and sinks are tried in parallel; the whole has one time
//! limit, and what hangs beyond it is told as such; no file is made, no position is remembered. It refuses to guess: a
//! step says what was found.

#[cfg(feature = "kafka")]
mod kafka;
mod net;
mod others;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use crate::batch::{Mark, Origin};
use crate::config::{Config, Side, SourceConfig};
use crate::decode::{self, decode_line};
use crate::diagnosis::{Code, Diagnostic};
use crate::escape::{escape_outside, escape_outside_to};
use crate::sink::SinkParams;
use crate::sink::file::params::FileParams as FileSinkParams;
use crate::source::SourceParams;
use crate::source::file::blame;
use crate::source::file::find::{FoundFile, Search};
use crate::source::file::params::{Compression, Encode, FileParams};
use crate::source::port::Transport;
use crate::source::syslog::Protocol;

pub use others::{Others, with_mend};

/// Sources and sinks that are tried at a time.
const AT_ONCE: usize = 16;
/// Bytes of a file in which a first record is looked for.
const FIRST_RECORD_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the first record that are shown.
const SHOWN_BYTES: usize = 120;
/// Files of one source that are opened.
const OPENED_MAX: usize = 64;

/// One source or sink, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Its key in the configuration.
    pub key: String,
    /// Which of the two it is.
    pub side: Side,
    /// What was tried, in order. After the first failure nothing more is, but a Kafka of which one broker answers.
    pub steps: Vec<Step>,
}

impl Trial {
    /// Whether every step went well.
    pub fn is_well(&self) -> bool {
        self.steps.iter().all(|step| step.outcome.is_ok())
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `find`, `open`, `read`, ...
    pub name: &'static str,
    /// What was found, or what is in the way.
    pub outcome: Result<String, Diagnostic>,
    /// How long it took.
    pub took: Duration,
}

/// Tries every enabled source and sink, or only the one source of a key; in the configuration's order.
pub fn run(config: &Arc<Config>, only: Option<&str>, at_most: Duration) -> Vec<Trial> {
    let deadline = Instant::now() + at_most;
    let jobs: Arc<Vec<Job>> = Arc::new(jobs(config, only));
    let (done, results) = mpsc::channel();
    let next = Arc::new(AtomicUsize::new(0));
    let others = Arc::new(Others::of(config));
    for _ in 0..AT_ONCE.min(jobs.len()) {
        let (jobs, config, next, others, done) =
            (Arc::clone(&jobs), Arc::clone(config), Arc::clone(&next), Arc::clone(&others), done.clone());
        // Not joined: a thread that hangs in the kernel must not hold the answer.
        std::thread::spawn(move || {
            while let Some((i, job)) = take(&jobs, &next) {
                if done.send((i, job.run(&config, &others))).is_err() {
                    return;
                }
            }
        });
    }
    drop(done);
    let mut trials: Vec<Option<Trial>> = vec![None; jobs.len()];
    while let Ok((i, steps)) = results.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        trials[i] = Some(jobs[i].trial(config, steps));
    }
    trials
        .into_iter()
        .enumerate()
        .map(|(i, t)| t.unwrap_or_else(|| jobs[i].overdue(config, at_most)))
        .collect()
}

/// An entry of the configuration that is to be tried.
#[derive(Clone, Copy, Debug)]
enum Job {
    Source(usize),
    Sink(usize),
}

fn jobs(config: &Config, only: Option<&str>) -> Vec<Job> {
    let wanted = |s: &SourceConfig| only.map_or(s.enable, |key| *s.key == *key);
    let sources = config.sources.iter().enumerate().filter(|(_, s)| wanted(s)).map(|(i, _)| Job::Source(i));
    let sinks = config
        .sinks
        .iter()
        .enumerate()
        .filter(|(_, s)| s.enable && only.is_none())
        .map(|(i, _)| Job::Sink(i));
    sources.chain(sinks).collect()
}

fn take<'a>(jobs: &'a [Job], next: &AtomicUsize) -> Option<(usize, &'a Job)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(i).map(|job| (i, job))
}

impl Job {
    fn run(&self, config: &Config, others: &Others) -> Vec<Step> {
        match *self {
            Self::Source(i) => source_of(&config.sources[i].key, &config.sources[i].params, others),
            Self::Sink(i) => {
                let tried = &config.sinks[i];
                let feeds =
                    config.sources.iter().find(|source| source.enable && tried.sources.takes(&source.key));
                sink(&tried.params, feeds, others)
            }
        }
    }

    fn trial(&self, config: &Config, steps: Vec<Step>) -> Trial {
        match *self {
            Self::Source(i) => Trial { key: config.sources[i].key.to_string(), side: Side::Source, steps },
            Self::Sink(i) => Trial { key: config.sinks[i].key.to_string(), side: Side::Sink, steps },
        }
    }

    fn overdue(&self, config: &Config, at_most: Duration) -> Trial {
        let trouble = Diagnostic::plain(format!("no answer within {} s", at_most.as_secs()));
        self.trial(config, vec![Step { name: "wait", outcome: Err(trouble), took: at_most }])
    }
}

/// The steps of a trial in the making.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Does one step; nothing when it failed.
    fn step<T>(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> Result<(T, String), Diagnostic>,
    ) -> Option<T> {
        let started = Instant::now();
        let result = run();
        let took = started.elapsed();
        let (value, outcome) = match result {
            Ok((value, found)) => (Some(value), Ok(found)),
            Err(trouble) => (None, Err(trouble)),
        };
        self.0.push(Step { name, outcome, took });
        value
    }
}

/// Tries a source that has no key yet.
pub fn source(params: &SourceParams, others: &Others) -> Vec<Step> {
    source_of("source", params, others)
}

#[cfg_attr(not(feature = "kafka"), allow(unused_variables, reason = "a group is named after its source"))]
fn source_of(key: &str, params: &SourceParams, others: &Others) -> Vec<Step> {
    match params {
        #[cfg(feature = "kafka")]
        SourceParams::Kafka(params) => kafka::source(key, params),
        SourceParams::File(params) => file_source(params, others),
        SourceParams::Syslog(params) if params.protocol == Protocol::Udp => {
            net::listener(Transport::Datagram, &params.addr, params.port)
        }
        SourceParams::Syslog(params) => net::listener(Transport::Stream, &params.addr, params.port),
        SourceParams::Tcp(params) => net::listener(Transport::Stream, &params.addr, params.port),
        other => not_here(other.kind().name),
    }
}

/// Tries a sink; paths that depend on the source are tried as this one would have them.
pub fn sink(params: &SinkParams, source: Option<&SourceConfig>, others: &Others) -> Vec<Step> {
    match params {
        SinkParams::File(params) => file_sink(params, source, others),
        #[cfg(feature = "kafka")]
        SinkParams::Kafka(params) => kafka::sink(params, source),
        SinkParams::Tcp(params) => net::peers(&params.addr.0, params.port, params.tls.as_ref()),
        SinkParams::Syslog(params) => net::peers(&params.addr.0, params.port, params.tls.as_ref()),
        SinkParams::Blackhole(_) | SinkParams::Stdout(_) => {
            vec![Step { name: "open", outcome: Ok("nothing to open".to_owned()), took: Duration::ZERO }]
        }
        #[cfg(not(feature = "kafka"))]
        SinkParams::Kafka(_) => not_here("kafka"),
    }
}

fn not_here(kind: &str) -> Vec<Step> {
    let trouble = Diagnostic::plain(format!("this build cannot try the type '{kind}'"));
    vec![Step { name: "open", outcome: Err(trouble), took: Duration::ZERO }]
}

fn file_source(params: &FileParams, others: &Others) -> Vec<Step> {
    let mut steps = Steps::default();
    let Some(files) = steps.step("find", || find(params)) else { return steps.0 };
    if files.is_empty() {
        return steps.0;
    }
    if steps.step("open", || open(&files)).is_none() {
        return steps.0;
    }
    if steps.step("read", || first_record(params, &files).map(|found| ((), found))).is_none() {
        return steps.0;
    }
    let started = Instant::now();
    if let Some(found) = others.readers_and_writers(&files[..files.len().min(OPENED_MAX)]) {
        steps.0.push(Step { name: "in use", outcome: Ok(found), took: started.elapsed() });
    }
    steps.0
}

fn find(params: &FileParams) -> Result<(Vec<FoundFile>, String), Diagnostic> {
    let search = search(params)?;
    let found = search.look();
    if let Some(finding) = found.findings.into_iter().next() {
        // A source that follows waits for files that are not there yet.
        return Err(finding.into_diagnostic());
    }
    let bytes: u64 = found.files.iter().map(|file| file.size).sum();
    let mut text = match found.files.as_slice() {
        [one] => format!("{}, {bytes} bytes", one.path.display()),
        many => format!("{} files, {bytes} bytes", many.len()),
    };
    if let Some((path, what)) = found.skipped.first() {
        text.push_str(&format!("; {} skipped, as {} ({what})", found.skipped.len(), path.display()));
    }
    Ok((found.files, text))
}

fn search(params: &FileParams) -> Result<Search, Diagnostic> {
    let exclude = &params.exclude.0;
    let search = match (&params.path, &params.base, &params.file) {
        (Some(path), _, _) => Search::new(&path.folder, &path.text, exclude),
        (None, Some(base), Some(file)) => {
            let text = format!("{}/{file}", base.text.trim_end_matches('/'));
            Search::new(&base.folder, &text, exclude)
        }
        _ => return Err(Diagnostic::plain("neither path, nor base and file is given".to_owned())),
    };
    search.map_err(blame::Finding::into_diagnostic)
}

fn open(files: &[FoundFile]) -> Result<((), String), Diagnostic> {
    for file in files.iter().take(OPENED_MAX) {
        File::open(&file.path).map_err(|e| blame::explain(&file.path, &e).into_diagnostic())?;
    }
    let text = match files.len() {
        1 => "readable".to_owned(),
        n if n <= OPENED_MAX => format!("all {n} readable"),
        n => format!("the first {OPENED_MAX} of {n} readable"),
    };
    Ok(((), text))
}

fn first_record(params: &FileParams, files: &[FoundFile]) -> Result<String, Diagnostic> {
    for file in files {
        let line = first_line(&file.path, params.compression)
            .map_err(|e| blame::explain(&file.path, &e).into_diagnostic())?;
        if let Some(line) = line {
            return record(params.encode, &line, &file.path);
        }
    }
    Ok("no line yet".to_owned())
}

fn record(encode: Encode, line: &[u8], path: &Path) -> Result<String, Diagnostic> {
    let encode = match encode {
        Encode::Text => decode::Encode::Text,
        Encode::Base64 => decode::Encode::Base64,
        Encode::Hex => decode::Encode::Hex,
    };
    let mut out = Vec::new();
    match decode_line(encode, line, &mut out) {
        Ok(()) => Ok(format!("first record: {}", escape_outside_to(&out, SHOWN_BYTES))),
        Err(bad) => {
            let byte =
                bad.byte.map_or_else(|| "the line ends too early".to_owned(), |b| escape_outside(&[b]));
            let kind = if encode == decode::Encode::Hex { "hex" } else { "base64" };
            let message = format!("Invalid {kind} encoding: {}:1:{}: {byte}", path.display(), bad.at + 1);
            let looks = match decode::looks_like([line]) {
                decode::Encode::Text => "text",
                decode::Encode::Base64 => "base64",
                decode::Encode::Hex => "hex",
            };
            Err(Diagnostic::error(Code::WP103, message)
                .help(format!("encode = \"{looks}\"   # what the line looks like")))
        }
    }
}

/// The first line without its end, or nothing when the file has none; packed files are unpacked.
fn first_line(path: &Path, compression: Compression) -> io::Result<Option<Vec<u8>>> {
    let mut file = BufReader::new(File::open(path)?);
    let magic = file.fill_buf()?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let unpacked: Box<dyn Read> = match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
        Compression::Auto if is_gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Auto if is_zstd => Box::new(zstd::Decoder::with_buffer(file)?),
        Compression::Auto | Compression::None => Box::new(file),
    };
    let mut line = Vec::new();
    BufReader::new(unpacked.take(FIRST_RECORD_BYTES_MAX)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(Some(line))
}

fn file_sink(params: &FileSinkParams, source: Option<&SourceConfig>, others: &Others) -> Vec<Step> {
    let mut steps = Steps::default();
    let Some(template) = &params.path else {
        return vec![Step {
            name: "open",
            outcome: Err(Diagnostic::plain("no path is given".to_owned())),
            took: Duration::ZERO,
        }];
    };
    let origin = Origin {
        source: source.map_or_else(|| Arc::from("source"), |s| Arc::clone(&s.key)),
        host: Arc::from("host"),
        tags: source
            .map(|s| s.tags.iter().map(|t| (t.key.clone(), t.value.clone())).collect())
            .unwrap_or_default(),
        peer: None,
        tls_subject: None,
        assignment: None,
        protocol: None,
        mark: Mark::default(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let path = template.template.outlet(&origin).path(now_ns, &TimeZone::system());
    steps.step("open", || writable(Path::new(&path), others).map(|found| ((), found)));
    steps.0
}

/// Whether a file could be written, without making one.
fn writable(path: &Path, others: &Others) -> Result<String, Diagnostic> {
    match OpenOptions::new().append(true).open(path) {
        Ok(file) => return others.writable(path, &file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(refused(format!("cannot write {}: {e}", path.display()), path, &e)),
    }
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let is_folder = fs::metadata(folder).is_ok_and(|about| about.is_dir());
    if !is_folder {
        return Err(Diagnostic::plain(format!(
            "cannot write {}: {} is not a folder",
            path.display(),
            folder.display()
        )));
    }
    match may_write(folder) {
        Ok(()) => Ok(format!("{} can be made", path.display())),
        Err(e) => Err(refused(format!("cannot make {}: {e}", path.display()), path, &e)),
    }
}

/// Why an output cannot be opened or made: with whose it is and what makes it ours, or the full or frozen disk.
pub fn refused(message: String, path: &Path, error: &io::Error) -> Diagnostic {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let found = blame::denied_to_write(path, there).into_diagnostic();
            let finding = Diagnostic::error(Code::WP102, message);
            let finding = found.notes.into_iter().fold(finding, Diagnostic::note);
            found.help.into_iter().fold(finding, Diagnostic::help)
        }
        io::ErrorKind::StorageFull => {
            Diagnostic::plain(message).help(format!("df -h {0}; df -i {0}", there.display()))
        }
        io::ErrorKind::ReadOnlyFilesystem => Diagnostic::plain(message)
            .help(format!("mount -o remount,rw the file system of {}, or write elsewhere", there.display())),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Diagnostic::plain(message)
            .note(format!("{} is as far as it goes, and nothing can be made in it", there.display()))
            .help("name a path in a folder that this user may write to"),
        _ => Diagnostic::plain(message),
    }
}

fn may_write(folder: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: the name is a NUL-terminated string that lives for the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_first_line_of_plain_and_packed_files() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, "one\r\ntwo\n").unwrap();
        let packed = folder.path().join("packed");
        let mut gz =
            flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
        gz.write_all(b"one\ntwo\n").unwrap();
        gz.finish().unwrap();
        let zst = folder.path().join("zst");
        fs::write(&zst, zstd::encode_all(&b"one"[..], 1).unwrap()).unwrap();
        for path in [&plain, &packed, &zst] {
            assert_eq!(
                first_line(path, Compression::Auto).unwrap().as_deref(),
                Some(&b"one"[..]),
                "{path:?}"
            );
        }
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert_eq!(first_line(&empty, Compression::Auto).unwrap(), None);
    }

    #[test]
    fn a_bad_line_names_its_place_and_what_it_looks_like() {
        let trouble = record(Encode::Base64, b"a plain line!", Path::new("x.log")).unwrap_err();
        assert_eq!(trouble.code, Some(Code::WP103));
        assert!(trouble.message.starts_with("Invalid base64 encoding: x.log:1:2:"), "{trouble:?}");
        assert!(trouble.help[0].starts_with("encode = \"text\""));
        assert_eq!(record(Encode::Base64, b"aGk=", Path::new("x")).unwrap(), "first record: hi");
    }

    #[test]
    fn a_writable_place_is_told_without_making_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.log");
        assert!(writable(&path, &Others::default()).unwrap().ends_with("c.log can be made"));
        assert!(!folder.path().join("a").exists());
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(writable(&folder.path().join("file/c.log"), &Others::default()).is_err());
        assert!(writable(&folder.path().join("file"), &Others::default()).unwrap().contains("is there"));
    }
}
