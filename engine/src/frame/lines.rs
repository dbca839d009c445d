//! Frames that end in a byte: lines, and records behind which a NUL stands.
//!
//! In a stream that may hold octet frames too, a scan for lines must not run far ahead: what looks like lines may be the
//! inside of a frame. So it looks ahead by a window that doubles while only lines come and goes back when a frame does;
//! what is scanned in vain is then never more than what was scanned with success.

use super::header::Header;
use super::{Carried, Feed, Framer, Framing, Oversize, RECORDS_PER_STEP, State, newline};
use crate::batch::Span;

/// The first look ahead.
pub(super) const WINDOW_BYTES_MIN: usize = 1024;

impl Framer {
    /// The byte that ends a record, and whether a carriage return before it goes too.
    fn terminator(&self) -> (u8, bool) {
        if self.rules.framing == Framing::Nul { (0, false) } else { (b'\n', true) }
    }

    /// Whether a line may be followed by something else.
    fn is_mixed(&self) -> bool {
        matches!(self.rules.framing, Framing::Auto | Framing::Octet)
    }

    /// At the start of a line, nothing carried.
    pub(super) fn lines_in_place(&mut self, feed: &mut Feed<'_>) -> bool {
        let (from, first) = (feed.at, feed.spans.len());
        let len = feed.segment.len();
        let ahead = if self.is_mixed() { len.min(from.saturating_add(self.window)) } else { len };
        let (mut behind, cr) = self.scan(&feed.segment[..ahead], from, feed.spans);
        if behind == from {
            if ahead == len {
                return self.line_unfinished(feed);
            }
            self.window *= 4;
            return true;
        }
        if self.is_mixed() {
            behind = self.lines_until_counted(feed, first, behind);
        }
        if behind - from > self.rules.record_bytes_max {
            self.fit(feed, first, behind);
        }
        feed.at = behind;
        feed.upto = behind;
        feed.verbatim &= !cr && self.rules.framing != Framing::Nul;
        if self.is_mixed() || feed.spans.len() >= RECORDS_PER_STEP || behind == len {
            return true;
        }
        self.line_unfinished(feed)
    }

    fn scan(&self, bytes: &[u8], from: usize, spans: &mut Vec<Span>) -> (usize, bool) {
        if self.rules.framing == Framing::Nul {
            (newline::delimited(bytes, from, 0, RECORDS_PER_STEP, spans), false)
        } else {
            let scan = newline::lines(bytes, from, RECORDS_PER_STEP, spans);
            (scan.next, scan.cr)
        }
    }

    /// Of lines found by looking ahead, keeps those before the first counted frame; the first is known to be a line.
    fn lines_until_counted(&mut self, feed: &mut Feed<'_>, first: usize, behind: usize) -> usize {
        let found = feed.spans[first + 1..].iter().position(|span| {
            let start = span.start as usize;
            // Nearly all lines are told by their first byte.
            feed.segment[start].is_ascii_digit()
                && matches!(self.header(&feed.segment[start..]), Header::Counted { .. })
        });
        let behind = match found {
            None => {
                self.window = (self.window * 2).min(newline::SEGMENT_BYTES_MAX);
                behind
            }
            Some(more) => {
                self.window = WINDOW_BYTES_MIN;
                let behind = feed.spans[first + 1 + more].start as usize;
                feed.spans.truncate(first + 1 + more);
                behind
            }
        };
        if self.rules.framing == Framing::Octet {
            self.counts.malformed += (feed.spans.len() - first) as u64;
        }
        behind
    }

    /// Applies the policy to lines in place that are too long; `behind` is the offset behind the last one's terminator.
    fn fit(&mut self, feed: &mut Feed<'_>, first: usize, behind: usize) {
        let max = self.rules.record_bytes_max;
        if feed.spans[first..].iter().all(|span| span.len() <= max) {
            return;
        }
        feed.verbatim = false;
        let found = feed.spans.split_off(first);
        for (i, &span) in found.iter().enumerate() {
            let end = found.get(i + 1).map_or(behind, |next| next.start as usize) - 1;
            let over = (end - span.start as usize).saturating_sub(max) as u64;
            match self.rules.oversize {
                _ if span.len() <= max => feed.spans.push(span),
                Oversize::Truncate => {
                    self.counts.truncated += 1;
                    self.counts.truncated_bytes += over;
                    feed.spans.push(Span { start: span.start, end: span.start + max as u32 });
                }
                Oversize::Drop => {
                    self.counts.dropped += 1;
                    self.counts.dropped_bytes += over + max as u64;
                }
                Oversize::Split => {
                    let pieces = (span.start..span.end).step_by(max);
                    self.counts.cuts += pieces.len() as u64 - 1;
                    feed.spans.extend(
                        pieces
                            .map(|start| Span { start, end: span.end.min(start.saturating_add(max as u32)) }),
                    );
                }
            }
        }
    }

