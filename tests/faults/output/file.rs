//! A file sink's file, with those that rotation has put aside: one passage, in which nothing may repeat.

use std::path::{Path, PathBuf};

use super::{Files, Output, text};
use crate::oracle::{Passage, Seen};
use crate::plan::{Format, OutputPlan};

/// The files of one sink.
pub(super) struct FileOutput {
    number: u8,
    /// Where it is read.
    path: PathBuf,
    format: Format,
    params: String,
}

impl FileOutput {
    pub(super) fn new(number: u8, plan: &OutputPlan, rotate: bool, files: &Files) -> Self {
        let name = format!("out{number}.log");
        let (at, path) = (files.at.join(&name), files.below.join(&name));
        let rotate = if rotate { "rotate = { size = \"256KiB\", keep = 1000 }\n" } else { "" };
        let fsync = plan.fsync;
        let params =
            format!("path = {at:?}\nformat = \"{}\"\nfsync = \"{fsync}\"\n{rotate}", plan.format.name());
        Self { number, path, format: plan.format, params }
    }

    /// The files, oldest first: those put aside have a number that grows with their age.
    fn files(&self) -> Vec<PathBuf> {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let entries = std::fs::read_dir(self.path.parent().unwrap()).into_iter().flatten().flatten();
        let age = |path: &Path| -> Option<u32> {
            let rest = path.file_name()?.to_str()?.strip_prefix(name)?;
            if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse().ok() }
        };
        let mut files: Vec<_> = entries.filter_map(|e| Some((age(&e.path())?, e.path()))).collect();
        files.sort();
        files.into_iter().rev().map(|(_, path)| path).collect()
    }
}

impl Output for FileOutput {
    fn number(&self) -> u8 {
        self.number
    }

    fn sink(&self) -> String {
        format!("connect = \"file_sink\"\n[sinks.params_override]\n{}", self.params)
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        let mut passage = Passage { begun: 0, ended: u64::MAX, records: Vec::new() };
        for path in self.files() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in bytes[..whole].split_inclusive(|b| *b == b'\n') {
                text::take(&line[..line.len() - 1], self.format, &mut passage.records, &mut seen);
            }
        }
        seen.passages.push(passage);
        seen
    }
}
