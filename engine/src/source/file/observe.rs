//! One look at one file: what [`super::identity`] and [`super::catalog`] judge by.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::identity::{FINGERPRINT_BYTES, Packed, Seen};
use super::unpack::{Packing, Unpacked};

/// Room for the compressed beginning of a file; a KiB of content rarely needs more.
const PACKED_BYTES: usize = 4 * 1024;

/// Opens, looks and closes. `packing` says whether to look into compressed content.
pub fn path(path: &Path, packing: bool) -> io::Result<Seen> {
    // A FIFO that took the file's place since it was found must not hang us.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    self::file(&file, path, packing)
}

/// Looks at an open file; its position is left where it was.
pub fn file(file: &File, path: &Path, packing: bool) -> io::Result<Seen> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file any more"));
    }
    let head = head(file)?;
    let kind = Packing::sniff(&head).filter(|_| packing);
    let since =
        |time: io::Result<SystemTime>| time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(Seen {
        path: path.to_owned(),
        dev: meta.dev(),
        ino: meta.ino(),
        born_ns: since(meta.created()).map_or(0, |since| since.as_nanos() as u64),
        changed_ms: since(meta.modified()).map_or(0, |since| since.as_millis() as u64),
        size: meta.size(),
        head,
        packed: kind.map(|kind| content(file, kind, meta.size())),
    })
}

/// The first KiB, or all there is.
pub fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; FINGERPRINT_BYTES];
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(len);
    Ok(head)
}

/// What can be told of compressed content by its ends. A damaged file has the content that comes before the damage.
fn content(file: &File, kind: Packing, size: u64) -> Packed {
    let mut head = vec![0; FINGERPRINT_BYTES];
    let mut len = 0;
    if let Ok(mut content) = Unpacked::new(From { file, at: 0 }, kind, PACKED_BYTES) {
        while let Ok(read @ 1..) = content.read(&mut head[len..]) {
            len += read;
        }
    }
    head.truncate(len);
    Packed { head, len: content_len(file, kind, size) }
}

fn content_len(file: &File, kind: Packing, size: u64) -> Option<u32> {
    match kind {
        Packing::Gzip => {
            let mut tail = [0; 4];
            file.read_exact_at(&mut tail, size.checked_sub(4)?).ok()?;
            Some(u32::from_le_bytes(tail))
        }
        Packing::Zstd => {
            let mut start = [0; 18];
            let read = file.read_at(&mut start, 0).ok()?;
            zstd::zstd_safe::get_frame_content_size(&start[..read]).ok()?.map(|len| len as u32)
        }
    }
}

/// Reads a file from its beginning without moving its position.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn seen(bytes: &[u8]) -> Seen {
        let named = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(named.path(), bytes).expect("written");
        path(named.path(), true).expect("seen")
    }

    #[test]
    fn a_plain_file() {
        let bytes: Vec<u8> = (0..3000u32).map(|n| (n % 251) as u8).collect();
        let all = seen(&bytes);
        assert_eq!((all.size, all.head.as_slice(), all.packed), (3000, &bytes[..1024], None));
        assert!(all.changed_ms > 1_700_000_000_000);
        assert_eq!(seen(b"").head, b"");
    }

    #[test]
    fn what_is_in_a_compressed_file() {
        let content: Vec<u8> = (0..90_000u32).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&content).expect("memory");
        let zstd = zstd::bulk::compress(&content, 3).expect("memory");
        for bytes in [gzip.finish().expect("memory"), zstd] {
            let packed = seen(&bytes).packed.expect("compressed");
            assert!(packed.head == content[..1024]);
            assert_eq!(packed.len, Some(content.len() as u32));
            // Cut off in the middle: still what there is.
            let cut = seen(&bytes[..bytes.len() / 2]).packed.expect("compressed");
            assert!(cut.head == content[..1024]);
        }
        assert_eq!(seen(b"\x1f\x8b\x08 and no more").packed.expect("compressed by its looks").head, b"");
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_hang() {
        assert!(path(Path::new("/dev/null"), true).is_err());
        assert!(path(Path::new("/proc"), true).is_err());
        assert_eq!(path(Path::new("/nowhere"), true).expect_err("none").kind(), io::ErrorKind::NotFound);
    }
}
