//! Says whether an output has what it promises, given what was sent. Pure.
//!
//! An output is a list of passages: what one connection brought, or all that is in a file. What must hold:
//!
//! - order: within one passage the numbers of a stream only rise, but for datagrams around a reload of their source, and what a passage leaves out stands in another one
//!   that began before it ended;
//! - completeness: a stream has what its sender may rely on ([`Must`]);
//! - repetition: in a file none, but for what a rescue held when the engine was killed; over connections no more than the
//!   breaks between them account for.

use std::collections::HashMap;

use super::message::Record;

/// What a sender may rely on for one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// Every message arrives.
    All,
    /// What arrives is everything up to some message: the connection ended with the engine that served it.
    Prefix,
    /// Any of them may be lost on the way to the engine.
    Any,
    /// All but so many, which the kernel has counted as dropped.
    AllBut(u64),
}

/// One stream that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Whose it is.
    pub input: u8,
    /// Its number.
    pub stream: u16,
    /// How many messages it has.
    pub messages: u32,
    /// What its sender may rely on.
    pub must: Must,
    /// Whether it may come out of order: datagrams that were sent while their source was opened. The workers' sockets come
    /// one after the other, and with each the kernel deals the senders anew.
    pub may_turn: bool,
}

/// What came by one way, in order.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Ticks of one clock for all passages: when it began and when it ended.
    pub begun: u64,
    /// See `begun`.
    pub ended: u64,
    /// What it brought.
    pub records: Vec<Record>,
}

/// Everything that one output has.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its passages, in the order in which they began.
    pub passages: Vec<Passage>,
    /// What is none of our records.
    pub strange: Vec<String>,
    /// The inputs of what is the beginning of a message and no more: a connection that is closed gives out its rest.
    pub cut: Vec<u8>,
    /// Beginnings too short to say of which input they are.
    pub stubs: u64,
    /// Whether a passage may go back: what a rescue kept over a crash comes first, and once more as far as it was sent
    /// before that; then what the input has from the checkpoint on.
    pub goes_back: bool,
}

/// What each input may have repeated at this output at most; nothing where there is no entry.
pub type Allowed = HashMap<u8, u64>;

/// What an output came to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What more time will not mend.
    pub wrong: Vec<String>,
    /// What has not come yet.
    pub missing: Vec<String>,
    /// Records of each input, each counted once.
    pub unique: HashMap<u8, u64>,
    /// Records that came again.
    pub repeated: HashMap<u8, u64>,
    /// Records received of inputs that cannot be told.
    pub stubs: u64,
}

/// How often a message came, and when the first passage began that has it.
#[derive(Clone, Copy, Default)]
struct Times {
    times: u32,
    begun: u64,
}

/// A hole in a passage: numbers of a stream that it leaves out.
struct Hole {
    key: (u8, u16),
    from: u32,
    to: u32,
    /// When the passage ended.
    ended: u64,
}

/// Judges an output.
pub fn judge(sent: &[Sent], seen: &Seen, allowed: &Allowed) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.wrong.extend(seen.strange.iter().take(3).map(|text| format!("it has what nobody sent: {text}")));
    let mut streams: HashMap<(u8, u16), Vec<Times>> =
        sent.iter().map(|s| ((s.input, s.stream), vec![Times::default(); s.messages as usize])).collect();
    judge_cuts(sent, seen, &mut verdict);
    let turning: Vec<(u8, u16)> =
        sent.iter().filter(|sent| sent.may_turn).map(|sent| (sent.input, sent.stream)).collect();
    let mut holes = Vec::new();
    for passage in &seen.passages {
        let may_turn = |key| seen.goes_back || turning.contains(&key);
        holes.extend(walk(passage, may_turn, &mut streams, &mut verdict));
    }
    for sent in sent {
        let times = &streams[&(sent.input, sent.stream)];
        let lossy = matches!(sent.must, Must::Any | Must::AllBut(_));
        let holes = holes.iter().filter(|hole| hole.key == (sent.input, sent.stream) && !lossy);
        holes.for_each(|hole| judge_hole(hole, times, &mut verdict));
        judge_stream(sent, times, &mut verdict);
    }
    for (input, repeated) in &verdict.repeated {
        let most = allowed.get(input).copied().unwrap_or(0);
        if *repeated > most {
            verdict.wrong.push(format!("input {input}: {repeated} records repeat, and {most} may"));
        }
    }
    verdict
}

