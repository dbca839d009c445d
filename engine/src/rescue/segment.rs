//! A file of rescued batches as it is remembered, and what the files of one sink may take together.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::format::Head;

/// The ending of a segment's name.
pub(super) const ENDING: &str = ".rescue";

/// What follows a segment's name in that of the file which says how far it is delivered.
const SENT: &str = ".sent";
/// What that file begins with.
const SENT_NAME: &str = "wpgen-rescue-sent 1";

/// What all backlogs of a sink hold together, and may.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) most: u64,
    pub(super) used: AtomicU64,
    /// Records that are kept and not delivered.
    pub(super) records: AtomicU64,
}

impl Quota {
    pub(super) fn new(most: u64) -> Self {
        Self { most, used: AtomicU64::new(0), records: AtomicU64::new(0) }
    }

    /// Takes bytes if they are left.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| (used.saturating_add(bytes) <= self.most).then_some(used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Counts what is there whether it may or not.
    pub(super) fn take_all(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Where the segments of a sink are.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// To sync it by.
    pub(super) handle: File,
}

impl Folder {
    /// Makes it where it is missing, so that it is still there after the power failed.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            for above in path.ancestors().skip(1).take(2) {
                File::open(above)?.sync_all()?;
            }
        }
        let handle = File::open(&path)?;
        Ok(Self { path, handle })
    }
}

/// A batch in a segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where it begins.
    pub(super) at: u64,
    pub(super) records: u32,
    /// Receipt of its oldest record, nanoseconds since the Unix epoch.
    pub(super) oldest_ns: i64,
    /// Inputs, and up to where it has them; of an earlier run nobody knows.
    pub(super) positions: Box<[(u64, u64)]>,
}

impl Entry {
    /// The batch that a scan found.
    pub(super) fn found((at, head): &(usize, Head)) -> Self {
        Self { at: *at as u64, records: head.records, oldest_ns: head.oldest_ns, positions: Box::default() }
    }
}

/// A file of batches.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Its bytes, as the quota counts them.
    pub(super) bytes: u64,
    /// What its first line says heads are sealed with.
    pub(super) salt: u32,
    /// Batches that are not delivered, oldest first.
    pub(super) batches: VecDeque<Entry>,
    /// How many of those, from the first on, were read.
    pub(super) read: usize,
    /// Whether some of it was delivered since it was opened.
    pub(super) is_begun: bool,
    /// Whether a part of it cannot be read: then it is put aside, not deleted.
    pub(super) broken: bool,
}

impl Segment {
    /// The first batch that was not read.
    pub(super) fn unread(&self) -> Option<&Entry> {
        self.batches.get(self.read)
    }
}

/// Where it is said how far a segment is delivered.
fn sent_path(segment: &Path) -> PathBuf {
    let mut name = segment.as_os_str().to_owned();
    name.push(SENT);
    PathBuf::from(name)
}

/// The checksum of what the file says.
fn sent_crc(salt: u32, at: u64) -> u32 {
    crc32fast::hash(format!("{salt:08x} {at}").as_bytes())
}

/// Says durably that a segment is delivered up to `at`. The salt stands for the segment: names come again, salts do not.
pub(super) fn write_sent(folder: &Folder, segment: &Path, salt: u32, at: u64) -> io::Result<()> {
    let path = sent_path(segment);
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{SENT_NAME} {:08x} {salt:08x} {at}", sent_crc(salt, at))?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    folder.handle.sync_all()
}

/// Up to where a segment is delivered, as far as that was said. What is torn or of another segment says nothing: then
/// what it was about is sent again.
pub(super) fn read_sent(segment: &Path, salt: u32) -> Option<u64> {
    let text = fs::read_to_string(sent_path(segment)).ok()?;
    let words: Vec<&str> = text.strip_prefix(SENT_NAME)?.strip_suffix('\n')?.split(' ').skip(1).collect();
    let [crc, its_salt, at] = words[..] else { return None };
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    let at = at.parse().ok()?;
    (number(its_salt)? == salt && number(crc)? == sent_crc(salt, at)).then_some(at)
}

/// Removes a segment, and first what says how far it is delivered.
pub(super) fn remove(segment: &Path) -> io::Result<()> {
    forget_sent(segment)?;
    fs::remove_file(segment)
}

fn forget_sent(segment: &Path) -> io::Result<()> {
    match fs::remove_file(sent_path(segment)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames a segment so that it is not read again, and returns where it is.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    forget_sent(path)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".broken-{seconds}"));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}
