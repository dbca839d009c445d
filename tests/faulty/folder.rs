//! The file system behind [`super::Faulty`]: each node is a descriptor of a file below, each request the same call on it.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{Fault, On, Switch};

/// The kernel asks each time.
const TTL: Duration = Duration::ZERO;
/// Of what an opener asked for, what is the kernel's business and not the file's below.
const KERNELS: i32 =
    libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_DIRECT | libc::O_NOFOLLOW;

/// See above.
pub(super) struct Folder(Arc<Below>);

/// What requests share.
struct Below {
    switch: Arc<Switch>,
    /// By inode below; the root's is 1. A node's descriptor keeps its inode from being given to another file.
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Arc<Opened>>>,
    folders: Mutex<HashMap<u64, Arc<Vec<Entry>>>>,
    /// The last handle, and a turn for the lengths of what is done in part.
    handle: AtomicU64,
    turn: AtomicU64,
    /// What was written to a file since it was last synced.
    unsynced: Mutex<HashMap<u64, Vec<(u64, u64)>>>,
}

struct Node {
    file: File,
    lookups: u64,
}

struct Opened {
    file: File,
    ino: u64,
}

struct Entry {
    ino: u64,
    kind: FileType,
    name: OsString,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Error(number)) => Err(io::Error::from_raw_os_error(number)),
        _ => Ok(()),
    }
}

impl Folder {
    /// Shows `below`.
    pub(super) fn new(below: &Path, switch: Arc<Switch>) -> io::Result<Self> {
        let root = Node { file: node(below)?, lookups: 1 };
        Ok(Self(Arc::new(Below {
            switch,
            nodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)])),
            files: Mutex::default(),
            folders: Mutex::default(),
            handle: AtomicU64::new(0),
            turn: AtomicU64::new(1),
            unsynced: Mutex::default(),
        })))
    }

    /// Answers now or when a stall ends.
    fn pass(&self, on: On, work: impl FnOnce(&Below, Option<Fault>) + Send + 'static) {
        let below = Arc::clone(&self.0);
        self.0.switch.pass(on, move |fault| work(&below, fault));
    }
}

/// A descriptor that only stands for a file.
fn node(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

impl Below {
    /// A path that leads to the node's file, whatever its name is.
    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let nodes = lock(&self.nodes);
        let node = nodes.get(&ino.0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(PathBuf::from(format!("/proc/self/fd/{}", node.file.as_raw_fd())))
    }

    fn at(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let nodes = lock(&self.nodes);
        let node = nodes.get(&ino.0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(FileAttr { ino, ..attr(&node.file.metadata()?) })
    }

    /// The node at a name, which the kernel knows from now on.
    fn look(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let file = node(&self.at(parent, name)?)?;
        let attr = attr(&file.metadata()?);
        lock(&self.nodes).entry(attr.ino.0).or_insert(Node { file, lookups: 0 }).lookups += 1;
        Ok(attr)
    }

    fn forget(&self, ino: INodeNo, lookups: u64) {
        let mut nodes = lock(&self.nodes);
        if ino != INodeNo::ROOT
            && let Some(node) = nodes.get_mut(&ino.0)
        {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                nodes.remove(&ino.0);
                lock(&self.unsynced).remove(&ino.0);
            }
        }
    }

    fn handle(&self) -> u64 {
        self.handle.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn opened(&self, file: File, ino: INodeNo) -> FileHandle {
        let handle = self.handle();
        lock(&self.files).insert(handle, Arc::new(Opened { file, ino: ino.0 }));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<Opened>> {
        let files = lock(&self.files);
        files.get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// How much of `len` bytes is done.
    fn part(&self, len: usize, fault: Option<Fault>) -> usize {
        if fault != Some(Fault::Short) || len < 2 {
            return len;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        1 + turn as usize % (len - 1)
    }

    fn read(&self, handle: FileHandle, offset: u64, len: u32, fault: Option<Fault>) -> io::Result<Vec<u8>> {
        broken(fault)?;
        let opened = self.file(handle)?;
        let mut bytes = vec![0; self.part(len as usize, fault)];
        let mut have = 0;
        while have < bytes.len() {
            match opened.file.read_at(&mut bytes[have..], offset + have as u64)? {
                0 => break,
                n => have += n,
            }
        }
        bytes.truncate(have);
        Ok(bytes)
    }

    fn write(&self, handle: FileHandle, offset: u64, bytes: &[u8], fault: Option<Fault>) -> io::Result<u32> {
        broken(fault)?;
        let opened = self.file(handle)?;
        let written = opened.file.write_at(&bytes[..self.part(bytes.len(), fault)], offset)?;
        lock(&self.unsynced).entry(opened.ino).or_default().push((offset, written as u64));
        u32::try_from(written).map_err(io::Error::other)
    }

    fn sync(&self, handle: FileHandle, fault: Option<Fault>) -> io::Result<()> {
        let opened = self.file(handle)?;
        let unsynced = lock(&self.unsynced).remove(&opened.ino).unwrap_or_default();
        if let Err(error) = broken(fault) {
            self.lose(opened.ino, &unsynced)?;
            return Err(error);
        }
        // The file below is as durable as a test needs: nothing pulls its plug.
        Ok(())
    }

    /// What was written there is not on the disk: a reader finds zeros.
    fn lose(&self, ino: u64, ranges: &[(u64, u64)]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(INodeNo(ino))?)?;
        let end = file.metadata()?.len();
        for (offset, len) in ranges {
            let len = (*len).min(end.saturating_sub(*offset));
            file.write_all_at(&vec![0; usize::try_from(len).map_err(io::Error::other)?], *offset)?;
        }
        Ok(())
    }

    fn entries(&self, ino: INodeNo) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.path(ino)?)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            let ino = std::os::unix::fs::DirEntryExt::ino(&entry);
            entries.push(Entry { ino, kind, name: entry.file_name() });
        }
        Ok(entries)
    }
}

fn options(flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    let access = flags & libc::O_ACCMODE;
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY).custom_flags(flags & !KERNELS);
    options
}

