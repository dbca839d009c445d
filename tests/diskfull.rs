//! A disk that is full, of the checkpoint, of the rescue and of an output, each alone: nothing that was acknowledged is lost,
//! the log, status, health and metrics say what is wrong, and work goes on by itself when there is room again. So with a disk
//! that fails later than it should, and with a limit on the size of files.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::Disk;
use crate::harness::{Started, status, until, until_ok};
use crate::metrics::{get, parse};
use crate::rescue::{LINE, Peer, number, repeated, write};

/// Where an engine runs whose disks are small, or fail.
pub struct Place {
    folder: tempfile::TempDir,
    admin: SocketAddr,
    /// The folder with `in.log`.
    input: PathBuf,
}

impl Place {
    /// A file that is followed, and a sink with these lines of TOML.
    pub fn new(io: &str, sink: &str) -> Self {
        let place = Self::without_input(io, ".", sink);
        place.write(0..1);
        place
    }

    /// The same, with nothing in the file yet, which is in the folder `input`.
    pub fn without_input(io: &str, input: &str, sink: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "[engine]\nworkers = 1\nio = \"{io}\"\n[admin]\nlisten = \"{admin}\"\n\
             [[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"{input}/in.log\" }}\n\
             [[sinks]]\nkey = \"out\"\n{sink}\n"
        );
        std::fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
        let input = folder.path().join(input);
        Self { folder, admin, input }
    }

    pub fn to_file(io: &str, path: &str, rest: &str) -> Self {
        Self::new(io, &format!("{rest}\nconnect = \"file_sink\"\nparams = {{ path = \"{path}\" }}"))
    }

    /// What comes to the port goes into the sink.
    fn from_tcp(io: &str, sink: &str) -> (Self, u16) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = Self::without_input(io, ".", sink);
        let config = std::fs::read_to_string(place.path("wpsrc.toml")).unwrap();
        let file = "connect = \"file_src\"\nparams = { path = \"./in.log\" }";
        assert!(config.contains(file));
        let tcp = format!("connect = \"tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {port} }}");
        std::fs::write(place.path("wpsrc.toml"), config.replace(file, &tcp)).unwrap();
        (place, port)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self) -> Started {
        Started::in_folder(self.folder.path())
    }

    pub fn write(&self, numbers: std::ops::Range<usize>) {
        write(&self.input, numbers);
    }

    pub fn delivered(&self) -> u64 {
        status(self.folder.path())["sources"][0]["delivered"].as_u64().unwrap_or(0)
    }

    pub fn received(&self) -> u64 {
        status(self.folder.path())["sources"][0]["records_in"].as_u64().unwrap_or(0)
    }

    pub fn await_delivered(&self, lines: usize) {
        until_ok("all lines are acknowledged", || {
            let status = status(self.folder.path());
            if status["sources"][0]["delivered"] == lines { Ok(()) } else { Err(status.to_string()) }
        });
    }

    pub fn await_checkpoint(&self, lines: usize) {
        crate::rescue::await_checkpoint(self.folder.path(), lines);
    }

    /// Health, and whether the engine is ready.
    pub fn health(&self) -> (String, u16) {
        let status: Value = status(self.folder.path());
        (format!("{} {}", status["overall"], status["troubles"]), get(self.admin, "/health/ready").0)
    }

    /// Waits until health names this trouble, and nobody is told that all is well.
    pub fn await_trouble(&self, words: &str, mut meanwhile: impl FnMut()) {
        until_ok("health tells it", || {
            meanwhile();
            let (health, ready) = self.health();
            if health.contains(words) && health.contains("degraded") && ready == 503 {
                Ok(())
            } else {
                Err(health)
            }
        });
    }

    pub fn await_healthy(&self) {
        until_ok("it is healthy", || {
            let (health, ready) = self.health();
            if health.contains("healthy") && ready == 200 { Ok(()) } else { Err(health) }
        });
    }

    pub fn metric(&self, name: &str) -> f64 {
        let samples = parse(&get(self.admin, "/metrics").1);
        *samples.get(name).unwrap_or_else(|| panic!("{name} is not in {samples:?}"))
    }

    /// Lines of the log that hold all of these words.
    pub fn logged(&self, words: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.path("logs/wpgen.log")).unwrap();
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Every line is in the file once, and in order.
    pub fn await_whole(&self, name: &str, lines: usize) {
        let read = || std::fs::read(self.path(name)).unwrap_or_default();
        until_ok("all lines are there", || {
            let len = read().len();
            if len >= lines * LINE { Ok(()) } else { Err(len) }
        });
        let read = read();
        let is_line =
            |line: &[u8]| line[LINE - 1] == b'\n' && line[..LINE - 1].iter().all(u8::is_ascii_digit);
        let wrong = read.chunks_exact(LINE).position(|line| !is_line(line));
        if let Some(at) = wrong {
            let last = read.chunks_exact(LINE).rposition(|line| !is_line(line));
            let show = |at: usize| read[at * LINE..(at + 1) * LINE].escape_ascii().to_string();
            panic!("no line: {at} to {last:?} of {lines}, {}", show(at));
        }
        let numbers: Vec<usize> = read.chunks_exact(LINE).map(number).collect();
        assert_eq!((read.len() % LINE, repeated(&numbers, lines)), (0, 0));
    }
}

