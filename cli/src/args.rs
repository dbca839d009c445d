//! The grammar of the command line, as typed.
//!
//! Owns every flag, its one line of help and the examples. Nothing is offered here that does not work.
//! It refuses to resolve anything: paths are as typed, files are not looked at, the environment is not read.

mod bench;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use log::LevelFilter;

pub use bench::{
    Bench, Capacity, CaseChoice, Messages, Network, Older, Recv, Run, Send, SinkChoice, Trust, Verify,
};

const EXAMPLES: &str = "\
Examples:
  wpgen init my-logs                  make a folder with a commented configuration
  wpgen source validate               check ./wpsrc.toml, all findings at once
  wpgen source start                  run ./wpsrc.toml until it is done, or until Ctrl-C
  wpgen source start /etc/wpgen/wpsrc.toml --no-daemon

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
    pub work_in: Option<PathBuf>,
    /// Colours: auto (the default; on a terminal without NO_COLOR), always or never
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    pub color: ColorChoice,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How much to log: off, error, warn, info, debug or trace; RUST_LOG wins over it
    #[arg(long, value_name = "LEVEL", global = true, hide_possible_values = true, value_parser = level())]
    pub log_level: Option<LevelFilter>,
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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check, try and run the sources of a configuration
    #[command(subcommand, arg_required_else_help = true)]
    Source(Source),
    /// Look at connectors: the templates that sources and sinks are made from
    #[command(subcommand, arg_required_else_help = true)]
    Connectors(Connectors),
    /// Examine this machine, the configuration and the running engine: what is well, what is not, what mends it
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor {
        /// The configuration; without it ./wpsrc.toml if there is one, else the machine alone
        #[arg(value_name = "wpsrc.toml", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Explain a code such as WP101, or find the code for the words of a message
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// The code, or words of the message; without any, all codes are listed
        #[arg(value_name = "CODE")]
        words: Vec<String>,
        /// All of them as the reference page in docs/
        #[arg(long, conflicts_with = "words")]
        markdown: bool,
    },
    /// Print a JSON schema, for editors and programs
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema {
        /// Of what: config (wpsrc.toml, with the connectors of this folder), connectors, or findings
        #[arg(
            value_name = "WHAT",
            default_value = "config",
            hide_default_value = true,
            hide_possible_values = true
        )]
        of: SchemaOf,
    },
    /// Load tests: send, receive and check numbered messages, of wpgen or of any other program
    #[command(subcommand, arg_required_else_help = true)]
    Bench(Bench),
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

