//! A program under test: a process group of its own, what it uses, and its end.
//!
//! Invariant: when a [`Program`] is dropped, nothing of its group runs any more.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::clock::{Used, used};

/// How long a program may take to end after it was asked to.
const END_MAX: Duration = Duration::from_secs(20);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(2);
/// How often its memory is looked at.
const MEMORY_LOOK: Duration = Duration::from_millis(100);

/// A process and those it started.
#[derive(Debug)]
pub struct Program {
    pid: i32,
    began: Instant,
    ended: Option<Ended>,
    memory_peak_bytes: u64,
    memory_next: Instant,
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it used, its children included.
    pub used: Used,
    /// From its start to its end.
    pub took: Duration,
}

impl Program {
    /// Starts it.
    pub fn start(mut command: Command) -> io::Result<Self> {
        let began = Instant::now();
        let child = command.process_group(0).spawn()?;
        // The process is waited for below, with what it used; a Child neither kills nor waits when it is dropped.
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok(Self { pid, began, ended: None, memory_peak_bytes: 0, memory_next: began })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        self.look_at_memory();
        if self.ended.is_none() {
            let (mut status, mut usage) = (0, zeroed_usage());
            // SAFETY: both pointers are valid for the call, and the process is our child.
            let waited = unsafe { libc::wait4(self.pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
            if waited == self.pid {
                let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                let cpu = time(usage.ru_utime) + time(usage.ru_stime);
                let used = Used { cpu, memory_peak_bytes: self.memory_peak_bytes };
                self.ended = Some(Ended { code, used, took: self.began.elapsed() });
            }
        }
        self.ended
    }

    /// Waits for its end while `going` says so.
    pub fn wait(&mut self, mut going: impl FnMut() -> bool) -> Option<Ended> {
        loop {
            match self.ended() {
                None if going() => std::thread::sleep(LOOK),
                ended => return ended,
            }
        }
    }

    /// Asks it to end and waits; after [`END_MAX`] it is killed.
    pub fn end(mut self) -> Option<Ended> {
        self.memory_next = Instant::now();
        self.look_at_memory();
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + END_MAX;
        self.wait(|| Instant::now() < deadline)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the group is that of our own child; what is gone already is no matter.
        unsafe { libc::kill(-self.pid, signal) };
    }

    fn look_at_memory(&mut self) {
        if Instant::now() >= self.memory_next {
            self.memory_next = Instant::now() + MEMORY_LOOK;
            self.memory_peak_bytes = self.memory_peak_bytes.max(memory_of_group(self.pid));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        // What was killed ends at once.
        self.wait(|| true);
    }
}

/// The peak memory of all processes of a group together.
fn memory_of_group(group: i32) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| group_of(*pid) == Some(group)).filter_map(used).map(|used| used.memory_peak_bytes).sum()
}

/// The third field behind the name, which stands in brackets and may hold anything.
fn group_of(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

fn zeroed_usage() -> libc::rusage {
    // SAFETY: all zeroes is a valid value of plain integers.
    unsafe { std::mem::zeroed() }
}

fn time(of: libc::timeval) -> Duration {
    Duration::from_secs(of.tv_sec.unsigned_abs()) + Duration::from_micros(of.tv_usec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start(command).unwrap()
    }

    #[test]
    fn it_ends_by_itself_or_when_it_is_asked_to() {
        let ended = shell("exit 3").wait(|| true).unwrap();
        assert_eq!(ended.code, Some(3));
        let ended = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").wait(|| true).unwrap();
        assert!(ended.code == Some(0) && ended.used.cpu > Duration::ZERO && ended.took >= ended.used.cpu / 2);
        let ended = shell("sleep 1000; true").end().unwrap();
        assert_eq!(ended.code, None);
    }

    #[test]
    fn nothing_of_it_outlives_it() {
        let mut program = shell("trap '' TERM; sleep 1000 & wait; sleep 1000");
        while memory_of_group(program.pid) == 0 {
            assert!(program.ended().is_none());
        }
        let group = program.pid;
        drop(program);
        let deadline = Instant::now() + Duration::from_secs(60);
        while memory_of_group(group) > 0 {
            assert!(Instant::now() < deadline, "still there");
            std::thread::sleep(LOOK);
        }
    }
}
