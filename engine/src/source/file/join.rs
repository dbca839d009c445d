//! Lines joined to records, as one stage of a file's reader.
//!
//! Owns the group that is held at the end of a run. Invariants: a record's position is that behind its last line, and a
//! held group moves no position, so a restart reads it from its first line again; what a [`Joiner`] yields in one step is
//! given out in its order, the carried group before the records that lie in the run. Pure: the clock is passed in.

use super::stage::Staged;
use crate::batch::{Columns, Origin, Positions, Run, Span};
use crate::frame::multiline::{Group, Joiner, Multiline};
use crate::metrics::SourceCounters;

/// The joining of one file.
pub(super) struct Join {
    joiner: Joiner,
    /// Records that lie in the run, and the positions behind them.
    spans: Vec<Span>,
    positions: Vec<u64>,
    /// They are still to be given out, and reach up to this line.
    pending: Option<usize>,
    /// The carried group: its place in the joiner's carry and the position behind it.
    carried: ([Span; 1], [u64; 1]),
}

impl Join {
    pub(super) fn new(rules: Multiline, line_bytes_max: usize) -> Self {
        Self {
            joiner: Joiner::new(rules, line_bytes_max),
            spans: Vec::new(),
            positions: Vec::new(),
            pending: None,
            carried: Default::default(),
        }
    }

