//! Turns one file (or a range of it) into runs and hands them to the lanes: read, cut, decode, deliver, in one turn.
//!
//! Owns an open file, its place in it and the unfinished line. Invariants: runs go out in order; the window's position
//! behind a run is where a reader must start again to get the records after it. It decides nothing about which
//! files are read and when.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::locate::Counted;
use super::observe;
use super::segments::{Segment, Segments};
use super::stage::Stage;
use super::told::Told;
use super::unpack::{Packing, Unpacker, WINDOW_BYTES_MAX};
use crate::batch::{Columns, Origin, Positions, Run};
use crate::io::IoFile;
use crate::io::file::READ_HEAD;
use crate::lane::{Entered, deliver};
use crate::memory::Use;
use crate::metrics::Reason;
use crate::source::part::Surroundings;

/// Content that is unpacked at once.
const UNPACK_BYTES: usize = 256 << 10;
/// What unpacking a file takes: the window that it may look back into, and the content at hand.
pub const UNPACK_MEMORY_BYTES: usize = WINDOW_BYTES_MAX + UNPACK_BYTES;

/// How reading a stretch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At the end that was asked for, or where the file ends.
    AtEnd,
    /// The engine drains, or a bad line stops the source.
    Stopped,
}

/// How a file's bytes become records.
pub struct Way {
    /// Bytes to lines.
    pub lines: Lines,
    /// Lines to records.
    pub stage: Stage,
    /// Who says what was wrong with lines.
    pub told: Arc<Told>,
}

/// A file being read.
pub struct Reader {
    around: Surroundings,
    file: IoFile,
    origin: Rc<Origin>,
    slot: u32,
    lines: Lines,
    stage: Stage,
    /// File offset of the next read.
    position: u64,
    /// Lines that start at or behind this belong to the next range.
    until: u64,
    /// File offset up to which bytes are counted; `None` before the first line of a range that begins inside one.
    counted: Option<u64>,
    /// Position behind what lanes were given.
    handed: u64,
    told: Arc<Told>,
    /// Newlines counted for messages.
    newlines: Counted,
    /// Whether positions are those of compressed content.
    packed: bool,
    /// What the engine's memory was told of unfinished lines and groups.
    told_bytes: usize,
    /// The source was stopped while its sinks were not there: what follows `handed` was not taken.
    refused: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.around.shard.memory().carry(self.told_bytes, 0);
    }
}

impl Reader {
    /// A reader at `position`; `slot` is its window.
    pub fn new(
        around: Surroundings,
        file: IoFile,
        origin: Rc<Origin>,
        slot: u32,
        way: Way,
        position: u64,
    ) -> Self {
        let Way { lines, stage, told } = way;
        Self {
            around,
            file,
            origin,
            slot,
            lines,
            stage,
            position,
            until: u64::MAX,
            counted: Some(position),
            handed: position,
            told,
            newlines: Counted::default(),
            packed: false,
            told_bytes: 0,
            refused: false,
        }
    }

    /// The open file.
    pub fn file(&self) -> &IoFile {
        &self.file
    }

    /// Its window in the shard's settle table.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// File offset of the next read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position behind what was given out: when every sink has it up to there, the reader's work is settled.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// Whether something of it was read and not taken, for the source was stopped while it was held back.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether something was read that is not given out yet: an unfinished line, or lines that wait to be joined.
    pub fn is_holding(&self) -> bool {
        self.handed < self.position
    }

    /// Bytes of an unfinished line that were read and not given out.
    pub fn unfinished(&self) -> usize {
        self.lines.carried()
    }

    /// What the records come from; a rename changes it.
    pub fn set_origin(&mut self, origin: Rc<Origin>) {
        self.origin = origin;
    }

    /// Makes it a reader of the range that ends at `until`: a line belongs to the range it starts in. At the start of a
    /// range that is not the file's, call it with `seek` and a position one byte before the range.
    pub fn range(&mut self, until: u64, seek: bool) {
        self.until = until;
        if seek {
            self.lines.seek_line();
            self.counted = None;
        }
    }

