//! The receive buffers without a kernel: who has which, who is full, and what that takes of the engine's memory.

use std::task::{Context, Waker};

use super::*;

fn direct() -> Rc<Buffers> {
    Buffers::new(None, Rc::default(), Memory::unlimited()).unwrap()
}

fn read(lease: &mut Lease, bytes: usize, with: u8) {
    for byte in &mut lease.room()[..bytes] {
        byte.write(with);
    }
    lease.filled(bytes);
}

/// As many looks as it takes to give up what is not used.
fn rest(buffers: &Buffers) {
    (0..LOOKS_UNUSED).for_each(|_| buffers.look());
}

#[test]
fn a_returned_buffer_is_the_next_one_taken() {
    let buffers = direct();
    let account = buffers.open_account(1 << 20);
    let mut lease = buffers.take_run(3, account).unwrap();
    assert_eq!(lease.held_bytes(), 4 * BUFFER_BYTES);
    read(&mut lease, BUFFER_BYTES + 1, 7);
    assert_eq!(lease.held_bytes(), 2 * BUFFER_BYTES);
    assert_eq!(&lease[..], &vec![7u8; BUFFER_BYTES + 1][..]);
    let at = lease.as_ptr();
    drop(lease);
    assert_eq!(buffers.take_run(0, account).unwrap().as_ptr(), at);
}

#[test]
fn buffers_beyond_the_hot_set_are_bounded_by_the_budgets() {
    let buffers = direct();
    let account = buffers.open_account(130 * BUFFER_BYTES);
    let mut leases: Vec<Lease> = std::iter::from_fn(|| buffers.take_run(0, account)).collect();
    let bound = HOT_BUFFERS + 130 + OVERSHOOT_BUFFERS;
    assert!((bound..bound + SEGMENT_BUFFERS).contains(&leases.len()), "{}", leases.len());
    assert!(!buffers.is_full(account), "it is not known yet that anything was read");
    read(&mut leases[0], 1, 7);
    assert!(buffers.is_full(account) && buffers.wants_looks());
    leases.truncate(98);
    assert!(buffers.is_full(account), "full until a quarter is back");
    leases.truncate(97);
    assert!(!buffers.is_full(account));
    rest(&buffers);
    assert!(!buffers.wants_looks());
    leases.clear();
    assert_eq!(buffers.held_bytes(account), 0);
}

/// Takes buffers until the account is full, as a source does.
fn fill(buffers: &Rc<Buffers>, account: u16) -> Vec<Lease> {
    let more = || (!buffers.is_full(account)).then(|| buffers.take_run(0, account)).flatten();
    std::iter::from_fn(more).inspect(|_| buffers.inner.borrow_mut().judge(account)).collect()
}

#[test]
fn buffers_come_in_turn_from_the_lowest_segment_that_has_some() {
    let buffers = direct();
    buffers.open_account(1 << 30);
    let inner = &mut *buffers.inner.borrow_mut();
    let first_cold = HOT_BUFFERS as u16;
    assert!((0..first_cold).all(|buffer| inner.take() == Some(buffer)));
    let take = |inner: &mut Inner, n: usize| -> Vec<u16> { (0..n).filter_map(|_| inner.take()).collect() };
    let some = take(inner, 3);
    assert_eq!(some, [first_cold, first_cold + 1, first_cold + 2]);
    some.into_iter().for_each(|buffer| inner.put_back(buffer, false));
    let side_by_side = take(inner, SEGMENT_BUFFERS);
    assert_eq!(side_by_side[..2], [first_cold + 3, first_cold + 4]);
    assert_eq!(side_by_side[SEGMENT_BUFFERS - 3..], [first_cold, first_cold + 1, first_cold + 2]);
    assert_eq!(inner.take(), Some(first_cold + SEGMENT_BUFFERS as u16), "of a segment that was made for it");
    inner.put_back(first_cold + 5, false);
    inner.put_back(7, false);
    assert_eq!(take(inner, 2), [7, first_cold + 5]);
}