    /// At the start of a line that does not end in this segment.
    fn line_unfinished(&mut self, feed: &mut Feed<'_>) -> bool {
        if self.carry.is_given() {
            return false;
        }
        self.begin_line();
        let max = self.rules.record_bytes_max;
        while self.is_over(feed.rest()) {
            let len = feed.rest().len();
            match self.rules.oversize {
                Oversize::Truncate => {
                    feed.push(feed.at, feed.at + max, feed.at + max);
                    self.counts.truncated += 1;
                    self.counts.truncated_bytes += (len - max) as u64;
                }
                Oversize::Drop => {
                    self.counts.dropped += 1;
                    self.counts.dropped_bytes += len as u64;
                }
                Oversize::Split => {
                    feed.push(feed.at, feed.at + max, feed.at + max);
                    self.counts.cuts += 1;
                    feed.at += max;
                    continue;
                }
            }
            self.state = State::SkipLine;
            feed.at = feed.segment.len();
            return false;
        }
        self.keep(feed, State::Line)
    }

    /// What is next is a line, whose terminator may be far away.
    pub(super) fn begin_line(&mut self) {
        self.state = State::Line;
        if self.rules.framing == Framing::Octet {
            self.counts.malformed += 1;
        }
    }

    /// Whether the start of a line, its terminator not seen, already shows that the line is too long. One carriage return more than
    /// the limit does not: it may belong to the terminator.
    fn is_over(&self, line: &[u8]) -> bool {
        let max = self.rules.record_bytes_max;
        let (_, drop_cr) = self.terminator();
        line.len() > max + 1 || (line.len() == max + 1 && !(drop_cr && line[max] == b'\r'))
    }

    /// In a line whose start is carried.
    pub(super) fn resume_line(&mut self, feed: &mut Feed<'_>) -> bool {
        let (terminator, drop_cr) = self.terminator();
        let room = (self.rules.record_bytes_max + 2).saturating_sub(self.carry.content().len());
        let window = &feed.rest()[..room.min(feed.rest().len())];
        let end = memchr::memchr(terminator, window);
        self.carry.extend(&window[..end.unwrap_or(window.len())]);
        feed.at += end.unwrap_or(window.len());
        let content = self.carry.content();
        let cr = end.is_some() && drop_cr && content.last() == Some(&b'\r');
        let len = content.len() - usize::from(cr);
        if len > self.rules.record_bytes_max && (end.is_some() || self.is_over(content)) {
            // The terminator, if it was found, is left for what follows.
            feed.carried = self.line_over(feed.at);
        } else if end.is_some() {
            feed.at += 1;
            feed.carried = self.line_ends(len, cr, feed.at);
        }
        true
    }

    /// The carried line is whole: its record are the first `len` bytes of the carry.
    fn line_ends(&mut self, len: usize, cr: bool, upto: usize) -> Option<Carried> {
        self.state = State::Start;
        if self.carry.content().is_empty() {
            // The end of a line whose pieces all went before.
            return None;
        }
        let verbatim = !cr && self.rules.framing != Framing::Nul;
        if verbatim {
            self.carry.extend(b"\n");
        }
        let all = self.carry.content().len();
        Some(Carried { span: Span { start: 0, end: len as u32 }, verbatim, ..self.give(all, upto) })
    }

    /// The carried line is too long.
    fn line_over(&mut self, upto: usize) -> Option<Carried> {
        let max = self.rules.record_bytes_max;
        let len = self.carry.content().len() as u64;
        match self.rules.oversize {
            Oversize::Truncate => {
                self.state = State::SkipLine;
                self.counts.truncated += 1;
                self.counts.truncated_bytes += len - max as u64;
                self.carry.truncate(max);
            }
            Oversize::Drop => {
                self.state = State::SkipLine;
                self.counts.dropped += 1;
                self.counts.dropped_bytes += len;
                self.carry.clear();
                return None;
            }
            Oversize::Split => self.counts.cuts += 1,
        }
        Some(self.give(max, upto))
    }

    /// In the rest of a line that is passed over.
    pub(super) fn skip_line(&mut self, feed: &mut Feed<'_>) -> bool {
        let (terminator, _) = self.terminator();
        let end = memchr::memchr(terminator, feed.rest());
        let lost = end.unwrap_or(feed.rest().len());
        self.lose(lost as u64);
        feed.at += lost;
        if end.is_some() {
            feed.at += 1;
            self.state = State::Start;
        }
        true
    }

    /// Counts bytes that are passed over.
    pub(super) fn lose(&mut self, bytes: u64) {
        match self.rules.oversize {
            Oversize::Drop => self.counts.dropped_bytes += bytes,
            Oversize::Truncate | Oversize::Split => self.counts.truncated_bytes += bytes,
        }
    }

    /// The stream ends within a line, or within what may have become a header.
    pub(super) fn finish_line(&mut self, content: usize) -> Option<Carried> {
        if self.state == State::Start {
            if self.rules.framing == Framing::Len32 {
                self.counts.malformed += 1;
                self.counts.malformed_bytes += content as u64;
                self.carry.clear();
                return None;
            }
            self.begin_line();
        }
        if content > self.rules.record_bytes_max {
            let over = self.line_over(0);
            if over.is_none() {
                // It was dropped whole: there is no rest to pass over.
                self.state = State::Start;
            }
            return over;
        }
        self.state = State::Start;
        Some(self.give(content, 0))
    }
}
