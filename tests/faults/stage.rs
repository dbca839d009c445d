//! A run: what a plan asks for is set up, struck, and judged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backlog;
use super::clock::{self, Clock};
use super::config::{self, Rounds};
use super::disk::Disk;
use super::engine::Engine;
use super::input::{self, Input, Place};
use super::ledger::{End, Ledger, Standing};
use super::oracle::{Allowed, Must, Passage, Seen, Sent, judge};
use super::output::{self, Files, Output};
use super::plan::{Illness, OutputPlan, Plan, SmallDisk, Step, Strike};
use super::scrape::Scraper;
use super::sick::SickDisks;

/// How long the engine may take to deliver what is left when all faults are over.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long everything may rest and be incomplete before it is taken for lost.
const REST_MAX: Duration = Duration::from_secs(8);
/// A stop that cannot drain is made an end at once after this time.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// What is wrong with a run.
pub type Wrong = Vec<String>;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Faults that struck.
    pub faults: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Scrapes that kept the law.
    pub scrapes: u64,
    /// Records that came twice where they may.
    pub repeated: u64,
}

/// A run while it goes.
pub struct Stage {
    plan: Plan,
    folder: PathBuf,
    inputs: Vec<Box<dyn Input>>,
    outputs: Vec<Box<dyn Output>>,
    files: Files,
    /// Where the data folder is on which nothing fails.
    data: PathBuf,
    disk: Option<Disk>,
    clock: Option<Clock>,
    /// Healed before an engine is ended: one that waits for an answer cannot be.
    sick: SickDisks,
    engine: Option<Engine>,
    scraper: Scraper,
    ledger: Ledger,
    rounds: Rounds,
    /// Whether something holds on that may keep the engine from delivering.
    holds: bool,
    limited: bool,
    /// Whether a reload could not do everything, because of what held on.
    reload_again: bool,
    faults: u64,
    /// Whether sources were opened while their senders sent.
    reopened: bool,
    /// What the kernel has dropped of each input in the last life.
    dropped: HashMap<u8, u64>,
    /// What each output's rescue may bring again, beside what the ledger says of connections.
    rescued: HashMap<u8, Rescued>,
}

/// Of one output.
#[derive(Debug, Default)]
struct Rescued {
    /// What it may have twice.
    allowed: Allowed,
    /// Whether an engine was killed while there was something in its rescue.
    was_cut: bool,
}

/// Runs a plan in a folder; call it on a thread of its own.
///
/// # Errors
/// What is wrong.
pub fn run(plan: &Plan, place: &Place) -> Result<Outcome, Wrong> {
    let mut stage = Stage::set_up(plan, place);
    let result = stage.play();
    if result.is_err() {
        stage.keep_small_disk();
    }
    result
}

impl Outcome {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.messages += other.messages;
        self.scrapes += other.scrapes;
        self.repeated += other.repeated;
    }
}

impl Stage {
    pub(super) fn set_up(plan: &Plan, place: &Place) -> Self {
        let folder = place.folder.clone();
        let small = folder.join("small");
        let disk = (plan.small_disk != SmallDisk::Nothing).then(|| Disk::mount(&small).unwrap());
        let put = |name: &str, is_small: bool| {
            let at = if is_small { small.join(name) } else { folder.join(format!("{name}.real")) };
            std::fs::create_dir_all(&at).unwrap();
            at
        };
        let data = put("data", matches!(plan.small_disk, SmallDisk::Data | SmallDisk::Both));
        let below = put("out", matches!(plan.small_disk, SmallDisk::Files | SmallDisk::Both));
        let sick = SickDisks::mount(plan.sick_disk, place, &data, &below);
        let files = Files { at: sick.files(&below), below };
        std::os::unix::fs::symlink(sick.data(&data), folder.join("data")).unwrap();
        std::os::unix::fs::symlink(&files.at, folder.join("out")).unwrap();
        let steps_clock = plan.steps.iter().any(|step| matches!(step.strike, Strike::Clock { .. }));
        Self {
            inputs: (0..).zip(&plan.inputs).map(|(n, plan)| input::make(n, plan, place)).collect(),
            outputs: (0..).zip(&plan.outputs).map(|(n, plan)| output::make(n, plan, place, &files)).collect(),
            sick,
            data,
            files,
            clock: steps_clock.then(|| Clock::new(&folder)),
            engine: None,
            scraper: Scraper::start(&folder),
            ledger: Ledger::default(),
            rounds: Rounds::default(),
            holds: false,
            limited: false,
            reload_again: false,
            faults: 0,
            reopened: false,
            dropped: HashMap::new(),
            rescued: HashMap::new(),
            plan: plan.clone(),
            disk,
            folder,
        }
    }

