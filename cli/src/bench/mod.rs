//! Load testing for anyone: sends numbered messages at a rate, and tells what became of them.
//!
//! ```text
//!  rate, texts, message, marker ──> sender ──> any program ──> receiver, verify ──> scan, account, latency
//!       (pure)                      (io_uring)                                          (pure)
//!                                        └──> watch, timeline ──> report, plot <──┘
//! ```
//!
//! Each message carries its run, connection, number and the time at which it was due ([`marker`]), in a form that passes
//! through parsers and templates. So whoever has the messages in the end ([`receiver`], or a file) knows which are missing,
//! there twice, out of order or changed ([`account`]), and how long they took ([`latency`]).

pub mod account;
mod capacity;
pub mod clock;
pub mod latency;
pub mod marker;
pub mod message;
pub mod plot;
pub mod rate;
pub mod receiver;
mod recv;
pub mod report;
mod run;
pub mod scan;
mod search;
mod send;
pub mod sender;
pub mod target;
pub mod texts;
pub mod timeline;
pub mod trial;
mod verify;
pub mod watch;

use crate::args::Bench;
use crate::printer::Printer;

/// Runs one of the commands and gives the exit code.
pub fn run(command: Bench, printer: &Printer) -> u8 {
    let done = match command {
        Bench::Send(args) => send::run(&args, printer),
        Bench::Recv(args) => recv::run(&args, printer),
        Bench::Verify(args) => verify::run(&args, printer),
        Bench::Run(args) => run::run(&args, printer),
        Bench::Capacity(args) => capacity::run(&args, printer),
    };
    done.unwrap_or_else(|refused| {
        printer.error(&refused.why);
        refused.help.iter().for_each(|help| printer.help(help));
        refused.code
    })
}

/// Why a command did not run, or not to its end.
#[derive(Debug)]
pub struct Refused {
    why: String,
    help: Option<String>,
    code: u8,
}

impl Refused {
    /// What was typed cannot be done.
    pub fn usage(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: Some(help.into()), code: crate::commands::USAGE }
    }

    /// It was tried, and did not work.
    pub fn failed(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: Some(help.into()), code: crate::commands::FAILED }
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, help: None, code: crate::commands::FAILED }
    }
}
