//! How many datagrams a second the engine takes without loss, found by bisection, and whether it keeps that up.
//!
//! The sender lets the kernel cut datagrams (UDP_SEGMENT) and the receiver takes them one by one: so the sender is not
//! what limits the rate. It paces itself by the clock, a call at a time, and does not catch up when it was kept from its
//! CPU: that would be a burst at another rate. A rate is believed after several trials in a row without loss.

use std::time::{Duration, Instant};

use engine::io::datagram::{DatagramOptions, DatagramSocket};
use engine::io::listen::Address;

use crate::clock::{Meter, SENDER_CPU, Took, on_cpu};
use crate::message::Messages;
use crate::receiver::{Receiver, free_port, sink, syslog_source};
use crate::sender::{How, Sender, To};

/// Datagrams that are sent at once.
const BURST: usize = 64;
/// The receive buffer that the source asks for where nothing is configured, MiB.
pub const RECEIVE_BUFFER_MIB: u64 = 8;
/// The lowest rate that is tried, and how close the bisection comes, datagrams a second.
const RATE_MIN: f64 = 20_000.0;
const CLOSE: f64 = 0.02;
/// Trials in a row that must lose nothing.
const TRIALS: usize = 3;
/// How far the sender may be behind and still catch up.
const BEHIND: Duration = Duration::from_micros(500);
/// A rate that no sender here reaches.
const UNPACED: f64 = 1e9;

struct Trial {
    rate: f64,
    sent: u64,
    lost: u64,
    took: Took,
}

impl Trial {
    fn print(&self, what: &str) {
        let ns = self.took.cpu_ns as f64 / (self.sent - self.lost).max(1) as f64;
        println!(
            "{what:<14} {:>9.0} datagrams/s: {:>9} sent, {:>7} lost, {ns:>6.0} ns each; the receiver waited {:>5.1} ms \
             for its CPU, stolen {:.1} %",
            self.rate,
            self.sent,
            self.lost,
            self.took.waited.as_secs_f64() * 1e3,
            self.took.stolen
        );
    }
}

/// Bisects with trials of `short`, then holds four fifths of the highest rate for `long`; whether nothing was lost then.
/// `buffer_mib` is the source's receive buffer.
pub fn measure(short: Duration, long: Duration, buffer_mib: u64) -> bool {
    println!("socket buffer: {} bytes asked for, {} granted", buffer_mib << 20, granted(buffer_mib));
    let trial = |rate, time| trial(rate, time, buffer_mib);
    let most = trial(UNPACED, short);
    most.print("as fast as can");
    let holds = |rate| holds(|| trial(rate, short));
    let best = if most.lost == 0 && holds(most.rate) {
        println!("highest lossless rate: {:.0} datagrams/s (the sender's own limit)", most.rate);
        most.rate
    } else {
        let best = bisect(RATE_MIN, most.rate, holds);
        println!("highest lossless rate: {best:.0} datagrams/s");
        best
    };
    let steady = trial(best * 0.8, long);
    steady.print("80 % of it");
    steady.lost == 0
}

fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    while high - low > CLOSE * high {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Whether nothing is lost at a rate, however often it is tried.
fn holds(trial: impl Fn() -> Trial) -> bool {
    (0..TRIALS).all(|_| {
        let trial = trial();
        trial.print("trial");
        trial.lost == 0
    })
}

fn trial(rate: f64, time: Duration, buffer_mib: u64) -> Trial {
    let at = free_port(true);
    let buffer = format!(", so_rcvbuf = \"{buffer_mib}MiB\"");
    let receiver =
        Receiver::start(&(syslog_source("s", at, "udp", &buffer) + &sink("b", "blackhole_sink", "*", "")));
    let how = How::new(1, BURST);
    let mut sender = Sender::new(Messages::new(b'.', false), &To::Udp(at), how);
    let meter = Meter::start(std::process::id());
    let ((sent, reached), sender_ns) = on_cpu(SENDER_CPU, || pace(&mut sender, rate, time));
    let lost = receiver.watch.account_for(sent, true);
    let took = meter.stop(sender_ns);
    receiver.end();
    Trial { rate: reached, sent, lost, took }
}

/// Sends for a time at a rate; how many were sent, and the rate that was reached.
fn pace(sender: &mut Sender, rate: f64, time: Duration) -> (u64, f64) {
    let (start, each) = (Instant::now(), Duration::from_secs_f64(BURST as f64 / rate));
    let (mut sent, mut due) = (0, start);
    while start.elapsed() < time {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        sent = sender.send(BURST as u64);
        due = (due + each).max(Instant::now() - BEHIND);
    }
    (sent, sent as f64 / start.elapsed().as_secs_f64())
}

/// What the kernel grants a socket of the source's.
fn granted(buffer_mib: u64) -> u64 {
    let address = Address::Inet("127.0.0.1:0".parse().expect("an address"));
    let options = DatagramOptions { address, so_rcvbuf: Some(buffer_mib << 20), gro: false };
    let sockets = DatagramSocket::bind(&options, 1).expect("a free port");
    sockets[0].receive_buffer().granted_bytes
}