    /// Reads on up to `end` (a size that was seen), or to the end of its range. Bytes are given out only when `is_ours`
    /// holds after they were read, for the position behind them, for a file can be truncated and written anew at any
    /// time; where it does not hold, reading ends before them.
    ///
    /// # Errors
    /// What the read said; what was read before it is delivered.
    pub async fn read_to(&mut self, end: u64, is_ours: impl Fn(u64) -> bool) -> io::Result<Ended> {
        let near = end.min(self.until.saturating_add(1));
        let mut segments =
            Segments::new(self.around.shard.io().clone(), self.file.clone(), self.position, near);
        let (lanes, stop) = (self.around.lanes.clone(), self.around.stop.clone());
        loop {
            let turn = tokio::select! {
                biased;
                () = stop.raised() => return Ok(Ended::Stopped),
                turn = segments.patiently(false, lanes.turn()) => turn,
            };
            let since = Instant::now();
            let next = tokio::select! {
                biased;
                () = stop.raised() => return Ok(Ended::Stopped),
                next = segments.next() => next,
            };
            self.around
                .counters
                .read_wait_ns
                .add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let Some(segment) = next? else { return Ok(Ended::AtEnd) };
            if !is_ours(segments.position()) {
                return Ok(Ended::AtEnd);
            }
            self.position = segments.position();
            if segments.patiently(true, self.consume(segment)).await {
                return Ok(Ended::AtEnd);
            }
            drop(turn);
            if self.position >= near && near < end {
                // The last line of the range goes on behind it.
                segments.extend(end.min(self.position + crate::io::file::READ_BYTES as u64));
            }
        }
    }

    /// Gives out the rest as a record: nothing more will come, or has come for long.
    pub async fn finish(&mut self) {
        let rest = self.lines.append_long(&[]);
        let base = self.position - rest.len() as u64;
        let mut at = 0;
        self.runs(&rest, &mut at, base).await;
        if !self.is_past(base + at as u64) && self.lines.finish(&rest, &mut at).is_some() {
            self.deliver(&rest, false, base, base + at as u64).await;
        }
        self.lines.restore_long(rest, at);
        if !self.around.stop.is_raised() {
            self.give_out_group().await;
        }
        self.count_long();
    }

    /// Gives out the group that multiline holds, if its time is over.
    pub async fn flush_stage(&mut self) {
        if self.stage.due(self.around.shard.now_ns()) {
            self.give_out_group().await;
        }
    }

    /// How long the group that multiline holds still waits for a line; `None` when there is none.
    pub fn stage_wait(&self) -> Option<Duration> {
        let left_ns = self.stage.due_ns()?.saturating_sub(self.around.shard.now_ns());
        // Never at once: a clock that was set back must not make the caller spin.
        Some(Duration::from_nanos(u64::try_from(left_ns).unwrap_or(0)).max(Duration::from_millis(1)))
    }

    /// Gives out the group that multiline holds: nothing more will come of it.
    async fn give_out_group(&mut self) {
        if !self.stage.is_holding() {
            return;
        }
        let Some(entered) = self.enter().await else { return };
        let Self { around, stage, slot, origin, .. } = self;
        let Some(staged) = stage.flush(origin, around.shard.now_ns(), &around.counters) else { return };
        if let Some(upto) = staged.upto {
            self.handed = upto;
            deliver(around, &entered, *slot, &staged.run, upto).await;
        }
    }

    /// Waits until runs may begin; `None` when none may any more.
    async fn enter(&mut self) -> Option<Entered> {
        let entered = self.around.lanes.enter(&self.around.stop).await;
        self.refused |= entered.is_none();
        entered
    }

