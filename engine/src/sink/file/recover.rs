//! What a start does with the files of the run before: each is cut to what the checkpoint says is committed.
//!
//! What lies behind that was written and never accounted for, and will be sent again. Where it came from what cannot send
//! again (sockets), the file has the only copy: then whole lines stay, as far as the disk has them. A file is ours when device and
//! inode are those of the checkpoint, at its path or, after a rotation that a crash cut short, under a name beside it
//! that begins with the same name. Anything else is left alone, and so is a file that another engine has locked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::place::OpenError;
use crate::assemble::Rest;
use crate::checkpoint::{Group, Output};
use crate::io::first_hole;
use crate::lock::{locker, try_lock};

/// Cuts the files of a group, and takes out of it those that are no more at their path: they are finished.
pub(super) fn recover(group: &mut Group, rest: Rest) -> Result<(), OpenError> {
    let keeps = match rest {
        Rest::Cut => false,
        // A source that is off now may read them once more.
        Rest::Keep => group.only_copy || group.positions.is_empty(),
        Rest::AsWritten => group.only_copy,
    };
    let mut still_there = Vec::new();
    for output in std::mem::take(&mut group.files) {
        match find(&output) {
            Some(found) => {
                let len = cut(&found, &output, keeps)?;
                if found == output.path {
                    still_there.push(Output { committed_len: len, ..output });
                }
            }
            None => log::warn!(
                target: "wpgen::sink",
                "output {} of the last run is gone: its {} bytes are not written again",
                output.path.display(),
                output.committed_len
            ),
        }
    }
    group.files = still_there;
    Ok(())
}

fn find(output: &Output) -> Option<PathBuf> {
    let same = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == (output.dev, output.ino) && meta.is_file())
    };
    if same(&output.path) {
        return Some(output.path.clone());
    }
    let name = output.path.file_name()?.as_encoded_bytes();
    let entries = fs::read_dir(output.path.parent()?).ok()?.flatten();
    let mut beside = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name));
    beside.find_map(|entry| same(&entry.path()).then(|| entry.path()))
}

/// Cuts the file and returns the length it has then.
fn cut(path: &Path, output: &Output, keeps: bool) -> Result<u64, OpenError> {
    let io = |error: io::Error| OpenError::Io { path: path.to_owned(), error };
    let file: File = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    if !try_lock(&file).map_err(io)? {
        return Err(OpenError::Busy { path: path.to_owned(), holder: locker(&file) });
    }
    let len = file.metadata().map_err(io)?.len();
    if len < output.committed_len {
        log::warn!(
            target: "wpgen::sink",
            "output {} has {len} bytes and had {}: somebody cut it, records go behind what is left",
            path.display(),
            output.committed_len
        );
        return Ok(len);
    }
    let stays = match keeps {
        false => output.committed_len,
        true => {
            let upto = on_disk(path, &file, output.committed_len, len).map_err(io)?;
            whole_lines(&file, output.committed_len, upto).map_err(io)?
        }
    };
    if stays > output.committed_len {
        log::info!(
            target: "wpgen::sink",
            "output {}: {} bytes that no checkpoint has stay: its sources cannot send them again",
            path.display(),
            stays - output.committed_len
        );
        tell_zeros(path, &file, output.committed_len, stays).map_err(io)?;
    }
    // Also when it has this length: that gives back the blocks reserved behind it.
    file.set_len(stays).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok(stays)
}

/// How much of the file is on disk, in one piece from `from` on. What a sync was refused for, the kernel has in memory
/// and takes for written.
fn on_disk(path: &Path, file: &File, from: u64, len: u64) -> io::Result<u64> {
    if let Err(error) = file.sync_all() {
        log::warn!(target: "wpgen::sink", "output {}: syncing what the last run left: {error}", path.display());
    }
    let upto = first_hole(file, from)?.min(len);
    if upto < len {
        log::warn!(
            target: "wpgen::sink",
            "output {}: its disk has not taken all of the last {} bytes, from byte {upto} on: they are cut; they were not \
             delivered, and no source can send them again",
            path.display(),
            len - upto
        );
    }
    Ok(upto)
}

/// Tells of zeros in `[from, upto)` that may be what a block had before.
fn tell_zeros(path: &Path, file: &File, from: u64, upto: u64) -> io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    let (mut at, mut zeros) = (from, Zeros::default());
    while at < upto {
        let len = usize::try_from(upto - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_exact_at(&mut piece[..len], at)?;
        zeros.look(at, &piece[..len]);
        at += len as u64;
    }
    if let Some(first) = zeros.first {
        log::warn!(
            target: "wpgen::sink",
            "output {}: {} zeros from byte {first} on, up to where a block ends, as a machine or disk leaves them that \
             stops before it has written all: records there were not delivered, and may not be whole",
            path.display(),
            zeros.bytes
        );
    }
    Ok(())
}

/// Runs of zeros up to where a block of the file system may end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Zeros {
    /// The first one.
    first: Option<u64>,
    /// Bytes of all.
    bytes: u64,
    /// Length of the run that is not over.
    run: u64,
}

impl Zeros {
    /// The smallest block there is, bytes.
    const BLOCK: u64 = 512;

