//! Real disks that are small: a tmpfs of a few MiB, which a test fills and empties, and an ext4 in a file on one; and one
//! that fails ([`crate::faulty`]).
//!
//! Mounting takes a privilege. Without it a test that needs a disk says so and does nothing; with WPGEN_TEST_ALL set, as CI
//! has it, that is only accepted where this process cannot have the privilege.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faulty::Faulty;

/// A folder at `at` whose disk fails when it is told to; what is in it is in `below`.
pub fn faulty(at: &Path, below: &Path) -> Option<Faulty> {
    let mounted = Faulty::mount(at, below);
    if let Err(error) = &mounted {
        let must = may_mount() && std::env::var_os("WPGEN_TEST_ALL").is_some();
        assert!(!must, "cannot mount a FUSE file system: {error}");
        eprintln!("skipped: this test mounts a FUSE file system, and that cannot be had here: {error}");
    }
    mounted.ok()
}

/// No tables are zeroed after the mount: that would punch holes into a file below that has no room to give.
const NO_LATER_ZEROS: &str = "nodiscard,lazy_itable_init=0";

/// A small disk; it goes when it is dropped.
pub struct Disk {
    path: PathBuf,
    /// What lies under it, where it is an ext4 in a file.
    below: Option<Box<Disk>>,
    /// What the next who gets the loop device should find as it was: a limit, and what it was.
    limit: Option<(PathBuf, String)>,
}

impl Disk {
    /// Mounts a tmpfs of so many KiB at `path`, which is made.
    pub fn tmpfs(path: &Path, kib: usize) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let [name, target] = [b"tmpfs".as_slice(), path.to_str().unwrap().as_bytes()].map(c_string);
        let options = c_string(format!("size={kib}k").as_bytes());
        // SAFETY: all strings live for the call and end in a zero.
        let mounted =
            unsafe { libc::mount(name.as_ptr(), target.as_ptr(), name.as_ptr(), 0, options.as_ptr().cast()) };
        if mounted != 0 {
            let error = io::Error::last_os_error();
            assert!(!may_mount() || std::env::var_os("WPGEN_TEST_ALL").is_none(), "cannot mount: {error}");
            eprintln!("skipped: this test mounts a small disk, and that is refused here: {error}");
            return None;
        }
        Some(Self { path: path.to_owned(), below: None, limit: None })
    }

    /// An ext4 of 32 MiB at `path`, in a file on a tmpfs at `below` that has less: it takes what it is given and finds
    /// out when it writes it back, so that fsync fails.
    ///
    /// Linux's loop device (6.18) calls a write done that the file below took only in part: what spans a page with room
    /// and one without would be lost, and no fsync tell of it. So no request is larger than a page of the tmpfs.
    pub fn ext4_on_tmpfs(path: &Path, below: &Path, kib: usize) -> Option<Self> {
        let below = Self::tmpfs(below, kib)?;
        let image = below.path.join("image");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        // Without a journal: that one would end the file system for good at the first failure.
        let options = ["-q", "-F", "-b", "4096", "-O", "^has_journal", "-E", NO_LATER_ZEROS, "-m", "0"];
        let made = Command::new("/sbin/mkfs.ext4").args(options).arg(&image).output();
        if !made.is_ok_and(|made| made.status.success()) {
            assert!(
                std::env::var_os("WPGEN_TEST_ALL").is_none(),
                "mkfs.ext4 is needed: apt-get install e2fsprogs"
            );
            eprintln!("skipped: mkfs.ext4 is not here");
            return None;
        }
        keep_metadata(&image);
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-o", "loop,errors=continue,noinit_itable"])
            .args([&image, path])
            .output()
            .unwrap();
        if !mounted.status.success() {
            let error = String::from_utf8_lossy(&mounted.stderr);
            assert!(!may_mount() || std::env::var_os("WPGEN_TEST_ALL").is_none(), "cannot mount: {error}");
            eprintln!("skipped: no loop device can be mounted here: {error}");
            return None;
        }
        let device = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path).unwrap());
        let limit =
            format!("/sys/dev/block/{}:{}/queue/max_sectors_kb", libc::major(device), libc::minor(device));
        let before = std::fs::read_to_string(&limit).unwrap();
        let disk = Self {
            path: path.to_owned(),
            below: Some(Box::new(below)),
            limit: Some((limit.clone().into(), before)),
        };
        if let Err(error) = std::fs::write(limit, "4") {
            let cannot =
                matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied);
            let must = !cannot && std::env::var_os("WPGEN_TEST_ALL").is_some();
            assert!(!must, "cannot limit the loop device: {error}");
            eprintln!("skipped: a loop device's requests cannot be limited here: {error}");
            return None;
        }
        Some(disk)
    }

    /// Writes a file until there is no room for another byte; of an ext4 in a file, below it.
    pub fn fill(&self) {
        let disk = self.below.as_deref().unwrap_or(self);
        let mut file = OpenOptions::new().create(true).append(true).open(disk.path.join("filler")).unwrap();
        for piece in [&[0u8; 1 << 16][..], &[0; 4096], &[0]] {
            while file.write_all(piece).is_ok() {}
        }
    }

    /// Takes that file away.
    pub fn empty(&self) {
        let disk = self.below.as_deref().unwrap_or(self);
        std::fs::remove_file(disk.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((limit, before)) = &self.limit {
            let _ = std::fs::write(limit, before);
            // It detaches the loop device too.
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
            return;
        }
        let path = c_string(self.path.to_str().unwrap().as_bytes());
        // SAFETY: the path lives for the call and ends in a zero.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Has room on the disk below for the blocks in front, where a small ext4 keeps what it knows of its files.
fn keep_metadata(image: &Path) {
    let mut front = vec![0; 4 << 20];
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut front, 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &front, 0).unwrap();
}

/// Whether this process has CAP_SYS_ADMIN.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_SYS_ADMIN & 1 == 1)
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap()
}