    fn play(&mut self) -> Result<Outcome, Wrong> {
        self.configure();
        self.start()?;
        self.work()?;
        self.stop()?;
        self.judge()
    }

    /// Sends, strikes, and waits until everything is delivered.
    pub(super) fn work(&mut self) -> Result<(), Wrong> {
        self.inputs.iter_mut().for_each(|input| input.begin());
        for step in self.plan.steps.clone() {
            self.step(step)?;
        }
        self.inputs.iter_mut().for_each(|input| input.finish());
        self.settle();
        Ok(())
    }

    /// Another round with the engine that runs: none of the inputs and outputs of the one before are left.
    pub(super) fn next_round(&mut self, plan: &Plan, place: &Place, first: u8) -> Result<(), Wrong> {
        let files = self.files.clone();
        let inputs = (first..).zip(&plan.inputs).map(|(n, plan)| input::make(n, plan, place)).collect();
        let outputs =
            (first..).zip(&plan.outputs).map(|(n, plan)| output::make(n, plan, place, &files)).collect();
        // Peers stay until the engine is done with them: one that was reset is sent again what it did not acknowledge.
        let _before =
            (std::mem::replace(&mut self.inputs, inputs), std::mem::replace(&mut self.outputs, outputs));
        (self.ledger, self.rounds, self.faults) = (Ledger::default(), Rounds::default(), 0);
        self.plan = plan.clone();
        self.reopened = false;
        self.scraper.forget();
        self.dropped.clear();
        self.rescued.clear();
        self.reload(false, false)
    }

    pub(super) fn configure(&self) {
        let text = config::text(&self.plan, self.rounds, &self.inputs, &self.outputs);
        std::fs::write(self.folder.join("wpsrc.toml"), text).unwrap();
    }

    pub(super) fn start(&mut self) -> Result<(), Wrong> {
        // It reads the configuration as it is now.
        self.reload_again = false;
        let preload = self.clock.as_ref().and_then(|_| clock::library());
        self.engine = Some(Engine::start(&self.folder, preload).map_err(|why| vec![why])?);
        if self.limited {
            self.limit_files(true);
        }
        self.scraper.up();
        Ok(())
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine is up between two steps")
    }

    fn step(&mut self, step: Step) -> Result<(), Wrong> {
        std::thread::sleep(Duration::from_millis(step.pause_ms as u64)); // the plan's pause
        if let Some(how) = self.engine.as_mut().and_then(Engine::ended) {
            return Err(vec![format!("the engine ended before {:?}: {how}", step.strike)]);
        }
        self.faults += 1;
        match step.strike {
            Strike::Kill { down_ms, rotate } => {
                self.kill();
                self.restart(down_ms, rotate)
            }
            Strike::Stop { down_ms, rotate } => {
                self.stop()?;
                self.restart(down_ms, rotate)
            }
            Strike::ReloadSame => {
                self.engine().signal(libc::SIGHUP);
                Ok(())
            }
            Strike::ReloadChanged { sources, sinks } => self.reload(sources, sinks),
            Strike::ReloadBad => self.reload_bad(),
            Strike::Freeze { ms } => {
                self.engine().signal(libc::SIGSTOP);
                std::thread::sleep(Duration::from_millis(ms as u64)); // the plan's pause
                self.engine().signal(libc::SIGCONT);
                Ok(())
            }
            strike => {
                self.strike_around(strike);
                if self.holds { Ok(()) } else { self.reload_once_more() }
            }
        }
    }