    /// Forgets what is unfinished and goes to `position`.
    pub fn seek(&mut self, position: u64) {
        self.lines.forget();
        self.stage.forget();
        self.position = position;
        self.counted = Some(position);
        self.handed = position;
        self.newlines = Counted::default();
    }

    /// Gives scratch memory back: nothing is read for a while.
    pub fn rest(&mut self) {
        self.lines.rest();
    }

    /// The file was truncated: goes on at its beginning, in another window. Returns the old one.
    pub fn begin_anew(&mut self, slot: u32) -> u32 {
        self.seek(0);
        self.lines.restart();
        std::mem::replace(&mut self.slot, slot)
    }

    /// Reads a compressed file from its first byte to its last; content before the position is unpacked and passed over.
    /// Positions are offsets in the content.
    ///
    /// # Errors
    /// What the read said, or where the file is not what it should be; the content before is delivered.
    pub async fn read_packed(&mut self) -> io::Result<Ended> {
        let head = observe::head(&self.file.as_std())?;
        let Some(packing) = Packing::sniff(&head) else {
            return Err(io::Error::other("it is not compressed"));
        };
        let charge = self.around.shard.memory().charged(UNPACK_MEMORY_BYTES).await;
        let _charge = charge.used_for(Use::Files);
        let mut unpacker = Unpacker::new(packing)?;
        let size = self.file.metadata()?.len();
        let mut segments = Segments::new(self.around.shard.io().clone(), self.file.clone(), 0, size);
        let mut content = vec![0u8; UNPACK_BYTES];
        self.packed = true;
        let lanes = self.around.lanes.clone();
        loop {
            let _turn = segments.patiently(false, lanes.turn()).await;
            let Some(segment) = segments.next().await? else { break };
            let packed = &segment.buffer.memory()[segment.range(0)];
            let mut at = 0;
            loop {
                if self.around.stop.is_raised() {
                    return Ok(Ended::Stopped);
                }
                let step = unpacker.step(&packed[at..], &mut content).map_err(io::Error::other)?;
                at += step.taken;
                let consumed = self.consume_content(&content[..step.made], unpacker.content());
                if segments.patiently(true, consumed).await {
                    return Ok(Ended::AtEnd);
                }
                if step.made == 0 && (step.taken == 0 || at == packed.len()) {
                    break;
                }
            }
        }
        unpacker.finish().map_err(io::Error::other)?;
        Ok(Ended::AtEnd)
    }

    /// Takes content that reaches to `upto`; `true` when the range is read.
    async fn consume_content(&mut self, content: &[u8], upto: u64) -> bool {
        if upto < self.position || content.is_empty() {
            return false;
        }
        let fresh = usize::try_from(upto - self.position).unwrap_or(usize::MAX).min(content.len());
        let passed = content.len() - fresh;
        if passed > 0 && content[passed - 1] != b'\n' && self.counted.is_some() {
            // What was read before a restart ended inside this line.
            self.lines.resume_inside_line();
        }
        if fresh == 0 {
            return false;
        }
        let whole = self.lines.append_long(&content[passed..]);
        self.position = upto;
        let mut at = 0;
        let done = self.runs(&whole, &mut at, upto - whole.len() as u64).await;
        self.lines.restore_long(whole, at);
        self.count_long();
        done
    }

    /// Cuts a segment into runs; `true` when the range is read.
    async fn consume(&mut self, segment: Segment) -> bool {
        let carried = self.lines.carried();
        let base = segment.offset - carried as u64;
        let mut at = 0;
        let done = if carried <= READ_HEAD {
            let mut segment = segment;
            let range = segment.range(carried);
            let front = range.start..range.start + carried;
            self.lines.take_carry(&mut segment.buffer.memory_mut()[front]);
            let bytes = &segment.buffer.memory()[range];
            let done = self.runs(bytes, &mut at, base).await;
            self.lines.keep(&bytes[at..]);
            done
        } else {
            let whole = self.lines.append_long(&segment.buffer.memory()[segment.range(0)]);
            drop(segment);
            let done = self.runs(&whole, &mut at, base).await;
            self.lines.restore_long(whole, at);
            done
        };
        self.count_long();
        done
    }

