//! Opening an output: folders, permissions, the lock, and what kind of thing is at the path.
//!
//! A regular file is locked against other engines for as long as it is open. What is no regular file (a FIFO, a
//! device) is opened without blocking and is a stream: no position, no lock, no sync. Everything here may wait for the
//! disk and runs on a blocking thread.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::lock::{Holder, locker, try_lock};

/// Permissions of a new file when none are configured, before the process's mask.
const MODE_DEFAULT: u32 = 0o640;

/// What is at a path.
#[derive(Debug)]
pub(super) enum Opened {
    /// A regular file, locked.
    Regular(Regular),
    /// A FIFO or a device.
    Stream(File),
}

/// A regular file, open and ours.
#[derive(Debug)]
pub(super) struct Regular {
    /// Holds the lock.
    pub(super) lock: File,
    /// For writes through the page cache, and sync.
    pub(super) cached: File,
    /// For writes past it, where the file system has that.
    pub(super) direct: Option<File>,
    /// Its length.
    pub(super) len: u64,
    /// Its device.
    pub(super) dev: u64,
    /// Its inode.
    pub(super) ino: u64,
    /// When it was last written, nanoseconds since the Unix epoch.
    pub(super) modified_ns: i64,
}

/// Why an output cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another engine writes it.
    Busy {
        /// The output.
        path: PathBuf,
        /// Who, where that can be found out; `None` may be this very process.
        holder: Option<Holder>,
    },
    /// A FIFO that nobody reads.
    NoReader(PathBuf),
    /// The system says no.
    Io {
        /// The output, or the folder that could not be made.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { path, holder } => {
                write!(f, "output {} is in use by ", path.display())?;
                match holder {
                    Some(holder) => write!(f, "another engine, {holder}")?,
                    None => f.write_str("another process, or by another sink of this engine")?,
                }
                f.write_str(": Resource busy (os error 16), Device or resource busy")
            }
            Self::NoReader(path) => write!(f, "nobody reads the FIFO {}", path.display()),
            Self::Io { path, error } => write!(f, "cannot open output {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

impl Regular {
    /// Throws away what the file holds.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.len = 0;
        Ok(())
    }
}

/// Opens the output at `path`, making it and its folders when they are missing. `mode` is for a file that is made.
pub(super) fn open(path: &Path, mode: Option<u32>) -> Result<Opened, OpenError> {
    let io = |error| OpenError::Io { path: path.to_owned(), error };
    let file = match open_or_make(path, mode) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_fifo(path) => {
            return Err(OpenError::NoReader(path.to_owned()));
        }
        other => other.map_err(io)?,
    };
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Ok(Opened::Stream(file));
    }
    if !try_lock(&file).map_err(io)? {
        return Err(OpenError::Busy { path: path.to_owned(), holder: locker(&file) });
    }
    let meta = file.metadata().map_err(io)?;
    if is_moved(path, meta.dev(), meta.ino()) {
        // Put aside, or packed and removed, before the lock was ours: what the path names now is the output.
        return open(path, mode);
    }
    let cached = again(&file, 0).map_err(io)?;
    let direct = again(&file, libc::O_DIRECT).ok();
    Ok(Opened::Regular(Regular {
        lock: file,
        cached,
        direct,
        len: meta.len(),
        dev: meta.dev(),
        ino: meta.ino(),
        modified_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
    }))
}

/// The file that is there, or a new one. The folder of a new one is synced, or a crash could take the name away.
fn open_or_make(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let folder = above(path);
    make_folders(folder)?;
    let file = options.create(true).mode(mode.unwrap_or(MODE_DEFAULT)).open(path)?;
    if let Some(mode) = mode {
        // What was configured holds, whatever the process's mask is.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    sync_folder(folder)?;
    Ok(file)
}

/// Makes a folder and those above it that are missing; a crash takes none of their names away.
fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(folder)?;
    missing.iter().try_for_each(|made| sync_folder(above(made)))
}

/// The folder that has the name.
fn above(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The same file under a descriptor of its own. It must not share the lock's: rings close theirs late.
fn again(file: &File, flags: i32) -> io::Result<File> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(flags).open(name)
}

fn is_fifo(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo())
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    let opened = match File::open(folder) {
        // Who may write into a folder need not be allowed to read it, and only who reads it can sync it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        opened => opened?,
    };
    match opened.sync_all() {
        // Some file systems cannot sync a folder; then its names need none.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF)) => Ok(()),
        other => other,
    }
}

/// Whether the path names another file than this one, or nothing.
pub(super) fn is_moved(path: &Path, dev: u64, ino: u64) -> bool {
    fs::metadata(path).map_or(true, |meta| (meta.dev(), meta.ino()) != (dev, ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regular(path: &Path, mode: Option<u32>) -> Regular {
        match open(path, mode).unwrap() {
            Opened::Regular(regular) => regular,
            Opened::Stream(_) => panic!("a regular file"),
        }
    }

    #[test]
    fn folders_are_made_and_permissions_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/out.log");
        let file = regular(&path, Some(0o606));
        assert_eq!(file.lock.metadata().unwrap().mode() & 0o777, 0o606);
        assert!(!is_moved(&path, file.dev, file.ino));
        fs::remove_file(&path).unwrap();
        assert!(is_moved(&path, file.dev, file.ino));
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let first = regular(&path, None);
        let words = open(&path, None).unwrap_err().to_string();
        assert!(words.contains("Resource busy (os error 16), Device or resource busy"), "{words}");
        // The lock does not hang on the other descriptors: a ring may close them late.
        let Regular { lock, cached, .. } = first;
        drop(lock);
        fs::write(&path, "old").unwrap();
        let mut second = regular(&path, None);
        assert_eq!(second.len, 3);
        second.empty().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        drop(cached);
    }

    #[test]
    fn a_fifo_that_nobody_reads_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        assert!(matches!(open(&path, None), Err(OpenError::NoReader(_))));
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        assert!(matches!(open(&path, None), Ok(Opened::Stream(_))));
        let words = open(dir.path(), None).unwrap_err().to_string();
        assert!(words.contains("Is a directory"), "{words}");
    }
}
