//! A program under test: a process group of its own, what it uses, and its end.
//!
//! Invariant: when a [`Program`] is dropped, nothing of its group runs any more.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::bench::clock::{self, Used, used};

/// How long a program may take to end after it was asked to.
const END_MAX: Duration = Duration::from_secs(20);
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(2);
/// How often what its group uses is looked at, once it runs for a while: a program that ends soon is seen at its end, too.
const SEEN_EVERY: Duration = Duration::from_millis(100);

/// A process and those it started.
#[derive(Debug)]
pub struct Program {
    pid: i32,
    began: Instant,
    ended: Option<Ended>,
    /// The most that its whole group was seen to use.
    seen: Used,
    seen_next: Instant,
    seen_every: Duration,
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
        let seen = Used::default();
        Ok(Self { pid, began, ended: None, seen, seen_next: began, seen_every: LOOK })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        self.look();
        if self.ended.is_none() {
            let (mut status, mut usage) = (0, zeroed_usage());
            // SAFETY: both pointers are valid for the call, and the process is our child.
            let waited = unsafe { libc::wait4(self.pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
            if waited == self.pid {
                let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                let cpu = time(usage.ru_utime) + time(usage.ru_stime);
                // A shell that is ended does not wait for what it started, and then knows nothing of it.
                let used = Used { cpu: cpu.max(self.seen.cpu), ..self.seen };
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

    /// Asks its whole group to end and waits; after [`END_MAX`] it is killed.
    pub fn end(mut self) -> Option<Ended> {
        self.seen_next = Instant::now();
        self.look();
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + END_MAX;
        let ended = self.wait(|| Instant::now() < deadline);
        // What is only left to be reaped has no memory any more.
        while used_by_group(self.pid).memory_peak_bytes > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        ended
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the group is that of our own child; what is gone already is no matter.
        unsafe { libc::kill(-self.pid, signal) };
    }

    fn look(&mut self) {
        if Instant::now() >= self.seen_next {
            self.seen_next = Instant::now() + self.seen_every;
            self.seen_every = (2 * self.seen_every).min(SEEN_EVERY);
            let now = used_by_group(self.pid);
            self.seen.cpu = self.seen.cpu.max(now.cpu);
            self.seen.memory_peak_bytes = self.seen.memory_peak_bytes.max(now.memory_peak_bytes);
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

/// What all processes of a group have used together, those included that they have waited for.
fn used_by_group(group: i32) -> Used {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut sum = Used::default();
    for (pid, waited_for) in pids.filter_map(|pid| Some((pid, of_group(pid, group)?))) {
        let own = used(pid).unwrap_or_default();
        sum.cpu += own.cpu + waited_for;
        sum.memory_peak_bytes += own.memory_peak_bytes;
    }
    sum
}

/// The CPU time of the children that a process of the group has waited for; none when it is of another group.
fn of_group(pid: u32, group: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields behind the name, which stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let its_group: i32 = fields.get(2)?.parse().ok()?;
    let ticks: u64 = fields.get(13..15)?.iter().filter_map(|n| n.parse::<u64>().ok()).sum();
    (its_group == group).then(|| Duration::from_millis(ticks * 1000 / clock::TICKS_PER_S))
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
    fn what_a_shell_started_is_counted_though_the_shell_does_not_wait_for_it() {
        let mut program = shell("(while :; do :; done); true");
        let enough = Duration::from_millis(100);
        while used_by_group(program.pid).cpu < enough {
            assert!(program.ended().is_none());
        }
        let (group, ended) = (program.pid, program.end().unwrap());
        assert!(ended.used.cpu >= enough && ended.used.memory_peak_bytes > 0, "{ended:?}");
        assert_eq!(used_by_group(group).memory_peak_bytes, 0, "all of it has ended");
    }

    #[test]
    fn nothing_of_it_outlives_it() {
        let mut program = shell("trap '' TERM; sleep 1000 & wait; sleep 1000");
        while used_by_group(program.pid).memory_peak_bytes == 0 {
            assert!(program.ended().is_none());
        }
        let group = program.pid;
        drop(program);
        let deadline = Instant::now() + Duration::from_secs(60);
        while used_by_group(group).memory_peak_bytes > 0 {
            assert!(Instant::now() < deadline, "still there");
            std::thread::sleep(LOOK);
        }
    }
}
