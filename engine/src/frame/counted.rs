//! Frames that begin with their length: octet counting and len32.
//!
//! A declared length moves nothing and reserves nothing; only bytes that came are held, and of those no more than a record
//! may have. The rest of a frame that is too long is passed over to its last declared byte, so that the next frame is found.

use super::{Carried, Feed, Framer, Framing, Oversize, State};

impl Framer {
    /// The state behind a counted frame.
    fn behind(&self) -> State {
        if self.rules.framing == Framing::Len32 { State::Start } else { State::Behind }
    }

    /// Behind a header that declares `body` bytes, of which the first `seen` are carried.
    pub(super) fn begin_counted(&mut self, feed: &mut Feed<'_>, body: u64, seen: usize) -> bool {
        let left = body - seen as u64;
        if body > self.rules.record_bytes_max as u64 && self.rules.oversize == Oversize::Drop {
            self.counts.dropped += 1;
            self.counts.dropped_bytes += seen as u64;
            self.carry.truncate(0);
            self.state = State::SkipCounted(left);
            return true;
        }
        self.state = State::Counted(left);
        // At once, for a frame may be whole with nothing to follow.
        if seen > 0 { self.resume_counted(feed, left) } else { self.counted_in_place(feed, left) }
    }

    /// In a counted frame, or a piece of one, of which nothing is carried.
    pub(super) fn counted_in_place(&mut self, feed: &mut Feed<'_>, mut left: u64) -> bool {
        let max = self.rules.record_bytes_max;
        loop {
            let here = feed.rest().len();
            let need = left.min(max as u64) as usize;
            if here < need {
                break;
            }
            feed.push(feed.at, feed.at + need, feed.at + need);
            feed.at += need;
            left -= need as u64;
            if left == 0 {
                self.state = self.behind();
                return true;
            }
            if self.rules.oversize != Oversize::Split {
                self.counts.truncated += 1;
                self.state = State::SkipCounted(left);
                return true;
            }
            self.counts.cuts += 1;
        }
        let here = feed.rest().len() as u64;
        self.state = State::Counted(left);
        if !self.carry.is_given() {
            self.keep(feed, State::Counted(left - here));
        }
        false
    }

    /// In a counted frame, or a piece of one, whose start is carried.
    pub(super) fn resume_counted(&mut self, feed: &mut Feed<'_>, mut left: u64) -> bool {
        let max = self.rules.record_bytes_max;
        let room = max.saturating_sub(self.carry.content().len());
        let take = left.min(room.min(feed.rest().len()) as u64) as usize;
        self.carry.extend(&feed.rest()[..take]);
        feed.at += take;
        left -= take as u64;
        self.state = State::Counted(left);
        let content = self.carry.content().len();
        if left == 0 && content <= max {
            self.state = self.behind();
            feed.carried = Some(self.give(content, feed.at));
        } else if content >= max {
            feed.carried = Some(self.counted_over(content, left, feed.at));
        }
        true
    }

    /// The carried frame is too long. Where long records are dropped it never comes to this: their length was declared.
    fn counted_over(&mut self, content: usize, left: u64, upto: usize) -> Carried {
        let max = self.rules.record_bytes_max;
        if self.rules.oversize == Oversize::Split {
            self.counts.cuts += 1;
        } else {
            self.counts.truncated += 1;
            self.counts.truncated_bytes += (content - max) as u64;
            self.carry.truncate(max);
            self.state = State::SkipCounted(left);
        }
        self.give(max, upto)
    }

    /// In the rest of a counted frame that is passed over.
    pub(super) fn skip_counted(&mut self, feed: &mut Feed<'_>, left: u64) -> bool {
        let lost = left.min(feed.rest().len() as u64);
        self.lose(lost);
        feed.at += lost as usize;
        self.state = if lost == left { self.behind() } else { State::SkipCounted(left - lost) };
        true
    }

    /// The stream ends within a counted frame: what came of it is a record.
    pub(super) fn finish_counted(&mut self, content: usize, left: u64) -> Option<Carried> {
        debug_assert!(content <= self.rules.record_bytes_max, "{content} bytes of a counted frame are held");
        self.state = State::Start;
        self.counts.unfinished += u64::from(left > 0);
        (content > 0).then(|| self.give(content, 0))
    }
}
