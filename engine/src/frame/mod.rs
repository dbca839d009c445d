//! Framing: bytes as they come, records as they were sent. Pure: no socket, file, thread or clock.
//!
//! One state machine serves every stream source. It is fed segments, in order, cut anywhere; whatever the cuts, the records
//! are the same. Records that lie whole in a segment are spans over it and are not moved. What a segment leaves unfinished is
//! copied into the input's carry, and the first record of a later segment may come from there:
//!
//! ```text
//! loop { step = feed(segment, next, spans)   until next == segment.len()
//!        step.carried  one record in carry(), if any: it comes first
//!        spans         the records in place
//!        next          step.next }
//! finish()  until None, at the end of the stream
//! ```
//!
//! Invariants: the carry never exceeds the record limit by more than a constant, whatever a frame declares. No byte is scanned
//! more than a bounded number of times. Every record that is cut, dropped or not what the framing demands is in [`Counts`].
//! The stream stays in step: of a frame that is too long, exactly its declared bytes are passed over, of a line, all
//! to its newline.
//!
//! - `newline` finds lines, `simd` finds them fast; `lines` and `counted` are the two families of frames; `header` tells them
//!   apart; `carry` holds what is unfinished; `multiline` joins lines to records, above all this.

mod carry;
mod counted;
mod header;
mod lines;
pub mod multiline;
pub mod newline;
mod simd;
#[cfg(test)]
pub(crate) mod tests;

use self::carry::Carry;
use self::header::{Header, Proof};
use crate::batch::Span;

/// Spans a step yields before it hands them over; a scan may overshoot by one of its steps (256).
pub const RECORDS_PER_STEP: usize = 8192;

/// How records are told apart in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Syslog: a frame that begins with `digits SP "<"` is octet-counted, any other is a line. Each frame is judged anew.
    Auto,
    /// Lines end in a newline, and lose one carriage return before it.
    #[default]
    Newline,
    /// RFC 6587 octet counting. A frame that does not begin with a count is taken as a line, and counted as malformed. One newline
    /// behind a frame is padding that some senders add.
    Octet,
    /// Records end in a NUL byte.
    Nul,
    /// Four bytes of length, big-endian, then the record.
    Len32,
}

/// What becomes of a record that is too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// Its first bytes are the record, the rest is passed over.
    #[default]
    Truncate,
    /// It is passed over.
    Drop,
    /// It becomes several records.
    Split,
}

/// The rules of one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How records are told apart.
    pub framing: Framing,
    /// With [`Framing::Auto`]: a line unless it is beyond doubt. An octet count is believed only before a whole PRI that
    /// it reaches over, so that text such as `2018 <b>` stays text. A frame that has begun waits for its bytes all the same.
    pub prefer_newline: bool,
    /// What becomes of a record longer than `record_bytes_max`.
    pub oversize: Oversize,
    /// The longest record, at least 1.
    pub record_bytes_max: usize,
}

/// What framing did to records beside framing them. The same for every way to cut a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that lost their end.
    pub truncated: u64,
    /// The bytes they lost; a carriage return before the newline is among them.
    pub truncated_bytes: u64,
    /// Records passed over for their length.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Cuts that made one record two.
    pub cuts: u64,
    /// Frames that did not begin as their framing demands.
    pub malformed: u64,
    /// Bytes of a length that the stream's end cut off; no record has them.
    pub malformed_bytes: u64,
    /// Counted frames that the stream's end cut off; what came of them is a record.
    pub unfinished: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.truncated += other.truncated;
        self.truncated_bytes += other.truncated_bytes;
        self.dropped += other.dropped;
        self.dropped_bytes += other.dropped_bytes;
        self.cuts += other.cuts;
        self.malformed += other.malformed;
        self.malformed_bytes += other.malformed_bytes;
        self.unfinished += other.unfinished;
    }
}

/// A record in the carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where it lies in [`Framer::carry`].
    pub span: Span,
    /// Offset in the segment behind it, its terminator included; 0 from [`Framer::finish`] and [`Framer::cut`].
    pub upto: usize,
    /// Whether its newline stands behind it in the carry, as `Run::verbatim` wants it.
    pub verbatim: bool,
}

