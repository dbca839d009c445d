//! What became of the messages of each connection: received, lost, duplicated, reordered, damaged.
//!
//! A message is *reordered* when one with a higher number came before it; *duplicated* when it came before itself; *lost*
//! when it never came although it was sent. How many were sent is known from the connection's last message, which says
//! that it is the last, or from whoever sent them; otherwise from the highest number that came.
//!
//! Pure. Invariants: for each connection `sent = received + lost`; gaps are kept as ranges, at most [`GAPS_MAX`] of them,
//! beyond which the oldest is given up as lost and what still comes of it is counted apart.

use std::collections::{BTreeMap, HashMap};

use super::marker::Marker;
use super::scan::Found;

/// Gaps of one connection that are remembered. One takes about 30 bytes.
const GAPS_MAX: usize = 1 << 20;

/// What became of a number of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Messages that came, each counted once.
    pub received: u64,
    /// Messages that did not come.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came behind a later one.
    pub reordered: u64,
    /// Messages whose text is not the one that was sent.
    pub corrupted: u64,
    /// Connections heard of.
    pub connections: u64,
    /// Connections whose last message came, so that nothing behind it can be missing.
    pub ended: u64,
}

impl Account {
    /// Messages that were sent, as far as can be known.
    pub fn sent(&self) -> u64 {
        self.received + self.lost
    }

    /// Whether each message came as it was sent, and once. Their order is not asked for.
    pub fn is_complete(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.corrupted == 0
    }

    /// The same with messages that are known to have been sent, and of which nothing was heard.
    pub fn with_sent(mut self, sent: u64) -> Self {
        self.lost = sent.saturating_sub(self.received).max(self.lost);
        self
    }
}

/// The sequence of one connection.
#[derive(Clone, Debug, Default)]
struct Sequence {
    /// One more than the highest number that came.
    next: u64,
    /// Numbers below `next` that did not come: first, and one more than the last.
    gaps: BTreeMap<u64, u64>,
    /// Numbers in gaps that were given up.
    given_up: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    ended: bool,
}

impl Sequence {
    fn take(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
            self.received += 1;
        } else if number > self.next {
            self.gap(self.next, number);
            self.next = number + 1;
            self.received += 1;
        } else if self.fill(number) {
            self.received += 1;
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    fn gap(&mut self, first: u64, end: u64) {
        if self.gaps.len() >= GAPS_MAX
            && let Some((first, end)) = self.gaps.pop_first()
        {
            self.given_up += end - first;
        }
        self.gaps.insert(first, end);
    }

    /// Takes a number out of its gap; false when it is in none.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &end)) = self.gaps.range(..=number).next_back() else { return false };
        if number >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        true
    }

    fn lost(&self) -> u64 {
        self.given_up + self.gaps.iter().map(|(first, end)| end - first).sum::<u64>()
    }
}

/// The sequences of all connections.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sequences: Vec<Sequence>,
    places: HashMap<(u32, u16), usize>,
    /// Where the connection of the last message is: the next message is mostly of the same one.
    last: Option<((u32, u16), usize)>,
    corrupted: u64,
}

impl Ledger {
    /// Counts one message. A damaged one has come, too, when its number can be read.
    pub fn take(&mut self, found: Found) -> Option<Marker> {
        let marker = match found {
            Found::Whole(marker) => marker,
            Found::Damaged(marker) => {
                self.corrupted += 1;
                marker
            }
            Found::Unreadable => {
                self.corrupted += 1;
                return None;
            }
        };
        let place = self.place((marker.run, marker.connection));
        let sequence = &mut self.sequences[place];
        sequence.take(marker.sequence);
        sequence.ended |= marker.last;
        Some(marker)
    }

    fn place(&mut self, key: (u32, u16)) -> usize {
        match self.last {
            Some((last, place)) if last == key => place,
            _ => {
                let next = self.sequences.len();
                let place = *self.places.entry(key).or_insert(next);
                if place == next {
                    self.sequences.push(Sequence::default());
                }
                self.last = Some((key, place));
                place
            }
        }
    }