    /// Records of the lines from `from` on.
    pub(super) fn take<'a>(
        &'a mut self,
        run: &Run<'a>,
        from: usize,
        counters: &SourceCounters,
    ) -> Staged<'a> {
        if let Some(next) = self.pending.take() {
            return self.in_place(run, next, counters);
        }
        let now_ns = run.received_ns;
        let joined = self.joiner.join(run, from, now_ns, &mut self.spans, &mut self.positions);
        let Some(group) = joined.carried else { return self.in_place(run, joined.next, counters) };
        let next = if self.spans.is_empty() {
            joined.next
        } else {
            self.pending = Some(joined.next);
            from
        };
        self.carried(group, run.origin, now_ns, next, counters)
    }

    /// The group that is held, whatever its age.
    pub(super) fn flush<'a>(
        &'a mut self,
        origin: &'a Origin,
        now_ns: i64,
        counters: &SourceCounters,
    ) -> Option<Staged<'a>> {
        let group = self.joiner.flush()?;
        Some(self.carried(group, origin, now_ns, 0, counters))
    }

    /// Memory of the group that is held.
    pub(super) fn held_bytes(&self) -> usize {
        self.joiner.held_bytes()
    }

    /// When the group that is held waits no longer.
    pub(super) fn due_ns(&self) -> Option<i64> {
        self.joiner.deadline_ns()
    }

    pub(super) fn forget(&mut self) {
        self.joiner.forget();
        self.pending = None;
    }

    /// The records that lie in the run. Where its lines stand side by side, they do.
    fn in_place<'a>(&'a self, run: &Run<'a>, next: usize, counters: &SourceCounters) -> Staged<'a> {
        counters.records.add(self.spans.len() as u64);
        let records = Run { records: &self.spans, positions: Positions::Each(&self.positions), ..*run };
        Staged { run: records, upto: self.positions.last().copied(), next, stop: false }
    }

    fn carried<'a>(
        &'a mut self,
        group: Group,
        origin: &'a Origin,
        received_ns: i64,
        next: usize,
        counters: &SourceCounters,
    ) -> Staged<'a> {
        counters.records.add(1);
        self.carried = ([group.span], [group.upto]);
        let run = Run {
            bytes: self.joiner.carry(),
            records: &self.carried.0,
            verbatim: false,
            columns: Columns::None,
            peers: &[],
            origin,
            received_ns,
            positions: Positions::Each(&self.carried.1),
        };
        Staged { run, upto: Some(group.upto), next, stop: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lines::{Lines, LongLines};
    use super::super::stage::Stage;
    use super::*;
    use crate::frame::multiline::Begins;

    const MAX: usize = 40;

    fn rules(lines_max: u32) -> Multiline {
        let begins = Begins::pattern("^[0-9]").unwrap();
        Multiline { begins, lines_max, bytes_max: MAX, timeout_ns: 1000 }
    }

    fn origin() -> Origin {
        Origin::new("s", "h")
    }

    /// A reader's work in small: pieces of the given sizes, cut into lines, staged; records and the positions behind them.
    fn read(file: &[u8], from: usize, sizes: &[usize], lines_max: u32) -> Vec<(Vec<u8>, u64)> {
        let (origin, counters) = (origin(), SourceCounters::default());
        let mut lines = Lines::new(MAX, LongLines::Split);
        if from > 0 && file[from - 1] != b'\n' {
            lines.resume_inside_line();
        }
        let mut stage = Stage::join(rules(lines_max), MAX);
        let (mut records, mut start, mut end) = (Vec::new(), from, from);
        let mut give = |stage: &mut Stage, lines: &Lines, bytes: &[u8], start: usize, next: usize| {
            let (base, upto) = (start as u64, (start + next) as u64);
            let run = Run {
                bytes,
                records: lines.spans(),
                verbatim: false,
                columns: Columns::None,
                peers: &[],
                origin: &origin,
                received_ns: 5,
                positions: Positions::Linear { base, upto },
            };
            let mut at = 0;
            while at < run.records.len() {
                let staged = stage.take(&run, at, &counters);
                push(&mut records, &staged);
                at = staged.next;
            }
        };
        for size in sizes.iter().cycle() {
            end = file.len().min(end + size);
            let (bytes, mut at) = (&file[start..end], 0);
            while let Some(piece) = lines.next(bytes, &mut at) {
                give(&mut stage, &lines, bytes, start, piece.next);
            }
            if end == file.len() {
                if let Some(piece) = lines.finish(bytes, &mut at) {
                    give(&mut stage, &lines, bytes, start, piece.next);
                }
                break;
            }
            start += at;
        }
        if let Some(staged) = stage.flush(&origin, 9, &counters) {
            push(&mut records, &staged);
        }
        assert_eq!(counters.records.get(), records.len() as u64);
        assert!(!stage.is_holding());
        records
    }

    fn push(records: &mut Vec<(Vec<u8>, u64)>, staged: &Staged<'_>) {
        let run = &staged.run;
        records.extend(
            run.records.iter().enumerate().map(|(i, s)| (s.of(run.bytes).to_vec(), run.position_after(i))),
        );
        assert_eq!(staged.upto, run.records.len().checked_sub(1).map(|last| run.position_after(last)));
    }

    fn file() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just("1 begins"),
            Just("goes on"),
            Just(""),
            Just("2 with a carriage return\r"),
            Just("a line that is longer than any line may be, and is split"),
        ];
        (prop::collection::vec(line, 0..25), any::<bool>()).prop_map(|(lines, whole)| {
            let mut text = lines.join("\n");
            if whole && !text.is_empty() {
                text.push('\n');
            }
            text.into_bytes()
        })
    }

    proptest! {
        /// Whatever is held is in no position: a restart behind any record gives the records after it, and no other.
        #[test]
        fn a_restart_loses_and_doubles_no_group(
            file in file(),
            sizes in prop::collection::vec(1usize..60, 1..6),
            lines_max in prop_oneof![1u32..4, Just(1000)],
        ) {
            let whole = read(&file, 0, &[file.len().max(1)], lines_max);
            prop_assert_eq!(&read(&file, 0, &sizes, lines_max), &whole);
            for (i, (_, position)) in whole.iter().enumerate() {
                // Pieces of a split line, of which some are given out, begin anew behind it.
                let inside = file[*position as usize - 1] != b'\n' && *position < file.len() as u64;
                if !inside {
                    prop_assert_eq!(&read(&file, *position as usize, &sizes, lines_max)[..], &whole[i + 1..]);
                }
            }
        }
    }

    #[test]
    fn a_group_waits_for_its_time_and_can_be_forgotten() {
        let (origin, counters) = (origin(), SourceCounters::default());
        let mut stage = Stage::join(rules(10), MAX);
        let run = Run {
            bytes: b"1 a\n b\n2 c\n",
            records: &[Span { start: 0, end: 3 }, Span { start: 4, end: 6 }, Span { start: 7, end: 10 }],
            verbatim: true,
            columns: Columns::None,
            peers: &[],
            origin: &origin,
            received_ns: 500,
            positions: Positions::Linear { base: 100, upto: 111 },
        };
        let staged = stage.take(&run, 0, &counters);
        assert_eq!((staged.run.records.len(), staged.upto, staged.next), (1, Some(107), 3));
        assert_eq!((stage.is_holding(), stage.due_ns()), (true, Some(1500)));
        assert_eq!((stage.due(1499), stage.due(1500)), (false, true));
        stage.forget();
        assert!(!stage.is_holding() && stage.flush(&origin, 0, &counters).is_none());
        assert_eq!(counters.records.get(), 1);
    }
}
