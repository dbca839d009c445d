//! Opening what an owner writes, and telling the checkpoint before the first byte.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;

use super::owner::Owner;
use super::params::Existing;
use super::place::{self, Opened, Regular};
use super::stream::Stream;
use super::trouble::Attempt;
use super::writer::Writer;
use crate::io::IoFile;

/// What is open.
pub(super) struct Output {
    /// Its path, as the template gave it.
    pub(super) path: String,
    pub(super) kind: Kind,
}

impl Output {
    /// Whether something of what it was given is not in the file yet.
    pub(super) fn is_pending(&self) -> bool {
        matches!(&self.kind, Kind::File(file) if file.writer.standing().pending > 0)
    }
}

/// What kind of thing it is.
pub(super) enum Kind {
    /// A regular file.
    File(Box<FileOutput>),
    /// A FIFO or a device.
    Stream(Stream),
}

/// A regular file.
pub(super) struct FileOutput {
    pub(super) writer: Writer<IoFile>,
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Receipt of what was written last; of a file from before, when it was written.
    pub(super) written_ns: i64,
    /// Keeps other engines out. Goes first when the file is closed: rings close their descriptors late.
    _lock: File,
}

/// Paths that an owner remembers to have opened.
const OPENED_MAX: usize = 16;

impl Owner {
    /// Opens the output at `path`, however long it takes, or until a rescue is to have what is for it.
    pub(super) async fn open(&mut self, path: &str) {
        while !self.is_failing {
            match self.try_open(path).await {
                Ok(kind) => {
                    self.current = Some(Output { path: path.to_owned(), kind });
                    self.patience.worked(Attempt::Opening);
                    return;
                }
                Err(error) => {
                    self.failed(Attempt::Opening, &error).await;
                }
            }
        }
    }

    async fn try_open(&mut self, path: &str) -> Result<Kind, Box<dyn std::error::Error>> {
        let claimed = self.around.ledger.claimed.lock().map_or(None, |mut claimed| claimed.take());
        let opened = match claimed {
            Some(opened) => opened,
            None => {
                let (path, mode) = (path.to_owned(), self.around.settings.mode);
                blocking(move || place::open(Path::new(&path), mode)).await?
            }
        };
        match opened {
            Opened::Stream(file) => Ok(Kind::Stream(Stream::new(file)?)),
            Opened::Regular(regular) => Ok(Kind::File(Box::new(self.take_over(path, regular).await?))),
        }
    }

    /// Makes a locked file ours: what it holds is settled first, then the checkpoint has it, then it may be written.
    async fn take_over(&mut self, path: &str, mut regular: Regular) -> std::io::Result<FileOutput> {
        let (dev, ino) = (regular.dev, regular.ino);
        let first_time = remember(&mut self.opened, path);
        if first_time && self.around.settings.rotate.is_some() {
            self.packer.tidy(path.into());
        }
        let committed = self.around.ledger.committed_len(dev, ino);
        if first_time && committed.is_none() && self.around.settings.existing == Existing::Truncate {
            regular.empty()?;
        }
        let is_known = committed == Some(regular.len);
        if !is_known {
            self.around.ledger.announce(Path::new(path), dev, ino, regular.len);
        }
        // Nothing of it is written by now that is not accounted for.
        let is_new = self.around.ledger.set_only_copy(!self.repeats);
        if is_new || !is_known {
            self.persist().await;
        }
        self.around.ledger.goes_on(regular.len, self.taken);
        let backend = self.around.backend;
        let Regular { lock, cached, direct, len, modified_ns, .. } = regular;
        let direct = direct.map(|direct| IoFile::new(direct, backend));
        let writer = Writer::new(IoFile::new(cached, backend), direct, len);
        Ok(FileOutput { writer, dev, ino, written_ns: modified_ns, _lock: lock })
    }
}

/// Notes that a path is opened; returns whether it is for the first time.
fn remember(opened: &mut VecDeque<String>, path: &str) -> bool {
    if opened.iter().any(|before| before == path) {
        return false;
    }
    if opened.len() == OPENED_MAX {
        opened.pop_front();
    }
    opened.push_back(path.to_owned());
    true
}

/// Runs what may wait for the disk on a blocking thread, and hands a panic on.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