    /// The sum over all connections.
    pub fn account(&self) -> Account {
        let mut sum = Account { corrupted: self.corrupted, ..Account::default() };
        for sequence in &self.sequences {
            sum.received += sequence.received;
            sum.lost += sequence.lost();
            sum.duplicated += sequence.duplicated;
            sum.reordered += sequence.reordered;
            sum.connections += 1;
            sum.ended += u64::from(sequence.ended);
        }
        sum
    }

    /// Whether each connection that was heard of has ended.
    pub fn all_ended(&self) -> bool {
        !self.sequences.is_empty() && self.sequences.iter().all(|s| s.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn found(connection: u16, sequence: u64) -> Found {
        Found::Whole(marker(connection, sequence))
    }

    fn marker(connection: u16, sequence: u64) -> Marker {
        Marker { run: 1, connection, sequence, last: false, due_ns: 0, text_bytes: 0, text_check: 0 }
    }

    fn account(came: &[u64]) -> Account {
        let mut ledger = Ledger::default();
        for number in came {
            ledger.take(found(0, *number));
        }
        ledger.account()
    }

    #[test]
    fn what_a_network_does_is_told_apart() {
        let one = Account { connections: 1, ..Account::default() };
        assert_eq!(account(&[0, 1, 2]), Account { received: 3, ..one });
        assert_eq!(account(&[0, 2]), Account { received: 2, lost: 1, ..one });
        assert_eq!(account(&[2]), Account { received: 1, lost: 2, ..one });
        assert_eq!(account(&[0, 1, 1]), Account { received: 2, duplicated: 1, ..one });
        assert_eq!(account(&[0, 2, 1, 3]), Account { received: 4, reordered: 1, ..one });
        assert_eq!(account(&[5, 3, 3]), Account { received: 2, lost: 4, reordered: 1, duplicated: 1, ..one });
    }

    #[test]
    fn what_was_sent_makes_the_lost_end_known() {
        let counted = account(&[0, 1, 4]);
        assert_eq!((counted.sent(), counted.lost), (5, 2));
        assert_eq!(counted.with_sent(10).lost, 7);
    }

    #[test]
    fn a_damaged_message_is_not_lost_and_an_unreadable_one_is() {
        let mut ledger = Ledger::default();
        ledger.take(found(0, 0));
        ledger.take(Found::Damaged(marker(0, 1)));
        ledger.take(Found::Unreadable);
        ledger.take(found(0, 3));
        let counted = ledger.account();
        assert_eq!((counted.received, counted.lost, counted.corrupted), (3, 1, 2));
        assert!(!counted.is_complete());
    }

    #[test]
    fn connections_are_counted_apart_and_end_each_for_itself() {
        let mut ledger = Ledger::default();
        for connection in [0, 1, 0, 1] {
            let sequence = if ledger.account().received < 2 { 0 } else { 1 };
            ledger.take(found(connection, sequence));
        }
        assert!(!ledger.all_ended());
        for connection in [0, 1] {
            ledger.take(Found::Whole(Marker { last: true, ..marker(connection, 2) }));
        }
        assert!(ledger.all_ended());
        let counted = ledger.account();
        assert_eq!((counted.received, counted.connections, counted.ended), (6, 2, 2));
        assert!(counted.is_complete() && counted.reordered == 0);
    }

    proptest! {
        #[test]
        fn the_account_is_that_of_a_set(came in proptest::collection::vec(0u64..40, 0..80)) {
            let (mut seen, mut highest) = (BTreeSet::new(), None);
            let (mut duplicated, mut reordered) = (0, 0);
            for number in &came {
                if !seen.insert(*number) {
                    duplicated += 1;
                } else if highest.is_some_and(|highest| *number < highest) {
                    reordered += 1;
                }
                highest = highest.max(Some(*number));
            }
            let received = seen.len() as u64;
            let counted = account(&came);
            prop_assert_eq!(counted.received, received);
            prop_assert_eq!(counted.lost, highest.map_or(0, |highest| highest + 1 - received));
            prop_assert_eq!((counted.duplicated, counted.reordered), (duplicated, reordered));
        }
    }
}
