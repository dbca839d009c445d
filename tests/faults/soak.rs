//! One engine under mixed load and random faults: it ends with flat memory, flat open files, and the law intact.
//!
//! How long is said by `WPGEN_SOAK_SECONDS`: an hour by hand, two minutes before a merge; where it says nothing, a few
//! rounds, which show the law and a bound for memory, and are too short to show that memory is flat.
//!
//! It goes in rounds of a few seconds. Each has inputs, outputs and faults of its own, which a reload brings in; then a
//! reload to nothing takes them out, and what the engine holds at rest is measured. kill -9 and SIGTERM are for the
//! seeded runs: here the process is to grow old.

use std::time::{Duration, Instant};

use super::engine::Engine;
use super::input::Place;
use super::plan::{Means, Plan};
use super::stage::{Outcome, Stage, Wrong};

/// Where the environment says nothing else.
const SECONDS: u64 = 8;
/// So many rounds are compared; with fewer nothing can be said of what grows.
const ROUNDS_MIN: usize = 12;
/// The part of the rounds at the start that is not compared: pools fill, and each thread of the engine gets pages of the
/// allocator for each size that it ever needs.
const WARM_UP: usize = 4;
/// What an engine may hold at rest in any round: not the memory_limit of 64 MiB that it has in use under load.
const AT_REST_KIB_MAX: u64 = 80 << 10;
/// What open files at rest may differ by between the first and the last third: a scrape's connections, and the pipes and
/// rings that a worker makes when it first needs one. What leaks leaks in every round, or in every tenth.
const SLACK_FILES: usize = 4;
/// What memory at rest may differ by between the first and the last third, beside a tenth.
const SLACK_KIB: u64 = 8 << 10;
/// How long what was taken out may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(20);

/// What an engine at rest holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: u64,
    /// Of any kind.
    files: usize,
    /// Files, folders and sockets: what the inputs and outputs of a round have open.
    of_rounds: usize,
}

fn held(engine: &Engine) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let open = open_files(engine);
    let is_own = |name: &&String| name.starts_with("anon_inode:") || name.starts_with("pipe:");
    Held {
        kib: line.trim().trim_end_matches(" kB").parse().unwrap(),
        files: open.len(),
        of_rounds: open.len() - open.iter().filter(is_own).count(),
    }
}

/// What the engine has open, by name.
fn open_files(engine: &Engine) -> Vec<String> {
    let all = std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap().flatten();
    all.filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string())).collect()
}

#[test]
fn soak() {
    let means = super::means();
    let seconds = super::asked("WPGEN_SOAK_SECONDS").unwrap_or(SECONDS);
    let seed = super::asked("WPGEN_SEED").unwrap_or(0);
    let folder = tempfile::Builder::new().prefix("soak-").tempdir().unwrap();
    let place = Place::new(folder.path(), super::own_address());
    // A thread of its own, whose disks are nobody else's.
    let soaking = std::thread::spawn(move || {
        let ran = rounds(seed, Duration::from_secs(seconds), means, &place);
        if ran.is_err() {
            keep_disk(&place);
        }
        ran
    });
    match soaking.join() {
        Ok(Ok((sum, held))) => {
            eprintln!("{} rounds: {sum:?}", held.len());
            let kib: Vec<u64> = held.iter().map(|held| held.kib).collect();
            let [least, most] =
                [kib.iter().min(), kib.iter().max()].map(|kib| kib.copied().unwrap_or_default());
            eprintln!("KiB at rest: {least} to {most}");
            assert!(most <= AT_REST_KIB_MAX, "{most} KiB at rest, and {AT_REST_KIB_MAX} may be");
            assert_flat(&held[held.len() / WARM_UP..]);
        }
        Ok(Err(wrong)) => panic!("{}\nkept: {}", wrong.join("\n"), folder.keep().display()),
        Err(_) => panic!("the harness panicked; kept: {}", folder.keep().display()),
    }
}

