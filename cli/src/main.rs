//! The command line: arguments, commands, and the only printer.
//!
//! Owns the process: its exit code, its signals, its environment, its streams. The engine is used through its front door
//! only. A command is a function from its arguments to an exit code; nothing else ends the process.

mod args;
mod bench;
mod commands;
mod control;
mod language;
mod logfile;
mod logging;
mod notify;
mod printer;
mod progress;
mod remarks;
mod signals;
mod table;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, ColorChoice};
use printer::Printer;

// AddressSanitizer sees what the system's allocator gives out, and nothing of this one: `.ci/run asan` leaves it out.
#[cfg(not(system_allocator))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&typed) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let printer = Arc::new(Printer::new(cli.global.color, no_color, cli.global.quiet));
    if let Some(folder) = &cli.global.work_in
        && let Err(e) = std::env::set_current_dir(folder)
    {
        printer.error(&format!("cannot work in {}: {e}", folder.display()));
        return ExitCode::from(commands::USAGE);
    }
    match commands::run(cli, &printer) {
        commands::DONE if printer.has_lost() => ExitCode::from(commands::FAILED),
        code => ExitCode::from(code),
    }
}

fn parse(typed: &[OsString]) -> Result<Cli, clap::Error> {
    let command = Cli::command().color(clap_color(typed));
    command.try_get_matches_from(typed).and_then(|matches| Cli::from_arg_matches(&matches))
}

/// `--color` as typed: clap needs it to complain in colour, before it has parsed anything.
fn clap_color(typed: &[OsString]) -> clap::ColorChoice {
    let mut words = typed.iter().filter_map(|w| w.to_str());
    let mut choice = clap::ColorChoice::Auto;
    while let Some(word) = words.next() {
        let value = if word == "--color" { words.next() } else { word.strip_prefix("--color=") };
        choice = match value.and_then(|v| clap::ValueEnum::from_str(v, false).ok()) {
            Some(ColorChoice::Always) => clap::ColorChoice::Always,
            Some(ColorChoice::Never) => clap::ColorChoice::Never,
            Some(ColorChoice::Auto) | None => choice,
        };
    }
    choice
}

/// Help and version go to standard output and are no mistake; complaints go to standard error.
fn usage(e: &clap::Error) -> ExitCode {
    let printed = e.print();
    if e.use_stderr() {
        return ExitCode::from(commands::USAGE);
    }
    // A reader that has left needs no help text.
    let is_lost = printed.is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe);
    ExitCode::from(if is_lost { commands::FAILED } else { commands::DONE })
}
