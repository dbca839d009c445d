//! What time it is, and what a thread or a process has used.
//!
//! Messages carry the time since 1970, so that two processes, and two machines with synchronised clocks, agree on it.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks a second in which the kernel tells CPU times to programs.
pub const TICKS_PER_S: u64 = 100;

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the calling thread has run, and how long it waited for a CPU while it could have.
pub fn thread_times() -> (Duration, Duration) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|n| Duration::from_nanos(n.parse().unwrap_or(0)));
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time of all its threads.
    pub cpu: Duration,
    /// The most memory it ever had in RAM.
    pub memory_peak_bytes: u64,
}

/// What a process has used since it began; none when there is no such process.
pub fn used(pid: u32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Used { cpu: cpu(&stat), memory_peak_bytes: memory_peak(&status) })
}

/// The fields behind the name, which stands in brackets and may hold anything.
fn cpu(stat: &str) -> Duration {
    let Some((_, behind)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

fn memory_peak(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let stat = "7 (a) b) c) S 1 1 1 0 -1 4194560 900 0 0 0 150 50 9 9 20 0 4 0 100 0 0";
        assert_eq!(cpu(stat), Duration::from_secs(2));
        assert_eq!(memory_peak("VmPeak:\t 99 kB\nVmHWM:\t   12 kB\n"), 12 * 1024);
        assert_eq!((cpu(""), memory_peak("")), (Duration::ZERO, 0));
    }

    #[test]
    fn this_process_and_thread_use_something() {
        assert!(used(std::process::id()).is_some_and(|used| used.memory_peak_bytes > 100_000));
        assert_eq!(used(u32::MAX), None);
        let before = thread_times().0;
        let end = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < end {}
        assert!(thread_times().0 > before);
    }
}
