//! `--daemon`: go to the background once everything is open.
//!
//! Invariants: it forks before the first thread is started, when a fork is whole; the parent ends with 0 only when the
//! child said that everything is open, and else with the child's own exit code; until then the child's complaints reach
//! the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

use super::{DONE, FAILED};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was started: it ends now, with this code.
    Parent(u8),
    /// The one that stays.
    Child(Waiting),
}

/// The parent, as its child sees it: waiting for a word.
#[derive(Debug)]
pub struct Waiting(PipeWriter);

/// Forks. Must be called while the process has one thread.
pub fn fork() -> io::Result<Side> {
    let (word, waiting) = io::pipe()?;
    // SAFETY: the process has one thread, so no lock can be held by another one and the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(word);
            // SAFETY: no precondition; it fails only for a group leader, which a fresh child is not.
            unsafe { libc::setsid() };
            Ok(Side::Child(Waiting(waiting)))
        }
        child => {
            drop(waiting);
            Ok(Side::Parent(outcome(word, child)))
        }
    }
}

impl Waiting {
    /// Everything is open: lets the parent go, and leaves the terminal.
    pub fn ready(mut self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        for stream in 0..3 {
            replace(&null, stream)?;
        }
        self.0.write_all(b"1")
    }
}

fn replace(with: &File, stream: i32) -> io::Result<()> {
    // SAFETY: both are open descriptors; dup2 changes nothing else.
    if unsafe { libc::dup2(with.as_raw_fd(), stream) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for the child's word; without one it has ended, and its exit code is ours.
fn outcome(mut word: PipeReader, child: libc::pid_t) -> u8 {
    if matches!(word.read(&mut [0]), Ok(1)) {
        return DONE;
    }
    let mut status = 0;
    // SAFETY: the child is ours, and the status lives for the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited == child && libc::WIFEXITED(status) {
        return u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(FAILED);
    }
    FAILED
}
