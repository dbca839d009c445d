//! Files beside those that a source reads: where an input may have gone while nobody looked.
//!
//! Folders are read and files are opened here; whether a file is the one that is missing is for others to say.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::catalog::Missing;
use super::find::Search;
use super::identity::Seen;
use super::observe;
use super::params::Compression;
use super::plan::check_packing;

/// How many files that are lost are named in one message.
const NAMED_MAX: usize = 3;
/// The file system's clock may be this late.
const CLOCK_MS: u64 = 10;

/// The files in the folders of missing inputs that have the inode of one, or may hold one compressed.
pub(super) fn of_missing(missing: &[Missing], compression: Compression) -> Vec<Seen> {
    let packing = compression != Compression::None;
    let mut folders: BTreeMap<&Path, Vec<&Missing>> = BTreeMap::new();
    for missing in missing {
        if let Some(folder) = missing.path.parent() {
            folders.entry(folder).or_default().push(missing);
        }
    }
    let mut found = Vec::new();
    for (folder, missing) in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let inodes: HashSet<(u64, u64)> = missing.iter().map(|missing| (missing.dev, missing.ino)).collect();
        let unread: HashSet<&[u8]> =
            missing.iter().filter(|missing| !missing.done).map(|missing| name_of(&missing.path)).collect();
        for entry in entries.flatten() {
            let path = entry.path();
            let may_hold = || packing && is_packed(&path) && follows_any(name_of(&path), &unread);
            let is_one = |meta: fs::Metadata| meta.is_file() && inodes.contains(&(meta.dev(), meta.ino()));
            if !entry.metadata().is_ok_and(is_one) && !may_hold() {
                continue;
            }
            let seen = observe::path(&path, packing).ok();
            found.extend(seen.filter(|seen| check_packing(compression, seen).is_ok()));
        }
    }
    // Of several compressed files that begin alike, the last one that was made.
    found.sort_by_key(|seen| std::cmp::Reverse(seen.changed_ms));
    found
}

/// Whether the file of a missing input is where it was, though it could not be looked at.
fn is_there(missing: &Missing) -> bool {
    fs::metadata(&missing.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (missing.dev, missing.ino))
}

/// Of those that were found nowhere, the ones that may have had more, and of which nobody was told.
pub(super) fn lost(mut missing: Vec<Missing>) -> Vec<Missing> {
    missing.retain(|one| !one.done && !one.told && one.position > 0 && !is_there(one));
    missing
}

/// One message of files that are lost.
pub(super) fn tell_lost(key: &str, lost: &[Missing]) {
    let Some(first) = lost.first() else { return };
    let named = lost.iter().take(NAMED_MAX);
    let named: Vec<String> =
        named.map(|lost| format!("{} (read to byte {})", lost.path.display(), lost.position)).collect();
    let more = match lost.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} other files"),
    };
    log::warn!(
        target: "wpgen::file",
        "source '{key}': {}{more}: not there any more, and not found under another name in the same folder; what was \
         written behind that since the last run is not read, and how much it was is not known; keep rotated files \
         in their folder, or follow them too: path = \"{}*\"",
        named.join(", "), first.path.display()
    );
}

/// The files whose names say that they had `path`, made since `since_ms`, the oldest first.
pub(super) fn made_since(path: &Path, search: &Search, since_ms: u64) -> Vec<Seen> {
    let name = HashSet::from([name_of(path)]);
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return Vec::new() };
    let rotated =
        |path: &PathBuf| follows_any(name_of(path), &name) && !is_packed(path) && !search.excludes(path);
    let paths = entries.flatten().map(|entry| entry.path()).filter(rotated);
    let files = paths.filter_map(|path| observe::path(&path, true).ok());
    let since_ms = since_ms.saturating_sub(CLOCK_MS);
    let made_ms = |seen: &Seen| if seen.born_ns == 0 { seen.changed_ms } else { seen.born_ns / 1_000_000 };
    let mut made: Vec<Seen> = files.filter(|seen| made_ms(seen) >= since_ms).collect();
    made.sort_by_key(|seen| (seen.born_ns, seen.changed_ms));
    made
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_bytes())
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zst")
}

/// Whether a rotation makes `name` of one of `names`: that, a sign, and more.
fn follows_any(name: &[u8], names: &HashSet<&[u8]>) -> bool {
    let mut ends = (1..name.len()).filter(|at| !name[*at].is_ascii_alphanumeric());
    ends.any(|at| names.contains(&name[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rotation_makes_of_a_name() {
        let names = HashSet::from([b"app.log".as_slice()]);
        for name in ["app.log.1", "app.log-20261128", "app.log.2.gz", "app.log~"] {
            assert!(follows_any(name.as_bytes(), &names), "{name}");
        }
        for name in ["app.log", "app.log2", "app", "other.log.1", "app.logs.1"] {
            assert!(!follows_any(name.as_bytes(), &names), "{name}");
        }
    }
}
