//! What the tests of a running engine share: a folder to run in, an engine in it, and a writer that never stops.
//!
//! Nothing here sleeps for a fixed time to let something happen: a test waits for what it can see, and gives up late.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::{Ran, run, wpgen};
use crate::fallback;

/// Longer than anything here takes on a machine that is busy with the other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_ok(what, || condition().then_some(()).ok_or(""));
}

/// Waits until an attempt succeeds; a failure says why the last one did not.
pub fn until_ok<T, E: std::fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) => assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder with a configuration, mostly of one file source and one file sink.
pub struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// Without a configuration yet; inputs go into the folder `in`.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        Self { folder }
    }

    /// The parameters as TOML lines.
    pub fn new(io: &str, source: &str, sink: &str) -> Self {
        let site = Self::empty();
        site.configure(io, source, sink);
        site
    }

    /// Writes the configuration anew.
    pub fn configure(&self, io: &str, source: &str, sink: &str) {
        self.configure_source(io, "file_src", source, sink);
    }

    /// Writes the configuration anew, with a source of any kind.
    pub fn configure_source(&self, io: &str, connect: &str, source: &str, sink: &str) {
        let io = fallback::io(io);
        let config = format!(
            "[engine]\nworkers = 2\nio = \"{io}\"\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"app\"\nconnect = \"{connect}\"\n[sources.params_override]\n{source}\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"file_sink\"\nsources = [\"*\"]\n[sinks.params_override]\n{sink}\n"
        );
        std::fs::write(self.path("wpsrc.toml"), config).unwrap();
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// What a file holds; nothing when it is not there.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_default()
    }

    /// Starts an engine and waits until it answers.
    pub fn start(&self) -> Started {
        Started::in_folder(self.folder())
    }
}

/// A running engine; it is killed when a test fails.
pub struct Started(Option<Child>);

impl Started {
    /// Starts one and waits until it answers.
    pub fn in_folder(folder: &Path) -> Self {
        Self::by(folder, wpgen(folder, &["source", "start"]))
    }

    /// Starts one by a command that becomes it, and waits until it answers.
    pub fn by(folder: &Path, mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut started = Self(Some(child));
        until("it answers", || {
            if started.0.as_mut().unwrap().try_wait().unwrap().is_some() {
                let ran = Ran::from(started.0.take().unwrap().wait_with_output().unwrap());
                panic!("it ended: {ran:?}");
            }
            run(folder, &["source", "status"]).code == Some(0)
        });
        started
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.as_ref().unwrap().id()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Memory that is its own, KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        Ran::from(self.0.take().unwrap().wait_with_output().unwrap())
    }

    /// Stops it in order.
    pub fn stop(self) {
        self.signal(libc::SIGTERM);
        let ran = self.end();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes a FIFO.
pub fn fifo(path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends in a zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
}

/// The status of the engine in a folder.
pub fn status(folder: &Path) -> serde_json::Value {
    let ran = run(folder, &["source", "status", "--json"]);
    serde_json::from_str(&ran.out).unwrap_or_default()
}

/// Numbers, the same ones each time.
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one below `below`.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    /// A pause of up to so many milliseconds, that something else be in the middle of something.
    pub fn pause_ms(&mut self, most: usize) {
        std::thread::sleep(Duration::from_micros(self.below(most * 1000) as u64));
    }
}

/// Lines a second of a [`Writer`]: enough that there is always one at the wrong moment.
const LINES_A_SECOND: u64 = 10_000;

/// Writes numbered lines and never stops, unless it is held.
pub struct Writer {
    pen: Arc<Mutex<Pen>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The file that is written to, and the number of the next line.
pub struct Pen {
    file: File,
    /// The number of the next line.
    pub next: u64,
}

impl Pen {
    /// Goes on in another file, as a program does that was told to reopen its log.
    pub fn reopen(&mut self, path: &Path) {
        self.file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    }

