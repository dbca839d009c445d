//! What a start does with the files of the run before: each is cut to what the checkpoint says is committed.
//!
//! What lies behind that was written and never accounted for, and will be sent again. Where it came from what cannot send
//! again (sockets), the file has the only copy: then whole lines stay. A file is ours when device and
//! inode are those of the checkpoint, at its path or, after a rotation that a crash cut short, under a name beside it
//! that begins with the same name. Anything else is left alone, and so is a file that another engine has locked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::place::OpenError;
use crate::assemble::Rest;
use crate::checkpoint::{Group, Output};
use crate::lock::{locker, try_lock};

/// Cuts the files of a group, and takes out of it those that are no more at their path: they are finished.
pub(super) fn recover(group: &mut Group, rest: Rest) -> Result<(), OpenError> {
    let keeps = match rest {
        Rest::Cut => false,
        Rest::Keep => true,
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
        true => whole_lines(&file, output.committed_len, len).map_err(io)?,
    };
    if stays > output.committed_len {
        log::info!(
            target: "wpgen::sink",
            "output {}: {} bytes that no checkpoint has stay: its sources cannot send them again",
            path.display(),
            stays - output.committed_len
        );
    }
    // Also when it has this length: that gives back the blocks reserved behind it.
    file.set_len(stays).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok(stays)
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
