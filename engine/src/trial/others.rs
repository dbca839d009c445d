//! What other processes have to do with the files of a trial: who has a source's files open, who locks a sink's output.

use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::OnceLock;

use crate::config::Config;
use crate::diagnosis::{Code, Diagnostic};
use crate::lock::{self, Holder, OpenFiles};
use crate::source::file::find::FoundFile;

/// Processes of one source's files that are named.
const NAMED_MAX: usize = 4;

/// The other processes, looked at once, when the first one asks.
#[derive(Debug, Default)]
pub struct Others {
    open: OnceLock<OpenFiles>,
    /// Who holds the data folder: the engine that runs with this configuration.
    engine: Option<u32>,
}

impl Others {
    /// Those beside the engine of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        let held = lock::held(&config.engine.data_dir.join("lock"));
        let engine = held.ok().flatten().flatten().map(|holder| holder.pid);
        Self { open: OnceLock::new(), engine }
    }

    fn open(&self) -> &OpenFiles {
        self.open.get_or_init(OpenFiles::now)
    }

    /// Who has the files open, if that is anyone or cannot all be seen.
    pub(super) fn readers_and_writers(&self, files: &[FoundFile]) -> Option<String> {
        let open = self.open();
        let mut holders: Vec<Holder> = Vec::new();
        for file in files {
            for holder in open.holders(file.dev, file.ino) {
                match holders.iter_mut().find(|known| known.pid == holder.pid) {
                    Some(known) => known.writes |= holder.writes,
                    None => holders.push(holder),
                }
            }
        }
        if holders.is_empty() {
            let unseen = open.unseen()?;
            return Some(format!("no process that we see has it open; {unseen}"));
        }
        // Who writes is what most people look for.
        holders.sort_by_key(|holder| !holder.writes);
        let named = holders.iter().take(NAMED_MAX).map(|holder| self.named(holder));
        let mut text = format!("open in {}", named.collect::<Vec<_>>().join(", "));
        if holders.len() > NAMED_MAX {
            text.push_str(&format!(", and {} more", holders.len() - NAMED_MAX));
        }
        Some(text)
    }

    fn named(&self, holder: &Holder) -> String {
        let Holder { pid, name, writes, .. } = holder;
        let how = if *writes { "writes" } else { "reads" };
        let whose = if self.engine == Some(*pid) { ", the engine that runs here" } else { "" };
        format!("{name} (PID {pid}, {how}{whose})")
    }

    /// That an output is there and can be written, if no other engine locks it.
    pub(super) fn writable(&self, path: &Path, file: &File) -> Result<String, Diagnostic> {
        let shown = path.display();
        let is_file = file.metadata().as_ref().is_ok_and(Metadata::is_file);
        if !is_file || !lock::is_locked(file).unwrap_or(false) {
            return Ok(format!("{shown} is there and writable"));
        }
        let holder = lock::locker(file);
        match (&holder, self.engine) {
            (Some(holder), Some(engine)) if holder.pid == engine => {
                return Ok(format!("{shown} is written by the engine that runs here, {holder}"));
            }
            (None, Some(engine)) => {
                return Ok(format!(
                    "{shown} is locked by a process that we do not see; the engine that runs here is PID {engine}"
                ));
            }
            _ => {}
        }
        let message =
            format!("{}: Resource busy (os error 16), Device or resource busy", busy(path, &holder));
        let finding = Diagnostic::error(Code::WP104, message);
        Err(with_mend(finding, holder.as_ref()))
    }
}

fn busy(path: &Path, holder: &Option<Holder>) -> String {
    let by = holder
        .as_ref()
        .map_or_else(|| "another process".to_owned(), |holder| format!("another engine, {holder}"));
    format!("output {} is in use by {by}", path.display())
}

/// A busy output's way out: to stop who is seen to hold it, or what would show that.
pub fn with_mend(finding: Diagnostic, holder: Option<&Holder>) -> Diagnostic {
    let finding = match holder {
        Some(holder) => finding.help(format!("stop that engine: kill -TERM {}", holder.pid)),
        None => lock::unseen().into_iter().fold(finding, Diagnostic::note),
    };
    finding.help("a path of its own for this sink: two engines on one file would tear each other's lines")
}