    /// Delivers the complete lines of `bytes` from `at` on; `true` when the range's last line was among them.
    async fn runs(&mut self, bytes: &[u8], at: &mut usize, base: u64) -> bool {
        loop {
            if self.is_past(base + *at as u64) {
                return true;
            }
            let Some(piece) = self.lines.next(bytes, at) else {
                return self.is_past(base + *at as u64);
            };
            let end = base + piece.next as u64;
            if end > self.until {
                if self.last_run(bytes, base, end).await {
                    return true;
                }
            } else {
                self.deliver(bytes, piece.verbatim, base, end).await;
            }
            if self.around.stop.is_raised() {
                return false;
            }
        }
    }

    /// Whether a line that starts at `position` belongs to the next range.
    fn is_past(&self, position: u64) -> bool {
        position >= self.until && !self.lines.is_inside()
    }

    /// The run in which the range ends: lines that start before the end are ours, whole. `false` when the last of them
    /// goes on.
    async fn last_run(&mut self, bytes: &[u8], base: u64, end: u64) -> bool {
        let ours = self.lines.starting_before(self.until.saturating_sub(base));
        let all = ours == self.lines.spans().len();
        let upto = self.lines.spans().get(ours).map_or(end, |s| base + u64::from(s.start));
        if ours > 0 {
            self.lines.keep_spans(ours);
            self.deliver(bytes, false, base, upto).await;
        }
        !(all && self.lines.is_inside())
    }

    async fn deliver(&mut self, bytes: &[u8], verbatim: bool, base: u64, upto: u64) {
        // Before anything is counted: what is not taken is read again.
        let Some(entered) = self.enter().await else { return };
        let from = self.counted.unwrap_or_else(|| base + u64::from(self.lines.spans()[0].start));
        self.around.counters.bytes.add(upto.saturating_sub(from));
        self.counted = Some(upto);
        let run = Run {
            bytes,
            records: self.lines.spans(),
            verbatim,
            columns: Columns::None,
            peers: &[],
            origin: &self.origin,
            received_ns: self.around.shard.now_ns(),
            positions: Positions::Linear { base, upto },
        };
        if self.stage.is_plain() {
            self.around.counters.records.add(run.records.len() as u64);
            self.handed = upto;
            return deliver(&self.around, &entered, self.slot, &run, upto).await;
        }
        let Self { around, stage, .. } = self;
        let mut next = 0;
        while next < run.records.len() {
            let staged = stage.take(&run, next, &around.counters);
            let stop = staged.stop;
            next = staged.next;
            if let Some(upto) = staged.upto {
                self.handed = upto;
                deliver(around, &entered, self.slot, &staged.run, upto).await;
            }
            if stop {
                around.stop.raise();
                break;
            }
        }
        let Some((bad, lines)) = stage.take_bad() else { return };
        let (path, newlines) = (self.origin.tag("source_path").unwrap_or_default(), &mut self.newlines);
        self.told.bad_lines(path, &self.file, self.packed, bad, lines, newlines).await;
    }

    /// After each read: what is unfinished is told, and what became of long lines.
    fn count_long(&mut self) {
        let held = self.lines.carried() + self.stage.held_bytes();
        self.around.shard.memory().carry(self.told_bytes, held);
        self.told_bytes = held;
        let counts = self.lines.take_counts();
        if counts.split + counts.dropped == 0 {
            return;
        }
        let path = self.origin.tag("source_path").unwrap_or_default();
        self.told.long_lines(path, counts, &self.lines);
        let counters = &self.around.counters;
        counters.split.add(counts.split);
        counters.records.add(counts.dropped);
        counters.drop_records(Reason::TooLong, counts.dropped);
    }
}
