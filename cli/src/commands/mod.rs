//! The commands, one file each, and the exit codes they end with.

mod init;
mod shell;

use std::sync::Arc;

use crate::args::{Cli, Command};
use crate::printer::Printer;

/// Done.
pub const DONE: u8 = 0;
/// Findings, or a failure at run time.
pub const FAILED: u8 = 1;
/// A mistake on the command line.
pub const USAGE: u8 = 2;

/// Runs one command and gives the process's exit code.
pub fn run(cli: Cli, printer: &Arc<Printer>) -> u8 {
    match cli.command {
        Command::Init { into } => init::run(&into, printer),
        Command::Completions { shell } => shell::completions(shell, printer),
        Command::Man => shell::man(printer),
    }
}
