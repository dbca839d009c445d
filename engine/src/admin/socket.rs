//! `data_dir/wpgen.sock`: the admin API for whoever may enter the data folder.
//!
//! Owns the socket's file. Invariants: the caller holds the lock on the data folder, so a socket that is already there is
//! a dead one; the file is gone when the socket is dropped. It refuses everyone but the engine's own user.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
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
    desk: Desk,
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
        let desk = Desk::open(NAME, engine, None, move || listener.accept().map(|(stream, _)| stream))?;
        Ok(Self { folder: data_dir.to_owned(), desk })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.desk.close(|| connect(&self.folder).is_ok());
        if let Ok((_held, path)) = address(&self.folder) {
            // It may be gone already, and a stale one is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Connects to the engine that holds a data folder.
pub fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let (_held, path) = address(data_dir)?;
    UnixStream::connect(path)
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
    fn too_many_at_once_are_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = Socket::bind(folder.path(), Arc::new(Quiet)).unwrap();
        let _silent: Vec<UnixStream> =
            (0..CONNECTIONS_MAX).map(|_| connect(folder.path()).unwrap()).collect();
        assert!(ask(folder.path(), "").starts_with("HTTP/1.1 503 "));
    }
}
