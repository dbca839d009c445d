//! From "every sink has it" to "the input may move on".
//!
//! For each input (a file, a range of one, a partition, a connection with acknowledgement) there is a window of
//! stretches. A stretch is what one run brought: it is held once while it is being encoded, and once for each batch
//! that carries a part of it. Verdicts arrive in any order; the low-water mark moves in order only, and never past a
//! stretch that a sink abandoned. That mark is what a checkpoint, an offset commit or a PUBACK may use.
//!
//! Pure: knows no sink, no clock, no thread.

use std::collections::VecDeque;

use slab::Slab;

use crate::batch::{Ticket, Verdict};

/// One stretch of an input.
#[derive(Debug)]
struct Stretch {
    /// Input position behind it.
    upto: u64,
    /// Records in it.
    records: u32,
    /// Who still holds it: the encoder, and each batch out.
    holders: u32,
    /// A sink will never take some of it.
    rejected: u32,
    /// A sink gave it up at the end of the engine: the mark must not pass.
    abandoned: bool,
}

#[derive(Debug)]
struct Window {
    /// The input's durable identity.
    input: u64,
    /// Number of `open.front()`.
    first: u64,
    open: VecDeque<Stretch>,
    low: u64,
    closing: bool,
}

impl Window {
    /// Whether nothing of it is out: all is settled, or given up.
    fn is_idle(&self) -> bool {
        self.open.iter().all(|s| s.holders == 0)
    }
}

/// What a verdict moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Records that every sink has now.
    pub delivered: u64,
    /// Records that some sink refused for good.
    pub rejected: u64,
    /// The window has nothing open.
    pub idle: bool,
}

/// The windows of one shard's inputs.
#[derive(Debug, Default)]
pub struct Settle {
    windows: Slab<Window>,
}

impl Settle {
    /// Opens a window for an input that stands at `position`.
    pub fn open(&mut self, input: u64, position: u64) -> u32 {
        let window = Window { input, first: 0, open: VecDeque::new(), low: position, closing: false };
        u32::try_from(self.windows.insert(window))
            .expect("an input holds a file or a socket; there are fewer than 2^32")
    }

    /// Begins a stretch that reaches to `upto`; held by the caller until [`Settle::sealed`].
    pub fn begin(&mut self, slot: u32, upto: u64, records: u32) -> Ticket {
        let window = &mut self.windows[slot as usize];
        debug_assert!(window.open.back().is_none_or(|s| s.upto <= upto), "an input only moves on");
        let seq = window.first + window.open.len() as u64;
        window.open.push_back(Stretch { upto, records, holders: 1, rejected: 0, abandoned: false });
        Ticket { slot, seq, input: window.input, upto, records: 0, rejected: 0 }
    }

    /// A batch carries a part of the ticket's stretch.
    pub fn attach(&mut self, ticket: &Ticket) {
        self.stretch(ticket).holders += 1;
    }

    /// The encoder is done with the stretch: what no batch carries is settled.
    pub fn sealed(&mut self, ticket: &Ticket) -> Moved {
        self.release(ticket, Verdict::Delivered)
    }

    /// A batch came home.
    pub fn verdict(&mut self, ticket: &Ticket, verdict: Verdict) -> Moved {
        self.release(ticket, verdict)
    }

    /// The position up to which every sink has everything.
    pub fn low(&self, slot: u32) -> u64 {
        self.windows[slot as usize].low
    }

    /// Whether nothing of any input is out.
    pub fn is_all_idle(&self) -> bool {
        self.windows.iter().all(|(_, w)| w.is_idle())
    }

    /// Whether nothing of the input is out.
    pub fn is_idle(&self, slot: u32) -> bool {
        self.windows[slot as usize].is_idle()
    }

    /// Records of the input that are not settled.
    pub fn unsettled(&self, slot: u32) -> u64 {
        self.windows[slot as usize].open.iter().map(|s| u64::from(s.records)).sum()
    }

    /// The input is gone: its window goes when nothing of it is out.
    pub fn close(&mut self, slot: u32) {
        let window = &mut self.windows[slot as usize];
        window.closing = true;
        if window.is_idle() {
            self.windows.remove(slot as usize);
        }
    }

