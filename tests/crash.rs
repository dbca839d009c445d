//! kill -9, again and again: nothing is missing, nothing repeats, and whoever follows the output sees whole, ordered lines.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fallback;
use crate::harness::{Site, status, until};

/// Kills of one run; the issue's hundred, which take about fifteen seconds.
const KILLS: u32 = 100;

fn engine(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
    command.args(["-q", "source", "start", "wpsrc.toml"]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    fallback::filter(&mut command);
    command.spawn().unwrap()
}

fn configure(folder: &Path, io: &str) {
    let text = format!(
        r#"
[engine]
io = "{io}"
[admin]
listen = ""
[[sources]]
key = "numbers"
connect = "file_src"
[sources.params_override]
path = "in.log"
[[sinks]]
key = "copy"
connect = "file_sink"
[sinks.params_override]
path = "out.log"
"#
    );
    std::fs::write(folder.join("wpsrc.toml"), text).unwrap();
}

/// A small generator, so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Appends numbered lines in chunks that end anywhere, until told to stop; the last line is whole.
fn write_numbers(path: PathBuf, stop: Arc<AtomicBool>) -> u64 {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    let (mut random, mut number, mut pending) = (Random(7), 0u64, Vec::new());
    while !stop.load(Ordering::Acquire) {
        for _ in 0..1 + random.below(200) {
            let fill = "x".repeat(usize::try_from(random.below(300)).unwrap());
            pending.extend_from_slice(format!("{number} {fill}\n").as_bytes());
            number += 1;
        }
        let cut = usize::try_from(random.below(pending.len() as u64)).unwrap();
        file.write_all(&pending[..cut]).unwrap();
        pending.drain(..cut);
        thread::yield_now();
        if number > 400_000 {
            break;
        }
        thread::sleep(Duration::from_micros(400)); // the writer's pace, not a wait for the engine
    }
    file.write_all(&pending).unwrap();
    number
}

/// Follows the output by offset, as `tail -f` does, and counts lines; panics at the first one out of order.
fn follow_numbers(path: PathBuf, stop: Arc<AtomicBool>) -> u64 {
    let (mut next, mut offset, mut line) = (0u64, 0u64, Vec::new());
    loop {
        let last = stop.load(Ordering::Acquire);
        if let Ok(mut file) = File::open(&path) {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            offset += bytes.len() as u64;
            for byte in bytes {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let text = String::from_utf8_lossy(&line);
                let number = text.split(' ').next().unwrap_or_default();
                assert_eq!(
                    number,
                    next.to_string(),
                    "a line out of order or torn: {text:?} before byte {offset}"
                );
                next += 1;
                line.clear();
            }
        }
        if last {
            assert!(line.is_empty(), "the last line is whole");
            return next;
        }
        thread::sleep(Duration::from_millis(1)); // the follower's pace
    }
}

fn wait_for_size(path: &Path, size: u64) {
    let until = Instant::now() + Duration::from_secs(60);
    while !std::fs::metadata(path).is_ok_and(|m| m.len() >= size) {
        assert!(Instant::now() < until, "{} never got its {size} bytes", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

fn killed_again_and_again(io: &str, kills: u32) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    configure(folder, io);
    let (input, output) = (folder.join("in.log"), folder.join("out.log"));
    let (stop, seen_all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let writer = thread::spawn({
        let (input, stop) = (input.clone(), Arc::clone(&stop));
        move || write_numbers(input, stop)
    });
    let follower = thread::spawn({
        let (output, seen_all) = (output.clone(), Arc::clone(&seen_all));
        move || follow_numbers(output, seen_all)
    });
    let mut random = Random(u64::from(kills));
    for _ in 0..kills {
        let mut child = engine(folder);
        thread::sleep(Duration::from_millis(20 + random.below(220))); // the random moment
        assert!(child.try_wait().unwrap().is_none(), "the engine runs until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    stop.store(true, Ordering::Release);
    let written = writer.join().unwrap();
    let socket = folder.join("data/wpgen.sock");
    let _ = std::fs::remove_file(&socket);
    let mut child = engine(folder);
    wait_for_size(&socket, 0);
    wait_for_size(&output, std::fs::metadata(&input).unwrap().len());
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    assert!(child.wait().unwrap().success(), "SIGTERM drains and ends well");
    seen_all.store(true, Ordering::Release);
    assert_eq!(follower.join().unwrap(), written, "the follower saw every line");
    assert!(std::fs::read(&input).unwrap() == std::fs::read(&output).unwrap(), "output and input differ");
}

#[test]
fn nothing_is_missing_or_twice_after_a_hundred_kills() {
    killed_again_and_again("auto", KILLS);
}

#[test]
fn nor_on_epoll() {
    killed_again_and_again("epoll", KILLS / 4);
}

#[test]
fn what_no_sender_repeats_is_kept_once_it_counts_as_delivered() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let site = Site::empty();
    let source = format!("addr = \"127.0.0.1\"\nport = {port}");
    site.configure_source("auto", "tcp_src", &source, "path = \"out.log\"");
    // No checkpoint is written but where one is asked for.
    let path = site.path("wpsrc.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("workers = 2", "workers = 2\ncheckpoint_interval = \"1h\"")).unwrap();
    for round in 1..=3 {
        let engine = site.start();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"one\ntwo\n").unwrap();
        until("both are delivered", || status(site.folder())["sources"][0]["delivered"] == 2);
        engine.signal(libc::SIGKILL);
        engine.end();
        let engine = site.start();
        assert_eq!(site.read("out.log"), "one\ntwo\n".repeat(round).as_bytes());
        engine.stop();
    }
}

#[test]
fn a_start_that_finds_a_file_cut_tells_the_checkpoint_before_it_writes() {
    let site = Site::new("auto", "path = \"in.log\"", "path = \"out.log\"");
    crate::rescue::write(site.folder(), 0..100);
    let engine = site.start();
    crate::rescue::await_checkpoint(site.folder(), 100);
    engine.signal(libc::SIGKILL);
    engine.end();
    OpenOptions::new().write(true).open(site.path("out.log")).unwrap().set_len(0).unwrap();
    // From here on no checkpoint is written but where one is asked for.
    let config = std::fs::read_to_string(site.path("wpsrc.toml")).unwrap();
    let config = config.replace("workers = 2", "workers = 2\ncheckpoint_interval = \"1h\"");
    std::fs::write(site.path("wpsrc.toml"), config).unwrap();
    crate::rescue::write(site.folder(), 100..300);
    let rest = site.read("in.log").split_off(100 * crate::rescue::LINE);
    let engine = site.start();
    until("the rest is written", || site.read("out.log") == rest);
    engine.signal(libc::SIGKILL);
    engine.end();
    let engine = site.start();
    until("it is read again", || status(site.folder())["sources"][0]["delivered"] == 200);
    engine.stop();
    assert!(site.read("out.log") == rest, "each once");
}
