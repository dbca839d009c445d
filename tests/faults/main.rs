//! Faults by seed: numbered messages go through the real engine while it, its disks, its peers and its clock are struck,
//! and an oracle reads what came out.
//!
//! ```text
//! cargo test -p wpgen --test faults                       as many seeds as fit in half a minute
//! WPGEN_FAULTS_SECONDS=180 cargo test ... --test faults   ... in three minutes
//! WPGEN_FAULTS=500 cargo test ... --test faults           500 seeds, however long they take
//! WPGEN_SEED=123 cargo test ... --test faults             one of them again
//! WPGEN_SOAK_SECONDS=3600 cargo test ... --test faults soak    one engine for an hour ([`soak`]); without it, 8 seconds
//! ```
//!
//! A seed decides everything but the time that things take ([`plan`]). A run that fails prints its seed and keeps its
//! folder. Of what comes out it is asked ([`oracle`], [`ledger`]):
//!
//! - every message of an input that can be read again is there, in order, and a file sink has none twice;
//! - over connections no more repeats than was in flight, or not yet in the checkpoint, when something broke;
//! - an engine that is killed amid sending what a rescue kept repeats at most what lay there, 8 MiB of it, also in a file;
//! - of inputs that cannot repeat there is all that the engine said it had delivered, and without kill -9 all that it
//!   said it had received;
//! - at every scrape of `/metrics`: in = delivered + rejected + dropped + in flight, and no counter goes back.
//!
//! A further source or sink joins with one file in [`input`] or [`output`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod backlog;
mod clock;
mod config;
mod disk;
mod engine;
#[path = "../faulty/mod.rs"]
mod faulty;
mod framing;
mod input;
mod ledger;
#[path = "../leftovers.rs"]
mod leftovers;
mod message;
mod oracle;
mod oracle_tests;
mod output;
mod plan;
mod random;
mod scrape;
mod sick;
mod soak;
mod stage;

use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::disk::Disk;
use self::faulty::Faulty;
use self::input::Place;
use self::plan::{Means, Plan};
use self::stage::Outcome;

/// Runs at a time: most of a run is waiting.
const LANES: usize = 2;
/// How long runs are begun where the environment asks for nothing else.
const SECONDS: u64 = 30;
/// Failures after which no more runs are begun.
const FAILURES_MAX: usize = 10;

fn asked(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What can be done here; what cannot is said.
fn means() -> Means {
    let means = Means {
        disk: Disk::is_possible(),
        clock: clock::library().is_some(),
        uring: has_uring(),
        sick: has_fuse(),
    };
    for (is_there, words) in [
        (means.disk, "no disk of its own can be mounted here (that takes root): no run fills one"),
        (means.clock, "no C compiler: no run steps the clock"),
        (means.uring, "io_uring is refused here: every run is on epoll"),
        (
            means.sick,
            "no FUSE file system can be mounted here (that takes root and /dev/fuse): no disk answers EIO",
        ),
    ] {
        if !is_there {
            eprintln!("{words}");
        }
    }
    means
}

fn has_fuse() -> bool {
    let folder = tempfile::tempdir().unwrap();
    Faulty::mount(&folder.path().join("at"), &folder.path().join("below")).is_ok()
}

fn has_uring() -> bool {
    // As large as io_uring_params; all of it zero asks for nothing special.
    let mut params = [0u32; 30];
    // SAFETY: the parameters live for the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return false };
    // SAFETY: the descriptor was made above and is nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

/// An address of 127.0.0.0/8 that no other run has, in this process or another.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let run = NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
    let number = u64::from(std::process::id()) * 1000 + run;
    let [.., a, b, c] = (number % 0x00fd_0000 + 0x0001_0000).to_be_bytes();
    Ipv4Addr::new(127, a, b, c)
}

/// Runs one seed on a thread of its own, whose disks are nobody else's.
fn run_seed(seed: u64, means: Means) -> Result<Outcome, String> {
    let plan = Plan::new(seed, means);
    let folder = tempfile::Builder::new().prefix(&format!("fault-{seed}-")).tempdir().unwrap();
    let place = Place::new(folder.path(), own_address());
    let its_plan = plan.clone();
    let thread = std::thread::spawn(move || {
        std::panic::catch_unwind(AssertUnwindSafe(|| stage::run(&its_plan, &place)))
            .unwrap_or_else(|_| Err(vec!["the harness panicked; its words are above".to_owned()]))
    });
    thread.join().unwrap().map_err(|wrong| {
        let folder = folder.keep();
        format!(
            "{plan}  {}\n  again:  WPGEN_SEED={seed} cargo test -p wpgen --test faults seeded\n  kept:   {}\n",
            wrong.join("\n  "),
            folder.display()
        )
    })
}

#[test]
fn seeded() {
    let means = means();
    let (seeds, until) = match (asked("WPGEN_SEED"), asked("WPGEN_FAULTS")) {
        (Some(seed), _) => (seed..seed + 1, None),
        (None, Some(runs)) => {
            let from = asked("WPGEN_FAULTS_FROM").unwrap_or(0);
            (from..from + runs, None)
        }
        (None, None) => {
            let seconds = asked("WPGEN_FAULTS_SECONDS").unwrap_or(SECONDS);
            (0..u64::MAX, Some(Instant::now() + Duration::from_secs(seconds)))
        }
    };
    let next = AtomicU64::new(seeds.start);
    let results: Mutex<(u64, Outcome, Vec<String>)> = Mutex::default();
    let lane = || {
        while until.is_none_or(|until| Instant::now() < until) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || results.lock().unwrap().2.len() >= FAILURES_MAX {
                return;
            }
            let result = run_seed(seed, means);
            let (runs, sum, failures) = &mut *results.lock().unwrap();
            *runs += 1;
            match result {
                Ok(outcome) => sum.add(outcome),
                Err(failure) => {
                    eprintln!("{failure}");
                    failures.push(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
    let (runs, sum, failures) = results.into_inner().unwrap();
    eprintln!("{runs} seeds: {sum:?}");
    assert!(failures.is_empty(), "{} of {runs} runs failed:\n{}", failures.len(), failures.concat());
}
