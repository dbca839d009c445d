//! The commands, one file each, and the exit codes they end with.

mod configuration;
mod connectors;
mod create;
mod daemon;
mod doctor;
mod explain;
mod init;
mod running;
mod schema;
mod shell;
mod start;
mod trial;
mod validate;

use std::sync::Arc;

use log::LevelFilter;

use crate::args::{Cli, Command, Connectors, Source};
use crate::bench;
use crate::printer::Printer;

/// Done.
pub const DONE: u8 = 0;
/// Findings, or a failure at run time.
pub const FAILED: u8 = 1;
/// A mistake on the command line.
pub const USAGE: u8 = 2;
/// Start refused: the configuration does not load.
pub const NOT_LOADED: u8 = 3;

/// The configuration where none is named.
pub const USUAL: &str = "wpsrc.toml";

/// Runs one command and gives the process's exit code.
pub fn run(cli: Cli, printer: &Arc<Printer>) -> u8 {
    match cli.command {
        Command::Source(command) => source(command, cli.global.log_level, printer),
        Command::Connectors(command) => connectors(command, printer),
        Command::Doctor { config, json } => doctor::run(config.as_deref(), json, printer),
        Command::Explain { words, markdown } => explain::run(&words, markdown, printer),
        Command::Schema { of } => schema::run(of, printer),
        Command::Bench(command) => bench::run(command, printer),
        Command::Init { into } => init::run(&into, printer),
        Command::Completions { shell } => shell::completions(shell, printer),
        Command::Man => shell::man(printer),
    }
}

fn source(command: Source, log_level: Option<LevelFilter>, printer: &Arc<Printer>) -> u8 {
    match command {
        Source::Validate { config, verbose, json } => validate::run(&config.config, verbose, json, printer),
        Source::Test { config, source_id } => trial::sources(&config.config, source_id.as_deref(), printer),
        Source::Start { config, no_daemon, daemon, pid_file } => start::run(
            &start::Options { config: config.config, no_daemon, daemon, pid_file, log_level },
            printer,
        ),
        Source::List { config, json } => running::list(&config.config, json, printer),
        Source::Status { config, json } => running::status(&config.config, json, printer),
        Source::Reload { config } => running::reload(&config.config, printer),
        Source::Stop { config } => running::stop(&config.config, printer),
        Source::Older(command) => bench::run(command.today(), printer),
    }
}

fn connectors(command: Connectors, printer: &Printer) -> u8 {
    match command {
        Connectors::Validate => connectors::validate(printer),
        Connectors::List => connectors::list(printer),
        Connectors::Show { id } => connectors::show(&id, printer),
        Connectors::Test { id, params } => trial::connector(&id, &params, printer),
        Connectors::Parse { id, params } => connectors::parse(&id, &params, printer),
        Connectors::Create { template, name } => create::run(&template, &name, printer),
    }
}
