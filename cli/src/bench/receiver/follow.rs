//! Follows a file that a program writes, so that its latency can be measured as a reader of the file sees it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Received;
use super::tally::{Limits, Tally};
use crate::bench::clock;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// How often an unchanged file is looked at: the precision of its latencies.
const LOOK: Duration = Duration::from_micros(200);

/// A file, or the place where it will be.
pub struct Followed {
    path: PathBuf,
    file: Option<File>,
    /// What was read and is not done with.
    kept: Vec<u8>,
}

impl Followed {
    /// What is there now is passed over; of a file that appears later all is read.
    pub fn new(path: &Path) -> Self {
        let mut followed = Self { path: path.to_owned(), file: File::open(path).ok(), kept: Vec::new() };
        // What cannot seek has no past to pass over.
        followed.file.iter_mut().for_each(|file| drop(file.seek(SeekFrom::End(0))));
        followed
    }

    /// Reads until it is enough.
    pub fn receive(mut self, mut tally: Tally, limits: Limits) -> Result<Received, String> {
        let began = Instant::now();
        while !limits.reached(&tally, began) {
            match self.read(&mut tally) {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(LOOK),
                Err(e) => return Err(format!("cannot read {}: {e}", self.path.display())),
            }
        }
        Ok(Received { tally, kernel_drops: 0 })
    }

    fn read(&mut self, tally: &mut Tally) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            return match File::open(&self.path) {
                Ok(file) => {
                    self.file = Some(file);
                    Ok(true)
                }
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            };
        };
        let old = self.kept.len();
        let n = file.by_ref().take(READ_BYTES as u64).read_to_end(&mut self.kept)?;
        if n == 0 {
            return self.follow_on();
        }
        let done = tally.take(&self.kept, old, false, clock::now_ns());
        self.kept.drain(..done);
        Ok(true)
    }

    /// At the end: whether the file was turned over or cut.
    fn follow_on(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let (ours, position) = (file.metadata()?, file.stream_position().unwrap_or(0));
        if ours.len() < position {
            file.seek(SeekFrom::Start(0))?;
            return Ok(true);
        }
        let turned_over =
            std::fs::metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) != (ours.dev(), ours.ino()));
        if turned_over {
            self.file = File::open(&self.path).ok();
        }
        Ok(turned_over)
    }
}