    /// Every input with an identity and an open window, and how far all sinks have it.
    pub fn positions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.windows.iter().filter(|(_, w)| w.input != 0).map(|(_, w)| (w.input, w.low))
    }

    /// Windows that are open.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn stretch(&mut self, ticket: &Ticket) -> &mut Stretch {
        let window = &mut self.windows[ticket.slot as usize];
        let at = usize::try_from(ticket.seq - window.first).expect("a window is short");
        &mut window.open[at]
    }

    fn release(&mut self, ticket: &Ticket, verdict: Verdict) -> Moved {
        let stretch = self.stretch(ticket);
        assert!(stretch.holders > 0, "a ticket comes home once");
        stretch.holders -= 1;
        let rejected = if verdict == Verdict::Rejected { ticket.records } else { ticket.rejected };
        stretch.rejected = (stretch.rejected + rejected).min(stretch.records);
        stretch.abandoned |= matches!(verdict, Verdict::Abandoned | Verdict::Open);
        let moved = self.advance(ticket.slot);
        if moved.idle && self.windows[ticket.slot as usize].closing {
            self.windows.remove(ticket.slot as usize);
        }
        moved
    }

    fn advance(&mut self, slot: u32) -> Moved {
        let window = &mut self.windows[slot as usize];
        let mut moved = Moved::default();
        while let Some(front) = window.open.front() {
            if front.holders > 0 || front.abandoned {
                break;
            }
            moved.rejected += u64::from(front.rejected);
            moved.delivered += u64::from(front.records - front.rejected);
            window.low = front.upto;
            window.open.pop_front();
            window.first += 1;
        }
        moved.idle = window.is_idle();
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivered(n: u64, idle: bool) -> Moved {
        Moved { delivered: n, rejected: 0, idle }
    }

    #[test]
    fn a_stretch_no_sink_takes_settles_at_once() {
        let mut settle = Settle::default();
        let slot = settle.open(7, 100);
        let ticket = settle.begin(slot, 150, 3);
        assert_eq!(settle.low(slot), 100);
        assert_eq!(settle.sealed(&ticket), delivered(3, true));
        assert_eq!(settle.low(slot), 150);
    }

    #[test]
    fn the_mark_waits_for_the_slowest_of_two_sinks_and_moves_in_order() {
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        let (a, b) = (settle.begin(slot, 10, 1), settle.begin(slot, 20, 2));
        for ticket in [&a, &a, &b] {
            settle.attach(ticket);
        }
        settle.sealed(&a);
        settle.sealed(&b);
        assert_eq!(settle.verdict(&b, Verdict::Delivered), delivered(0, false));
        assert_eq!(settle.verdict(&a, Verdict::Delivered), delivered(0, false));
        assert_eq!(settle.low(slot), 0);
        assert_eq!(settle.verdict(&a, Verdict::Delivered), delivered(3, true));
        assert_eq!(settle.low(slot), 20);
    }

    #[test]
    fn an_abandoned_stretch_holds_the_mark_for_good() {
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        let (a, b) = (settle.begin(slot, 10, 1), settle.begin(slot, 20, 1));
        settle.attach(&a);
        settle.sealed(&a);
        settle.sealed(&b);
        assert_eq!(settle.unsettled(slot), 2);
        settle.verdict(&a, Verdict::Abandoned);
        assert_eq!((settle.low(slot), settle.unsettled(slot), settle.is_idle(slot)), (0, 2, true));
    }

    #[test]
    fn a_rejected_part_is_counted_and_the_input_goes_on() {
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        let a = settle.begin(slot, 10, 5);
        settle.attach(&a);
        settle.sealed(&a);
        let part = Ticket { records: 2, ..a };
        assert_eq!(settle.verdict(&part, Verdict::Rejected), Moved { delivered: 3, rejected: 2, idle: true });
        assert_eq!(settle.low(slot), 10);
    }

    #[test]
    fn what_a_sink_leaves_out_of_a_batch_is_counted() {
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        let a = settle.begin(slot, 10, 5);
        settle.attach(&a);
        settle.sealed(&a);
        let home = Ticket { records: 5, rejected: 2, ..a };
        assert_eq!(
            settle.verdict(&home, Verdict::Delivered),
            Moved { delivered: 3, rejected: 2, idle: true }
        );
        assert_eq!(settle.low(slot), 10);
    }

    #[test]
    fn a_closed_window_goes_when_its_last_ticket_is_home() {
        let mut settle = Settle::default();
        let slot = settle.open(1, 0);
        let a = settle.begin(slot, 10, 1);
        settle.close(slot);
        assert_eq!(settle.len(), 1);
        settle.sealed(&a);
        assert!(settle.is_empty());
    }

    proptest! {
        /// However verdicts are ordered, the mark equals the end of the longest settled prefix, and all is counted once.
        #[test]
        fn the_mark_is_the_settled_prefix(sizes in prop::collection::vec(0u32..5, 1..40), order in any::<u64>()) {
            let mut settle = Settle::default();
            let slot = settle.open(1, 0);
            let mut tickets = Vec::new();
            for (i, records) in sizes.iter().enumerate() {
                let ticket = settle.begin(slot, (i as u64 + 1) * 10, *records);
                settle.attach(&ticket);
                settle.sealed(&ticket);
                tickets.push(ticket);
            }
            let mut left: Vec<usize> = (0..tickets.len()).collect();
            let (mut home, mut seed, mut counted) = (vec![false; tickets.len()], order, 0);
            while !left.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let i = left.swap_remove((seed >> 33) as usize % left.len());
                home[i] = true;
                counted += settle.verdict(&tickets[i], Verdict::Delivered).delivered;
                let prefix = home.iter().take_while(|h| **h).count() as u64;
                prop_assert_eq!(settle.low(slot), prefix * 10);
            }
            prop_assert_eq!(counted, sizes.iter().map(|n| u64::from(*n)).sum::<u64>());
        }
    }
}
