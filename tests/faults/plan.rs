//! What a run does, all of it made from its seed: the engine, its inputs and outputs, and what strikes them. Pure.

use std::fmt;

pub use super::framing::Framing;
use super::random::Random;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// `io`, `workers`, `memory_limit` and `checkpoint_interval` of the engine.
    pub io: &'static str,
    /// See `io`.
    pub workers: usize,
    /// See `io`.
    pub memory_mib: usize,
    /// See `io`.
    pub checkpoint_ms: usize,
    /// What is on a small disk of its own, where there is one.
    pub small_disk: SmallDisk,
    /// What is on a disk that fails when it is told to, where there can be one.
    pub sick_disk: SickDisk,
    /// Who sends.
    pub inputs: Vec<InputPlan>,
    /// Where it arrives.
    pub outputs: Vec<OutputPlan>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What is on the small disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmallDisk {
    /// Nothing: there is none.
    Nothing,
    /// The engine's data folder.
    Data,
    /// The files of file sinks.
    Files,
    /// Both.
    Both,
}

/// What is on the disk that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SickDisk {
    /// The files of file sources.
    pub inputs: bool,
    /// The files of file sinks.
    pub files: bool,
    /// The engine's data folder: its checkpoint and its rescue.
    pub data: bool,
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Illness {
    /// Nothing can be read.
    Reads,
    /// Nothing is found, opened or read; of data and outputs, nothing is written.
    All,
    /// Nothing can be written, with this error.
    Writes(i32),
    /// No sync succeeds, and what it should have written is lost.
    Syncs,
    /// No name can be made, renamed or removed.
    Names,
    /// Reads and writes do a part of what they are asked.
    Short,
    /// Nothing is answered.
    Stalls,
}

/// A sender.
#[derive(Clone, Debug)]
pub struct InputPlan {
    /// Which kind.
    pub kind: InputKind,
    /// Messages a second.
    pub rate: u32,
}

/// The kinds of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// A log file.
    File,
    /// Connections to a tcp source.
    Tcp(Framing),
    /// Connections to a tcp source on a unix socket.
    Unix(Framing),
    /// Connections to a syslog source.
    SyslogTcp(Framing),
    /// Datagrams to a syslog source.
    Udp,
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct OutputPlan {
    /// Which kind.
    pub kind: OutputKind,
    /// How records are written.
    pub format: Format,
    /// When a file is synced.
    pub fsync: &'static str,
    /// `batch_bytes` of the sink.
    pub batch_bytes: usize,
    /// Whether the sink has a rescue.
    pub rescue: bool,
}

/// The kinds of receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// A file, with or without rotation.
    File {
        /// Whether it is put aside at a size.
        rotate: bool,
    },
    /// A peer over TCP.
    Peer(Framing),
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As they came.
    Raw,
    /// As JSON.
    Ndjson,
}

impl Format {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Time before it.
    pub pause_ms: usize,
    /// What.
    pub strike: Strike,
}

/// What may happen. What holds on for a while has a beginning (`true`) and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// kill -9, and a start after a while, during which logs may be rotated.
    Kill {
        /// How long it is down.
        down_ms: usize,
        /// Whether logs are rotated meanwhile.
        rotate: bool,
    },
    /// SIGTERM, and a start.
    Stop {
        /// See `Kill`.
        down_ms: usize,
        /// See `Kill`.
        rotate: bool,
    },
    /// A reload of the same configuration, by SIGHUP.
    ReloadSame,
    /// A reload in which sources, sinks or both have changed.
    ReloadChanged {
        /// Whether sources have.
        sources: bool,
        /// Whether sinks have.
        sinks: bool,
    },
    /// A reload of a configuration that does not load.
    ReloadBad,
    /// Logs are rotated.
    Rotate,
    /// The peers reset their connections.
    Reset,
    /// The engine is stopped by SIGSTOP for a while.
    Freeze {
        /// How long.
        ms: usize,
    },
    /// The wall clock steps.
    Clock {
        /// By how much.
        seconds: i64,
    },
    /// The peers read nothing.
    Stall(bool),
    /// The peers are not there.
    Away(bool),
    /// The small disk is full.
    Full(bool),
    /// No file may grow beyond a little more than it has: short writes, then EFBIG.
    FileLimit(bool),
    /// The sick disk fails so, or not any more.
    Sick(Option<Illness>),
}

