//! When to look again: inotify on folders, and a slow clock where that sees nothing.
//!
//! Folders are watched and not files, so that 10 000 files cost one watch. Events are not followed one by one: they are
//! read once in a while, and come out as "these files were written to" and "names came or went". How long that while is
//! follows the load, from [`TICK_MIN`] to [`TICK_MAX`], so a quiet folder answers at once and a busy one costs a fixed
//! number of wakes.
//!
//! Invariants: nothing is lost silently. A queue that overflowed, a folder that went away, a watch that cannot be had and
//! a file system where others write unseen (NFS and its like) all come out as [`Changes::look`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::find::Interest;

/// How long events are left to gather, at least and under load.
pub const TICK_MIN: Duration = Duration::from_millis(2);
/// See [`TICK_MIN`].
pub const TICK_MAX: Duration = Duration::from_millis(50);
/// How often folders are looked at that cannot be watched.
pub const POLL: Duration = Duration::from_secs(1);

/// A look at everything is followed by so many times its duration without another one, and so many times until it is
/// polled again.
const LOOK_SHARE: u32 = 4;
const POLL_SHARE: u32 = 100;
/// The longest pause between looks.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Room for a few hundred events.
const BUFFER_BYTES: usize = 32 * 1024;

const NAMES: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_ATTRIB
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;
const CONTENT: u32 = libc::IN_MODIFY | libc::IN_CLOSE_WRITE;

/// What happened since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names came or went, or something may have been missed: look at everything.
    pub look: bool,
    /// Files that were written to, by their path without links.
    pub written: HashSet<PathBuf>,
}

/// A folder that is polled because watching it is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// The folder.
    pub folder: PathBuf,
    /// Why: words for the operator.
    pub reason: String,
}

/// Watches the folders of one source.
#[derive(Debug)]
pub struct Watch {
    inotify: AsyncFd<OwnedFd>,
    by_number: HashMap<i32, PathBuf>,
    by_folder: HashMap<PathBuf, (i32, Interest)>,
    polled: BTreeMap<PathBuf, String>,
    next_poll: Instant,
    /// A look is due, but not before `look_after`.
    look_owed: bool,
    look_after: Instant,
    /// When the look began that was last asked for, until its duration is known.
    look_began: Option<Instant>,
    /// A watch was added since that was last asked.
    added: bool,
    tick: Duration,
    overflows: u64,
}

