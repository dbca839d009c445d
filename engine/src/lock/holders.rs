//! Which processes have which files open, as `/proc` shows it to us.
//!
//! One pass over all descriptors finds inodes by what the kernel writes of them, which no dead file system can delay; only
//! those that may be the file in question are looked at themselves. Bounded: [`DESCRIPTORS_MAX`]. Processes that we may not
//! look into are counted, so that "nobody" is never said where "nobody we can see" is meant.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Descriptors that are kept of one pass.
const DESCRIPTORS_MAX: usize = 1 << 16;

/// A process that has a file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name, as `/proc/PID/comm` has it.
    pub name: String,
    /// Whether it holds a lock through one of its descriptors of the file.
    pub locks: bool,
    /// Whether it may write through one of them.
    pub writes: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {} ({})", self.pid, self.name)
    }
}

impl Holder {
    /// A process that is there, of which only this much is known.
    pub(super) fn locking(pid: u32) -> Option<Self> {
        fs::metadata(format!("/proc/{pid}")).ok()?;
        Some(Self { pid, name: name_of(pid), locks: true, writes: true })
    }
}

/// A descriptor of another process.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    pid: u32,
    number: u32,
    locks: bool,
    writes: bool,
}

/// The files that other processes had open when this was made.
#[derive(Debug, Default)]
pub struct OpenFiles {
    by_inode: HashMap<u64, Vec<Descriptor>>,
    kept: usize,
    hidden: usize,
}

impl OpenFiles {
    /// Looks at every process but ourselves.
    pub fn now() -> Self {
        let mut found = Self::default();
        let Ok(processes) = fs::read_dir("/proc") else { return found };
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|&pid| pid != std::process::id()) {
            found.look_into(pid);
        }
        found
    }

    fn look_into(&mut self, pid: u32) {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) => {
                self.hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                return;
            }
        };
        for entry in entries.flatten() {
            let is_path = fs::read_link(entry.path()).is_ok_and(|target| target.is_absolute());
            let number = entry.file_name().to_str().and_then(|number| number.parse().ok());
            let (true, Some(number)) = (is_path && self.kept < DESCRIPTORS_MAX, number) else { continue };
            let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else { continue };
            let (inode, locks, writes) = facts(&info);
            // Kernels before 5.14 do not tell the inode.
            let Some(inode) = inode.or_else(|| Some(fs::metadata(entry.path()).ok()?.ino())) else {
                continue;
            };
            self.by_inode.entry(inode).or_default().push(Descriptor { pid, number, locks, writes });
            self.kept += 1;
        }
    }

    /// The processes that have the file open, each once.
    pub fn holders(&self, dev: u64, ino: u64) -> Vec<Holder> {
        let mut holders: Vec<Holder> = Vec::new();
        for descriptor in self.by_inode.get(&ino).into_iter().flatten() {
            let Descriptor { pid, number, locks, writes } = *descriptor;
            // Follows the link to the open file itself, also when its name is gone.
            let is_it = fs::metadata(format!("/proc/{pid}/fd/{number}"))
                .is_ok_and(|meta| (meta.dev(), meta.ino()) == (dev, ino));
            if !is_it {
                continue;
            }
            match holders.iter_mut().find(|holder| holder.pid == pid) {
                Some(holder) => {
                    holder.locks |= locks;
                    holder.writes |= writes;
                }
                None => holders.push(Holder { pid, name: name_of(pid), locks, writes }),
            }
        }
        holders
    }

    /// Which right would show more, if there are processes that hide their files from us.
    pub fn unseen(&self) -> Option<String> {
        (self.hidden > 0).then(|| {
            format!(
                "{} processes do not show uid {} what they have open; root does see it, and who has CAP_SYS_PTRACE",
                self.hidden,
                effective_user()
            )
        })
    }
}

/// As [`OpenFiles::unseen`], for one question.
pub fn unseen() -> Option<String> {
    OpenFiles::now().unseen()
}

/// The inode, whether a lock is held, and whether writing is possible: of a text in `/proc/PID/fdinfo`.
fn facts(info: &str) -> (Option<u64>, bool, bool) {
    let value = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let flags = value("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok()).unwrap_or(0);
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    (value("ino:").and_then(|inode| inode.parse().ok()), value("lock:").is_some(), writes)
}

/// Who locks a file, by the kernel's table: it names the processes of all users, but none for an open file description's
/// lock, as engines hold it.
pub(super) fn in_table(dev: u64, ino: u64) -> Option<Holder> {
    let table = fs::read_to_string("/proc/locks").ok()?;
    table.lines().filter_map(|line| of_table(line, dev, ino)).find_map(Holder::locking)
}

/// The process of a line of `/proc/locks`, if that is of the file and stands for one that has the lock.
fn of_table(line: &str, dev: u64, ino: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    // The second word of a line for one that waits is an arrow.
    let kind = words.next().filter(|kind| *kind == "POSIX" || *kind == "OFDLCK")?;
    let (pid, file) = (words.nth(2)?, words.next()?);
    let mut parts = file.split(':');
    let (major, minor) = (parts.next()?, parts.next()?);
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    let is_it = (libc::major(dev), libc::minor(dev)) == (number(major)?, number(minor)?)
        && parts.next()?.parse() == Ok(ino);
    if is_it && kind == "POSIX" { pid.parse().ok() } else { None }
}

pub(super) fn name_of(pid: u32) -> String {
    let comm = Path::new("/proc").join(pid.to_string()).join("comm");
    fs::read_to_string(comm).map_or_else(|_| "?".into(), |name| name.trim_end().into())
}

fn effective_user() -> u32 {
    // SAFETY: it asks for a number and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn another_process_with_the_file_open_is_found() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let meta = file.as_file().metadata().expect("its facts");
        assert_eq!(OpenFiles::now().holders(meta.dev(), meta.ino()), []);
        let input = Stdio::from(file.reopen().expect("again"));
        let mut child =
            Command::new("tail").args(["-f", "/dev/null"]).stdin(input).spawn().expect("a process");
        let found = OpenFiles::now().holders(meta.dev(), meta.ino());
        child.kill().expect("ended");
        child.wait().expect("gone");
        assert_eq!(found.len(), 1);
        // `reopen` opens for reading and writing.
        assert_eq!((found[0].pid, found[0].locks, found[0].writes), (child.id(), false, true));
    }

    #[test]
    fn a_descriptors_facts_are_read() {
        let info =
            "pos:\t0\nflags:\t0100001\nmnt_id:\t29\nino:\t4711\nlock:\t1: OFDLCK  ADVISORY  WRITE -1\n";
        assert_eq!(facts(info), (Some(4711), true, true));
        assert_eq!(facts("pos:\t0\nflags:\t0100000\n"), (None, false, false));
    }

    #[test]
    fn a_line_of_the_table_of_locks_is_read() {
        let dev = libc::makedev(0xfe, 0x10);
        let line = "1: POSIX  ADVISORY  WRITE 612 fe:10:4711 0 EOF";
        assert_eq!(of_table(line, dev, 4711), Some(612));
        assert_eq!(of_table(line, dev, 471), None);
        assert_eq!(of_table(line, libc::makedev(0xfe, 1), 4711), None);
        for other in [
            "2: OFDLCK ADVISORY  WRITE -1 fe:10:4711 0 EOF",
            "2: FLOCK  ADVISORY  WRITE 612 fe:10:4711 0 EOF",
            "2: -> POSIX  ADVISORY  WRITE 613 fe:10:4711 0 EOF",
            "",
        ] {
            assert_eq!(of_table(other, dev, 4711), None, "{other}");
        }
    }
}