#[test]
fn without_memory_for_more_a_source_is_full_early_and_the_others_still_have_buffers() {
    let memory = Memory::new(16 << 20);
    let alarm = Rc::new(Alarm::default());
    let buffers = Buffers::new(None, Rc::clone(&alarm), Arc::clone(&memory)).unwrap();
    let accounts = [(); 3].map(|()| buffers.open_account(1 << 30));
    let least = memory.used_bytes();
    assert_eq!(least, HOT_BUFFERS * BUFFER_BYTES + 3 * SEGMENT_BYTES);
    let first = fill(&buffers, accounts[0]);
    assert!(first.len() > HOT_BUFFERS && memory.used_bytes() <= 14 << 20, "{}", first.len());
    assert!(!memory.has(SEGMENT_BYTES));
    let others = [fill(&buffers, accounts[1]), fill(&buffers, accounts[2])];
    assert_eq!(others.each_ref().map(Vec::len), [SHORT_BUFFERS; 2]);
    drop(first);
    assert!(!buffers.is_full(accounts[0]), "all is back");
    buffers.look();
    alarm.hush();
    buffers.publish();
    assert!(!buffers.is_full(accounts[1]), "there is memory again");
    assert!(alarm.poll(&mut Context::from_waker(Waker::noop())).is_ready(), "and it is told");
    drop(others);
    rest(&buffers);
    assert_eq!(memory.used_bytes(), least);
}

#[test]
fn a_segment_that_is_used_now_and_then_keeps_its_pages() {
    let buffers = direct();
    let account = buffers.open_account(1 << 30);
    let hot: Vec<Lease> = (0..HOT_BUFFERS).filter_map(|_| buffers.take_run(0, account)).collect();
    for _ in 0..3 {
        drop(buffers.take_run(0, account));
        (1..LOOKS_UNUSED).for_each(|_| buffers.look());
        assert!(buffers.wants_looks());
    }
    buffers.look();
    assert!(!buffers.wants_looks());
    drop(hot);
}

#[test]
fn a_budget_that_is_used_up_again_and_again_is_a_hot_set() {
    let buffers = direct();
    let account = buffers.open_account(4 * HOT_BUFFERS * BUFFER_BYTES);
    let mut leases = Vec::new();
    // Bursts that fill it, each followed by silence.
    for _ in 0..LOOKS_FULL {
        leases.extend(fill(&buffers, account));
        assert_eq!(leases.len(), 4 * HOT_BUFFERS, "what takes bursts takes another one");
        leases.clear();
        (0..2).for_each(|_| buffers.look());
    }
    // One behind the other.
    for _ in 0..LOOKS_FULL {
        leases.clear();
        leases.extend(fill(&buffers, account));
        assert_eq!(leases.len(), 4 * HOT_BUFFERS);
        buffers.look();
    }
    leases.truncate(HOT_BUFFERS);
    assert!(buffers.is_full(account), "it lags");
    leases.truncate(HOT_BUFFERS - HOT_BUFFERS / 4);
    assert!(!buffers.is_full(account));
    leases.extend(fill(&buffers, account));
    assert_eq!(leases.len(), HOT_BUFFERS);
    leases.clear();
    (0..=LOOKS_FULL).for_each(|_| buffers.look());
    leases.extend(fill(&buffers, account));
    assert_eq!(leases.len(), 4 * HOT_BUFFERS, "it lags no more");
}

#[test]
fn a_closed_account_waits_for_its_leases() {
    let buffers = direct();
    let account = buffers.open_account(1);
    let lease = buffers.take_run(0, account).unwrap();
    buffers.close_account(account);
    assert_eq!(buffers.inner.borrow().accounts.len(), 1);
    drop(lease);
    assert_eq!(buffers.inner.borrow().accounts.len(), 0);
}
