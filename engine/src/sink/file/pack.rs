//! Packs closed files, on a blocking thread, one at a time for an output.
//!
//! `out.log.1` becomes `out.log.1.gz` or `.zst`: written under another name, synced, renamed, and only then the
//! unpacked one goes; a crash leaves one of the two whole. Where the packed name is taken already (a past date that
//! got late records), the new part goes behind the old one, which both formats allow. A file that is being written is
//! locked and left alone; one that is being packed is locked too, so that its owner waits and begins a new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::place::sync_folder;
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
