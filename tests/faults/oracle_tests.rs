//! An oracle that finds nothing proves nothing: each kind of fault is shown to it.

use super::message::Record;
use super::oracle::{Allowed, Must, Passage, Seen, Sent, Verdict, judge};

fn record(number: u32) -> Record {
    Record { input: 1, stream: 2, number }
}

fn judged(must: Must, repeats: u64, passages: &[&[u32]]) -> Verdict {
    let sent = [Sent { input: 1, stream: 2, messages: 6, must, may_turn: false }];
    let passages = passages.iter().zip(0..).map(|(numbers, at)| Passage {
        begun: at * 10,
        ended: at * 10 + 5,
        records: numbers.iter().map(|n| record(*n)).collect(),
    });
    let seen = Seen { passages: passages.collect(), ..Seen::default() };
    judge(&sent, &seen, &Allowed::from([(1, repeats)]))
}

/// Whether something is wrong for good, and whether something is missing.
fn found(must: Must, repeats: u64, passages: &[&[u32]]) -> (bool, bool) {
    let verdict = judged(must, repeats, passages);
    (!verdict.wrong.is_empty(), !verdict.missing.is_empty())
}

#[test]
fn what_is_as_promised_passes() {
    assert_eq!(found(Must::All, 0, &[&[0, 1, 2, 3, 4, 5]]), (false, false));
    assert_eq!(found(Must::All, 2, &[&[0, 1, 2, 3], &[2, 3, 4, 5]]), (false, false));
    assert_eq!(found(Must::Prefix, 0, &[&[0, 1, 2]]), (false, false));
    assert_eq!(found(Must::Any, 0, &[&[1, 5]]), (false, false));
    assert_eq!(found(Must::AllBut(2), 0, &[&[1, 2, 3, 5]]), (false, false));
    let verdict = judged(Must::All, 2, &[&[0, 1, 2, 3], &[2, 3, 4, 5]]);
    assert_eq!((verdict.unique[&1], verdict.repeated[&1]), (6, 2));
}

#[test]
fn what_is_lost_is_found() {
    assert_eq!(found(Must::All, 0, &[&[0, 1, 2, 3, 4]]), (false, true));
    assert_eq!(found(Must::All, 0, &[&[0, 1, 3, 4, 5]]), (false, true));
    assert_eq!(found(Must::All, 0, &[]), (false, true));
    assert_eq!(found(Must::Prefix, 0, &[&[0, 2]]), (false, true));
    assert_eq!(found(Must::AllBut(2), 0, &[&[1, 2, 3]]), (false, true));
}

#[test]
fn what_repeats_is_found() {
    assert_eq!(found(Must::All, 1, &[&[0, 1, 2, 3], &[2, 3, 4, 5]]), (true, false));
    assert!(found(Must::All, 9, &[&[0, 1, 1, 2, 3, 4, 5]]).0, "twice in one passage is never right");
}

#[test]
fn what_is_out_of_order_is_found() {
    assert!(found(Must::All, 0, &[&[0, 2, 1, 3, 4, 5]]).0);
    assert!(found(Must::Any, 0, &[&[3, 1]]).0);
    assert!(
        found(Must::All, 0, &[&[0, 1, 4, 5], &[2, 3]]).0,
        "what was left out comes by a later connection"
    );
    let side_by_side = [
        Passage { begun: 0, ended: 9, records: [0, 1, 4, 5].map(record).to_vec() },
        Passage { begun: 1, ended: 8, records: [2, 3].map(record).to_vec() },
    ];
    let sent = [Sent { input: 1, stream: 2, messages: 6, must: Must::All, may_turn: false }];
    let seen = Seen { passages: side_by_side.to_vec(), ..Seen::default() };
    assert!(
        judge(&sent, &seen, &Allowed::new()).wrong.is_empty(),
        "two connections at one time have no order"
    );
}

#[test]
fn datagrams_may_turn_where_their_source_was_opened() {
    let passages = vec![Passage { begun: 0, ended: 9, records: [0, 3, 1, 2].map(record).to_vec() }];
    let seen = Seen { passages, ..Seen::default() };
    for may_turn in [false, true] {
        let sent = [Sent { input: 1, stream: 2, messages: 4, must: Must::Any, may_turn }];
        assert_eq!(judge(&sent, &seen, &Allowed::new()).wrong.is_empty(), may_turn);
    }
}

#[test]
fn what_nobody_sent_is_found() {
    assert!(found(Must::Any, 0, &[&[6]]).0);
    let seen = Seen { passages: Vec::new(), strange: vec!["torn".into()], ..Seen::default() };
    assert_eq!(judge(&[], &seen, &Allowed::new()).wrong.len(), 1);
}

#[test]
fn beginnings_without_a_name_are_allowed_once_for_each_connection_that_broke() {
    let broken = |stream| Sent { input: 1, stream, messages: 1, must: Must::Prefix, may_turn: false };
    let sent = [broken(0), broken(1)];
    for (stubs, cut, is_wrong) in
        [(2, vec![], false), (1, vec![1], false), (2, vec![1], true), (3, vec![], true)]
    {
        let seen = Seen { stubs, cut, ..Seen::default() };
        assert_eq!(!judge(&sent, &seen, &Allowed::new()).wrong.is_empty(), is_wrong, "{stubs}");
    }
}