fn attr(meta: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanos: i64| {
        UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0))
    };
    FileAttr {
        ino: INodeNo(meta.ino()),
        size: meta.size(),
        blocks: meta.blocks(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
        ctime: time(meta.ctime(), meta.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(meta.file_type()).unwrap_or(FileType::RegularFile),
        perm: (meta.mode() & 0o7777) as u16,
        nlink: u32::try_from(meta.nlink()).unwrap_or(u32::MAX),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn empty(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn make_node(path: &Path, mode: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: the path lives for the call and ends in a zero.
    match unsafe { libc::mknod(path.as_ptr(), mode, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (from, to) = (text(from)?, text(to)?);
    // SAFETY: the paths live for the call and end in a zero.
    let done =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags.bits()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Filesystem for Folder {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.pass(On::Look, move |below, fault| {
            entry(reply, broken(fault).and_then(|()| below.look(parent, &name)));
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.0.forget(ino, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.pass(On::Look, move |below, fault| match broken(fault).and_then(|()| below.attr(ino)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error.into()),
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.pass(On::Write, move |below, fault| {
            let set = || -> io::Result<FileAttr> {
                broken(fault)?;
                let path = below.path(ino)?;
                if let Some(mode) = mode {
                    std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
                }
                if size.is_some() || mtime.is_some() {
                    let file = OpenOptions::new().write(true).open(&path)?;
                    size.map_or(Ok(()), |size| file.set_len(size))?;
                    let times = |mtime| file.set_times(FileTimes::new().set_modified(time(mtime)));
                    mtime.map_or(Ok(()), times)?;
                }
                below.attr(ino)
            };
            match set() {
                Ok(attr) => reply.attr(&TTL, &attr),
                Err(error) => reply.error(error.into()),
            }
        });
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let name = name.to_owned();
        self.pass(On::Names, move |below, fault| {
            let make = || broken(fault).and_then(|()| make_node(&below.at(parent, &name)?, mode));
            entry(reply, make().and_then(|()| below.look(parent, &name)));
        });
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        self.pass(On::Names, move |below, fault| {
            let make = || -> io::Result<()> {
                broken(fault)?;
                std::fs::DirBuilder::new().mode(mode).create(below.at(parent, &name)?)
            };
            entry(reply, make().and_then(|()| below.look(parent, &name)));
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.pass(On::Names, move |below, fault| {
            empty(reply, broken(fault).and_then(|()| std::fs::remove_file(below.at(parent, &name)?)));
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.pass(On::Names, move |below, fault| {
            empty(reply, broken(fault).and_then(|()| std::fs::remove_dir(below.at(parent, &name)?)));
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.pass(On::Names, move |below, fault| {
            let done = || -> io::Result<()> {
                broken(fault)?;
                rename(&below.at(parent, &name)?, &below.at(new_parent, &new_name)?, flags)
            };
            empty(reply, done());
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.pass(On::Open, move |below, fault| {
            let open = || broken(fault).and_then(|()| options(flags.0).open(below.path(ino)?));
            match open() {
                Ok(file) => reply.opened(below.opened(file, ino), FopenFlags::FOPEN_DIRECT_IO),
                Err(error) => reply.error(error.into()),
            }
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        self.pass(On::Names, move |below, fault| {
            let create = || -> io::Result<(FileAttr, File)> {
                broken(fault)?;
                let how = flags & !KERNELS | libc::O_CREAT | flags & libc::O_EXCL;
                let file = options(flags).custom_flags(how).mode(mode).open(below.at(parent, &name)?)?;
                Ok((below.look(parent, &name)?, file))
            };
            match create() {
                Ok((attr, file)) => {
                    let handle = below.opened(file, attr.ino);
                    reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
                }
                Err(error) => reply.error(error.into()),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.pass(On::Read, move |below, fault| match below.read(handle, offset, len, fault) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = bytes.to_owned();
        self.pass(On::Write, move |below, fault| match below.write(handle, offset, &bytes, fault) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error.into()),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0.files).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.pass(On::Sync, move |below, fault| empty(reply, below.sync(handle, fault)));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.pass(On::Sync, move |_, fault| empty(reply, broken(fault)));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.pass(On::Look, move |below, fault| match broken(fault).and_then(|()| below.entries(ino)) {
            Ok(entries) => {
                let handle = below.handle();
                lock(&below.folders).insert(handle, Arc::new(entries));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(entries) = lock(&self.0.folders).get(&handle.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        for (next, entry) in (1..).zip(entries.iter()).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(INodeNo(entry.ino), next, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.0.folders).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Much of everything: how much is free is not what is tested.
        reply.statfs(1 << 30, 1 << 29, 1 << 29, 1 << 20, 1 << 19, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.pass(On::Write, move |below, fault| {
            let allocate = || -> io::Result<()> {
                broken(fault)?;
                let opened = below.file(handle)?;
                let (offset, len) = (offset.cast_signed(), len.cast_signed());
                // SAFETY: the descriptor is open; fallocate takes numbers only.
                match unsafe { libc::fallocate(opened.file.as_raw_fd(), mode, offset, len) } {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            };
            empty(reply, allocate());
        });
    }
}