    /// What strikes not the engine but what is around it.
    fn strike_around(&mut self, strike: Strike) {
        let before = self.scraper.last();
        let had_rescued = self.rescued_now();
        match strike {
            Strike::Rotate => self.inputs.iter_mut().for_each(|input| _ = input.rotate()),
            Strike::Reset => self.outputs.iter_mut().for_each(|output| _ = output.reset()),
            Strike::Stall(is_on) => self.outputs.iter_mut().for_each(|output| _ = output.stall(is_on)),
            Strike::Away(is_on) => self.outputs.iter_mut().for_each(|output| _ = output.leave(is_on)),
            Strike::Clock { seconds } => self.clock.iter_mut().for_each(|clock| clock.step(seconds)),
            Strike::Full(true) => self.disk.iter().for_each(Disk::fill),
            Strike::Full(false) => self.disk.iter().for_each(Disk::free),
            Strike::FileLimit(is_on) => self.limit_files(is_on),
            Strike::Sick(illness) => self.sick.set(illness),
            other => unreachable!("{other:?} strikes the engine"),
        }
        if matches!(strike, Strike::Reset | Strike::Away(true)) {
            self.ledger.broke(before.as_ref(), &self.standings());
            self.rescue_broke(&had_rescued);
        }
        if let Strike::Stall(is_on) | Strike::Away(is_on) | Strike::Full(is_on) | Strike::FileLimit(is_on) =
            strike
        {
            self.holds = is_on;
        }
        if let Strike::Sick(illness) = strike {
            self.holds = illness.is_some_and(|illness| illness != Illness::Short);
        }
    }

    fn standings(&self) -> Vec<Standing> {
        let standing = |input: &dyn Input| Standing {
            input: input.number(),
            written: input.written(),
            can_repeat: input.can_repeat(),
        };
        self.inputs.iter().map(|input| standing(input.as_ref())).collect()
    }

    /// Outputs with a rescue: number, bytes of a batch, whether records may come twice anyway, and where its files are.
    fn rescues(&self) -> Vec<(u8, usize, bool, PathBuf)> {
        let outputs = self.outputs.iter().zip(&self.plan.outputs).filter(|(_, plan)| plan.rescue);
        let folder = |number| self.data.join(format!("rescue/o{number}"));
        let of = |output: &dyn Output, plan: &OutputPlan| {
            (output.number(), plan.batch_bytes, output.may_repeat(), folder(output.number()))
        };
        outputs.map(|(output, plan)| of(output.as_ref(), plan)).collect()
    }

    /// Outputs with something in their rescue.
    fn rescued_now(&self) -> Vec<u8> {
        self.rescues().iter().filter(|rescue| has_files(&rescue.3)).map(|rescue| rescue.0).collect()
    }

    /// The engine was cut: what is in a rescue comes again, as far as it was sent. Where that is in a file, so does what
    /// its inputs have not written down yet: what is there is no longer what the checkpoint knows of.
    fn rescue_was_cut(&mut self, again: &Allowed) {
        for (number, batch_bytes, may_repeat, folder) in self.rescues() {
            let kept = backlog::in_rescue(&folder, batch_bytes);
            if kept.is_empty() {
                continue;
            }
            let rescued = self.rescued.entry(number).or_default();
            rescued.was_cut = true;
            let again = again.iter().filter(|_| !may_repeat);
            kept.iter().chain(again).for_each(|(input, n)| *rescued.allowed.entry(*input).or_default() += n);
        }
    }

    /// Connections broke: of what is in a rescue that comes again which their sink had in its hands.
    fn rescue_broke(&mut self, before: &[u8]) {
        for (number, batch_bytes, may_repeat, folder) in self.rescues() {
            if may_repeat && (before.contains(&number) || has_files(&folder)) {
                let rescued = self.rescued.entry(number).or_default();
                let most = backlog::in_hands(batch_bytes);
                self.inputs
                    .iter()
                    .for_each(|input| *rescued.allowed.entry(input.number()).or_default() += most);
            }
        }
    }

    fn kill(&mut self) {
        let scrapes = self.scraper.down();
        self.engine.take().expect("an engine is up").kill();
        let again = self.ledger.ended(End::Cut, &scrapes, &self.standings());
        self.rescue_was_cut(&again);
    }

