//! A folder for what is read from files: one a thread, in memory where the machine has such a place.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = make();
}

fn make() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::Builder::new().prefix("wpgen-fuzz-").tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).expect("a folder for the check's files")
}

/// Calls `check` with the folder, empty.
pub fn with<T>(check: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| {
        for entry in fs::read_dir(folder.path()).expect("the folder is there").flatten() {
            let path = entry.path();
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("what the last check wrote can be removed");
        }
        check(folder.path())
    })
}

/// Writes a file, and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder is made");
    fs::write(path, bytes).expect("a file is written");
}
