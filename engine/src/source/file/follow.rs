//! Follows one file: reads on when it grows, starts over when it is truncated, reads it out when it is gone.
//!
//! Invariants: it reads the file that was looked at and no other that took its path since; before it reads on, and again
//! before it gives out what it read, the catalog has judged the open file; what was read under an identity settles under
//! that identity; a line that was unfinished when its file was truncated is given out once, as a piece or from a copy; ten
//! thousand files may rest at once, so what only reading needs is boxed and freed; a file that lost its name is read until
//! no writer has touched it for [`LINGER`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::catalog::Decision;
use super::observe;
use super::once::newline_before;
use super::reader::{Ended, Reader};
use super::settings::Settings;
use super::tail::Followed;
use super::unpack::Corrupt;
use crate::batch::ShardId;
use crate::io::IoFile;
use crate::source::part::Surroundings;
use crate::source::seldom::Seldom;

/// A file without a name is closed when it has not grown for this long.
const LINGER: Duration = Duration::from_secs(3);
/// When a file that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often a file that no watch speaks of is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How long a compressed file that was cut off must rest before it is read on: it is unpacked from its beginning.
const PACKED_REST: Duration = Duration::from_secs(1);
/// Between two attempts to read what cannot be read: nothing else tells when it can.
const RETRY: Duration = Duration::from_millis(500);

/// A file to be followed.
pub struct Assignment {
    /// The input.
    pub id: u64,
    /// Its path.
    pub path: PathBuf,
    /// Where to begin; for compressed content, in the content.
    pub position: u64,
    /// Whether its content is compressed.
    pub packed: bool,
    /// Who had the path before: its rest comes first.
    pub after: Option<Arc<Link>>,
    /// How the coordinator reaches the follower.
    pub link: Arc<Link>,
}

/// Between the coordinator and a follower.
#[derive(Debug)]
pub struct Link {
    /// The follower's shard.
    pub shard: ShardId,
    wake: Notify,
    path: Mutex<PathBuf>,
    renamed: AtomicBool,
    gone: AtomicBool,
    /// The identity under which the file goes on after a truncation; 0 is none.
    anew: AtomicU64,
    /// It has been at the end of its file since it lost a path, or has ended.
    read_out: AtomicBool,
    ended: AtomicBool,
    is_read_out: Notify,
    size: AtomicU64,
    position: AtomicU64,
}

impl Link {
    /// A link to a follower of `path`.
    pub fn new(shard: ShardId, path: PathBuf) -> Self {
        Self {
            shard,
            wake: Notify::new(),
            path: Mutex::new(path),
            renamed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            anew: AtomicU64::new(0),
            read_out: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_read_out: Notify::new(),
            size: AtomicU64::new(0),
            position: AtomicU64::new(0),
        }
    }

    /// There may be more to read.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// The file has another path, or one again.
    pub fn renamed(&self, to: PathBuf) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.gone.store(false, Ordering::Release);
        self.renamed.store(true, Ordering::Release);
        self.wake();
    }

    /// No path leads to the file any more.
    pub fn gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.wake();
    }

    /// The file was truncated, and goes on as `new`.
    pub fn truncated(&self, new: u64) {
        self.anew.store(new, Ordering::Release);
        self.wake();
    }

    /// Whether nobody follows the file any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Bytes that are there and not read.
    pub fn lag(&self) -> u64 {
        self.size.load(Ordering::Relaxed).saturating_sub(self.position.load(Ordering::Relaxed))
    }

    fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_read_out(&self) {
        self.read_out.store(true, Ordering::Release);
        self.is_read_out.notify_waiters();
    }

    /// Waits until the follower has read what its file held when its path went to another.
    async fn read_out(&self) {
        loop {
            let told = self.is_read_out.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.read_out.load(Ordering::Acquire) {
                return;
            }
            // It may be waiting for an event that never comes for a file without a name.
            self.wake();
            told.await;
        }
    }
}

/// Follows a file until it is gone and read, or the source stops.
pub async fn follow(
    settings: Rc<Settings>,
    followed: Arc<Followed>,
    around: Surroundings,
    assignment: Assignment,
) {
    let Assignment { id, path, position, packed, after, link } = assignment;
    // Opened at once, whoever comes first: while it waits its path may go to yet another file.
    let file = match claim(&followed, id, &path) {
        Ok(file) => file,
        Err(error) => return give_up(&settings, &followed, &around, (id, position), &link, error).await,
    };
    if let Some(after) = after {
        tokio::select! {
            () = after.read_out() => {}
            () = around.stop.raised() => {}
        }
    }
    let mut follower = Follower::new(settings, followed, around, link, file, id, &path, position, packed);
    if packed {
        follower.unpack(&path).await;
    } else {
        follower.run().await;
    }
}

