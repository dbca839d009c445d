//! The models. Each runs whole in every order of its threads' steps; one in which a thread would wait for ever fails.

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::hoard::Hoard;
use crate::queue::Mailbox;
use crate::stop::Stop;

/// Runs a model with at most so many preemptions: two find nearly every error that there is, in seconds.
fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(body);
}

#[test]
fn every_letter_arrives_once_in_its_senders_order_and_the_owner_never_sleeps_over_one() {
    model(2, || {
        let mailbox = Arc::new(Mailbox::new(4));
        let senders: Vec<_> = (0..2)
            .map(|who| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    (0..2).for_each(|n| mailbox.put((who, n)).expect("credit bounds the mail"))
                })
            })
            .collect();
        let mut next = [0; 2];
        for _ in 0..4 {
            let (who, n): (usize, usize) = block_on(mailbox.take());
            assert_eq!(n, next[who]);
            next[who] += 1;
        }
        assert_eq!((next, mailbox.try_take()), ([2, 2], None));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_letter_that_finds_no_room_comes_back_and_the_others_arrive() {
    model(2, || {
        let mailbox = Arc::new(Mailbox::new(2));
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (0..3).filter(|n| mailbox.put(*n).is_ok()).collect::<Vec<usize>>())
        };
        let first = block_on(mailbox.take());
        let accepted = sender.join().unwrap();
        let rest = std::iter::from_fn(|| mailbox.try_take());
        let taken: Vec<usize> = [first].into_iter().chain(rest).collect();
        assert!(accepted.len() >= 2 && taken == accepted, "{taken:?} {accepted:?}");
    });
}

#[test]
fn whoever_waits_for_a_stop_sees_it() {
    model(3, || {
        let stop = Stop::default();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let stop = stop.clone();
                thread::spawn(move || block_on(stop.raised()))
            })
            .collect();
        stop.raise();
        assert!(stop.is_raised());
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn nothing_is_kept_unseen_while_somebody_waits() {
    model(3, || {
        let hoard = Arc::new(Hoard::default());
        let keeping = {
            let hoard = Arc::clone(&hoard);
            thread::spawn(move || hoard.keep())
        };
        let seen = hoard.want();
        let kept = keeping.join().unwrap();
        assert!(seen || !kept, "a batch lies unused, and who waits for one does not know");
        hoard.done();
    });
}
