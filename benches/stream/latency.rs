//! How long messages wait that nothing follows: what bundling wake-ups may not cost.

use std::time::{Duration, Instant};

use crate::clock::{SENDER_CPU, on_cpu};
use crate::message::Messages;
use crate::receiver::{PATIENCE, Receiver, Watch, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};
use crate::table::print_times;

/// Messages of a burst on each connection: enough to make the receiver bundle.
const BURST: u64 = 50;

/// Prints the times from the last send to the last message's arrival, of `rounds` rounds.
pub fn measure(rounds: usize) {
    for (connections, each, name) in [
        (1, BURST, "the last message of a burst, 1 connection"),
        (64, BURST, "the last message of a burst, 64 connections"),
        (1, 1, "a lone message, 1 connection"),
        (64, 1, "one message on each of 64 connections"),
    ] {
        let at = free_port(false);
        let receiver =
            Receiver::start(&(syslog_source("s", at, "tcp", "") + &sink("b", "blackhole_sink", "*", "")));
        let how = How::new(connections, 1);
        let mut sender = Sender::new(Messages::new(b'\n', false), &To::Tcp(at), how);
        let watch = &receiver.watch;
        let (times, _) = on_cpu(SENDER_CPU, || {
            (0..rounds).map(|i| wait_for(watch, &mut sender, each * connections as u64, i)).collect()
        });
        print_times(name, times);
        drop(sender);
        receiver.end();
    }
}

fn wait_for(watch: &Watch, sender: &mut Sender, messages: u64, round: usize) -> Duration {
    // Apart by no multiple of the engine's ticks.
    std::thread::sleep(Duration::from_micros(5000 + round as u64 * 377 % 7000));
    let sent = sender.send(messages);
    let start = Instant::now();
    while watch.received().0 < sent {
        assert!(start.elapsed() < PATIENCE, "all messages arrive");
        std::hint::spin_loop();
    }
    start.elapsed()
}
