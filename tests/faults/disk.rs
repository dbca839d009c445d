//! A small disk of a run's own: a tmpfs that only this thread, its threads and their children see.
//!
//! The kernel takes it away with the last of them, however they end. Only root can make one.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a small disk.
const BYTES: u64 = 48 << 20;

/// A mounted disk.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Whether this user can make one.
    pub fn is_possible() -> bool {
        std::thread::spawn(|| own_namespace().is_ok()).join().unwrap_or(false)
    }

    /// Mounts one at `path`, for this thread and what it starts from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mount(path: &Path) -> io::Result<Self> {
        own_namespace()?;
        std::fs::create_dir_all(path)?;
        mount("tmpfs", path, "tmpfs", 0, &format!("size={BYTES}"))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let zeros = vec![0; 1 << 20];
        // A smaller piece fits where a larger one does not.
        for len in [1 << 20, 4096, 1] {
            while ballast.write(&zeros[..len]).is_ok_and(|n| n > 0) {}
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        // It may be free already.
        let _ = std::fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// A mount namespace for this thread, from which nothing gets out.
fn own_namespace() -> io::Result<()> {
    // SAFETY: it takes a number; CLONE_FS goes with CLONE_NEWNS by itself.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount("none", Path::new("/"), "none", libc::MS_REC | libc::MS_PRIVATE, "")
}

fn mount(what: &str, path: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    let (what, path, kind, data) = (text(what)?, text(&path.to_string_lossy())?, text(kind)?, text(data)?);
    // SAFETY: all pointers are strings that live for the call.
    let mounted =
        unsafe { libc::mount(what.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if mounted == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