/// What this machine and this user can do to an engine.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Whether a disk of its own can be made.
    pub disk: bool,
    /// Whether its clock can be stepped.
    pub clock: bool,
    /// Whether io_uring is there.
    pub uring: bool,
    /// Whether a disk that fails can be made.
    pub sick: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, means: Means) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        // Every choice is made in any case, so that a seed means the same wherever it is replayed.
        let small_disk = *r.of(&[SmallDisk::Nothing, SmallDisk::Data, SmallDisk::Files, SmallDisk::Both]);
        let io = *r.of(&["uring", "epoll"]);
        let sick_disk = SickDisk { inputs: r.one_in(3), files: r.one_in(3), data: r.one_in(3) };
        let mut plan = Self {
            seed,
            io: if means.uring { io } else { "epoll" },
            workers: r.within(1, 2),
            memory_mib: *r.of(&[24, 32, 64]),
            checkpoint_ms: *r.of(&[10, 50, 200]),
            small_disk: if means.disk { small_disk } else { SmallDisk::Nothing },
            sick_disk: if means.sick { sick_disk } else { SickDisk::default() },
            inputs: (0..r.within(1, 3)).map(|_| input(r)).collect(),
            outputs: (0..r.within(1, 2)).map(|_| output(r)).collect(),
            steps: Vec::new(),
        };
        let strikes = r.within(2, 4);
        plan.add_strikes(strikes, r, means, |_| true);
        plan
    }

    /// A round of a soak: as a plan of this seed, for an engine that goes on from round to round and never ends.
    pub fn round(seed: u64, means: Means) -> Self {
        let mut plan = Self::new(seed, means);
        let small_disk = if means.disk { SmallDisk::Both } else { SmallDisk::Nothing };
        let io = if means.uring { "uring" } else { "epoll" };
        // A soak's disks are the same from round to round.
        let sick_disk = SickDisk::default();
        let (workers, memory_mib, checkpoint_ms, steps) = (2, 64, 50, Vec::new());
        plan = Self { io, workers, memory_mib, checkpoint_ms, small_disk, sick_disk, steps, ..plan };
        let lives_on = |strike| !matches!(strike, Strike::Kill { .. } | Strike::Stop { .. });
        plan.add_strikes(8, &mut Random::new(!seed), means, lives_on);
        plan
    }

    fn add_strikes(&mut self, strikes: usize, r: &mut Random, means: Means, fits: impl Fn(Strike) -> bool) {
        for _ in 0..strikes {
            let (first, amid, is_amid) = (strike(r), strike(r), r.one_in(2));
            if !fits(first) {
                continue;
            }
            self.add(first, r, means);
            if let Some(end) = end_of(first) {
                // Nothing ends a process whose disk does not answer.
                let is_stuck = first == Strike::Sick(Some(Illness::Stalls));
                let ends = matches!(amid, Strike::Kill { .. } | Strike::Stop { .. });
                if is_amid && end_of(amid).is_none() && !(is_stuck && ends) && fits(amid) {
                    self.add(amid, r, means);
                }
                self.add(end, r, means);
            }
        }
    }

    /// Adds a step, where it can be done and does something.
    fn add(&mut self, strike: Strike, r: &mut Random, means: Means) {
        let pause_ms = r.within(10, 150);
        let peers = self.outputs.iter().any(|output| matches!(output.kind, OutputKind::Peer(_)));
        let possible = match strike {
            Strike::Reset | Strike::Stall(_) | Strike::Away(_) => peers,
            Strike::Full(_) => self.small_disk != SmallDisk::Nothing,
            Strike::Sick(_) => self.sick_disk != SickDisk::default(),
            Strike::Clock { .. } => means.clock,
            _ => true,
        };
        if possible {
            self.steps.push(Step { pause_ms, strike });
        }
    }
}