/// What one feed yields, in this order: the carried record, then the spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// A record that began in an earlier segment.
    pub carried: Option<Carried>,
    /// Where the next feed goes on; the segment's length when all of it is taken.
    pub next: usize,
    /// Offset in the segment behind the last span's record, its terminator included; where feeding began if there is none.
    pub upto: usize,
    /// Whether the spans are lines one behind the other with their newlines, as `Run::verbatim` wants it.
    pub verbatim: bool,
}

/// Where an input stands between two bytes. Content that belongs to a state is in the carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a frame, or within its header.
    Start,
    /// Directly behind an octet frame: a newline here is padding.
    Behind,
    /// In a line.
    Line,
    /// In the rest of a line that is passed over.
    SkipLine,
    /// In a counted frame of which so many bytes are to come.
    Counted(u64),
    /// In the rest of a counted frame that is passed over.
    SkipCounted(u64),
}

/// The framing of one input.
#[derive(Debug)]
pub struct Framer {
    rules: Rules,
    state: State,
    carry: Carry,
    counts: Counts,
    /// How far the next scan for lines looks ahead of a stream that may turn to octet counts; see `lines`.
    window: usize,
}

/// A feed under way: the segment, how far it is taken, and what came of it.
struct Feed<'a> {
    segment: &'a [u8],
    at: usize,
    spans: &'a mut Vec<Span>,
    carried: Option<Carried>,
    upto: usize,
    verbatim: bool,
}

impl Feed<'_> {
    /// A record in place, with `behind` the offset behind its terminator.
    fn push(&mut self, start: usize, end: usize, behind: usize) {
        self.spans.push(Span { start: start as u32, end: end as u32 });
        self.upto = behind;
        self.verbatim = false;
    }

    fn rest(&self) -> &[u8] {
        &self.segment[self.at..]
    }
}

impl Framer {
    /// Framing for a new input.
    ///
    /// # Panics
    /// If `record_bytes_max` is 0 or longer than a segment may be.
    pub fn new(rules: Rules) -> Self {
        let max = rules.record_bytes_max;
        assert!((1..=newline::SEGMENT_BYTES_MAX).contains(&max), "records of {max} bytes");
        Self {
            rules,
            state: State::Start,
            carry: Carry::new(max),
            counts: Counts::default(),
            window: lines::WINDOW_BYTES_MIN,
        }
    }

    /// Takes the segment from `from` on; `spans` is cleared and then holds the records that lie in place.
    ///
    /// Call it again with the step's `next` until the whole segment is taken: one call yields at most one carried record and
    /// about [`RECORDS_PER_STEP`] spans. The carried record is valid until the next call.
    ///
    /// # Panics
    /// If the segment is longer than [`newline::SEGMENT_BYTES_MAX`].
    pub fn feed(&mut self, segment: &[u8], from: usize, spans: &mut Vec<Span>) -> Step {
        spans.clear();
        self.carry.release();
        let mut feed = Feed { segment, at: from, spans, carried: None, upto: from, verbatim: true };
        while feed.at < segment.len() && feed.spans.len() < RECORDS_PER_STEP {
            let carrying = !self.carry.content().is_empty();
            // Content waits until the record before it was read.
            if carrying && self.carry.is_given() {
                break;
            }
            debug_assert!(!carrying || feed.spans.is_empty(), "a carried record behind spans");
            let more = match self.state {
                State::SkipLine => self.skip_line(&mut feed),
                State::SkipCounted(left) => self.skip_counted(&mut feed, left),
                State::Line => self.resume_line(&mut feed),
                State::Counted(left) if carrying => self.resume_counted(&mut feed, left),
                State::Counted(left) => self.counted_in_place(&mut feed, left),
                State::Behind => self.pass_padding(&mut feed),
                State::Start if carrying => self.resume_header(&mut feed),
                State::Start => self.start_in_place(&mut feed),
            };
            if !more {
                break;
            }
        }
        let verbatim = feed.verbatim && !feed.spans.is_empty();
        Step { carried: feed.carried, next: feed.at, upto: feed.upto, verbatim }
    }

    /// The end of the stream: yields what is left as records, one a call, then `None`; the framer is then as new.
    pub fn finish(&mut self) -> Option<Carried> {
        self.carry.release();
        let content = self.carry.content().len();
        match self.state {
            State::Start | State::Line if content > 0 => self.finish_line(content),
            State::Counted(left) => self.finish_counted(content, left),
            _ => {
                self.state = State::Start;
                None
            }
        }
    }

