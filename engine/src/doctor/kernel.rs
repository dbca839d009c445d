//! The kernel: io_uring and what of it is missing, and the clock.

use super::Check;
use crate::config::{Config, IoMode};
use crate::io::probe;
use crate::io::ring::{self, Rung};

/// What running without io_uring costs, as it was measured.
const WITHOUT_URING: &str = "the same results through epoll: a cold file takes about twice the CPU, TCP on hundreds of connections \
    about a quarter more";

pub(super) fn checks(config: Option<&Config>) -> Vec<Check> {
    vec![uring(config.map_or(IoMode::Auto, |config| config.engine.io)), clock()]
}

fn uring(wanted: IoMode) -> Check {
    let subject = "io_uring";
    if wanted == IoMode::Epoll {
        return Check::ok(subject, "not used: io = \"epoll\"");
    }
    let refusal = match probe::uring() {
        Ok(()) => return operations(subject),
        Err(refusal) => refusal,
    };
    let check = if wanted == IoMode::Uring {
        Check::fail(subject, format!("io = \"uring\", but io_uring is refused: {}", refusal.cause))
            .help("io = \"auto\" takes epoll where io_uring is refused")
    } else {
        Check::warn(subject, format!("refused: {}", refusal.cause)).note(WITHOUT_URING)
    };
    check.help(refusal.mend)
}

/// What a ring can do, found by doing it once.
fn operations(subject: &str) -> Check {
    let kernel = probe::kernel();
    match ring::capabilities() {
        Ok((Rung::Deferred, true)) => {
            Check::ok(subject, format!("Linux {kernel}, every operation that is used"))
        }
        Ok((rung, bundles)) => {
            let mut missing = Vec::new();
            let mut notes = Vec::new();
            if rung != Rung::Deferred {
                missing.push("deferred task work (Linux 6.1)");
                notes.push("completions interrupt the shard where they could wait for its turn");
            }
            if !bundles {
                missing.push("receives in bundles (Linux 6.10)");
                notes.push("a completion for each 16 KiB received in place of one for many");
            }
            let check = Check::warn(subject, format!("Linux {kernel} lacks {}", missing.join(" and ")));
            notes
                .into_iter()
                .fold(check, Check::note)
                .help("a newer kernel; the results are the same without")
        }
        Err(error) => Check::warn(subject, format!("Linux {kernel} lacks multishot receives: {error}"))
            .note("sockets are read through epoll, files through io_uring")
            .help("Linux 6.0 or later"),
    }
}

fn clock() -> Check {
    // SAFETY: an all-zero timex is valid, and asks without changing anything.
    let mut times: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex that lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut times) };
    if state < 0 {
        return Check::ok("clock", "its state may not be asked for here");
    }
    if times.status & libc::STA_UNSYNC == 0 {
        return Check::ok("clock", format!("synchronised, within {} ms", times.maxerror / 1000));
    }
    Check::warn("clock", "nothing keeps it in time: the kernel calls it unsynchronised")
        .note("times of receipt, and the year of RFC 3164 messages, are as good as this clock; a step shows in both")
        .help("run chronyd or systemd-timesyncd on this machine, or on the host of this container")
}
