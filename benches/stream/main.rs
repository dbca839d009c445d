//! Streams and datagrams, measured: RFC 5424 messages of 250 bytes, their headers parsed, on one core; the sender has
//! another.
//!
//! `cargo bench -p wpgen-engine --bench stream` prints the receiver's CPU time a message, beside receivers that only
//! copy, in the same run. Words behind `--` choose: a part of a row's name (`-- udp`), or one of
//!
//! - `into-file` what a file costs more than counting
//! - `latency` how long a message waits that is followed by silence
//! - `neighbour` what a source whose sink stalls costs another one
//! - `udp-capacity` the highest rate without loss, and 30 seconds of 80 % of it; a number of MiB behind it is the source's
//!   `so_rcvbuf`
//! - `against-rsyslog` the same work by rsyslog, in alternation
//!
//! Every run checks that all messages arrived, or were counted as lost (UDP). Without `--bench` (under `cargo test`)
//! everything but the two last runs once in miniature, for the checks alone.

mod against_rsyslog;
mod capacity;
mod clock;
mod floor;
mod latency;
mod message;
mod neighbour;
mod receiver;
mod rows;
mod sender;
mod table;

use std::time::Duration;

/// As the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each row.
const RUNS: usize = 5;
/// Pairs of runs, beside a stalled source and beside an idle one.
const NEIGHBOUR_PAIRS: usize = 61;

fn main() {
    let full = std::env::args().any(|a| a == "--bench");
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if !full {
        rows::measure(|_| true, 1, 100);
        neighbour::measure(1, 100_000);
        return latency::measure(5);
    }
    let words = words.join(" ");
    if let Some(mib) = words.strip_prefix("udp-capacity") {
        let mib = match mib.trim() {
            "" => capacity::RECEIVE_BUFFER_MIB,
            mib => mib.parse().expect("a number of MiB"),
        };
        let lossless = capacity::measure(Duration::from_secs(2), Duration::from_secs(30), mib);
        return println!("{}", if lossless { "no loss" } else { "LOSS" });
    }
    match words.as_str() {
        "latency" => latency::measure(300),
        "neighbour" => {
            let pairs = neighbour::measure(NEIGHBOUR_PAIRS, 1_000_000);
            pairs.table.print();
            neighbour::print_difference(&pairs);
        }
        "against-rsyslog" => match against_rsyslog::measure(RUNS, 1) {
            Some(table) => {
                table.print();
                against_rsyslog::print_ratios(&table);
            }
            None => println!("there is no rsyslogd here"),
        },
        wanted => {
            let chosen = |name: &str| match wanted {
                "into-file" => rows::INTO_FILE.contains(&name),
                part => name.contains(part),
            };
            let table = rows::measure(chosen, RUNS, 1);
            table.print();
            rows::print_differences(&table);
        }
    }
}