    /// Takes the carried record back and gives up memory beyond a little: for the end of a turn, before an input falls idle.
    pub fn release(&mut self) {
        self.carry.release();
    }

    /// Ends the unfinished record now, by policy, because memory is wanted: what came of it is a record, or is dropped; the
    /// rest, when it comes, is passed over (or is a record of its own, where long records are split).
    pub fn cut(&mut self) -> Option<Carried> {
        self.carry.release();
        let content = self.carry.content().len();
        let skip = match self.state {
            State::Line if content > 0 => State::SkipLine,
            State::Counted(left) if content > 0 => State::SkipCounted(left),
            _ => return None,
        };
        let len = content.min(self.rules.record_bytes_max);
        match self.rules.oversize {
            Oversize::Truncate => {
                self.counts.truncated += 1;
                self.counts.truncated_bytes += (content - len) as u64;
                self.carry.truncate(len);
                self.state = skip;
            }
            Oversize::Drop => {
                self.counts.dropped += 1;
                self.counts.dropped_bytes += content as u64;
                self.carry.clear();
                self.state = skip;
                return None;
            }
            Oversize::Split => self.counts.cuts += 1,
        }
        Some(self.give(len, 0))
    }

    /// The carried record of the last call; a step's `carried` says where in it.
    pub fn carry(&self) -> &[u8] {
        self.carry.given()
    }

    /// Bytes that have come of a record that is not finished.
    pub fn unfinished_bytes(&self) -> usize {
        self.carry.content().len()
    }

    /// Memory the carry holds, for who keeps account of it.
    pub fn held_bytes(&self) -> usize {
        self.carry.capacity()
    }

    /// What happened since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// What the first bytes of a frame say, in this framing.
    fn header(&self, bytes: &[u8]) -> Header {
        match self.rules.framing {
            Framing::Newline | Framing::Nul => Header::Text,
            Framing::Auto if self.rules.prefer_newline => header::octet(bytes, Proof::Pri),
            Framing::Auto => header::octet(bytes, Proof::Open),
            Framing::Octet => header::octet(bytes, Proof::None),
            Framing::Len32 => header::len32(bytes),
        }
    }

    /// At the start of a frame, nothing carried: judges it, and takes as much as lies in place.
    fn start_in_place(&mut self, feed: &mut Feed<'_>) -> bool {
        match self.header(feed.rest()) {
            Header::More => self.keep(feed, State::Start),
            Header::Text => self.lines_in_place(feed),
            Header::Counted { header, body } => {
                feed.at += header;
                feed.verbatim = false;
                self.begin_counted(feed, body, 0)
            }
        }
    }

    /// Within a header whose first bytes are carried.
    fn resume_header(&mut self, feed: &mut Feed<'_>) -> bool {
        let carried = self.carry.content().len();
        let more = feed.rest().len().min(header::HEADER_BYTES_MAX);
        let mut bytes = [0; 2 * header::HEADER_BYTES_MAX];
        bytes[..carried].copy_from_slice(self.carry.content());
        bytes[carried..carried + more].copy_from_slice(&feed.rest()[..more]);
        match self.header(&bytes[..carried + more]) {
            Header::More => self.keep(feed, State::Start),
            Header::Text => {
                self.begin_line();
                true
            }
            Header::Counted { header, body } => {
                let seen = carried.saturating_sub(header);
                feed.at += header.saturating_sub(carried);
                self.carry.skip(carried - seen);
                self.begin_counted(feed, body, seen)
            }
        }
    }

    /// A newline behind an octet frame belongs to neither frame.
    fn pass_padding(&mut self, feed: &mut Feed<'_>) -> bool {
        if feed.segment[feed.at] == b'\n' {
            feed.at += 1;
        }
        self.state = State::Start;
        true
    }

    /// Copies the rest of the segment into the carry; not while a record there is given. False: the feed ends here.
    fn keep(&mut self, feed: &mut Feed<'_>, state: State) -> bool {
        if !self.carry.is_given() {
            self.carry.extend(feed.rest());
            feed.at = feed.segment.len();
            self.state = state;
        }
        false
    }

    /// Gives the first `len` bytes of the carry as a record.
    fn give(&mut self, len: usize, upto: usize) -> Carried {
        self.carry.give(len);
        Carried { span: Span { start: 0, end: len as u32 }, upto, verbatim: false }
    }
}