fn input(r: &mut Random) -> InputPlan {
    let framing = *r.of(&[Framing::Newline, Framing::Octet, Framing::Nul, Framing::Len32]);
    let counted = if framing == Framing::Len32 { Framing::Octet } else { framing };
    let kind = *r.of(&[
        InputKind::File,
        InputKind::File,
        InputKind::Tcp(framing),
        InputKind::Unix(framing),
        InputKind::SyslogTcp(counted),
        InputKind::Udp,
    ]);
    let rate = *r.of(&[500, 4000, 15_000]);
    InputPlan { kind, rate: if kind == InputKind::Udp { rate.min(4000) } else { rate } }
}

fn output(r: &mut Random) -> OutputPlan {
    let framing = *r.of(&[Framing::Newline, Framing::Octet, Framing::Nul, Framing::Len32]);
    let rotate = r.one_in(3);
    OutputPlan {
        kind: *r.of(&[OutputKind::File { rotate }, OutputKind::Peer(framing)]),
        format: if r.one_in(3) { Format::Ndjson } else { Format::Raw },
        fsync: r.of::<&str>(&["interval", "batch", "never"]),
        batch_bytes: *r.of(&[4 << 10, 32 << 10, 512 << 10]),
        rescue: r.one_in(2),
    }
}

fn strike(r: &mut Random) -> Strike {
    let (down_ms, rotate) = (r.within(0, 60), r.one_in(3));
    let (sources, sinks) = *r.of(&[(true, false), (false, true), (true, true)]);
    let ms = r.within(10, 150);
    let seconds = *r.of(&[-86_400, -3600, -1, 2, 3600, 86_400]);
    let illness = *r.of(&[
        Illness::Reads,
        Illness::All,
        Illness::Writes(libc::EIO),
        Illness::Writes(libc::ENOSPC),
        Illness::Syncs,
        Illness::Syncs,
        Illness::Names,
        Illness::Short,
        Illness::Stalls,
    ]);
    *r.of(&[
        Strike::Kill { down_ms, rotate },
        Strike::Kill { down_ms, rotate },
        Strike::Kill { down_ms, rotate },
        Strike::Stop { down_ms, rotate },
        Strike::Stop { down_ms, rotate },
        Strike::ReloadSame,
        Strike::ReloadChanged { sources, sinks },
        Strike::ReloadChanged { sources, sinks },
        Strike::ReloadBad,
        Strike::Rotate,
        Strike::Reset,
        Strike::Reset,
        Strike::Freeze { ms },
        Strike::Clock { seconds },
        Strike::Stall(true),
        Strike::Away(true),
        Strike::Full(true),
        Strike::Full(true),
        Strike::FileLimit(true),
        Strike::Sick(Some(illness)),
        Strike::Sick(Some(illness)),
        Strike::Sick(Some(illness)),
        Strike::Sick(Some(illness)),
    ])
}

/// How something ends that holds on; `None` for what is over at once.
fn end_of(strike: Strike) -> Option<Strike> {
    match strike {
        Strike::Stall(true) => Some(Strike::Stall(false)),
        Strike::Away(true) => Some(Strike::Away(false)),
        Strike::Full(true) => Some(Strike::Full(false)),
        Strike::FileLimit(true) => Some(Strike::FileLimit(false)),
        Strike::Sick(Some(_)) => Some(Strike::Sick(None)),
        _ => None,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, io, workers, memory_mib, checkpoint_ms, small_disk, sick_disk, .. } = self;
        writeln!(
            f,
            "seed {seed}: {io}, {workers} workers, {memory_mib} MiB, a checkpoint each {checkpoint_ms} ms, on the small disk: \
             {small_disk:?}, {sick_disk:?}"
        )?;
        self.inputs.iter().try_for_each(|input| writeln!(f, "  in   {input:?}"))?;
        self.outputs.iter().try_for_each(|output| writeln!(f, "  out  {output:?}"))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  +{:<3} {:?}", step.pause_ms, step.strike))
    }
}