/// What a schema is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// wpsrc.toml
    Config,
    /// A file of connectors
    Connectors,
    /// What `source validate --json` prints
    Findings,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct Config {
    /// The configuration
    #[arg(value_name = "wpsrc.toml", default_value = "wpsrc.toml", hide_default_value = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Commands on the sources of a configuration. All read ./wpsrc.toml unless another file is named.
#[derive(Debug, Subcommand)]
pub enum Source {
    /// Check the configuration without touching anything: all findings at once
    #[command(
        after_help = "Examples:\n  wpgen source validate\n  wpgen source validate /etc/wpgen/wpsrc.toml --json"
    )]
    Validate {
        #[command(flatten)]
        config: Config,
        /// Also print what will run: each source and sink, its connector, and where its records go
        #[arg(short, long)]
        verbose: bool,
        /// Findings as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Really open, bind and read a first record, and show each step
    #[command(after_help = "Examples:\n  wpgen source test\n  wpgen source test --source-id nginx")]
    Test {
        #[command(flatten)]
        config: Config,
        /// Only this source
        #[arg(long, value_name = "KEY")]
        source_id: Option<String>,
    },
    /// Run: read the sources and write to the sinks until done, or until Ctrl-C
    #[command(after_help = START_EXAMPLES)]
    Start {
        #[command(flatten)]
        config: Config,
        /// Stay in the foreground and show the log's lines on the console as well
        #[arg(long, conflicts_with = "daemon")]
        no_daemon: bool,
        /// Go to the background once everything is open
        #[arg(long)]
        daemon: bool,
        /// Write the process id to this file, and remove it at the end
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        pid_file: Option<PathBuf>,
    },
    /// Show the sources and sinks of the running engine
    #[command(after_help = "Example:\n  wpgen source list")]
    List {
        #[command(flatten)]
        config: Config,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show how the running engine is: process, time, totals
    #[command(after_help = "Example:\n  wpgen source status")]
    Status {
        #[command(flatten)]
        config: Config,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Have the running engine read its configuration anew; what is the same goes on untouched
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload {
        #[command(flatten)]
        config: Config,
    },
    /// Stop the running engine: everything taken in is delivered first
    #[command(after_help = "Example:\n  wpgen source stop")]
    Stop {
        #[command(flatten)]
        config: Config,
    },
    /// Older spellings of the bench's commands.
    #[command(flatten)]
    Older(Older),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  wpgen explain WP101
  wpgen explain \"Address already in use\"
  WPGEN_LANG=zh wpgen explain WP301     in Chinese; without WPGEN_LANG the locale says which language";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  wpgen doctor
  wpgen doctor /etc/wpgen/wpsrc.toml --json

It needs no root and changes nothing. Exit codes: 0 all is well, 1 warnings, 2 failures.";

const TEST_EXAMPLES: &str = "\
Examples:
  wpgen connectors test --id file_src                     as the sources of ./wpsrc.toml use it
  wpgen connectors test --id file_src --params path=/var/log/syslog mode=once";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  wpgen schema > wpsrc.schema.json      then, as the first line of wpsrc.toml: #:schema ./wpsrc.schema.json
  wpgen schema connectors               of a file in connectors/source.d or connectors/sink.d
  wpgen schema findings                 of what `wpgen source validate --json` prints";

const START_EXAMPLES: &str = "\
Examples:
  wpgen source start                        ./wpsrc.toml, with progress and a summary
  wpgen source start --no-daemon            the log on the console as well, for containers
  RUST_LOG=debug wpgen source start         say more in the log
  wpgen source start --daemon --pid-file /run/wpgen.pid

SIGTERM or Ctrl-C once: stop taking, deliver what was taken, exit. Twice: exit now.
SIGHUP: reopen outputs that were moved away, and read the configuration anew, as `wpgen source reload` does.";

const RELOAD_EXAMPLES: &str = "\
Examples:
  wpgen source reload
  wpgen source reload /etc/wpgen/wpsrc.toml

Sources and sinks that did not change keep their sockets, connections, files and positions. A configuration that
does not load changes nothing; the exit code is 1 then, and the findings are shown.";

/// Commands on connectors. They look in connectors/source.d and connectors/sink.d of this folder and the ones above it.
#[derive(Debug, Subcommand)]
pub enum Connectors {
    /// Check all connector files
    #[command(after_help = "Example:\n  wpgen connectors validate")]
    Validate,
    /// List all connectors, the built-in ones included, and where each comes from
    #[command(after_help = "Example:\n  wpgen connectors list")]
    List,
    /// Show one connector: its parameters, their defaults, and what may be overridden
    #[command(after_help = "Example:\n  wpgen connectors show file_src")]
    Show {
        /// The connector's id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try a connector: really open, bind and read a first record
    #[command(after_help = TEST_EXAMPLES)]
    Test {
        /// The connector's id
        #[arg(long, value_name = "ID")]
        id: String,
        /// Parameters to override; without any, those of the sources and sinks in ./wpsrc.toml that use it
        #[arg(long, visible_alias = "param", value_name = "KEY=VALUE", num_args = 1.., value_parser = key_value)]
        params: Vec<(String, String)>,
    },
    /// Show what a connector becomes with these parameters, without opening anything
    #[command(after_help = "Example:\n  wpgen connectors parse --id file_src --param path=/var/log/syslog")]
    Parse {
        /// The connector's id
        #[arg(long, value_name = "ID")]
        id: String,
        /// Parameters to override
        #[arg(long = "param", visible_alias = "params", value_name = "KEY=VALUE", num_args = 1.., value_parser = key_value)]
        params: Vec<(String, String)>,
    },
    /// Write a commented connector file for a template
    #[command(after_help = "Example:\n  wpgen connectors create --template file_src --name nginx_src")]
    Create {
        /// The connector to start from, as `wpgen connectors list` shows them
        #[arg(long, value_name = "ID")]
        template: String,
        /// The new connector's id
        #[arg(long, value_name = "ID")]
        name: String,
    },
}

fn level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|word| word.parse::<LevelFilter>())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, for example path=/var/log/syslog".to_owned()),
    }
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

    #[test]
    fn parameters_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err() && key_value("=a").is_err());
    }
}
