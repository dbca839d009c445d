//! Files that tests keep under `target/` for as long as their process lives.

use std::fs;
use std::path::Path;

/// What begins the name of a file or folder of this process in the folder of tests. Those of processes that have ended
/// are removed first: nothing drops a static, and nobody clears up behind a process that was killed.
pub fn own_prefix(what: &str) -> String {
    let what = format!("{what}-");
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process =
            name.strip_prefix(&what).and_then(|rest| rest.split(['-', '.']).next()?.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            let path = entry.path();
            // Another process may remove it as well.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    format!("{what}{}", std::process::id())
}
