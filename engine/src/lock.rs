//! Who has a file: locks that keep a second engine out, and the processes that hold a file open.
//!
//! A lock is an open file description lock (`F_OFD_SETLK`): it belongs to the open file, not to the process, so that
//! closing some other descriptor of the same file does not drop it, and it ends with the last descriptor, also after
//! `kill -9`. The kernel does not tell who holds such a lock; so [`Lock::take`] writes the PID into the file, and
//! [`locker`] finds it in `/proc`. What `/proc` does not show us (other users' processes) is not guessed: [`unseen`] says
//! which right would show it.

mod holders;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use holders::{Holder, OpenFiles, unseen};

/// A lock file that is ours for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a lock was not to be had.
#[derive(Debug)]
pub enum Refused {
    /// Another process has it.
    Held {
        /// The file it locks.
        path: PathBuf,
        /// Who it is, where that can be found out.
        holder: Option<Holder>,
    },
    /// The lock file could not be opened, locked or written.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, holder: Some(holder) } => {
                write!(f, "{} is locked by another engine, {holder}: ", path.display())?;
                f.write_str("Resource busy (os error 16), Device or resource busy")
            }
            Self::Held { path, holder: None } => {
                write!(f, "{} is locked by another process, which we do not see: ", path.display())?;
                f.write_str("Resource busy (os error 16), Device or resource busy")
            }
            Self::Io { path, error } => write!(f, "cannot lock {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Refused {}

impl Lock {
    /// Locks the file at `path`, made when it is missing, and writes our PID into it.
    pub fn take(path: &Path) -> Result<Self, Refused> {
        let io = |error| Refused::Io { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(path).map_err(io)?;
        if !try_lock(&file).map_err(io)? {
            let holder = written_holder(&mut file).or_else(|| locker(&file));
            return Err(Refused::Held { path: path.to_owned(), holder });
        }
        let written = writeln!(file, "{}", std::process::id()).and_then(|()| {
            let end = file.stream_position()?;
            file.set_len(end)
        });
        written.map_err(io)?;
        Ok(Self { file })
    }

    /// Whether `path` still names the file that is locked.
    pub fn is_at(&self, path: &Path) -> bool {
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let named = std::fs::metadata(path).map(identity);
        named.is_ok_and(|named| self.file.metadata().is_ok_and(|ours| identity(ours) == named))
    }
}

/// Who holds the lock file at `path`, found without taking it: nothing when nobody does, or there is none.
///
/// # Errors
/// That the file cannot be looked at.
pub fn held(path: &Path) -> io::Result<Option<Option<Holder>>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !is_locked(&file)? {
        return Ok(None);
    }
    Ok(Some(written_holder(&mut file).or_else(|| locker(&file))))
}

/// Whether some other open file has a lock that [`try_lock`] would meet.
///
/// # Errors
/// Those of the system call.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let mut whole = whole_file();
    // SAFETY: the descriptor is open, and the kernel writes into `whole`, which outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut whole) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(whole.l_type != libc::F_UNLCK as libc::c_short)
}

/// A write lock on the whole of a file, as the kernel is asked for it.
fn whole_file() -> libc::flock {
    // SAFETY: flock is a plain C struct of integers, for which all zeros is a valid value.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = libc::F_WRLCK as libc::c_short;
    whole.l_whence = libc::SEEK_SET as libc::c_short;
    whole
}

/// Takes a write lock on the whole of an open file; false when another process has one. The lock ends with `file`.
pub fn try_lock(file: &File) -> io::Result<bool> {
    let whole = whole_file();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `whole` outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Who locks an open file that [`try_lock`] did not get.
pub fn locker(file: &File) -> Option<Holder> {
    let meta = file.metadata().ok()?;
    let seen = OpenFiles::now().holders(meta.dev(), meta.ino()).into_iter().find(|holder| holder.locks);
    seen.or_else(|| holders::in_table(meta.dev(), meta.ino()))
}

/// The PID that a lock file holds, if such a process is still there.
fn written_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    Holder::locking(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_second_lock_names_the_first_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let first = Lock::take(&path).expect("the first");
        let refused = Lock::take(&path).expect_err("the second");
        let words = refused.to_string();
        assert!(words.contains(&format!("PID {}", std::process::id())), "{words}");
        assert!(words.contains("Resource busy (os error 16)"), "{words}");
        assert!(words.contains("Device or resource busy"), "{words}");
        let found = held(&path).expect("it is there").flatten().expect("it is held");
        assert_eq!(found.pid, std::process::id());
        drop(first);
        assert_eq!(held(&path).expect("it is there"), None);
        Lock::take(&path).expect("after the first has gone");
    }

    #[test]
    fn a_longer_pid_of_a_dead_engine_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        fs::write(&path, "4294967295 and more\n").expect("written");
        let _lock = Lock::take(&path).expect("nobody holds it");
        assert_eq!(fs::read_to_string(&path).expect("read"), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_lock_that_cannot_be_made_says_where() {
        let refused = Lock::take(Path::new("/proc/none/lock")).expect_err("no such folder");
        assert!(refused.to_string().starts_with("cannot lock /proc/none/lock: No such file"), "{refused}");
    }
}