impl Watch {
    /// Watches nothing yet. Must be called inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes flags and returns a descriptor or -1.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an owned descriptor is the same open file for as long as it lives, and closes only when it is dropped.
        let inotify = unsafe { AsyncFd::register(owned) }?;
        Ok(Self {
            inotify,
            by_number: HashMap::new(),
            by_folder: HashMap::new(),
            polled: BTreeMap::new(),
            next_poll: Instant::now() + POLL,
            look_owed: false,
            look_after: Instant::now(),
            look_began: None,
            added: false,
            tick: TICK_MIN,
            overflows: 0,
        })
    }

    /// Watches exactly these folders, which are paths without links. Returns those that are polled from now on and were
    /// not before. What changed before a watch was there is not told: so look again where [`Watch::added`].
    pub fn set(&mut self, folders: &BTreeMap<PathBuf, Interest>) -> Vec<Polled> {
        let gone: Vec<PathBuf> =
            self.by_folder.keys().filter(|folder| !folders.contains_key(*folder)).cloned().collect();
        gone.iter().for_each(|folder| self.remove(folder));
        self.polled.retain(|folder, _| folders.contains_key(folder));
        let mut polled = Vec::new();
        for (folder, interest) in folders {
            if self.by_folder.get(folder).is_some_and(|(_, kept)| kept == interest) {
                continue;
            }
            let reason = match self.add(folder, *interest) {
                Ok(()) => blind(folder),
                Err(error) => cannot_watch(&error),
            };
            let Some(reason) = reason else { continue };
            if self.polled.insert(folder.clone(), reason.clone()).is_none() {
                polled.push(Polled { folder: folder.clone(), reason });
            }
        }
        polled
    }

    /// Whether a folder is watched that was not when this was last asked.
    pub fn added(&mut self) -> bool {
        std::mem::take(&mut self.added)
    }

    /// How often the kernel's queue ran over; each time cost a look at everything.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// How many folders are polled.
    pub fn polled(&self) -> usize {
        self.polled.len()
    }

    fn add(&mut self, folder: &Path, interest: Interest) -> io::Result<()> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        let content = if interest == Interest::Content { CONTENT } else { 0 };
        let mask = NAMES | content | libc::IN_ONLYDIR | libc::IN_EXCL_UNLINK;
        // SAFETY: the path is a string that ends in a zero and lives through the call.
        let number = unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), path.as_ptr(), mask) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // The same folder moved here from a path that is still in the list: the last name wins.
        let old = self.by_number.insert(number, folder.to_owned());
        if let Some(old) = old.filter(|old| old != folder) {
            self.by_folder.remove(&old);
        }
        self.by_folder.insert(folder.to_owned(), (number, interest));
        self.added = true;
        Ok(())
    }

    fn remove(&mut self, folder: &Path) {
        if let Some((number, _)) = self.by_folder.remove(folder) {
            self.by_number.remove(&number);
            // SAFETY: it takes two numbers; a watch that ended by itself is an error that means nothing here.
            unsafe { libc::inotify_rm_watch(self.inotify.as_raw_fd(), number) };
        }
    }

    /// Waits until something happened, lets it gather for a tick, and returns it. Can be dropped at any time. Whoever is
    /// told to look should do so before asking again: the time until then is taken for what a look costs.
    pub async fn changes(&mut self) -> Changes {
        self.pace();
        loop {
            let waited = self.ready().await;
            // Something is waiting already when we come back: a busy folder, which gets more time to gather.
            self.tick = if waited { TICK_MIN } else { (self.tick * 2).min(TICK_MAX) };
            sleep(self.tick).await;
            let mut changes = Changes::default();
            self.drain(&mut changes);
            self.look_owed |= changes.look;
            let now = Instant::now();
            if !self.polled.is_empty() && now >= self.next_poll {
                self.next_poll = now + POLL;
                self.look_owed = true;
            }
            changes.look = self.look_owed && now >= self.look_after;
            if changes.look {
                self.look_owed = false;
                self.look_began = Some(now);
            }
            if changes.look || !changes.written.is_empty() {
                return changes;
            }
        }
    }

    /// Puts the next look off by as much as the last one was worth.
    fn pace(&mut self) {
        if let Some(began) = self.look_began.take() {
            let now = Instant::now();
            let cost = now - began;
            self.look_after = now + (cost * LOOK_SHARE).min(PAUSE_MAX);
            self.next_poll = now + (cost * POLL_SHARE).clamp(POLL, PAUSE_MAX);
        }
    }

    /// Waits for events, or for the time of a look that is due; true when that took time.
    async fn ready(&self) -> bool {
        let began = Instant::now();
        let poll = (!self.polled.is_empty()).then_some(self.next_poll);
        let look = self.look_owed.then_some(self.look_after);
        let events = async {
            // An error here is one of the runtime's end; then nothing wakes us any more.
            if self.inotify.readable().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match poll.into_iter().chain(look).min() {
            Some(time) => drop(timeout_at(time, events).await),
            None => events.await,
        }
        began.elapsed() >= TICK_MIN
    }

    fn drain(&mut self, changes: &mut Changes) {
        // Aligned as the kernel wants its events.
        let mut buffer = vec![0u64; BUFFER_BYTES / 8];
        loop {
            let read = self.inotify.try_io(tokio::io::Interest::READABLE, |fd| {
                // SAFETY: the buffer is ours, as long as we say, and lives through the call.
                let read = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), BUFFER_BYTES) };
                usize::try_from(read).map_err(|_| io::Error::last_os_error())
            });
            match read {
                Ok(read) => self.take(&bytes_of(&buffer)[..read], changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Nothing left; anything else would have been told before, and a look is never wrong.
                    changes.look |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], changes: &mut Changes) {
        while let Some((event, rest)) = Event::first(bytes) {
            bytes = rest;
            if event.mask & libc::IN_Q_OVERFLOW != 0 {
                self.overflows += 1;
                changes.look = true;
            } else if event.mask & libc::IN_IGNORED != 0 {
                if let Some(folder) = self.by_number.remove(&event.number) {
                    self.by_folder.remove(&folder);
                    changes.look = true;
                }
            } else if event.mask & CONTENT != 0 && event.mask & libc::IN_ISDIR == 0 {
                if let Some(folder) = self.by_number.get(&event.number) {
                    changes.written.insert(folder.join(event.name));
                }
            } else if event.mask & libc::IN_MOVE_SELF != 0 {
                // The watch goes with the folder; its path is another's now.
                if let Some(folder) = self.by_number.get(&event.number).cloned() {
                    self.remove(&folder);
                }
                changes.look = true;
            } else {
                changes.look = true;
            }
        }
    }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: any eight bytes of a word are bytes, and the length is the same memory's.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// One event as it lies in the buffer: `inotify_event`, then the name, padded with zeros.
struct Event<'a> {
    number: i32,
    mask: u32,
    name: &'a OsStr,
}

impl<'a> Event<'a> {
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<16>()?;
        let field = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let len = u32::from_ne_bytes(field(12)) as usize;
        let (name, rest) = rest.split_at_checked(len)?;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(len);
        let event = Event {
            number: i32::from_ne_bytes(field(0)),
            mask: u32::from_ne_bytes(field(4)),
            name: OsStr::from_bytes(&name[..end]),
        };
        Some((event, rest))
    }
}

fn cannot_watch(error: &io::Error) -> Option<String> {
    match error.raw_os_error() {
        // It went away since it was found; the look that follows will see that.
        Some(libc::ENOENT | libc::ENOTDIR) => None,
        Some(libc::ENOSPC) => Some(
            "all inotify watches are in use: sysctl fs.inotify.max_user_watches=524288 would give more"
                .into(),
        ),
        _ => Some(format!("it cannot be watched: {error}")),
    }
}

/// File systems on which another machine, or another view of the same files, can write without inotify seeing it.
fn blind(folder: &Path) -> Option<String> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: statfs is a plain C struct of integers, for which all zeros is a valid value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero, and both live through the call.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut facts) } != 0 {
        return None;
    }
    let name = blind_name(facts.f_type as u64 & 0xffff_ffff)?;
    Some(format!("it is on {name}, where inotify does not see every change"))
}

fn blind_name(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "SMB",
        0x6573_5546 => "FUSE",
        0x794c_7630 => "overlayfs",
        0x0102_1997 => "9p",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x5346_414f => "AFS",
        _ => return None,
    })
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