/// kill -9.
pub fn kill(engine: Started) {
    engine.signal(libc::SIGKILL);
    engine.end();
}

#[test]
fn a_full_disk_of_the_checkpoint_stops_nothing_and_a_kill_then_repeats_nothing_in_files() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "out.log", "");
        let Some(disk) = Disk::tmpfs(&place.path("data"), 512) else { return };
        let engine = place.start();
        place.await_delivered(1);
        let mut lines = 1;
        place.await_trouble("the checkpoint cannot be written: No space left on device", || {
            // The last checkpoint's pages go back when it is replaced.
            disk.fill();
            place.write(lines..lines + 1000);
            lines += 1000;
        });
        place.await_delivered(lines);
        assert_eq!(place.metric("wpgen_checkpoint_up"), 0.0);
        let failures = || place.metric("wpgen_checkpoint_failures_total");
        let before = failures();
        until("it is tried again", || failures() >= before + 2.0);
        assert_eq!(
            place.logged(&["ERROR", "writing the checkpoint", "No space left"]),
            1,
            "once, not each time"
        );
        kill(engine);
        let engine = place.start();
        place.write(lines..lines + 1000);
        lines += 1000;
        place.await_whole("out.log", lines);
        disk.empty();
        place.await_healthy();
        assert_eq!(place.metric("wpgen_checkpoint_up"), 1.0);
        place.await_checkpoint(lines);
        engine.stop();
        place.await_whole("out.log", lines);
    }
}

#[test]
fn a_full_disk_of_an_output_holds_its_sources_back_and_everything_is_there_when_it_has_room() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "disk/out.log", "");
        let Some(disk) = Disk::tmpfs(&place.path("disk"), 8 << 10) else { return };
        let engine = place.start();
        place.write(1..20_000);
        place.await_whole("disk/out.log", 20_000);
        disk.fill();
        place.write(20_000..40_000);
        place.await_trouble("No space left on device", || ());
        assert!(place.delivered() < 40_000);
        assert_eq!(place.metric("wpgen_sink_state{sink=\"out\",state=\"waiting\"}"), 1.0);
        let errors = || place.metric("wpgen_sink_errors_total{sink=\"out\"}");
        let before = errors();
        until("it is tried again", || errors() >= before + 2.0);
        assert_eq!(place.logged(&["WARN", "out.log", "No space left"]), 1, "once, not each time");
        kill(engine);
        let engine = place.start();
        place.await_trouble("No space left on device", || ());
        disk.empty();
        place.await_whole("disk/out.log", 40_000);
        place.await_healthy();
        assert_eq!(place.metric("wpgen_sink_state{sink=\"out\",state=\"ready\"}"), 1.0);
        engine.stop();
        place.await_whole("disk/out.log", 40_000);
    }
}

#[test]
fn what_a_full_disk_cannot_take_goes_to_a_rescue_on_another_one() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "disk/out.log", "rescue = true");
        let Some(disk) = Disk::tmpfs(&place.path("disk"), 8 << 10) else { return };
        let engine = place.start();
        place.write(1..20_000);
        place.await_whole("disk/out.log", 20_000);
        disk.fill();
        place.write(20_000..40_000);
        place.await_delivered(40_000);
        place.await_checkpoint(40_000);
        assert!(place.metric("wpgen_sink_rescue_records{sink=\"out\"}") > 0.0);
        assert!(place.metric("wpgen_sink_rescue_oldest_record_age_seconds{sink=\"out\"}") > 0.0);
        assert_eq!(place.metric("wpgen_sink_rescue_up{sink=\"out\"}"), 1.0);
        kill(engine);
        let engine = place.start();
        disk.empty();
        until("the rescue is empty", || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0);
        place.await_whole("disk/out.log", 40_000);
        place.await_healthy();
        engine.stop();
        place.await_whole("disk/out.log", 40_000);
    }
}

