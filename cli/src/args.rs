//! The grammar of the command line, as typed.
//!
//! Owns every flag, its one line of help and the examples. Nothing is offered here that does not work.
//! It refuses to resolve anything: paths are as typed, files are not looked at, the environment is not read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  wpgen init my-logs                  make a folder with a commented configuration

Exit codes:
  0  done                             1  findings, or a failure at run time
  2  a mistake on the command line    3  start refused: the configuration does not load
  130  stopped with Ctrl-C, everything delivered first";

/// Brings logs and device messages into a Linux machine: fast, counted, acknowledged.
#[derive(Debug, Parser)]
#[command(name = "wpgen", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true, subcommand_required = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Work in this folder, as if started there
    #[arg(short = 'C', value_name = "DIR", global = true, value_hint = ValueHint::DirPath)]
    pub folder: Option<PathBuf>,
    /// Colours: auto (the default; on a terminal without NO_COLOR), always or never
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    pub color: ColorChoice,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How much to log: off, error, warn, info, debug or trace; RUST_LOG wins over it
    #[arg(long, value_name = "LEVEL", global = true, hide_possible_values = true)]
    pub log_level: Option<LogLevel>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How much goes to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// What failed
    Error,
    /// And what may need a look
    Warn,
    /// And what was opened, closed and decided
    Info,
    /// And how it went about it
    Debug,
    /// Everything
    Trace,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a folder to start from: a commented wpsrc.toml, connectors/, a sample log, a systemd unit
    #[command(after_help = "Examples:\n  wpgen init my-logs\n  wpgen -C my-logs source start")]
    Init {
        /// The folder; it is made when it is missing, and no file in it is overwritten
        #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
        into: PathBuf,
    },
    /// Print the shell's completion script
    #[command(
        after_help = "Example, for bash:\n  wpgen completions bash > ~/.local/share/bash-completion/completions/wpgen"
    )]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  wpgen man > wpgen.1 && man ./wpgen.1")]
    Man,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_and_command_has_one_line_of_help() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{} of {} has no help", arg.get_id(), command.get_name());
                assert!(help.lines().count() == 1, "{} of {}", arg.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
