//! A folder on a disk that fails when a test says so: FUSE, served by this process, that passes everything on to another
//! folder and meanwhile answers EIO or ENOSPC, does less than it was asked, or does not answer.
//!
//! Nothing of it is cached by the kernel (FOPEN_DIRECT_IO), so what is answered here is what the engine's call returns,
//! over a ring too. A sync that fails loses what was written since the last one that did not, as a page cache does that
//! could not write back: who takes the next sync for a proof is found out.
//!
//! Mounting takes root and /dev/fuse. A process that waits for an answer cannot even be killed: end a stall before an
//! engine, which [`Spell`] does when a test fails.

mod folder;

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{Config, Session, SessionACL};

/// Threads that answer. None of them waits while a stall holds on.
const THREADS: usize = 2;

/// What is asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Bytes of a file.
    Read,
    /// Bytes into a file, room for them, another length.
    Write,
    /// fsync and fdatasync, of files and folders.
    Sync,
    /// To make, rename and remove names.
    Names,
    /// To open a file that is there.
    Open,
    /// What is at a name, and how long it is.
    Look,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this error number.
    Error(i32),
    /// Reads and writes do a part of what they were asked, seldom the same one.
    Short,
    /// No answer until it ends.
    Stall,
}

type Waiting = Box<dyn FnOnce() + Send>;

/// What strikes, and what waits for its end.
#[derive(Default)]
struct Struck {
    faults: Vec<(On, Fault)>,
    waiting: Vec<Waiting>,
    count: u64,
}

/// The switch between a test and its disk.
#[derive(Default)]
struct Switch(Mutex<Struck>);

impl Switch {
    fn state(&self) -> std::sync::MutexGuard<'_, Struck> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with the fault that strikes, or later.
    fn pass(&self, on: On, work: impl FnOnce(Option<Fault>) + Send + 'static) {
        let mut state = self.state();
        let fault = state.faults.iter().find(|(what, _)| *what == on).map(|(_, fault)| *fault);
        state.count += u64::from(fault.is_some());
        if fault == Some(Fault::Stall) {
            state.waiting.push(Box::new(|| work(None)));
            return;
        }
        drop(state);
        work(fault);
    }

    fn set(&self, faults: Vec<(On, Fault)>) {
        let mut state = self.state();
        state.faults = faults;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|work| work());
    }
}

/// A mounted folder.
pub struct Faulty {
    at: PathBuf,
    switch: Arc<Switch>,
}

impl Faulty {
    /// Shows the folder `below` at `at`; both are made.
    ///
    /// # Errors
    /// What the kernel says; where there is no FUSE, or no right to mount it.
    pub fn mount(at: &Path, below: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(at)?;
        std::fs::create_dir_all(below)?;
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40755,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let text = |text: &str| CString::new(text).map_err(io::Error::other);
        let (target, options) = (text(&at.to_string_lossy())?, text(&options)?);
        let (name, kind) = (c"faulty", c"fuse");
        let flags = libc::MS_NODEV | libc::MS_NOSUID;
        // SAFETY: all strings live for the call and end in a zero.
        let mounted = unsafe {
            libc::mount(name.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
        };
        if mounted != 0 {
            return Err(io::Error::last_os_error());
        }
        let switch = Arc::<Switch>::default();
        let faulty = Self { at: at.to_owned(), switch: Arc::clone(&switch) };
        let folder = folder::Folder::new(below, switch)?;
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        // Its threads end when the mount is gone and nobody has a file of it open.
        Session::from_fd(folder, device.into(), SessionACL::All, config)?.spawn()?;
        Ok(faulty)
    }

    /// From now on what is asked fails so, until the spell is dropped or another one is cast.
    pub fn strike(&self, on: &[On], fault: Fault) -> Spell<'_> {
        self.set(on, fault);
        Spell(self)
    }

    /// The same, until [`Faulty::heal`].
    pub fn set(&self, on: &[On], fault: Fault) {
        self.switch.set(on.iter().map(|on| (*on, fault)).collect());
    }

    /// Nothing fails any more, and what waited is answered.
    pub fn heal(&self) {
        self.switch.set(Vec::new());
    }

    /// How often something failed or was made to wait.
    pub fn struck(&self) -> u64 {
        self.switch.state().count
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.heal();
        let Ok(at) = CString::new(self.at.to_string_lossy().as_bytes()) else { return };
        // SAFETY: the path lives for the call and ends in a zero.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A fault that holds on as long as this lives.
pub struct Spell<'a>(&'a Faulty);

impl Drop for Spell<'_> {
    fn drop(&mut self) {
        self.0.heal();
    }
}

#[test]
fn a_disk_fails_as_it_is_told_to_and_loses_what_a_sync_could_not_write() {
    use std::io::{Read, Write};
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("at");
    let Ok(disk) = Faulty::mount(&at, &folder.path().join("below")) else {
        return eprintln!("skipped: no FUSE file system can be mounted here");
    };
    let path = at.join("file");
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
    file.write_all(b"on the disk ").unwrap();
    file.sync_data().unwrap();
    let code = |result: io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    let spell = disk.strike(&[On::Sync], Fault::Error(libc::EIO));
    file.write_all(b"lost").unwrap();
    assert_eq!(code(file.sync_data()), Some(libc::EIO));
    drop(spell);
    file.sync_data().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"on the disk \0\0\0\0");
    let spell = disk.strike(&[On::Read, On::Write], Fault::Error(libc::ENOSPC));
    assert_eq!(code(file.write_all(b"x")), Some(libc::ENOSPC));
    assert_eq!(code(std::fs::read(&path).map(drop)), Some(libc::ENOSPC));
    drop(spell);
    let spell = disk.strike(&[On::Read, On::Write], Fault::Short);
    let n = file.write_at(&[b'y'; 4096], 0).unwrap();
    assert!(n < 4096 && file.read_at(&mut [0; 8], 0).unwrap() < 8);
    drop(spell);
    for (on, fault) in [(On::Names, libc::EROFS), (On::Open, libc::EIO), (On::Look, libc::EIO)] {
        let _spell = disk.strike(&[on], Fault::Error(fault));
        let result = match on {
            On::Names => std::fs::rename(&path, at.join("other")),
            On::Open => std::fs::File::open(&path).map(drop),
            _ => std::fs::metadata(&path).map(drop),
        };
        assert_eq!(code(result), Some(fault));
    }
    let before = disk.struck();
    let spell = disk.strike(&[On::Read], Fault::Stall);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        text.len()
    });
    while disk.struck() == before {
        std::thread::yield_now();
    }
    assert!(!reader.is_finished());
    drop(spell);
    assert!(reader.join().unwrap() >= n);
    assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
}
