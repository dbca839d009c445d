//! The wall clock as the engine sees it: stepped for its process alone, by a small library that is loaded before it.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::leftovers::own_prefix;

/// The library, which is built with the C compiler that the engine's own build needs; `None` where there is none.
pub fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
    LIBRARY.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/faults/clock.c");
    let name = own_prefix("fault-clock") + ".so";
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    cc.status().is_ok_and(|status| status.success()).then_some(library)
}

/// The clock of one engine.
pub struct Clock {
    file: std::fs::File,
    seconds: i64,
}

impl Clock {
    /// A clock that is right, in `folder`.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("clock");
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
        let clock = Self { file, seconds: 0 };
        clock.set();
        clock
    }

    /// Steps it.
    pub fn step(&mut self, seconds: i64) {
        self.seconds += seconds;
        self.set();
    }

    fn set(&self) {
        self.file.write_all_at(&self.seconds.to_ne_bytes(), 0).unwrap();
    }
}