    /// SIGTERM; a second one where the first cannot come to its end.
    pub(super) fn stop(&mut self) -> Result<(), Wrong> {
        let scrapes = self.scraper.down();
        let engine = self.engine.take().expect("an engine is up");
        if self.holds {
            engine.signal(libc::SIGTERM);
            std::thread::sleep(IMPATIENCE); // then the operator's patience ends
        }
        let code = engine.stop().map_err(|why| vec![why])?;
        let end = if code == 0 { End::Drained } else { End::Cut };
        let again = self.ledger.ended(end, &scrapes, &self.standings());
        if end == End::Cut {
            self.rescue_was_cut(&again);
        }
        if code == 0 || self.holds { Ok(()) } else { Err(vec![format!("SIGTERM: exit code {code}")]) }
    }

    fn restart(&mut self, down_ms: usize, rotate: bool) -> Result<(), Wrong> {
        std::thread::sleep(Duration::from_millis(down_ms as u64)); // the plan's pause
        if rotate {
            self.inputs.iter_mut().for_each(|input| _ = input.rotate());
        }
        self.reopened = true;
        // An engine that cannot make its socket, or cut its files, says so and does not start.
        self.sick.set(None);
        self.start()
    }

    /// Does what a reload could not while something held on: as soon as what it stopped is drained.
    fn reload_once_more(&mut self) -> Result<(), Wrong> {
        let deadline = Instant::now() + SETTLE_MAX;
        if std::mem::take(&mut self.rounds.hasty) {
            self.configure();
        }
        while self.reload_again {
            let answer = self.post_reload();
            self.reload_again = !matches!(answer, Ok((200, _)));
            if self.reload_again && Instant::now() > deadline {
                return Err(vec![format!("a reload once nothing holds on: {answer:?}")]);
            }
        }
        Ok(())
    }

    pub(super) fn reload(&mut self, sources: bool, sinks: bool) -> Result<(), Wrong> {
        self.rounds.sources += u32::from(sources);
        self.reopened |= sources;
        self.rounds.sinks += u32::from(sinks);
        self.rounds.hasty = self.holds;
        self.configure();
        let (before, had_rescued) = (self.scraper.last(), self.rescued_now());
        let answer = self.post_reload();
        if sinks && self.holds {
            // What a peer that stands still has not acknowledged follows to the new sink, and the peer reads it all the same.
            self.ledger.broke(before.as_ref(), &self.standings());
            self.rescue_broke(&had_rescued);
        }
        match answer {
            Ok((200, _)) => Ok(()),
            // What cannot be drained now cannot be changed now; the engine says so, and asks for another reload, which
            // must do it. The disk of a busy machine may hold a worker for longer than a reload waits, too.
            Ok((409, body)) if self.holds || body.contains("the last of it is not delivered yet") => {
                self.reload_again = true;
                Ok(())
            }
            // Nor can anything while a worker waits for a disk.
            Ok((400, body)) if self.holds && body.contains("does not answer") => {
                self.reload_again = true;
                Ok(())
            }
            other => Err(vec![format!("a reload of a sound configuration: {other:?}")]),
        }
    }

    fn post_reload(&mut self) -> Result<(u16, String), String> {
        self.engine.as_mut().expect("an engine is up between two steps").post("/api/reload")
    }

