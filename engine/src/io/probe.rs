//! Which backend this machine allows, and why not io_uring when it does not: one line for the log.

use std::io;

/// Why io_uring cannot be had, found and not guessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause in words, with what was read to find it.
    pub cause: String,
    /// What the operator can do.
    pub mend: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.cause, self.mend)
    }
}

/// Tries to set up a small ring with the flags the shards use.
///
/// # Errors
/// The cause of the refusal.
pub fn uring() -> Result<(), Refusal> {
    let mut builder = io_uring::IoUring::builder();
    builder.setup_single_issuer().setup_coop_taskrun();
    let ring: io::Result<io_uring::IoUring> = builder.build(8);
    ring.map(drop).map_err(|error| refusal(&error))
}

/// Names the cause of a failed io_uring_setup.
pub fn refusal(error: &io::Error) -> Refusal {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let (cause, mend) = match error.raw_os_error() {
        Some(libc::ENOSYS) => (
            format!("this kernel ({}) has no io_uring, or a filter hides it", kernel()),
            "use Linux 6.1 or later, or allow io_uring_setup in the seccomp profile",
        ),
        Some(libc::EPERM) if sysctl.trim() == "1" || sysctl.trim() == "2" => {
            (format!("kernel.io_uring_disabled is {}", sysctl.trim()), "sysctl -w kernel.io_uring_disabled=0")
        }
        Some(libc::EPERM | libc::EACCES) if seccomp_filtered() => (
            "a seccomp filter refuses io_uring_setup, as container runtimes' default profiles do".to_owned(),
            "run with a profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        ),
        Some(libc::ENOMEM) => (
            "the memlock limit leaves no room for a ring".to_owned(),
            "raise it: ulimit -l, or LimitMEMLOCK= in the unit",
        ),
        Some(libc::EINVAL) => {
            (format!("this kernel ({}) is too old for the ring's flags", kernel()), "use Linux 6.1 or later")
        }
        _ => (format!("io_uring_setup failed: {error}"), "see the kernel's log"),
    };
    Refusal { cause, mend: mend.to_owned() }
}

/// Whether a seccomp filter is on this process (`Seccomp: 2` in /proc/self/status).
fn seccomp_filtered() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|l| l.split_whitespace().eq(["Seccomp:", "2"])))
}

/// The kernel's release, for messages.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "?".into(), |s| s.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_cause_and_mend() {
        let old = refusal(&io::Error::from_raw_os_error(libc::EINVAL));
        assert!(old.to_string().contains("too old"), "{old}");
        let memory = refusal(&io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(memory.mend.contains("LimitMEMLOCK"), "{memory}");
        let other = refusal(&io::Error::from_raw_os_error(libc::EIO));
        assert!(other.cause.contains("Input/output"), "{other}");
    }
}
