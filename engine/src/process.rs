//! What this process takes of the machine: memory and CPU time, as the kernel counts them.
//!
//! Pure reading of `/proc/self`; where it is not mounted, the numbers are 0 and whoever shows them leaves them out. Read
//! on request only, never on a shard.

use std::fs;
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
