//! What a start does with the files of the run before: each is cut to what the checkpoint says is committed.
//!
//! What lies behind that was written and never accounted for, and will be sent again. Where it came from what cannot send
//! again (sockets), the file has the only copy: then whole lines stay, as far as the disk has them. A file is ours when device and
//! inode are those of the checkpoint, at its path or, after a rotation that a crash cut short, under a name beside it
//! that begins with the same name. Anything else is left alone, and so is a file that another engine has locked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Display, Path, PathBuf};

use super::place::OpenError;
use crate::assemble::Rest;
use crate::checkpoint::{Group, Output};
use crate::io::first_hole;
use crate::lock::{locker, try_lock};

/// Cuts the files of a group, and takes out of it those that are no more at their path: they are finished. `is_synced` is
/// whether only what was synced was delivered. Returns whether all that are left have the length that the group had.
pub(super) fn recover(group: &mut Group, rest: Rest, is_synced: bool) -> Result<bool, OpenError> {
    let keeps = match rest {
        Rest::Cut => false,
        // A source that is off now may read them once more.
        Rest::Keep => group.only_copy || group.positions.is_empty(),
        Rest::AsWritten => group.only_copy,
    };
    let mut as_before = true;
    let mut still_there = Vec::new();
    for output in std::mem::take(&mut group.files) {
        match find(&output) {
            Some(found) => {
                let len = cut(&found, &output, keeps, is_synced)?;
                as_before &= len == output.committed_len;
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
    Ok(as_before)
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
fn cut(path: &Path, output: &Output, keeps: bool, is_synced: bool) -> Result<u64, OpenError> {
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
        true => kept(path, &file, output.committed_len, len, is_synced).map_err(io)?,
    };
    // Also when it has this length: that gives back the blocks reserved behind it.
    file.set_len(stays).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok(stays)
}

/// Up to where the only copy stays: whole lines, as far as the disk has them.
fn kept(path: &Path, file: &File, from: u64, len: u64, is_synced: bool) -> io::Result<u64> {
    let path = path.display();
    let upto = if is_synced { on_disk(&path, file, from, len)?.min(len) } else { len };
    let stays = whole_lines(file, from, upto)?;
    if stays > from {
        log::info!(
            target: "wpgen::sink",
            "output {path}: {} bytes that no checkpoint has stay: its sources cannot send them again",
            stays - from
        );
    }
    if upto < len {
        log::warn!(
            target: "wpgen::sink",
            "output {path}: its disk has not taken all of the last {} bytes, from byte {upto} on: they are cut; no sync had \
             covered them, and no source can send them again",
            len - stays
        );
    } else if stays < len {
        log::info!(
            target: "wpgen::sink",
            "output {path}: {} bytes behind the last whole line are cut: a record was being written",
            len - stays
        );
    }
    // Only for what is told of them: a tail that cannot be read is no reason not to start.
    if let Ok(Zeros { first: Some(first), bytes, .. }) = zeros(file, from, stays) {
        log::warn!(
            target: "wpgen::sink",
            "output {path}: {bytes} zeros from byte {first} on, up to where a block ends: where they are not a record's, the \
             machine or its disk stopped before it had written all, and records there that no sync had covered are not whole"
        );
    }
    Ok(stays)
}

/// Up to where the disk has the file, of `len` bytes, in one piece from `from` on. What a sync was refused for, the kernel has
/// in memory and takes for written; and writing it again is no help where the file system has the blocks marked as unwritten.
fn on_disk(path: &Display, file: &File, from: u64, len: u64) -> io::Result<u64> {
    if let Err(error) = file.sync_all() {
        log::warn!(target: "wpgen::sink", "output {path}: syncing what the last run left: {error}");
    }
    // What is committed, the disk had.
    let committed = from.saturating_sub(1);
    let Some(hole) = first_hole(file, committed)? else { return Ok(len) };
    if hole.start == committed {
        log::warn!(
            target: "wpgen::sink",
            "output {path}: zeros up to byte {}, as where somebody cuts a file that is being written; they stay, and what is \
             behind them",
            hole.end
        );
        return Ok(len);
    }
    // A file system that calls a hole what is none must not have us cut it.
    let mut piece = vec![0; usize::try_from(hole.end - hole.start).unwrap_or(usize::MAX).min(64 << 10)];
    file.read_exact_at(&mut piece, hole.start)?;
    Ok(if piece.iter().all(|byte| *byte == 0) { hole.start } else { len })
}

/// Zeros in `[from, upto)`, or in the last part of it, that may be what a block had before.
fn zeros(file: &File, from: u64, upto: u64) -> io::Result<Zeros> {
    let mut piece = vec![0; 1 << 20];
    let (mut at, mut zeros) = (from.max(upto.saturating_sub(ZEROS_IN_BYTES)), Zeros::default());
    while at < upto {
        let len = usize::try_from(upto - at).unwrap_or(usize::MAX).min(piece.len());
        file.read_exact_at(&mut piece[..len], at)?;
        zeros.look(at, &piece[..len]);
        at += len as u64;
    }
    Ok(zeros)
}

/// Zeros are looked for in this much of the end of a file: more than is written between two syncs.
const ZEROS_IN_BYTES: u64 = 256 << 20;

/// Runs of zeros up to where a block of the file system may end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Zeros {
    /// The first one.
    first: Option<u64>,
    /// Bytes of all.
    bytes: u64,
    /// Length of the run that is not over, and how much of it is in `bytes`.
    run: u64,
    counted: u64,
}

impl Zeros {
    /// The smallest block there is, bytes.
    const BLOCK: u64 = 512;
    /// A shorter run is a record's, bytes.
    const RUN_MIN: u64 = 16;

    /// Looks at the next piece of the file, which lies at `at`.
    fn look(&mut self, at: u64, piece: &[u8]) {
        let mut from = 0;
        while from < piece.len() {
            let block_end = (Self::BLOCK - (at + from as u64) % Self::BLOCK) as usize;
            let to = piece.len().min(from + block_end);
            let zeros = piece[from..to].iter().rev().take_while(|byte| **byte == 0).count();
            if zeros < to - from {
                (self.run, self.counted) = (0, 0);
            }
            self.run += zeros as u64;
            if to - from == block_end && self.run >= Self::RUN_MIN {
                self.first.get_or_insert(at + to as u64 - self.run);
                self.bytes += self.run - std::mem::replace(&mut self.counted, self.run);
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
        recover(&mut group, Rest::Cut, true).unwrap();
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
                recover(&mut group, rest, true).unwrap();
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
            recover(&mut group, Rest::Keep, true).unwrap();
            assert_eq!(group.files[0].committed_len, stays);
        }
    }

    /// A file of lines of a hundred bytes, of which the disk has all but these pages.
    fn lines_with_holes(path: &Path, holes: &[(u64, u64)]) {
        let bytes = ("x".repeat(99) + "\n").repeat(4096).into_bytes();
        let file = File::create(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (page, bytes) in bytes.chunks(4096).enumerate() {
            let page = page as u64;
            if !holes.iter().any(|(from, to)| (*from..*to).contains(&page)) {
                file.write_all_at(bytes, page * 4096).unwrap();
            }
        }
    }

    fn recovered_of(path: &Path, is_synced: bool) -> (u64, bool) {
        let mut group = Group { files: vec![output(path, 10_000)], only_copy: true, ..Group::default() };
        let as_before = recover(&mut group, Rest::AsWritten, is_synced).unwrap();
        let len = fs::metadata(path).unwrap().len();
        assert_eq!(group.files[0].committed_len, len);
        (len, as_before)
    }

    #[test]
    fn what_the_disk_does_not_have_goes_and_the_checkpoint_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        // Ten thousand bytes, which end in page 2, are committed. A hole of one page is one, whatever is behind it.
        for (holes, stays) in [
            (&[][..], 409_600),
            (&[(25, 26)], 102_400),
            (&[(25, 26), (50, 90)], 102_400),
            (&[(3, 100)], 12_200),
            (&[(25, 100)], 102_400),
        ] {
            lines_with_holes(&path, holes);
            assert_eq!(recovered_of(&path, true), (stays, false), "{holes:?}");
        }
        lines_with_holes(&path, &[(25, 50)]);
        assert_eq!(
            recovered_of(&path, false),
            (409_600, false),
            "what is delivered without a sync may be in memory"
        );
    }

    #[test]
    fn what_was_written_behind_a_cut_of_somebody_elses_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        for holes in [(0, 3), (0, 50), (2, 50)] {
            lines_with_holes(&path, &[holes]);
            assert_eq!(recovered_of(&path, true).0, 409_600);
        }
        // With nothing committed, a hole at the beginning may be either; what may have been delivered stays.
        lines_with_holes(&path, &[(0, 50)]);
        let mut group = Group { files: vec![output(&path, 0)], only_copy: true, ..Group::default() };
        recover(&mut group, Rest::AsWritten, true).unwrap();
        assert_eq!(group.files[0].committed_len, 409_600);
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
            assert_eq!(found(&[(9, 24), (521, 536)], cuts), (None, 0), "nor may they be few");
            assert_eq!(found(&[(8, 24), (521, 536)], cuts), (Some(1008), 16));
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
        assert!(matches!(recover(&mut group, Rest::Cut, true), Err(OpenError::Busy { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
    }
}