/// A connection that broke may have brought one beginning of a message; it counts as a record that was received.
fn judge_cuts(sent: &[Sent], seen: &Seen, verdict: &mut Verdict) {
    let mut cuts: HashMap<u8, u64> = HashMap::new();
    seen.cut.iter().for_each(|input| *cuts.entry(*input).or_default() += 1);
    for (input, cuts) in cuts {
        let broke =
            sent.iter().filter(|sent| sent.input == input && matches!(sent.must, Must::Prefix)).count();
        if cuts > broke as u64 {
            verdict
                .wrong
                .push(format!("input {input}: {cuts} messages are cut, and {broke} connections broke"));
        }
        *verdict.unique.entry(input).or_default() += cuts;
    }
    let broke = sent.iter().filter(|sent| matches!(sent.must, Must::Prefix)).count() as u64;
    let all = seen.stubs + seen.cut.len() as u64;
    if seen.stubs > 0 && all > broke {
        verdict.wrong.push(format!("{all} messages or counts are cut, and {broke} connections broke"));
    }
    verdict.stubs = seen.stubs;
}

/// Counts what a passage has, and returns what it leaves out.
fn walk(
    passage: &Passage,
    may_turn: impl Fn((u8, u16)) -> bool,
    streams: &mut HashMap<(u8, u16), Vec<Times>>,
    verdict: &mut Verdict,
) -> Vec<Hole> {
    let (mut holes, mut next) = (Vec::new(), HashMap::<(u8, u16), u32>::new());
    for record in &passage.records {
        let (key, number) = ((record.input, record.stream), record.number);
        let Some(times) = streams.get_mut(&key).and_then(|stream| stream.get_mut(number as usize)) else {
            verdict.wrong.push(format!("it has a record that was not sent: {record:?}"));
            continue;
        };
        let due = next.entry(key).or_default();
        if number < *due && !may_turn(key) {
            let due = *due;
            verdict.wrong.push(format!("{record:?} comes where number {due} was due, in one passage"));
        } else if number > *due {
            holes.push(Hole { key, from: *due, to: number, ended: passage.ended });
        }
        *due = number + 1;
        let of = if times.times == 0 { &mut verdict.unique } else { &mut verdict.repeated };
        *of.entry(record.input).or_default() += 1;
        if times.times == 0 {
            times.begun = passage.begun;
        }
        times.times += 1;
    }
    holes
}

/// What a passage leaves out must have come by another way that began before this one ended.
fn judge_hole(hole: &Hole, times: &[Times], verdict: &mut Verdict) {
    let late = (hole.from..hole.to).zip(&times[hole.from as usize..hole.to as usize]);
    let mut late = late.filter(|(_, times)| times.times > 0 && times.begun >= hole.ended);
    if let Some((number, _)) = late.next() {
        let (input, stream) = hole.key;
        verdict
            .wrong
            .push(format!("input {input}, stream {stream}: {number} comes only behind number {}", hole.to));
    }
}

fn judge_stream(sent: &Sent, times: &[Times], verdict: &mut Verdict) {
    let absent = |upto: usize| -> Vec<usize> { (0..upto).filter(|n| times[*n].times == 0).collect() };
    let (lost, most) = match sent.must {
        Must::Any => return,
        Must::All => (absent(times.len()), 0),
        Must::AllBut(most) => (absent(times.len()), most),
        Must::Prefix => (absent(times.iter().rposition(|t| t.times > 0).map_or(0, |last| last + 1)), 0),
    };
    if lost.len() as u64 > most {
        verdict.missing.push(format!(
            "input {}, stream {}: of {} messages {} are missing, from number {} on, where {:?} is promised",
            sent.input,
            sent.stream,
            times.len(),
            lost.len(),
            lost[0],
            sent.must
        ));
    }
}