#[test]
fn what_a_rescue_sends_again_after_a_kill_is_not_in_the_file_twice() {
    let sink = "rescue = true\nconnect = \"file_sink\"\nparams = { path = \"disk/out.log\" }";
    for io in ["uring", "epoll"] {
        let (place, port) = Place::from_tcp(io, sink);
        let disks = [("data", 512), ("data/rescue", 8 << 10), ("disk", 8 << 10)]
            .map(|(name, kib)| Disk::tmpfs(&place.path(name), kib));
        let [Some(data), Some(_rescue), Some(disk)] = disks else { return };
        let engine = place.start();
        let mut sender = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut sent = 0;
        let mut send = |more: usize| {
            place.write(sent..sent + more);
            let text = std::fs::read(place.path("in.log")).unwrap();
            sender.write_all(&text[sent * LINE..]).unwrap();
            sent += more;
            sent
        };
        place.await_delivered(send(1000));
        disk.fill();
        let lines = send(1000);
        place.await_delivered(lines);
        assert!(place.metric("wpgen_sink_rescue_records{sink=\"out\"}") > 0.0);
        // They go into the file, and the rescue must not let go of them before a checkpoint says so.
        data.fill();
        disk.empty();
        // The last checkpoint's pages go back when it is replaced.
        place.await_trouble("the checkpoint cannot be written: No space left on device", || data.fill());
        place.await_whole("disk/out.log", lines);
        kill(engine);
        data.empty();
        let engine = place.start();
        until("the rescue is empty", || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0);
        place.await_whole("disk/out.log", lines);
        engine.stop();
        place.await_whole("disk/out.log", lines);
    }
}

#[test]
fn full_disks_of_an_output_and_its_rescue_are_told_once_and_not_at_each_attempt() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "disk/out.log", "rescue = true\nbatch_bytes = 4096");
        let disks = [place.path("disk"), place.path("data/rescue")].map(|path| Disk::tmpfs(&path, 8 << 10));
        let [Some(disk), Some(other)] = disks else { return };
        let engine = place.start();
        place.write(1..100);
        place.await_whole("disk/out.log", 100);
        disk.fill();
        other.fill();
        place.write(100..2000);
        let errors = || place.metric("wpgen_sink_errors_total{sink=\"out\"}");
        until("it is tried again and again", || errors() >= 10.0);
        assert_eq!(
            place.logged(&["out.log", "works again"]),
            0,
            "what is kept for a whole block is not written"
        );
        other.empty();
        disk.empty();
        place.await_whole("disk/out.log", 2000);
        place.await_healthy();
        engine.stop();
        assert_eq!(place.logged(&["out.log", "works again"]), 1);
        place.await_whole("disk/out.log", 2000);
    }
}

#[test]
fn a_full_disk_of_the_rescue_holds_the_sources_back_and_keeps_what_it_has() {
    const LINES: usize = 60_000;
    for io in ["uring", "epoll"] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let params = format!(
            "rescue = true\nconnect = \"tcp_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", reconnect_min = \"20ms\", \
             reconnect_max = \"100ms\" }}"
        );
        let place = Place::new(io, &params);
        let Some(disk) = Disk::tmpfs(&place.path("data/rescue"), 8 << 10) else { return };
        let engine = place.start();
        place.write(1..LINES / 2);
        place.await_delivered(LINES / 2);
        disk.fill();
        place.write(LINES / 2..LINES);
        place
            .await_trouble("the rescue of sink 'out' does not work: writing: No space left on device", || ());
        assert!(place.delivered() < LINES as u64);
        assert_eq!(place.metric("wpgen_sink_rescue_up{sink=\"out\"}"), 0.0);
        let refusals = || place.metric("wpgen_sink_rescue_refusals_total{sink=\"out\"}");
        let before = refusals();
        until("it is tried again", || refusals() >= before + 2.0);
        assert_eq!(
            place.logged(&["ERROR", "rescue of sink 'out'", "No space left"]),
            1,
            "once, not each time"
        );
        kill(engine);
        let engine = place.start();
        place.await_trouble("the rescue of sink 'out' does not work", || ());
        disk.empty();
        until("the rescue works again", || place.metric("wpgen_sink_rescue_up{sink=\"out\"}") == 1.0);
        until("all is kept", || place.metric("wpgen_source_in_flight_records{source=\"app\"}") == 0.0);
        let peer = Peer::listen(port);
        peer.await_last(LINES - 1);
        place.await_healthy();
        until("the rescue is empty", || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0);
        engine.stop();
        let again = repeated(&peer.lines(), LINES);
        assert!(again <= LINES / 2, "{again} lines came again: at most what was not in a checkpoint");
        peer.end();
    }
}

