//! Packs closed files, on a blocking thread, one at a time for an output.
//!
//! `out.log.1` becomes `out.log.1.gz` or `.zst`: written under another name, synced, renamed, and only then the
//! unpacked one goes; a crash leaves one of the two whole. Where the packed name is taken already (a past date that
//! got late records), the new part goes behind the old one, which both formats allow. A file that is being written is
//! locked and left alone; one that is being packed is locked too, so that its owner waits and begins a new one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::place::sync_folder;
use super::rotate::{existing, numbered};
use super::settings::Packing;
use crate::lock::try_lock;

/// What the name of an unfinished packed file ends in.
const UNFINISHED: &str = ".part";

impl Packing {
    /// What a packed file's name ends in.
    pub(super) const fn ending(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Packs the file at `path` and returns the new name, or the old one when the file is in use.
pub(super) fn pack(path: &Path, packing: Packing) -> io::Result<PathBuf> {
    let packed = with_ending(path, packing.ending());
    let unfinished = with_ending(&packed, UNFINISHED);
    let mut source = File::options().read(true).write(true).open(path)?;
    if !try_lock(&source)? {
        // Late records for a past date: it is packed when it is closed again.
        return Ok(path.to_owned());
    }
    let meta = source.metadata()?;
    let mut out = File::create(&unfinished)?;
    out.set_permissions(meta.permissions())?;
    if let Ok(mut before) = File::open(&packed) {
        io::copy(&mut before, &mut out)?;
    }
    match packing {
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            io::copy(&mut source, &mut encoder)?;
            encoder.finish()?.flush()?;
        }
        Packing::Zstd => zstd::stream::copy_encode(&mut source, &mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?,
    }
    out.sync_all()?;
    fs::rename(&unfinished, &packed)?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))?;
    fs::remove_file(path)?;
    Ok(packed)
}

/// Finishes what a crash cut short of the rotated files of `path`: packs those that are not, and removes those whose packed
/// file is whole, which has the other's name only then.
pub(super) fn tidy(path: &Path, packing: Packing) -> io::Result<()> {
    for number in (1..).take_while(|number| existing(path, *number).is_some()) {
        let plain = numbered(path, number, "");
        if !plain.is_file() {
            continue;
        }
        let packed = numbered(path, number, packing.ending());
        if !packed.exists() {
            pack(&plain, packing)?;
        } else if is_same(&plain, &packed, packing)? {
            fs::remove_file(&plain)?;
        }
    }
    Ok(())
}

/// Whether a packed file holds what a plain one does.
fn is_same(plain: &Path, packed: &Path, packing: Packing) -> io::Result<bool> {
    let (mut plain, packed) = (BufReader::new(File::open(plain)?), File::open(packed)?);
    match packing {
        Packing::Gzip => is_equal(&mut plain, BufReader::new(flate2::read::MultiGzDecoder::new(packed))),
        Packing::Zstd => is_equal(&mut plain, BufReader::new(zstd::stream::Decoder::new(packed)?)),
    }
}

/// Whether two readers give the same bytes.
fn is_equal(one: &mut impl BufRead, mut other: impl BufRead) -> io::Result<bool> {
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let len = a.len().min(b.len());
        if len == 0 || a[..len] != b[..len] {
            return Ok(a.is_empty() && b.is_empty());
        }
        one.consume(len);
        other.consume(len);
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_a_crash_cut_short_is_finished() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out.log");
            let aside = |number: u32, ending: &str| numbered(&path, number, ending);
            for number in 1..6 {
                fs::write(aside(number, ""), format!("{number}\n").repeat(50_000)).unwrap();
            }
            // Packed, and removed; packed only; not packed; packed, and something else is there.
            pack(&aside(1, ""), packing).unwrap();
            for number in [2, 4] {
                let kept = fs::read(aside(number, "")).unwrap();
                pack(&aside(number, ""), packing).unwrap();
                fs::write(aside(number, ""), if number == 2 { &kept } else { &kept[2..] }).unwrap();
            }
            tidy(&path, packing).unwrap();
            let there = |ending: &str| -> Vec<u32> {
                (1..7).filter(|number| aside(*number, ending).exists()).collect()
            };
            assert_eq!(there(packing.ending()), [1, 2, 3, 4, 5]);
            assert_eq!(there(""), [4]);
        }
    }

    #[test]
    fn what_is_packed_twice_under_one_name_is_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log.1");
        for packing in [Packing::Gzip, Packing::Zstd] {
            let mut packed = PathBuf::new();
            for part in ["one\n", "two\n"] {
                fs::write(&path, part).unwrap();
                packed = pack(&path, packing).unwrap();
                assert!(!path.exists());
            }
            let file = File::open(&packed).unwrap();
            let mut text = String::new();
            match packing {
                Packing::Gzip => flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap(),
                Packing::Zstd => zstd::stream::Decoder::new(file).unwrap().read_to_string(&mut text).unwrap(),
            };
            assert_eq!(text, "one\ntwo\n");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
