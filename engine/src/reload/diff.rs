//! What differs between the configuration that runs and the one that was read: pure.
//!
//! A source or sink is the same when its own resolved settings are; what feeds what is compared pair by pair, so that a
//! source which is kept never notices that a sink came or went.

use std::fmt;
use std::sync::Arc;

use crate::assemble::{takes, unordered};
use crate::config::{Config, SinkConfig, SourceConfig, share_address};
use crate::diagnosis::Diagnostic;
use crate::sink::SinkParams;
use crate::sink::route::Where;
use crate::source::SourceParams;
use crate::source::file::params::Mode;

/// Keys of sources or of sinks, by what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// As they were, with their sockets, files, connections and positions.
    pub kept: Vec<Arc<str>>,
    /// New ones.
    pub added: Vec<Arc<str>>,
    /// Configured no more.
    pub removed: Vec<Arc<str>>,
    /// Drained and made anew.
    pub changed: Vec<Arc<str>>,
}

impl Lists {
    /// One could not be made as it is configured: it runs as it did, or not at all.
    pub(super) fn fall_back(&mut self, key: &Arc<str>, runs: bool) {
        for list in [&mut self.kept, &mut self.added, &mut self.removed, &mut self.changed] {
            list.retain(|other| other != key);
        }
        if runs { &mut self.kept } else { &mut self.removed }.push(Arc::clone(key));
    }

    /// What runs of `next` now; what was to be changed and was kept runs as it did.
    pub(super) fn what_runs<T: Clone>(
        &self,
        before: &[T],
        next: &[&T],
        key: fn(&T) -> &Arc<str>,
        same: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        let runs = next.iter().filter(|new| !self.removed.contains(key(new)));
        let as_it_is = |new: &&&T| {
            let old = before.iter().find(|old| key(old) == key(new) && self.kept.contains(key(new)));
            old.filter(|old| !same(old, new)).map_or_else(|| (**new).clone(), T::clone)
        };
        runs.map(|new| as_it_is(&new)).collect()
    }

    fn of<T>(now: &[&T], next: &[&T], key: fn(&T) -> &Arc<str>, same: impl Fn(&T, &T) -> bool) -> Self {
        let mut lists = Self::default();
        for new in next {
            let list = match now.iter().find(|old| key(old) == key(new)) {
                None => &mut lists.added,
                Some(old) if same(old, new) => &mut lists.kept,
                Some(_) => &mut lists.changed,
            };
            list.push(Arc::clone(key(new)));
        }
        let gone = now.iter().filter(|old| !next.iter().any(|new| key(new) == key(old)));
        lists.removed = gone.map(|old| Arc::clone(key(old))).collect();
        lists
    }
}

/// What becomes of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The sources.
    pub sources: Lists,
    /// The sinks; one that only takes other records than before is kept.
    pub sinks: Lists,
}

impl fmt::Display for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [&self.kept, &self.added, &self.removed, &self.changed];
        for (i, (list, fate)) in lists.iter().zip(["kept", "added", "removed", "changed"]).enumerate() {
            write!(f, "{}{} {fate}", if i == 0 { "" } else { ", " }, list.len())?;
            if fate != "kept" && !list.is_empty() {
                write!(f, " ({})", list.join(", "))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sources: {}; sinks: {}", self.sources, self.sinks)
    }
}

/// Compares what is enabled.
pub(super) fn changes(now: &Config, next: &Config) -> Changes {
    let same_source = |old: &SourceConfig, new: &SourceConfig| {
        // Only a source that reads ranges in parallel knows whether its sinks want order.
        let is_once = matches!(&new.params, SourceParams::File(file) if file.mode == Mode::Once);
        old == new && (!is_once || unordered(now, &old.key) == unordered(next, &new.key))
    };
    let (old, new) = (sources(now), sources(next));
    let (old_sinks, new_sinks) = (sinks(now), sinks(next));
    Changes {
        sources: Lists::of(&old, &new, |source| &source.key, same_source),
        sinks: Lists::of(&old_sinks, &new_sinks, |sink| &sink.key, SinkConfig::is_same_output),
    }
}

/// The sources that are enabled.
pub(super) fn sources(config: &Config) -> Vec<&SourceConfig> {
    config.sources.iter().filter(|source| source.enable).collect()
}

/// The sinks that are enabled.
pub(super) fn sinks(config: &Config) -> Vec<&SinkConfig> {
    config.sinks.iter().filter(|sink| sink.enable).collect()
}

/// The enabled source with a key.
pub(super) fn source<'a>(config: &'a Config, key: &str) -> Option<&'a SourceConfig> {
    config.sources.iter().find(|source| source.enable && *source.key == *key)
}

/// The enabled sink with a key.
pub(super) fn sink<'a>(config: &'a Config, key: &str) -> Option<&'a SinkConfig> {
    config.sinks.iter().find(|sink| sink.enable && *sink.key == *key)
}

/// What a sink takes of a source and in what batches, if it takes anything.
pub(super) fn route(config: &Config, source: &str, sink: &str) -> Option<Where> {
    self::sink(config, sink).filter(|sink| sink.sources.takes(source)).map(takes)
}

/// Whether a new source needs what an old one holds: its port, or its files' positions.
pub(super) fn is_source_held(new: &SourceConfig, old: &SourceConfig) -> bool {
    let files = matches!((&new.params, &old.params), (SourceParams::File(_), SourceParams::File(_)));
    (files && new.key == old.key) || share_address(new, old)
}

