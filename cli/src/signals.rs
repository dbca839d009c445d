//! Signals, turned into events for the main thread.
//!
//! Owns SIGTERM, SIGINT and SIGHUP. Invariants: they are blocked in every thread and taken by one, so no handler ever runs;
//! the first SIGTERM or SIGINT asks for a drain, the second ends the process at once, whatever the main thread is doing. One
//! that comes with the first is no second wish: `timeout` signals its child, and then its whole group.
//! SIGXFSZ is ignored: a file that may not grow is an error of the write, as a full disk is.
//! It must be installed before any other thread starts, because threads inherit what is blocked.

use std::io;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How long after the first request to stop another one is taken for the same.
const SAME_WISH: Duration = Duration::from_millis(200);

/// Which signal asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: a service manager.
    Terminate,
    /// SIGINT: a person.
    Interrupt,
}

impl Stop {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// The process's exit code once everything is delivered.
    pub fn exit_code_drained(self) -> u8 {
        match self {
            Self::Terminate => 0,
            Self::Interrupt => 130,
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop taking, deliver, end.
    Drain(Stop),
    /// Reopen outputs and read the configuration anew.
    Reopen,
}

/// The blocked signals of this process.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
}

/// Blocks the signals in this thread and in all that it will start.
pub fn block() -> io::Result<Signals> {
    // SAFETY: the set is initialised by sigemptyset before use, and all pointers live for their call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(Signals { set }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Signals {
    /// Starts the thread that takes the signals and sends `wrap(signal)` for each. `last_words` has a moment before the
    /// second one ends the process, and says whether all that was taken is delivered.
    pub fn forward<T: Send + 'static>(
        self,
        events: Sender<T>,
        wrap: fn(Signal) -> T,
        last_words: impl Fn(&'static str) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let take = move || {
            let mut stopping: Option<Instant> = None;
            loop {
                let signal = match self.wait() {
                    libc::SIGHUP => Signal::Reopen,
                    libc::SIGTERM if stopping.is_none() => Signal::Drain(Stop::Terminate),
                    libc::SIGINT if stopping.is_none() => Signal::Drain(Stop::Interrupt),
                    _ if stopping.is_some_and(|first| first.elapsed() < SAME_WISH) => continue,
                    libc::SIGINT => match last_words(Stop::Interrupt.name()) {
                        true => exit_now(Stop::Interrupt.exit_code_drained().into()),
                        false => exit_now(1),
                    },
                    libc::SIGTERM => {
                        last_words(Stop::Terminate.name());
                        exit_now(1)
                    }
                    _ => continue,
                };
                if matches!(signal, Signal::Drain(_)) {
                    stopping = Some(Instant::now());
                }
                if events.send(wrap(signal)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("wpgen-signals".into()).spawn(take).map(|_| ())
    }

    fn wait(&self) -> libc::c_int {
        let mut signal = 0;
        // SAFETY: the set was initialised in `block`, and sigwait writes one integer.
        if unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } == 0 { signal } else { 0 }
    }
}

fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition; it skips destructors and exit handlers, which is what "now" means.
    unsafe { libc::_exit(code) }
}
