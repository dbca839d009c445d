//! The engine under test: the real program, started and struck, and asked over its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a start takes on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// Longer than its drain_timeout, which is part of its configuration.
const END_MAX: Duration = Duration::from_secs(60);

/// Longer than a reload takes that waits in each of its phases.
const ANSWER_MAX: Duration = Duration::from_secs(40);

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
        while engine.ask("GET", "/health/live").is_none() {
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

    /// Asks it; the answer's code and body, or nothing when it does not answer: then what each of its threads does is
    /// kept beside its log.
    pub fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let asked = Instant::now();
        let answer = ask(&self.folder, method, path);
        if answer.is_none() && asked.elapsed() >= ANSWER_MAX {
            self.keep_stacks();
        }
        answer
    }

    /// Where there is a debugger.
    fn keep_stacks(&self) {
        let Ok(file) = std::fs::File::create(self.folder.join("stacks")) else { return };
        let mut gdb = Command::new("gdb");
        gdb.args(["-batch", "-ex", "thread apply all backtrace", "-p", &self.pid().to_string()]);
        let _ = gdb.stdin(Stdio::null()).stdout(file).stderr(Stdio::null()).status();
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
pub fn ask(folder: &Path, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(folder.join("data/wpgen.sock")).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
