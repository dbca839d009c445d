//! What this process and its threads take of the machine: memory and CPU time, as the kernel counts them.
//!
//! Pure reading of `/proc/self`; where it is not mounted, the numbers are 0 and whoever shows them leaves them out. Read
//! on request only, never on a shard.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Ticks a second in which the kernel tells CPU times to programs, whatever its own clock does.
const TICKS_PER_S: u64 = 100;

/// What the process takes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its memory that are in RAM, those of mapped files included.
    pub resident_bytes: u64,
    /// CPU time of all its threads since it began, in user space and in the kernel.
    pub cpu: Duration,
}

impl Usage {
    /// Of this process, now.
    pub fn now() -> Self {
        let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
        Self { resident_bytes: resident(&read("/proc/self/status")), cpu: cpu(&read("/proc/self/stat")) }
    }
}

fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// The fields behind the name, which stands in brackets and may hold anything.
fn cpu(stat: &str) -> Duration {
    let Some((_, behind)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

/// A thread of this process, as the kernel's scheduler counts it.
#[derive(Clone, Debug)]
pub struct Thread(Option<PathBuf>);

impl Thread {
    /// The one that calls.
    pub fn current() -> Self {
        Self(fs::read_link("/proc/thread-self").ok().map(|link| Path::new("/proc").join(link)))
    }

    /// Counts from now on.
    pub fn watch(&self) -> Watch {
        Watch { thread: self.clone(), since: Instant::now(), before: self.scheduled() }
    }

    /// How long it has run, and how long it could have and had no CPU.
    fn scheduled(&self) -> Option<(Duration, Duration)> {
        scheduled(&fs::read_to_string(self.0.as_ref()?.join("schedstat")).ok()?)
    }
}

/// A thread since a moment.
#[derive(Debug)]
pub struct Watch {
    thread: Thread,
    since: Instant,
    before: Option<(Duration, Duration)>,
}

impl Watch {
    /// What the thread has done until now; `None` where the kernel does not say.
    pub fn spent(&self) -> Option<Spent> {
        let ((ran_before, waited_before), (ran, waited)) = (self.before?, self.thread.scheduled()?);
        let (ran, waited) = (ran.saturating_sub(ran_before), waited.saturating_sub(waited_before));
        Some(Spent { ran, waited, slept: self.since.elapsed().saturating_sub(ran + waited) })
    }
}

/// What a thread has done with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// On a CPU.
    pub ran: Duration,
    /// Ready to run, while others had its CPU.
    pub waited: Duration,
    /// In a call to the kernel that waits.
    pub slept: Duration,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ran, waited, slept] = [self.ran, self.waited, self.slept].map(|time| time.as_secs_f64());
        write!(
            f,
            "it ran for {ran:.1} s, waited for a CPU for {waited:.1} s and for the kernel for {slept:.1} s"
        )
    }
}

/// Nanoseconds on a CPU, and nanoseconds in a queue for one (Documentation/scheduler/sched-stats.rst).
fn scheduled(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut fields = schedstat.split_whitespace().map_while(|n| n.parse().ok()).map(Duration::from_nanos);
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_does_with_its_time_is_told_apart() {
        let watch = Thread::current().watch();
        std::thread::sleep(Duration::from_millis(30)); // asleep is what it is to be seen as
        let spent = watch.spent().expect("the kernel counts threads");
        assert!(spent.slept > spent.ran + spent.waited, "{spent:?}");
        let watch = Thread::current().watch();
        while watch.spent().expect("the kernel counts threads").ran < Duration::from_millis(20) {
            std::hint::black_box(scheduled("1 2 3"));
        }
        let over = |schedstat| scheduled(schedstat).map(|(ran, waited)| (ran.as_nanos(), waited.as_nanos()));
        assert_eq!([over("7 9 3\n"), over("7"), over("")], [Some((7, 9)), None, None]);
        let second = Duration::from_secs(1);
        let spent = Spent { ran: second / 4, waited: 4 * second, slept: second * 3 / 4 };
        assert_eq!(
            spent.to_string(),
            "it ran for 0.2 s, waited for a CPU for 4.0 s and for the kernel for 0.8 s"
        );
    }

    #[test]
    fn what_the_kernel_writes_is_understood() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\nRssAnon:\t 1 kB\n"), 12 * 1024);
        let stat = "7 (a) b) c) S 1 1 1 0 -1 4194560 900 0 0 0 150 50 9 9 20 0 4 0 100 0 0";
        assert_eq!(cpu(stat), Duration::from_secs(2));
        assert_eq!((resident(""), cpu("")), (0, Duration::ZERO));
    }

    #[test]
    fn this_process_takes_memory() {
        assert!(Usage::now().resident_bytes > 100_000);
    }
}