    fn write(&mut self, lines: usize) {
        let mut text = String::new();
        for number in self.next..self.next + lines as u64 {
            writeln!(text, "{}", line(number)).unwrap();
        }
        // A line comes in two pieces now and then.
        let (a, b) = text.as_bytes().split_at(text.len() / 2);
        self.file.write_all(a).unwrap();
        self.file.write_all(b).unwrap();
        self.next += lines as u64;
    }
}

fn line(number: u64) -> String {
    format!("{number:08} {}", "x".repeat(usize::try_from(number * 7 % 61).unwrap()))
}

impl Writer {
    /// Begins to write.
    pub fn start(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let pen = Arc::new(Mutex::new(Pen { file, next: 0 }));
        let ending = Arc::new(AtomicBool::new(false));
        let (its_pen, its_ending) = (Arc::clone(&pen), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            let (began, mut random) = (Instant::now(), Random::new(1));
            while !its_ending.load(Ordering::Relaxed) {
                its_pen.lock().unwrap().write(1 + random.below(40));
                let due = began.elapsed().as_millis() as u64 * LINES_A_SECOND / 1000;
                if its_pen.lock().unwrap().next > due {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Self { pen, ending, thread: Some(thread) }
    }

    /// Stops it between two lines for as long as the pen is held.
    pub fn hold(&self) -> MutexGuard<'_, Pen> {
        self.pen.lock().unwrap()
    }

    /// Waits until so many more lines are there.
    pub fn await_lines(&self, more: u64) {
        let upto = self.hold().next + more;
        until("lines are written", || self.hold().next >= upto);
    }

    /// Ends, and tells how many lines there are.
    pub fn end(mut self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.hold().next
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The numbers of the lines in `bytes`; the last line may be unfinished.
pub fn numbers(bytes: &[u8]) -> Vec<u64> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let lines = bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| std::str::from_utf8(&line[..8]).unwrap().parse().unwrap()).collect()
}

/// How often each line is in an output, whole or in part. Only lines of `lost` may be there in part: their beginning.
///
/// # Panics
/// When a record is none of that.
fn times(output: &[u8], written: u64, lost: &BTreeSet<u64>) -> Vec<u32> {
    let mut times = vec![0; usize::try_from(written).unwrap()];
    let index = |n: u64| usize::try_from(n).unwrap();
    for record in output.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(record).unwrap().trim_end_matches('\n');
        let number = text.get(..8).and_then(|digits| digits.parse::<u64>().ok());
        let whole = number.filter(|n| *n < written && text == line(*n));
        // A piece may be too short to tell which line it is of.
        let piece = || lost.iter().copied().find(|n| times[index(*n)] == 0 && line(*n).starts_with(text));
        let of = whole.or_else(piece).unwrap_or_else(|| panic!("no line of ours: {text:?}"));
        times[index(of)] += 1;
    }
    times
}

/// Waits until every line that was written is in `output`, those of `lost` aside; then no line may be there twice, or
/// changed. Of a lost line the beginning may be there, or nothing.
pub fn all_there_once(site: &Site, output: &str, written: u64, lost: &BTreeSet<u64>) {
    let which = |times: &[u32], wrong: &dyn Fn(u64, u32) -> bool| -> Vec<u64> {
        (0..).zip(times).filter(|(n, times)| wrong(*n, **times)).map(|(n, _)| n).collect()
    };
    let missing = |times: &[u32]| which(times, &|n, times| times == 0 && !lost.contains(&n));
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    let mut times = times(&out, written, lost);
    while !missing(&times).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        let now = site.read(output);
        if now.len() > out.len() {
            out = now;
            let whole = out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            times = self::times(&out[..whole], written, lost);
        }
    }
    let (missing, twice) = (missing(&times), which(&times, &|_, times| times > 1));
    assert!(
        missing.is_empty() && twice.is_empty(),
        "of {written} lines {} are missing, from {:?} on, and {} there twice, from {:?} on",
        missing.len(),
        missing.first(),
        twice.len(),
        twice.first(),
    );
}