/// The small disk is gone with its thread: what is on it is kept beside it.
fn keep_disk(place: &Place) {
    let (small, kept) = (place.folder.join("small"), place.folder.join("small.kept"));
    // It is said anyway what is wrong.
    let _ = std::process::Command::new("cp").arg("-a").args([small, kept]).status();
}

fn rounds(seed: u64, length: Duration, means: Means, place: &Place) -> Result<(Outcome, Vec<Held>), Wrong> {
    let until = Instant::now() + length;
    let idle =
        Plan { inputs: Vec::new(), outputs: Vec::new(), steps: Vec::new(), ..Plan::round(seed, means) };
    let mut stage = Stage::set_up(&idle, place);
    stage.configure();
    stage.start()?;
    let (mut sum, mut all, mut scraped) = (Outcome::default(), Vec::new(), 0);
    let base = held(stage.engine()).of_rounds;
    for round in 0.. {
        let plan = Plan::round(seed + round, means);
        let why = |wrong: Wrong| -> Wrong {
            let head = format!("round {round} of WPGEN_SEED={seed}: {plan}");
            std::iter::once(head).chain(wrong).collect()
        };
        // Keys of a few rounds back may come again.
        let first = u8::try_from(round % 20 * 4).unwrap();
        let outcome = stage
            .next_round(&plan, place, first)
            .and_then(|()| stage.work())
            .and_then(|()| stage.judge())
            .map_err(why)?;
        // All those since the start of the engine are counted.
        let scrapes = outcome.scrapes - std::mem::replace(&mut scraped, outcome.scrapes);
        sum.add(Outcome { scrapes, ..outcome });
        let to_rest =
            |wrong: Wrong| why(std::iter::once("it goes to rest:".to_owned()).chain(wrong).collect());
        stage.next_round(&idle, place, 0).map_err(to_rest)?;
        all.push(at_rest(&stage, base).map_err(why)?);
        clear(place);
        if Instant::now() >= until {
            break;
        }
    }
    stage.stop()?;
    Ok((sum, all))
}

/// What the engine holds once it has closed what a round had open.
fn at_rest(stage: &Stage, base: usize) -> Result<Held, Wrong> {
    let deadline = Instant::now() + CLOSE_MAX;
    loop {
        let now = held(stage.engine());
        // The admin API may be answering a scrape: a connection, twice at most.
        if now.of_rounds <= base + 2 {
            return Ok(now);
        }
        if Instant::now() > deadline {
            let head =
                format!("{} files and sockets are open at rest, and {base} were at first:", now.of_rounds);
            return Err(std::iter::once(head).chain(open_files(stage.engine())).collect());
        }
        std::thread::sleep(Duration::from_millis(20)); // between two looks
    }
}

/// Removes what the rounds before have read and written.
fn clear(place: &Place) {
    for folder in [place.inputs.clone(), place.folder.join("out")] {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("in") || name.starts_with("out") && entry.path().is_file() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// What the engine holds in the last third of the rounds is what it held in the first.
fn assert_flat(held: &[Held]) {
    if held.len() < ROUNDS_MIN {
        return eprintln!("{} rounds: too few to say whether memory grows", held.len());
    }
    let median = |part: &[Held]| {
        let (mut kib, mut files): (Vec<u64>, Vec<usize>) =
            part.iter().map(|held| (held.kib, held.files)).unzip();
        kib.sort_unstable();
        files.sort_unstable();
        (kib[kib.len() / 2], files[files.len() / 2])
    };
    let third = held.len().div_ceil(3);
    let (first, last) = (median(&held[..third]), median(&held[held.len() - third..]));
    eprintln!("at rest, median (KiB, open files): {first:?} in the first third, {last:?} in the last");
    assert!(last.0 <= first.0 + first.0 / 10 + SLACK_KIB, "memory at rest grows: {first:?}, then {last:?}");
    assert!(last.1 <= first.1 + SLACK_FILES, "open files at rest grow: {first:?}, then {last:?}");
}
