//! `data_dir/wpgen.sock`: the admin API for whoever may enter the data folder.
//!
//! Owns the socket's file and its threads. Invariants: the caller holds the lock on the data folder, so a socket that is
//! already there is a dead one; at most [`CONNECTIONS_MAX`] are served at a time and each for [`SERVE_MAX`] at most, so a
//! silent one blocks nobody; the file is gone when the socket is dropped. It refuses everyone but the engine's own user.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Answer, Control, answer, http};

/// The socket's name in the data folder.
pub const NAME: &str = "wpgen.sock";
/// Connections served at a time; further ones are told to come back.
const CONNECTIONS_MAX: usize = 8;
/// How long one connection may take in all.
const SERVE_MAX: Duration = Duration::from_secs(5);

/// The listening socket; dropping it ends it.
#[derive(Debug)]
pub struct Socket {
    folder: PathBuf,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let ending = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ending);
        let accept = move || accept(&listener, &engine, &seen);
        let thread = std::thread::Builder::new().name("wpgen-admin".into()).spawn(accept)?;
        Ok(Self { folder: data_dir.to_owned(), ending, thread: Some(thread) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // The thread sleeps in accept; a connection wakes it. Without one it ends with the process.
        if connect(&self.folder).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic there is already on standard error.
            let _ = thread.join();
        }
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

fn accept(listener: &UnixListener, engine: &Arc<dyn Control>, ending: &AtomicBool) {
    let served = Arc::new(AtomicUsize::new(0));
    while !ending.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, _)) if !ending.load(Ordering::Acquire) => spawn(stream, engine, &served),
            Ok(_) => return,
            Err(e) => {
                log::warn!("{NAME}: cannot accept: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn spawn(mut stream: UnixStream, engine: &Arc<dyn Control>, served: &Arc<AtomicUsize>) {
    if served.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
        // Whoever is turned away may already be gone.
        let _ = stream.write_all(&http::write(&Answer::refusal(503, "too many requests at once")));
        return;
    }
    served.fetch_add(1, Ordering::Relaxed);
    let (engine, done) = (Arc::clone(engine), Arc::clone(served));
    let serve = move || {
        if let Err(e) = serve(&mut stream, engine.as_ref()) {
            log::debug!("{NAME}: {e}");
        }
        done.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(e) = std::thread::Builder::new().name("wpgen-admin-req".into()).spawn(serve) {
        served.fetch_sub(1, Ordering::Relaxed);
        log::warn!("{NAME}: no thread for a request: {e}");
    }
}

fn serve(stream: &mut UnixStream, engine: &dyn Control) -> io::Result<()> {
    let deadline = Instant::now() + SERVE_MAX;
    stream.set_write_timeout(Some(SERVE_MAX))?;
    let mut bytes = Vec::with_capacity(1024);
    let answer = loop {
        match http::parse(&bytes) {
            http::Parsed::Whole(request) => break answer(&request, engine),
            http::Parsed::Refused(code, why) => break Answer::refusal(code, why),
            http::Parsed::More => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Answer::refusal(408, "the request did not end in time");
        }
        stream.set_read_timeout(Some(left))?;
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
    };
    stream.write_all(&http::write(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Refusal;
    use crate::reload::Reloaded;
    use crate::status::Status;

    struct Fake;

    impl Control for Fake {
        fn status(&self) -> Status {
            Status::default()
        }
        fn stop(&self) {}
        fn reload(&self) -> Result<Reloaded, Refusal> {
            Err(Refusal::Stopping)
        }
    }

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
        let socket = Socket::bind(&deep, Arc::new(Fake)).unwrap();
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
        let _socket = Socket::bind(folder.path(), Arc::new(Fake)).unwrap();
        let _silent: Vec<UnixStream> =
            (0..CONNECTIONS_MAX).map(|_| connect(folder.path()).unwrap()).collect();
        assert!(ask(folder.path(), "").starts_with("HTTP/1.1 503 "));
    }
}
