//! Rotation: when a file is full, and what the old ones are called.
//!
//! The names are logrotate's: `out.log.1` is the youngest, a packed one is `out.log.1.gz`. Files move up one number
//! from the oldest on, so that a crash in between leaves a gap and never overwrites; the next rotation closes the gap.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::place::sync_folder;
use super::settings::{Packing, Rotate};

/// Endings that a rotated file may have.
const ENDINGS: [&str; 3] = ["", Packing::Gzip.ending(), Packing::Zstd.ending()];

/// Whether a batch of `more` bytes, received at `now_ns`, belongs into a new file rather than behind `len` bytes that
/// were written at `written_ns`. A file without bytes is never rotated.
pub(super) fn is_due(
    rotate: &Rotate,
    len: u64,
    more: u64,
    written_ns: i64,
    now_ns: i64,
    zone: &TimeZone,
) -> bool {
    if len == 0 {
        return false;
    }
    let full = rotate.size.is_some_and(|size| len + more > size);
    let every = rotate.every.map_or(0, |every| i64::try_from(every.as_nanos()).unwrap_or(i64::MAX));
    full || every > 0 && period(written_ns, every, zone) < period(now_ns, every, zone)
}

/// The number of a stretch of `every` ns, counted by the wall clock: days begin at midnight.
fn period(ns: i64, every: i64, zone: &TimeZone) -> i64 {
    let time = Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default();
    let offset_ns = i64::from(zone.to_offset(time).seconds()) * 1_000_000_000;
    ns.saturating_add(offset_ns).div_euclid(every)
}

/// Puts the file at `path` aside as number 1 and returns its new name. Of the older ones `keep` in all stay.
pub(super) fn put_aside(path: &Path, keep: u32) -> io::Result<PathBuf> {
    let mut gap = 1;
    while existing(path, gap).is_some() {
        gap += 1;
    }
    for number in (1..gap).rev() {
        while let Some((old, ending)) = existing(path, number) {
            if keep > 0 && number >= keep {
                fs::remove_file(old)?;
            } else {
                fs::rename(old, numbered(path, number + 1, ending))?;
            }
        }
    }
    let aside = numbered(path, 1, "");
    fs::rename(path, &aside)?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))?;
    Ok(aside)
}

/// The rotated file of a number, packed or not, and its ending.
pub(super) fn existing(path: &Path, number: u32) -> Option<(PathBuf, &'static str)> {
    let found = ENDINGS.into_iter().map(|ending| (numbered(path, number, ending), ending));
    found.into_iter().find(|(name, _)| fs::symlink_metadata(name).is_ok())
}

/// What the rotated file of a number is called.
pub(super) fn numbered(path: &Path, number: u32, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{ending}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY: i64 = 86_400_000_000_000;

    #[test]
    fn a_file_is_full_by_size_or_by_the_clock() {
        let size = Rotate { size: Some(100), every: None, keep: 0 };
        let utc = TimeZone::UTC;
        assert!(!is_due(&size, 0, 1000, 0, DAY, &utc));
        assert!(!is_due(&size, 60, 40, 0, DAY, &utc));
        assert!(is_due(&size, 60, 41, 0, DAY, &utc));
        let daily = Rotate { size: None, every: Some(Duration::from_secs(86_400)), keep: 0 };
        assert!(!is_due(&daily, 1, 1, 0, DAY - 1, &utc));
        assert!(is_due(&daily, 1, 1, DAY - 1, DAY, &utc));
        assert!(!is_due(&daily, 1, 1, DAY, DAY - 1, &utc), "a clock that goes back rotates nothing");
        let east = TimeZone::fixed(jiff::tz::offset(8));
        assert!(is_due(&daily, 1, 1, 16 * DAY / 24 - 1, 16 * DAY / 24, &east));
    }

    #[test]
    fn files_move_up_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        for n in 0..4 {
            fs::write(&path, n.to_string()).unwrap();
            let aside = put_aside(&path, 3).unwrap();
            assert_eq!(fs::read_to_string(aside).unwrap(), n.to_string());
        }
        let read = |ending: &str| fs::read_to_string(dir.path().join(format!("out.log{ending}"))).ok();
        assert_eq!(
            [read(".1"), read(".2"), read(".3"), read(".4")].map(|x| x.unwrap_or_default()),
            ["3", "2", "1", ""]
        );
        // A packed one keeps its ending, a gap is closed.
        fs::rename(dir.path().join("out.log.1"), dir.path().join("out.log.1.gz")).unwrap();
        fs::remove_file(dir.path().join("out.log.2")).unwrap();
        fs::write(&path, "4").unwrap();
        put_aside(&path, 0).unwrap();
        assert_eq!([read(".1"), read(".2.gz"), read(".3")].map(|x| x.unwrap_or_default()), ["4", "3", "1"]);
    }
}