    fn reload_bad(&mut self) -> Result<(), Wrong> {
        let path = self.folder.join("wpsrc.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[engine]", "[engine]\nnonsense = 1")).unwrap();
        let answer = self.post_reload();
        self.configure();
        match answer {
            Ok((code, _)) if code != 200 => Ok(()),
            other => Err(vec![format!("a reload of nonsense: {other:?}")]),
        }
    }

    /// Lets no file of the engine grow beyond a little more than the largest output has.
    fn limit_files(&mut self, is_on: bool) {
        self.limited = is_on;
        let files = std::fs::read_dir(&self.files.below).into_iter().flatten().flatten();
        let largest = files.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0);
        let limit = if is_on { largest + 70_000 } else { libc::RLIM_INFINITY };
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: libc::RLIM_INFINITY };
        let pid = self.engine().pid();
        // SAFETY: the limit lives for the call, and the process is our child.
        let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits until every output has what it must have, or nothing moves any more.
    fn settle(&mut self) {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut resting = Instant::now();
        while Instant::now() < deadline && resting.elapsed() < REST_MAX {
            std::thread::sleep(Duration::from_millis(20)); // between two looks
            let Some(last) = self.scraper.last() else { continue };
            for input in &self.inputs {
                let figures = last.sources.get(&format!("i{}", input.number()));
                self.dropped.insert(input.number(), figures.map_or(0, |figures| figures.kernel_drops));
            }
            // What is in a rescue is delivered as far as its source goes.
            let waits = self.rescues().iter().any(|rescue| has_files(&rescue.3));
            if waits || last.sources.values().any(|figures| figures.in_flight > 0 || figures.lag > 0) {
                resting = Instant::now();
            } else if self.is_complete() {
                return;
            }
        }
    }

    /// Everything that was sent.
    fn sent(&self) -> Vec<Sent> {
        let dropped = |input: u8| self.dropped.get(&input).copied().unwrap_or(0);
        let mut sent: Vec<Sent> =
            self.inputs.iter().flat_map(|input| input.sent(dropped(input.number()))).collect();
        sent.iter_mut().for_each(|sent| sent.may_turn = self.reopened && sent.must == Must::Any);
        sent
    }

    fn is_complete(&self) -> bool {
        let sent = self.sent();
        let complete = |output: &dyn Output| judge(&sent, &output.seen(), &Allowed::new()).missing.is_empty();
        self.outputs.iter().all(|output| complete(output.as_ref()))
    }

    pub(super) fn judge(&mut self) -> Result<Outcome, Wrong> {
        let (scrapes, mut wrong) = self.scraper.outcome();
        wrong.append(&mut self.ledger.wrong);
        wrong.extend(panics(&self.folder));
        let mut outcome = Outcome { faults: self.faults, scrapes, ..Outcome::default() };
        let sent = self.sent();
        outcome.messages = sent.iter().map(|sent| u64::from(sent.messages)).sum();
        for output in &self.outputs {
            let mut allowed = if output.may_repeat() { self.ledger.allowed() } else { Allowed::new() };
            let mut seen = output.seen();
            if let Some(rescued) = self.rescued.get(&output.number()) {
                rescued.allowed.iter().for_each(|(input, n)| *allowed.entry(*input).or_default() += n);
                seen.goes_back = rescued.was_cut;
            }
            let verdict = judge(&sent, &seen, &allowed);
            let here = format!("output {}", output.number());
            if !(verdict.wrong.is_empty() && verdict.missing.is_empty()) {
                wrong.push(format!("{here}: {}", passages(&seen)));
            }
            let of = |list: Vec<String>| -> Vec<String> {
                let more = (list.len() > 5).then(|| format!("{here}: and {} more", list.len() - 5));
                list.into_iter().take(5).map(|what| format!("{here}: {what}")).chain(more).collect()
            };
            wrong.extend(of(verdict.wrong));
            wrong.extend(of(verdict.missing));
            for (input, told) in self.ledger.told() {
                let there = verdict.unique.get(&input).copied().unwrap_or(0) + verdict.stubs;
                if there < told {
                    wrong.push(format!(
                        "{here}: the engine has told of {told} messages of input {input}, and {there} are there"
                    ));
                }
            }
            outcome.repeated += verdict.repeated.values().sum::<u64>();
        }
        if wrong.is_empty() { Ok(outcome) } else { Err(wrong) }
    }

    /// The small disk goes with this thread: what is on it is copied to where a person can look.
    fn keep_small_disk(&mut self) {
        drop(self.engine.take());
        if self.disk.take().is_some() {
            let copied = std::process::Command::new("cp")
                .args(["-a", "--sparse=always", "small", "small.kept"])
                .current_dir(&self.folder)
                .status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("the small disk could not be copied");
            }
        }
    }
}

/// What came by which way, for who looks for the reason.
fn passages(seen: &Seen) -> String {
    let one = |passage: &Passage| {
        let ends = passage.records.first().zip(passage.records.last());
        let ends = ends.map(|(first, last)| format!(" from {first:?} to {last:?}")).unwrap_or_default();
        format!("{}-{}: {} records{ends}", passage.begun, passage.ended, passage.records.len())
    };
    seen.passages.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn has_files(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some())
}

/// What the engine has printed of a bug.
fn panics(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
}