    /// Looks at the next piece of the file, which lies at `at`.
    fn look(&mut self, at: u64, piece: &[u8]) {
        let mut from = 0;
        while from < piece.len() {
            let block_end = (Self::BLOCK - (at + from as u64) % Self::BLOCK) as usize;
            let to = piece.len().min(from + block_end);
            let block = &piece[from..to];
            let zeros = block.iter().rev().take_while(|byte| **byte == 0).count();
            self.run = if zeros == block.len() { self.run + zeros as u64 } else { zeros as u64 };
            let end = at + to as u64;
            if to - from == block_end && zeros > 0 {
                self.first.get_or_insert(end - self.run);
                self.bytes += std::mem::take(&mut self.run);
            }
            from = to;
        }
    }
}

/// Where the last line of `[from, len)` ends; `from` where there is none.
fn whole_lines(file: &File, from: u64, len: u64) -> io::Result<u64> {
    let mut piece = vec![0; 64 << 10];
    let mut end = len;
    while end > from {
        let begin = end.saturating_sub(piece.len() as u64).max(from);
        let piece = &mut piece[..usize::try_from(end - begin).unwrap_or_default()];
        file.read_exact_at(piece, begin)?;
        if let Some(at) = memchr::memrchr(b'\n', piece) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &Path, committed_len: u64) -> Output {
        let meta = fs::metadata(path).unwrap();
        Output { path: path.to_owned(), dev: meta.dev(), ino: meta.ino(), committed_len }
    }

    fn recovered(output: Output) -> Vec<Output> {
        let mut group = Group { files: vec![output], ..Group::default() };
        recover(&mut group, Rest::Cut).unwrap();
        group.files
    }

    #[test]
    fn what_is_not_committed_goes_wherever_the_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "committed, not").unwrap();
        let known = output(&path, 9);
        assert_eq!(recovered(known.clone()), std::slice::from_ref(&known));
        assert_eq!(fs::read_to_string(&path).unwrap(), "committed");
        // Renamed by a rotation that did not get any further, and a new one made.
        fs::write(&path, "committed, not").unwrap();
        let aside = dir.path().join("out.log.1");
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert_eq!(recovered(known.clone()), []);
        assert_eq!(fs::read_to_string(&aside).unwrap(), "committed");
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        // Renamed to something that is not a rotation's name.
        fs::rename(&aside, dir.path().join("kept")).unwrap();
        fs::write(dir.path().join("kept"), "committed and more").unwrap();
        assert_eq!(recovered(known), []);
        assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "committed and more");
    }

    #[test]
    fn whole_lines_of_what_cannot_come_again_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let long = "x".repeat(100 << 10);
        for (tail, stays) in [
            (String::new(), 0),
            ("one\ntw".to_owned(), 4),
            ("torn".to_owned(), 0),
            (format!("one\n{long}"), 4),
            (format!("{long}\n"), long.len() + 1),
        ] {
            let cases =
                [(Rest::Keep, false), (Rest::AsWritten, true), (Rest::AsWritten, false), (Rest::Cut, true)];
            for (case, (rest, only_copy)) in cases.into_iter().enumerate() {
                fs::write(&path, format!("committed\n{tail}")).unwrap();
                let mut group = Group { files: vec![output(&path, 10)], only_copy, ..Group::default() };
                recover(&mut group, rest).unwrap();
                let stays = if case < 2 { stays } else { 0 };
                assert_eq!(group.files[0].committed_len, 10 + stays as u64);
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("committed\n{}", &tail[..stays]));
            }
        }
    }

    #[test]
    fn what_a_source_that_is_off_may_read_again_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        for (only_copy, stays) in [(false, 10), (true, 14)] {
            fs::write(&path, "committed\none\n").unwrap();
            let positions = vec![(1, 10)];
            let mut group =
                Group { files: vec![output(&path, 10)], only_copy, positions, ..Group::default() };
            recover(&mut group, Rest::Keep).unwrap();
            assert_eq!(group.files[0].committed_len, stays);
        }
    }

    #[test]
    fn zeros_count_that_end_where_a_block_does() {
        let found = |zeros: &[(usize, usize)], cuts: &[usize]| {
            let mut bytes = vec![b'x'; 3000];
            zeros.iter().for_each(|&(from, to)| bytes[from..to].fill(0));
            let (mut found, mut from) = (Zeros::default(), 0);
            for to in cuts.iter().copied().chain([bytes.len()]) {
                found.look(1000 + from as u64, &bytes[from..to]);
                from = to;
            }
            (found.first, found.bytes)
        };
        // The file's blocks end at 1024, 1536, 2048 and so on; these are places behind 1000.
        for cuts in [&[][..], &[24], &[100, 536], &[530, 531, 540, 1048]] {
            assert_eq!(found(&[], cuts), (None, 0));
            assert_eq!(found(&[(30, 500), (600, 1047)], cuts), (None, 0), "a record may have zeros");
            assert_eq!(found(&[(20, 24)], cuts), (Some(1020), 4));
            assert_eq!(found(&[(500, 1048), (1500, 1560)], cuts), (Some(1500), 548 + 60));
        }
    }

    #[test]
    fn a_file_that_somebody_cut_is_taken_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "abc").unwrap();
        assert_eq!(recovered(output(&path, 100))[0].committed_len, 3);
    }

    #[test]
    fn a_file_that_is_in_use_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        fs::write(&path, "abc").unwrap();
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(try_lock(&other).unwrap());
        let mut group = Group { files: vec![output(&path, 1)], ..Group::default() };
        assert!(matches!(recover(&mut group, Rest::Cut), Err(OpenError::Busy { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    }
}
