//! An engine between Kafka and files, and what it has written.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Site, Started, status, until};
use crate::oracle::number_of;

/// A folder with an engine's configuration.
pub struct Stage {
    pub site: Site,
}

impl Stage {
    /// A source of a topic in a group, into the file `out`; `more` are further lines of the source's parameters.
    pub fn reading(brokers: &str, topic: &str, group: &str, more: &str) -> Self {
        Self::reading_into(brokers, topic, group, more, "path = \"out\"")
    }

    /// As [`Stage::reading`], with the parameters of the file sink.
    pub fn reading_into(brokers: &str, topic: &str, group: &str, more: &str, sink: &str) -> Self {
        let stage = Self { site: Site::empty() };
        let source = format!("brokers = \"{brokers}\"\ntopic = \"{topic}\"\ngroup_id = \"{group}\"\n{more}");
        stage.site.configure_source("auto", "kafka_src", &source, sink);
        stage
    }

    /// A source of files `in/*`, into a topic.
    pub fn writing(brokers: &str, topic: &str, more: &str) -> Self {
        let stage = Self { site: Site::empty() };
        let config = format!(
            "[engine]\nworkers = 2\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"app\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"in/*\"\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"kafka_sink\"\nsources = [\"*\"]\n[sinks.params_override]\n\
             brokers = \"{brokers}\"\ntopic = \"{topic}\"\n{more}\n"
        );
        std::fs::write(stage.site.path("wpsrc.toml"), config).unwrap();
        stage
    }

    /// Gives the sink of [`Stage::writing`] a rescue.
    pub fn rescue(&self) {
        let config = String::from_utf8(self.site.read("wpsrc.toml")).unwrap();
        let with = config.replace("connect = \"kafka_sink\"", "connect = \"kafka_sink\"\nrescue = true");
        std::fs::write(self.site.path("wpsrc.toml"), with).unwrap();
    }

    /// A source of a topic in a group, with further lines of its parameters, into another topic in transactions.
    pub fn piping(brokers: &str, from: (&str, &str), group: &str, to: &str, more: &str) -> Self {
        let stage = Self { site: Site::empty() };
        stage.configure_piping(brokers, from, group, to, more);
        stage
    }

    /// Writes the configuration of [`Stage::piping`] anew.
    pub fn configure_piping(&self, brokers: &str, from: (&str, &str), group: &str, to: &str, more: &str) {
        let (topic, of_source) = from;
        let config = format!(
            "[engine]\nworkers = 2\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"app\"\nconnect = \"kafka_src\"\n[sources.params_override]\n\
             brokers = \"{brokers}\"\ntopic = \"{topic}\"\ngroup_id = \"{group}\"\n{of_source}\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"kafka_sink\"\nsources = [\"*\"]\n[sinks.params_override]\n\
             brokers = \"{brokers}\"\ntopic = \"{to}\"\ntransactional = true\n{more}\n"
        );
        std::fs::write(self.site.path("wpsrc.toml"), config).unwrap();
    }

    /// Starts an engine.
    pub fn start(&self) -> Started {
        self.site.start()
    }

    /// Kills an engine with whatever it holds.
    pub fn kill(engine: Started) {
        engine.signal(libc::SIGKILL);
        drop(engine);
    }

    /// The source, as the status has it.
    pub fn source(&self) -> Value {
        status(self.site.folder())["sources"][0].clone()
    }

    /// The file `out`.
    pub fn out(&self) -> PathBuf {
        self.site.path("out")
    }

    /// The numbers of the messages in the file `out`; an unfinished line at its end is none.
    pub fn numbers(&self) -> Vec<u64> {
        let bytes = self.site.read("out");
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(number_of).collect()
    }

    /// How many lines are in the file `out`.
    pub fn lines(&self) -> usize {
        self.site.read("out").iter().filter(|b| **b == b'\n').count()
    }

    /// Waits until the file has so many lines.
    pub fn await_lines(&self, lines: usize) {
        until(&format!("{lines} lines are there"), || self.lines() >= lines);
    }

    /// The log file.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.site.read("logs/wpgen.log")).into_owned()
    }
}

/// What an engine said, where a test fails.
pub struct Words<'a>(pub &'a Stage);

impl Drop for Words<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.log());
        }
    }
}
