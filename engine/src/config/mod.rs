//! What the user wrote: wpsrc.toml, its includes and the connectors, read into typed values.
//!
//! [`load`] finds every mistake at once, each with its file, line, column and the line itself, and returns a
//! configuration only when there is none. Relative paths are made absolute by the folder of the file that names them, so
//! nothing behind this module needs to know where a value came from.
//!
//! It reads configuration files and the secrets they name, and nothing else: no environment (variables are looked up
//! through [`Environment`]), no socket, none of the files that sources read. Of `data_dir` it looks at what is in its way.

mod builtin;
mod check;
pub mod connectors;
mod entries;
mod files;
mod include;
pub mod kafka;
pub mod kinds;
mod loops;
mod memory;
pub mod params;
mod removed;
mod resolve;
mod route;
pub mod schema;
mod syntax;
pub mod tags;
pub mod tls;
pub mod top;
mod transactions;
pub mod tree;
pub mod types;
mod unclosed;
pub mod units;
mod variables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use check::share_address;
pub use connectors::{Connector, Connectors, Side};
pub use files::FILE_BYTES_MAX;
pub use resolve::{Resolved, resolve};
pub use route::Selection;
pub use tags::{Actions, Tag};
pub use top::{AdminConfig, AdminListen, EngineConfig, IoMode, LogConfig, LogLevel};
pub use variables::Lookup;

use crate::diagnosis::{Diagnostics, Findings, Place};
use crate::sink::SinkParams;
use crate::sink::common::CommonParams;
use crate::sink::route::Where;
use crate::source::SourceParams;

/// What a configuration may ask of the world it is loaded in.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Looks up a variable.
    pub var: Lookup<'a>,
    /// CPUs that are available: what `workers = 0` means.
    pub cpus: usize,
}

/// A configuration without mistakes, and what is probably not as meant.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The warnings.
    pub warnings: Diagnostics,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Its folder, absolute.
    pub folder: PathBuf,
    /// `[engine]`
    pub engine: EngineConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// Whether `admin.listen` was written: then a port that is taken is an error, else a warning.
    pub admin_listen_given: bool,
    /// `[[sources]]`, in the order they are written; those with `enable = false` too.
    pub sources: Vec<SourceConfig>,
    /// `[[sinks]]`, in the order they are written; the built-in one where there are none.
    pub sinks: Vec<SinkConfig>,
}

impl Config {
    /// Shards that will run.
    pub fn shards(&self, cpus: usize) -> usize {
        match self.engine.workers {
            0 => cpus.max(1),
            count => usize::from(count),
        }
    }
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name; unique.
    pub key: Arc<str>,
    /// The connector it is made from.
    pub connect: String,
    /// Whether it runs.
    pub enable: bool,
    /// What is attached to its records.
    pub tags: Vec<Tag>,
    /// What its tags make the engine do.
    pub actions: Actions,
    /// The parameters of its kind.
    pub params: SourceParams,
    /// Where it is configured.
    pub place: Place,
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Its name; unique.
    pub key: Arc<str>,
    /// The connector it is made from.
    pub connect: String,
    /// Whether it runs.
    pub enable: bool,
    /// The sources it takes records of.
    pub sources: Selection,
    /// The records it takes of them.
    pub condition: Where,
    /// What every sink may be told.
    pub common: CommonParams,
    /// The parameters of its kind.
    pub params: SinkParams,
    /// Where it is configured.
    pub place: Place,
}

impl PartialEq for SourceConfig {
    /// Whether a reload can keep the source as it runs: where it is written does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.enable == other.enable
            && self.tags == other.tags
            && self.params == other.params
    }
}

impl PartialEq for SinkConfig {
    /// Whether it does the same: where it is written does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.is_same_output(other) && self.sources == other.sources && self.condition == other.condition
    }
}

impl SinkConfig {
    /// Whether a reload can keep the sink as it runs: neither where it is written nor what it takes matters.
    pub fn is_same_output(&self, other: &Self) -> bool {
        self.key == other.key
            && self.enable == other.enable
            && self.common == other.common
            && self.params == other.params
    }
}

/// Loads wpsrc.toml with everything it names. An error holds all findings, the warnings too.
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Loaded, Diagnostics> {
    let mut findings = Findings::new();
    let config = entries::load(path, environment, &mut findings);
    let errors = findings.errors();
    let found = findings.finish();
    match config {
        Some(config) if errors == 0 => Ok(Loaded { config, warnings: found }),
        _ => Err(found),
    }
}

/// Looks up the connectors that a wpsrc.toml in `folder` would see.
pub fn load_connectors(folder: &Path, environment: &Environment<'_>) -> (Connectors, Diagnostics) {
    let mut findings = Findings::new();
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let connectors = Connectors::load(&folder, environment.var, &mut findings);
    (connectors, findings.finish())
}

#[cfg(test)]
mod tests;
