//! `data_dir/wpgen.sock`: the admin API for whoever may enter the data folder.
//!
//! Owns the socket's file. Invariants: the caller holds the lock on the data folder, so a socket that is already there is
//! a dead one; the file is gone when the socket is dropped. It refuses everyone but the engine's own user.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Control;
use super::serve::Desk;

/// The socket's name in the data folder.
pub const NAME: &str = "wpgen.sock";

/// The listening socket; dropping it ends it.
#[derive(Debug)]
pub struct Socket {
    folder: PathBuf,
    /// Device and inode of the socket's file.
    file: (u64, u64),
    _desk: Desk<UnixListener>,
}

impl Socket {
    /// Listens in a data folder whose lock the caller holds.
    pub fn bind(data_dir: &Path, engine: Arc<dyn Control>) -> io::Result<Self> {
        let (_held, path) = address(data_dir)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let file = identity(&path)?;
        let desk = Desk::open(NAME, engine, None, listener)?;
        Ok(Self { folder: data_dir.to_owned(), file, _desk: desk })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whoever removed the folder may have made it anew, with another engine in it.
        if let Ok((_held, path)) = address(&self.folder)
            && identity(&path).is_ok_and(|file| file == self.file)
        {
            // A stale one is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connects to the engine that holds a data folder.
pub fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let (_held, path) = address(data_dir)?;
    UnixStream::connect(path)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A name for the socket that is short however deep the folder is: socket addresses end at 108 bytes.
fn address(data_dir: &Path) -> io::Result<(File, PathBuf)> {
    let folder =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(data_dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()));
    Ok((folder, path))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::admin::serve::{CONNECTIONS_MAX, Quiet};

    fn ask(folder: &Path, request: &str) -> String {
        let mut stream = connect(folder).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn it_answers_from_a_deep_folder_beside_a_silent_connection_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join(NAME), "stale").unwrap();
        let socket = Socket::bind(&deep, Arc::new(Quiet)).unwrap();
        let _silent = connect(&deep).unwrap();
        let text = ask(&deep, "GET /api/sources HTTP/1.1\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(r#""message":"ok"}"#), "{text}");
        assert!(ask(&deep, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let mode = std::fs::metadata(deep.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!deep.join(NAME).exists());
        assert!(connect(&deep).is_err());
    }

    #[test]
    fn it_ends_and_leaves_the_other_alone_where_the_folder_was_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("data");
        std::fs::create_dir(&folder).unwrap();
        let first = Socket::bind(&folder, Arc::new(Quiet)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let _second = Socket::bind(&folder, Arc::new(Quiet)).unwrap();
        let (ended, is_over) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(first);
            ended.send(()).unwrap();
        });
        is_over.recv_timeout(std::time::Duration::from_secs(10)).expect("the first does not end");
        assert!(ask(&folder, "GET /api/sources HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn too_many_at_once_are_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = Socket::bind(folder.path(), Arc::new(Quiet)).unwrap();
        let _silent: Vec<UnixStream> =
            (0..CONNECTIONS_MAX).map(|_| connect(folder.path()).unwrap()).collect();
        assert!(ask(folder.path(), "").starts_with("HTTP/1.1 503 "));
    }
}