/// Whether a new sink needs what an old one holds: its files, its transactional.id, or what it rescues, which lies under its
/// key.
pub(super) fn is_sink_held(new: &SinkConfig, old: &SinkConfig) -> bool {
    if new.key == old.key && old.common.rescue {
        return true;
    }
    match (&new.params, &old.params) {
        (SinkParams::File(new), SinkParams::File(old)) => {
            let template = |file: &crate::sink::file::params::FileParams| {
                file.path.as_ref().map(|path| path.template.clone())
            };
            template(new) == template(old)
        }
        // The newer one would fence the older one.
        (SinkParams::Kafka(kafka), SinkParams::Kafka(other)) => {
            let is_one = new.key == old.key || kafka.transactional_id == other.transactional_id;
            kafka.transactional && other.transactional && is_one
        }
        _ => false,
    }
}

/// Whether the new sink with a key has what the old one does not deliver: both are connections to a peer that is the same
/// by its key, wherever it is now.
pub(super) fn is_heir(now: &Config, next: &Config, key: &str) -> bool {
    is_connection(now, key) && is_connection(next, key)
}

/// Whether the enabled sink with a key is a connection to a peer.
pub(super) fn is_connection(config: &Config, key: &str) -> bool {
    let params = sink(config, key).map(|sink| &sink.params);
    matches!(params, Some(SinkParams::Tcp(_) | SinkParams::Syslog(_)))
}

/// Settings that only a start can change.
pub(super) fn needs_restart(now: &Config, next: &Config) -> Vec<Diagnostic> {
    let (a, b) = (&now.engine, &next.engine);
    let fields = [
        ("[engine] workers", a.workers != b.workers),
        ("[engine] memory_limit", a.memory_limit != b.memory_limit),
        ("[engine] data_dir", a.data_dir != b.data_dir),
        ("[engine] checkpoint_interval", a.checkpoint_interval != b.checkpoint_interval),
        ("[engine] io", a.io != b.io),
        ("[log]", now.log != next.log),
        ("[admin]", now.admin != next.admin),
    ];
    let changed = fields.iter().filter(|(_, differs)| *differs);
    let finding = |name: &str| {
        Diagnostic::plain(format!("{name} has changed, which takes a restart: nothing was changed now"))
            .help("put the old value back and reload, or restart the engine")
    };
    changed.map(|(name, _)| finding(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};

    fn config(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wpsrc.toml");
        // The folder's name must not matter.
        std::fs::write(&path, text.replace("@", "/tmp/wpgen-reload")).unwrap();
        let environment = Environment { var: &|_| None, cpus: 2 };
        load(&path, &environment).unwrap_or_else(|findings| panic!("{findings}")).config
    }

    const HEAD: &str = "[engine]\ndata_dir = \"@/data\"\n[log]\ndir = \"@/logs\"\n";

    fn source(key: &str, port: u16) -> String {
        format!("[[sources]]\nkey = \"{key}\"\nconnect = \"tcp_src\"\nparams = {{ port = {port} }}\n")
    }

    fn sink(key: &str, path: &str, more: &str) -> String {
        format!(
            "[[sinks]]\nkey = \"{key}\"\nconnect = \"file_sink\"\nparams = {{ path = \"@/{path}\" }}\n{more}\n"
        )
    }

    fn keys(list: &[Arc<str>]) -> Vec<&str> {
        list.iter().map(|key| &**key).collect()
    }

    #[test]
    fn what_is_the_same_is_kept_wherever_it_is_written() {
        let now = config(&[HEAD, &source("a", 1), &source("b", 2), &sink("x", "x", "")].concat());
        let next = config(
            &[HEAD, "\n\n", &source("b", 3), &source("a", 1), &source("c", 2), &sink("y", "x", "")].concat(),
        );
        let changes = changes(&now, &next);
        let of = |l: &Lists| {
            [keys(&l.kept), keys(&l.added), keys(&l.removed), keys(&l.changed)].map(|k| k.join(" "))
        };
        assert_eq!(of(&changes.sources), ["a", "c", "", "b"]);
        assert_eq!(of(&changes.sinks), ["", "y", "x", ""]);
        assert!(
            is_source_held(super::source(&next, "c").unwrap(), super::source(&now, "b").unwrap()),
            "its port"
        );
        let (new, old) = (super::sink(&next, "y").unwrap(), super::sink(&now, "x").unwrap());
        assert!(is_sink_held(new, old), "its file");
    }

    #[test]
    fn a_sink_that_takes_other_records_is_kept() {
        let now = config(&[HEAD, &source("a", 1), &sink("x", "x", "")].concat());
        let next = config(&[HEAD, &source("a", 1), &sink("x", "x", "where = { severity = 3 }")].concat());
        assert_eq!(keys(&changes(&now, &next).sinks.kept), ["x"]);
        assert_ne!(route(&now, "a", "x"), route(&next, "a", "x"));
        let next = config(&[HEAD, &source("a", 1), &sink("x", "x", "batch_bytes = 4096")].concat());
        assert_eq!(route(&next, "a", "x").map(|route| route.batches.bytes), Some(4096));
        let next = config(&[HEAD, &source("a", 1), &sink("x", "x", "rescue = true")].concat());
        assert_eq!(keys(&changes(&now, &next).sinks.changed), ["x"]);
    }

    #[test]
    fn what_takes_a_restart_is_named() {
        let now = config(&[HEAD, &source("a", 1)].concat());
        let head = HEAD.replace("[log]", "workers = 7\ndrain_timeout = \"1s\"\n[log]\nlevel = \"warn\"");
        let found = needs_restart(&now, &config(&(head + &source("a", 1))));
        let words: Vec<&str> = found.iter().map(|f| f.message.split(" has").next().unwrap()).collect();
        assert_eq!(words, ["[engine] workers", "[log]"]);
        assert!(needs_restart(&now, &now).is_empty());
    }
}
