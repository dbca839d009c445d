//! The engine under test: the real program, started and struck, and asked over its socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// Longer than its drain_timeout, which is part of its configuration.
const END_MAX: Duration = Duration::from_secs(60);

/// Longer than the engine lets anybody wait for a reload, which is longer than a reload lasts.
const ANSWER_MAX: Duration = Duration::from_secs(45);
/// How long the end of an engine that has closed its connections may take to be seen.
const SEEN_MAX: Duration = Duration::from_secs(1);

/// Longer than a debugger takes that can stop every thread.
const STACKS_MAX: Duration = Duration::from_secs(30);

/// A running engine.
pub struct Engine {
    child: Child,
    folder: PathBuf,
}

impl Engine {
    /// Starts one with the configuration in `folder` and waits until it answers.
    ///
    /// # Errors
    /// It ended, or does not answer.
    pub fn start(folder: &Path, preload: Option<&Path>) -> Result<Self, String> {
        let log = |name: &str| {
            let path = folder.join(name);
            std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
        command.args(["source", "start", "wpsrc.toml"]).current_dir(folder).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
        if let Some(preload) = preload {
            command.env("LD_PRELOAD", preload).env("FAULT_CLOCK", folder.join("clock"));
        }
        let child = command.spawn().map_err(|error| format!("the engine does not start: {error}"))?;
        let mut engine = Self { child, folder: folder.to_owned() };
        let deadline = Instant::now() + START_MAX;
        while ask(folder, "GET", "/health/live").is_err() {
            if let Some(status) = engine.child.try_wait().unwrap() {
                return Err(format!("the engine ended at its start: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("the engine did not answer within {START_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(5)); // between two questions
        }
        Ok(engine)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Has it do something; the answer's code and body. While it lives and does not answer, what each of its threads does
    /// is kept beside its log.
    ///
    /// # Errors
    /// What came in the place of an answer, after how long, and what became of the engine.
    pub fn post(&mut self, path: &str) -> Result<(u16, String), String> {
        let asked = Instant::now();
        ask(&self.folder, "POST", path).map_err(|error| {
            let (took, deadline) = (asked.elapsed(), Instant::now() + SEEN_MAX);
            let ended = loop {
                let ended = self.ended();
                if ended.is_some() || took >= ANSWER_MAX || Instant::now() > deadline {
                    break ended;
                }
                std::thread::sleep(Duration::from_millis(5)); // between two looks
            };
            let fate = ended.map_or_else(
                || {
                    self.keep_stacks();
                    "it runs, and what its threads do is in 'stacks'".to_owned()
                },
                |how| format!("it has ended: {how}"),
            );
            format!("no answer to {path} after {took:?}: {:?}: {error}; {fate}", error.kind())
        })
    }

    /// What each thread waits for in the kernel, and, where there is a debugger, how it came there: that cannot stop a thread
    /// which waits for a disk, and is given up then.
    fn keep_stacks(&self) {
        let Ok(mut file) = std::fs::File::create(self.folder.join("stacks")) else { return };
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        for task in tasks {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let _ = writeln!(file, "{}waits in {}\n{}", read("comm"), read("wchan"), read("stack"));
        }
        let mut gdb = Command::new("gdb");
        gdb.args(["-batch", "-ex", "thread apply all backtrace", "-p", &self.pid().to_string()]);
        gdb.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        let Ok(mut gdb) = gdb.spawn() else { return };
        let deadline = Instant::now() + STACKS_MAX;
        while gdb.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20)); // between two looks
        }
        let _ = gdb.kill();
        let _ = gdb.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end after SIGTERM; the exit code.
    ///
    /// # Errors
    /// It does not end, or by a signal.
    pub fn stop(mut self) -> Result<i32, String> {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + END_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().ok_or_else(|| format!("it ended by a signal: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("it did not end within {END_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(5)); // between two looks
        }
    }

    /// Whether it ended by itself, and how.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().unwrap().map(|status| status.to_string())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the engine that runs in a folder.
///
/// # Errors
/// It does not answer.
pub fn ask(folder: &Path, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(folder.join("data/wpgen.sock"))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let answer = text.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    });
    answer.ok_or_else(|| {
        let message = format!("the connection ended after {} bytes, which are no answer", text.len());
        io::Error::new(io::ErrorKind::UnexpectedEof, message)
    })
}
