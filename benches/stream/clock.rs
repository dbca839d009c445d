//! CPU time, of whom it is asked; what the hypervisor stole; where a thread runs.

use std::fs;
use std::time::{Duration, Instant};

/// The CPU of the receiver: the engine takes the first one for its only shard.
pub const RECEIVER_CPU: usize = 0;
/// The CPU of the sender and of the bench itself.
pub const SENDER_CPU: usize = 1;

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills a plain struct.
    let code = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(code, 0, "the clock is there");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Of the calling thread.
pub fn thread_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Of all threads of a process, those included that have ended.
pub fn process_ns(pid: u32) -> u64 {
    let mut clock = 0;
    // SAFETY: the call fills an integer.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    assert_eq!(code, 0, "the process is there");
    clock_ns(clock)
}

/// Runs `work` on a thread of its own on one CPU; what it returned, and its CPU time.
pub fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> T + Send) -> (T, u64) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            engine::io::affinity::pin(cpu);
            let done = work();
            (done, thread_ns())
        });
        thread.join().expect("the thread ends well")
    })
}

/// What a receiver took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    pub cpu_ns: u64,
    pub wall: Duration,
    /// How long shards of this process were ready to run and others had their CPU.
    pub waited: Duration,
    /// Part of the machine's time that the hypervisor took, percent.
    pub stolen: f64,
}

/// A measurement under way of a process, without the bench's own threads when it is this one.
pub struct Meter {
    pid: u32,
    cpu_ns: u64,
    mine_ns: u64,
    waited_ns: u64,
    wall: Instant,
    ticks: (u64, u64),
}

impl Meter {
    pub fn start(pid: u32) -> Self {
        Self {
            pid,
            cpu_ns: process_ns(pid),
            mine_ns: thread_ns(),
            waited_ns: shards_waited_ns(),
            wall: Instant::now(),
            ticks: machine_ticks(),
        }
    }

    /// `senders_ns` is what the bench's other threads took meanwhile.
    pub fn stop(self, senders_ns: u64) -> Took {
        let mut cpu_ns = process_ns(self.pid) - self.cpu_ns;
        if self.pid == std::process::id() {
            cpu_ns = cpu_ns.saturating_sub(thread_ns() - self.mine_ns + senders_ns);
        }
        let (stolen, all) = machine_ticks();
        let (stolen, all) = (stolen - self.ticks.0, all - self.ticks.1);
        let stolen = stolen as f64 * 100.0 / all.max(1) as f64;
        let waited = Duration::from_nanos(shards_waited_ns().saturating_sub(self.waited_ns));
        Took { cpu_ns, wall: self.wall.elapsed(), waited, stolen }
    }
}

/// How long this process's shards have waited for a CPU.
fn shards_waited_ns() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let waited = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let figures = fs::read_to_string(task.path().join("schedstat")).ok()?;
        name.starts_with("shard").then(|| figures.split_whitespace().nth(1)?.parse::<u64>().ok())?
    };
    tasks.flatten().filter_map(waited).sum()
}

/// Ticks that were stolen, and all of them, since the machine started.
fn machine_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().take(8).sum())
}

/// The system's load, to judge figures by.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(1).collect()
}
