//! Packs closed files beside the owner, on a thread of its own: it may take minutes, and nothing waits for it but the
//! next rotation and the engine's end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::pack::{pack, tidy};
use super::settings::Packing;

/// Between two looks while waiting.
const POLL: Duration = Duration::from_millis(10);

/// The packing of one outlet.
#[derive(Debug)]
pub(super) struct Packer {
    packing: Option<Packing>,
    /// One more reference for each thread that works.
    working: Arc<()>,
}

impl Packer {
    /// Packs nothing when `packing` is none.
    pub(super) fn new(packing: Option<Packing>) -> Self {
        Self { packing, working: Arc::new(()) }
    }

    /// Whether nothing is being packed.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.working) == 1
    }

    /// Packs a file that was closed and keeps its name, if there was one.
    pub(super) fn closed(&self, path: Option<String>) {
        if let Some(path) = path {
            self.pack(path.into());
        }
    }

    /// Packs a file.
    pub(super) fn pack(&self, path: PathBuf) {
        self.work(path, |path, packing| pack(path, packing).map(drop));
    }

    /// Finishes what a crash cut short: of the file at `path`, rotated ones that are not packed yet, or are and still there.
    pub(super) fn tidy(&self, path: PathBuf) {
        self.work(path, tidy);
    }

    fn work(&self, path: PathBuf, work: fn(&Path, Packing) -> io::Result<()>) {
        let Some(packing) = self.packing else { return };
        let working = Arc::clone(&self.working);
        let name = path.display().to_string();
        let work = move || {
            if let Err(error) = work(&path, packing) {
                log::warn!(target: "wpgen::sink", "{} stays as it is, packing failed: {error}", path.display());
            }
            drop(working);
        };
        if let Err(error) = std::thread::Builder::new().name("pack".to_owned()).spawn(work) {
            log::warn!(target: "wpgen::sink", "{name} stays as it is, no thread to pack it: {error}");
        }
    }

    /// Waits until nothing is being packed.
    pub(super) async fn wait(&self) {
        while !self.is_idle() {
            tokio::time::sleep(POLL).await;
        }
    }
}