/// Opens the file of `id`, or tells that its path leads to another one by now.
fn claim(followed: &Followed, id: u64, path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let meta = file.metadata()?;
    if followed.catalog().is_in(id, meta.dev(), meta.ino()) {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "another file is there now"))
}

/// Nothing can be read now: a look at all files finds out where the file is, at once or after a while.
async fn give_up(
    settings: &Settings,
    followed: &Followed,
    around: &Surroundings,
    (id, position): (u64, u64),
    link: &Link,
    error: io::Error,
) {
    let moved = error.kind() == io::ErrorKind::NotFound;
    if !moved {
        settings.failed(around, &link.path(), &error);
    }
    left(followed, link, id, false, false);
    if !moved && error.kind() != io::ErrorKind::PermissionDenied {
        followed.fails(id, &link.path(), &error);
    }
    followed.catalog().retire(id, position);
    tokio::select! {
        () = tokio::time::sleep(if moved { Duration::ZERO } else { AGAIN }) => followed.ask_look(),
        () = around.stop.raised() => {}
    }
    followed.works(id);
}

fn left(followed: &Followed, link: &Link, id: u64, end: bool, deleted: bool) {
    followed.works(id);
    followed.catalog().closed(id, end, deleted);
    followed.unlink(id);
    link.ended.store(true, Ordering::Release);
    link.set_read_out();
}