#[test]
fn a_disk_that_fails_when_it_writes_back_loses_nothing_that_was_acknowledged() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "disk/out.log", "");
        let (path, below) = (place.path("disk"), place.path("below"));
        let Some(disk) = Disk::ext4_on_tmpfs(&path, &below, 24 << 10) else { return };
        let engine = place.start();
        // More than the blocks in front, which have room on the disk below.
        place.write(1..60_000);
        place.await_whole("disk/out.log", 60_000);
        disk.fill();
        // What is small is taken, and fails when it is synced; what is large goes past the page cache and fails at once.
        let mut lines = 60_000;
        place.await_trouble("syncing: No space left on device", || {
            // However late the engine reads, it gets little at a time.
            if place.received() == lines as u64 {
                place.write(lines..lines + 100);
                lines += 100;
            }
        });
        assert!(place.delivered() < lines as u64, "what fsync refused is not delivered");
        place.write(lines..lines + 30_000);
        lines += 30_000;
        let errors = || place.metric("wpgen_sink_errors_total{sink=\"out\"}");
        let before = errors();
        until("it is tried again", || errors() >= before + 2.0);
        disk.empty();
        place.await_delivered(lines);
        place.await_healthy();
        kill(engine);
        forget_cached(&place.path("disk/out.log"));
        place.await_whole("disk/out.log", lines);
        // What no checkpoint has is read again.
        let engine = place.start();
        place.await_whole("disk/out.log", lines);
        engine.stop();
    }
}

#[test]
fn what_a_start_keeps_for_the_only_copy_is_on_disk_and_not_in_memory_alone() {
    const LINES: usize = 60_000;
    for io in ["uring", "epoll"] {
        let (place, port) =
            Place::from_tcp(io, "connect = \"file_sink\"\nparams = { path = \"disk/out.log\" }");
        let Some(disk) = Disk::ext4_on_tmpfs(&place.path("disk"), &place.path("below"), 24 << 10) else {
            return;
        };
        place.write(0..LINES + 100);
        let lines = std::fs::read(place.path("in.log")).unwrap();
        let (first, last) = lines.split_at(LINES * LINE);
        let engine = place.start();
        let mut sender = TcpStream::connect(("127.0.0.1", port)).unwrap();
        sender.write_all(first).unwrap();
        place.await_delivered(LINES);
        disk.fill();
        sender.write_all(last).unwrap();
        place.await_trouble("syncing: No space left on device", || ());
        // By now it waits long between one attempt, whose bytes are in the file, and the next.
        let errors = || place.metric("wpgen_sink_errors_total{sink=\"out\"}");
        let enough = errors() + 7.0;
        until("it is tried again", || errors() >= enough);
        kill(engine);
        disk.empty();
        let engine = place.start();
        let kept = std::fs::metadata(place.path("disk/out.log")).unwrap().len() as usize;
        assert_eq!(place.logged(&["WARN", "its disk has not taken all"]), 1, "{kept}");
        assert!(kept >= LINES * LINE && kept.is_multiple_of(LINE), "{kept}");
        TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(&lines[kept..]).unwrap();
        place.await_whole("disk/out.log", LINES + 100);
        engine.stop();
        forget_cached(&place.path("disk/out.log"));
        place.await_whole("disk/out.log", LINES + 100);
    }
}

#[test]
fn on_a_disk_that_has_less_than_is_reserved_ahead_others_have_room_too() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "disk/out.log", "");
        let path = place.path("disk");
        let Some(_disk) = Disk::ext4_on_tmpfs(&path, &place.path("below"), 40 << 10) else { return };
        let engine = place.start();
        place.write(1..60_000);
        place.await_whole("disk/out.log", 60_000);
        // Of 32 MiB, 6 are written.
        std::fs::write(path.join("other"), vec![1; 16 << 20]).unwrap();
        place.write(60_000..80_000);
        place.await_whole("disk/out.log", 80_000);
        engine.stop();
    }
}

/// The next who reads the file gets what the disk has, and not what memory has of it.
fn forget_cached(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: the descriptor is open for the call.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(error, 0);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_the_end() {
    for io in ["uring", "epoll"] {
        let place = Place::to_file(io, "out.log", "");
        let engine = place.start();
        limit_files(&engine, 1 << 20);
        place.write(1..30_000);
        place.await_trouble("File too large", || ());
        assert!(place.delivered() < 30_000);
        assert!(std::fs::metadata(place.path("out.log")).unwrap().len() <= 1 << 20);
        limit_files(&engine, libc::RLIM_INFINITY);
        place.await_whole("out.log", 30_000);
        place.await_healthy();
        engine.stop();
    }
}

/// Sets RLIMIT_FSIZE of a running engine.
fn limit_files(engine: &Started, bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the process is our child, and the limit lives for the call.
    let set =
        unsafe { libc::prlimit(engine.pid(), libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
