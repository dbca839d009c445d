//! Which CPUs this process may use, and pinning a thread to one.

/// Pins the calling thread to a CPU; where that is refused, the thread runs where the system puts it.
pub fn pin(cpu: usize) {
    // SAFETY: a CPU set is plain bits, for which zero is a valid value; CPU_SET checks its bound.
    let rc = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if rc != 0 {
        let error = std::io::Error::last_os_error();
        log::debug!(target: "wpgen::io", "pinning a shard to CPU {cpu}: {error}");
    }
}

/// The CPUs this process may run on, in order: its affinity mask.
pub fn allowed() -> Vec<usize> {
    // SAFETY: as above; the call fills the set.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return vec![0];
        }
        set
    };
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(1024);
    // SAFETY: CPU_ISSET reads a bit of an initialised set below its size.
    (0..most).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// CPUs' worth of time this process may use: affinity and cgroup quota respected, at least one.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
