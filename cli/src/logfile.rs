//! The log's file: `wpgen.log`, turned over past 10 MB into `wpgen.log.1.gz`, ten of those kept.
//!
//! Owns the names in the log folder. Invariants: a turned-over file keeps its lines until its compressed copy is whole
//! and renamed; what a crash left half-way (`wpgen.log.1`) is finished at the next turn or start. Runs on the writer thread
//! only. It refuses to follow the clock: only size turns a file over.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use engine::config::top::LOG_NAME;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes at which a file is turned over.
const TURN_BYTES: u64 = 10 << 20;
/// Turned-over files that are kept.
const KEPT: u32 = 10;

/// The open log file.
#[derive(Debug)]
pub struct LogFile {
    folder: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    turn_bytes: u64,
}

impl LogFile {
    /// Opens the log in a folder, which is made when it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_with(folder, TURN_BYTES)
    }

    fn open_with(folder: &Path, turn_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        compress_left_over(folder)?;
        let (file, bytes) = append(&folder.join(LOG_NAME))?;
        Ok(Self { folder: folder.to_owned(), file, bytes, turn_bytes })
    }

    /// Appends a line and its newline, and turns the file over when it is full.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.write_all(b"\n")?;
        self.bytes += text.len() as u64 + 1;
        if self.bytes >= self.turn_bytes { self.turn() } else { Ok(()) }
    }

    /// Gives what is buffered to the kernel.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn turn(&mut self) -> io::Result<()> {
        self.file.flush()?;
        compress_left_over(&self.folder)?;
        let path = self.folder.join(LOG_NAME);
        match std::fs::rename(&path, self.folder.join(format!("{LOG_NAME}.1"))) {
            // Someone else took the file away; a new one begins all the same.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        (self.file, self.bytes) = append(&path)?;
        compress_left_over(&self.folder)
    }
}

fn append(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((BufWriter::with_capacity(64 << 10, file), bytes))
}

/// Makes `wpgen.log.1` into `wpgen.log.1.gz`, moving the older ones up by one and the oldest out.
fn compress_left_over(folder: &Path) -> io::Result<()> {
    let plain = folder.join(format!("{LOG_NAME}.1"));
    let Ok(mut from) = File::open(&plain) else { return Ok(()) };
    let unfinished = folder.join(format!("{LOG_NAME}.1.gz.tmp"));
    let mut gz = GzEncoder::new(File::create(&unfinished)?, Compression::fast());
    io::copy(&mut from, &mut gz)?;
    gz.finish()?.sync_data()?;
    let kept = |n: u32| folder.join(format!("{LOG_NAME}.{n}.gz"));
    for n in (1..KEPT).rev() {
        match std::fs::rename(kept(n), kept(n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::rename(&unfinished, kept(1))?;
    std::fs::remove_file(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_full_file_is_turned_over_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut log = LogFile::open_with(folder, 100).unwrap();
        for i in 0..30 {
            log.line(&format!("line {i:04}")).unwrap();
        }
        log.flush().unwrap();
        assert_eq!(names(folder), ["wpgen.log", "wpgen.log.1.gz", "wpgen.log.2.gz", "wpgen.log.3.gz"]);
        let mut all = String::new();
        for n in (1..=3).rev() {
            all += &unpacked(&folder.join(format!("wpgen.log.{n}.gz")));
        }
        all += &std::fs::read_to_string(folder.join("wpgen.log")).unwrap();
        let expected: String = (0..30).map(|i| format!("line {i:04}\n")).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn ten_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::open_with(folder.path(), 10).unwrap();
        for i in 0..25 {
            log.line(&format!("line {i:04}")).unwrap();
        }
        assert_eq!(names(folder.path()).len(), 11);
        assert_eq!(unpacked(&folder.path().join("wpgen.log.1.gz")), "line 0024\n");
        assert_eq!(unpacked(&folder.path().join("wpgen.log.10.gz")), "line 0015\n");
    }

    #[test]
    fn what_a_crash_left_is_finished_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("wpgen.log.1"), "old\n").unwrap();
        std::fs::write(folder.join("wpgen.log.1.gz.tmp"), "torn").unwrap();
        std::fs::write(folder.join("wpgen.log"), "now\n").unwrap();
        let mut log = LogFile::open_with(folder, 1000).unwrap();
        log.line("next").unwrap();
        log.flush().unwrap();
        assert_eq!(names(folder), ["wpgen.log", "wpgen.log.1.gz"]);
        assert_eq!(unpacked(&folder.join("wpgen.log.1.gz")), "old\n");
        assert_eq!(std::fs::read_to_string(folder.join("wpgen.log")).unwrap(), "now\nnext\n");
    }
}
