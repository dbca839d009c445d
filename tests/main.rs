//! End-to-end tests: the real binary, real files, real kill -9.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bench;
mod bench_against;
mod bench_tls;
mod bytes;
mod cli;
mod crash;
mod diagnosis;
mod disk;
mod disk_errors;
mod diskfull;
mod ending;
mod fallback;
mod faulty;
mod harness;
mod hostile;
mod idle;
mod loss;
mod map;
mod memory;
mod metrics;
mod neighbours;
mod net;
mod outputs;
mod refusals;
mod relay;
mod reload;
mod rescue;
mod rotation;
mod senders;
mod service;
mod start;
mod streams;
mod tls;