fn open(path: &Path) -> io::Result<File> {
    // A FIFO that took the file's place must not hang the shard.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

struct Follower {
    settings: Rc<Settings>,
    followed: Arc<Followed>,
    around: Surroundings,
    link: Arc<Link>,
    reader: Reader,
    id: u64,
    grew: Instant,
    /// It has had another path: a file that took it waits for the rest of this one.
    moved: bool,
    /// Whether the last attempt to read failed, and what was said of that.
    fails: bool,
    failures: Seldom,
}

impl Follower {
    #[expect(clippy::too_many_arguments, reason = "each is owned by the follower from here on")]
    fn new(
        settings: Rc<Settings>,
        followed: Arc<Followed>,
        around: Surroundings,
        link: Arc<Link>,
        file: File,
        id: u64,
        path: &Path,
        position: u64,
        packed: bool,
    ) -> Self {
        let origin = Rc::new(settings.origin(path));
        let slot = around.shard.settle().open(id, position);
        let mut way = settings.way();
        if position > 0 && !packed && !newline_before(&file, position) {
            way.lines.resume_inside_line();
        }
        let file = IoFile::new(file, around.shard.io().backend());
        let reader = Reader::new(around.clone(), file, origin, slot, way, position);
        link.position.store(position, Ordering::Relaxed);
        let (grew, failures) = (Instant::now(), Seldom::default());
        Self { settings, followed, around, link, reader, id, grew, moved: false, fails: false, failures }
    }

    async fn run(&mut self) {
        loop {
            let failed = match self.read_on().await {
                Ok(Ended::AtEnd) => self.works(),
                Ok(Ended::Stopped) => return self.leave(false).await,
                Err(error) => self.failed(&error),
            };
            if self.around.stop.is_raised() {
                return self.leave(false).await;
            }
            let gone = self.link.gone.load(Ordering::Acquire);
            if gone || self.moved {
                self.link.set_read_out();
            }
            if gone && self.grew.elapsed() >= LINGER {
                Box::pin(self.reader.finish()).await;
                return self.leave(!self.reader.was_refused()).await;
            }
            if failed { self.pause(RETRY).await } else { self.rest(gone).await }
        }
    }

    /// It could be read; returns whether it could not.
    fn works(&mut self) -> bool {
        if self.fails {
            self.fails = false;
            self.followed.works(self.id);
            let path = self.link.path();
            log::info!(target: "wpgen::file", "source '{}': {} can be read again", self.settings.key, path.display());
        }
        false
    }

    /// It could not be read: counted each time, and said at most once a minute. Returns whether it could not.
    fn failed(&mut self, error: &io::Error) -> bool {
        let path = self.link.path();
        self.fails = true;
        self.followed.fails(self.id, &path, error);
        match self.failures.happened(1) {
            Some(_) => self.settings.failed(&self.around, &path, error),
            None => self.around.counters.errors.add(1),
        }
        true
    }

    /// Waits, unless the source stops.
    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.around.stop.raised() => {}
        }
    }

    /// Reads what is there, under the identity the catalog gives it.
    async fn read_on(&mut self) -> io::Result<Ended> {
        loop {
            self.renamed();
            let path = self.link.path();
            let seen = observe::file(&self.reader.file().as_std(), &path, false)?;
            self.link.size.store(seen.size, Ordering::Relaxed);
            let decision = self.followed.touch(&seen, &self.link);
            let told = self.link.anew.swap(0, Ordering::AcqRel);
            let new = match decision {
                Some(Decision::Truncated { new, .. }) => new,
                // A look at all files came first.
                Some(Decision::Grew { id }) => id,
                _ => told,
            };
            if new != 0 && new != self.id {
                self.begin_anew(new).await;
            }
            if seen.size <= self.reader.position() {
                return Ok(Ended::AtEnd);
            }
            let (file, followed, id) = (self.reader.file().clone(), &self.followed, self.id);
            let is_ours = |upto| {
                let seen = observe::file(&file.as_std(), &path, false);
                seen.is_ok_and(|seen| followed.catalog().holds(id, &seen, upto))
            };
            let ended = Box::pin(self.reader.read_to(seen.size, is_ours)).await?;
            self.grew = Instant::now();
            self.progressed();
            if ended == Ended::Stopped {
                return Ok(Ended::Stopped);
            }
        }
    }

    fn progressed(&self) {
        let position = self.reader.position();
        self.link.position.store(position, Ordering::Relaxed);
        let is_owing = self.followed.catalog().progress(self.id, position);
        // Not while the catalog is held: a disk that does not answer would have everybody wait who asks for positions.
        if is_owing && let Ok(head) = observe::head(&self.reader.file().as_std()) {
            self.followed.catalog().head(self.id, &head);
        }
    }

    fn renamed(&mut self) {
        if self.link.renamed.swap(false, Ordering::AcqRel) {
            self.moved = true;
            self.reader.set_origin(Rc::new(self.settings.origin(&self.link.path())));
        }
    }

    /// The file was truncated: what is in it now is another input. An unfinished line is left to a copy that holds more
    /// of it; where there is none, what was read is all there will be.
    async fn begin_anew(&mut self, new: u64) {
        if self.reader.is_holding() && !self.goes_on_in_copy().await {
            Box::pin(self.reader.finish()).await;
        }
        let slot = self.around.shard.settle().open(new, 0);
        let handed = self.reader.handed();
        let old = self.reader.begin_anew(slot);
        self.retire(self.id, old);
        let mut catalog = self.followed.catalog();
        catalog.hand_back(self.id, handed);
        catalog.closed(self.id, true, false);
        drop(catalog);
        self.followed.unlink(self.id);
        self.followed.works(self.id);
        self.id = new;
        self.link.position.store(0, Ordering::Relaxed);
    }

    /// Whether there is a copy of the file, made before it was truncated, with more than was given out. A look that began
    /// since then tells.
    async fn goes_on_in_copy(&self) -> bool {
        let handed = self.reader.handed();
        let looks = self.followed.catalog().looks_begun();
        loop {
            let looked = self.followed.looked.notified();
            tokio::pin!(looked);
            looked.as_mut().enable();
            let (found, judged) = {
                let catalog = self.followed.catalog();
                (catalog.is_copied_beyond(self.id, handed), catalog.looks_judged())
            };
            if found || judged > looks || self.around.stop.is_raised() {
                return found;
            }
            self.followed.ask_look();
            tokio::select! {
                () = looked => {}
                () = self.around.stop.raised() => {}
            }
        }
    }

    /// Waits for growth, for the time to give out an unfinished line, or for the end.
    async fn rest(&mut self, gone: bool) {
        self.reader.rest();
        let flush = self.followed.flush_partial;
        let unfinished = self.reader.unfinished() > 0 && !flush.is_zero();
        let wait = match (gone, unfinished) {
            (true, _) => Some(POLL),
            (false, true) => Some(flush.saturating_sub(self.grew.elapsed()).max(Duration::from_millis(1))),
            (false, false) => self.reader.stage_wait(),
        };
        tokio::select! {
            () = self.link.wake.notified() => {}
            () = self.around.stop.raised() => {}
            () = sleep(wait) => {
                if unfinished && self.grew.elapsed() >= flush {
                    Box::pin(self.reader.finish()).await;
                } else if !unfinished {
                    self.reader.flush_stage().await;
                }
            }
        }
    }

    /// Gives the file and its window back.
    async fn leave(&mut self, end: bool) {
        let deleted = self.is_deleted();
        self.retire(self.id, self.reader.slot());
        left(&self.followed, &self.link, self.id, end, deleted);
    }

    /// Waits, on its own, until every sink has the input, and closes its window.
    fn retire(&self, id: u64, slot: u32) {
        let (followed, around) = (Arc::clone(&self.followed), self.around.clone());
        tokio::task::spawn_local(async move {
            while !around.shard.settle().is_idle(slot) {
                around.shard.settled().await;
            }
            let low = around.shard.settle().low(slot);
            followed.retired(id, low);
            around.shard.settle().close(slot);
        });
    }

    /// Reads compressed content to its end. A file that is cut off is still being written: its rest is waited for, and the
    /// line that it ends in is not given out.
    async fn unpack(&mut self, path: &Path) {
        let mut told = false;
        let end = loop {
            let tried = self.size();
            let error = match Box::pin(self.reader.read_packed()).await {
                Ok(Ended::AtEnd) => {
                    Box::pin(self.reader.finish()).await;
                    break true;
                }
                Ok(Ended::Stopped) => break false,
                Err(error) => error,
            };
            match Corrupt::of(&error) {
                Some(corrupt) if corrupt.is_cut => {
                    if !std::mem::replace(&mut told, true) {
                        self.tell_cut(path, corrupt);
                    }
                    match self.rest_of_packed(tried).await {
                        Rest::Came => {
                            let handed = self.reader.handed();
                            self.reader.seek(handed);
                            continue;
                        }
                        Rest::IsElsewhere => break false,
                        Rest::Never => {}
                    }
                }
                Some(_) => {}
                None => {
                    self.failed(&error);
                    self.pause(AGAIN).await;
                    break false;
                }
            }
            self.settings.failed(&self.around, path, &error);
            // There is no more of it than what came before the damage.
            Box::pin(self.reader.finish()).await;
            break true;
        };
        let end = end && !self.reader.was_refused();
        self.note(end);
        self.leave(end).await;
    }

    fn tell_cut(&self, path: &Path, corrupt: &Corrupt) {
        log::warn!(
            target: "wpgen::file",
            "source '{}': {} is cut off at byte {} ({} bytes of content before it): waiting for its rest",
            self.settings.key, path.display(), corrupt.packed, corrupt.content
        );
    }

    fn size(&self) -> u64 {
        self.reader.file().metadata().map_or(0, |meta| meta.len())
    }

    /// Waits until a file that was cut off at `tried` bytes has other ones, and has rested with them.
    async fn rest_of_packed(&mut self, tried: u64) -> Rest {
        self.reader.rest();
        // What has its path by now is not to wait for whoever writes it.
        self.link.set_read_out();
        let mut before = tried;
        loop {
            self.pause(PACKED_REST).await;
            if self.around.stop.is_raised() {
                return Rest::IsElsewhere;
            }
            self.renamed();
            let size = self.size();
            if size != tried && size == before {
                let seen = observe::file(&self.reader.file().as_std(), &self.link.path(), false);
                let holds = seen.is_ok_and(|seen| self.followed.catalog().holds(self.id, &seen, 0));
                return if holds { Rest::Came } else { Rest::IsElsewhere };
            }
            if size == before && self.is_deleted() {
                return Rest::Never;
            }
            before = size;
        }
    }

    fn is_deleted(&self) -> bool {
        self.reader.file().metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Tells the catalogue how far a packed file was read.
    fn note(&self, end: bool) {
        let mut catalog = self.followed.catalog();
        catalog.progress(self.id, self.reader.position());
        if !end {
            // Whoever reads on begins behind what was given out.
            catalog.hand_back(self.id, self.reader.handed());
        }
    }
}

/// What becomes of a compressed file that is cut off.
enum Rest {
    /// There is more of it now.
    Came,
    /// There will be none: nobody can find the file any more.
    Never,
    /// Not here: the source stops, or the file holds something else.
    IsElsewhere,
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
