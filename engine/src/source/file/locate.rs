//! Where in its file a line stands, and what the file's first lines look like: for messages, when one is written.
//!
//! It blocks, so it runs beside the shard. Counting goes on where the last count of the same reader ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::unpack::{Packing, Unpacked};
use crate::decode::{Encode, decode_line, looks_like};

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How much of a file's beginning is looked at, and how many lines of it.
const FIRST_BYTES: u64 = 4096;
const FIRST_LINES: usize = 16;

/// Newlines that were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Up to this position.
    upto: u64,
    newlines: u64,
}

/// What there is to say of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    /// Its number, the first being 1.
    pub(super) line: u64,
    /// What the first lines look like, if most of them are not encoded as was said.
    pub(super) looks: Option<Encode>,
    /// Where the next count can go on.
    pub(super) counted: Counted,
}

/// Looks at the line that begins at `at`, in the content if the file is `packed`.
pub(super) fn locate(
    file: &File,
    packed: bool,
    encode: Encode,
    at: u64,
    counted: Counted,
) -> io::Result<Located> {
    // Compressed content can be counted from its beginning only.
    let from = if packed || counted.upto > at { Counted::default() } else { counted };
    let newlines = from.newlines + count(&mut content(file, packed, from.upto)?, at - from.upto)?;
    let mut head = Vec::new();
    content(file, packed, 0)?.take(FIRST_BYTES).read_to_end(&mut head)?;
    let looks = looks(&head, encode);
    Ok(Located { line: newlines + 1, looks, counted: Counted { upto: at, newlines } })
}

fn content(file: &File, packed: bool, at: u64) -> io::Result<Box<dyn Read + '_>> {
    let mut head = [0; 4];
    let read = if packed { file.read_at(&mut head, 0)? } else { 0 };
    match Packing::sniff(&head[..read]) {
        Some(packing) => Ok(Box::new(Unpacked::new(At { file, at: 0 }, packing, CHUNK_BYTES)?)),
        None => Ok(Box::new(At { file, at })),
    }
}

/// Newlines in the next `bytes` bytes; fewer bytes than that have fewer.
fn count(from: &mut dyn Read, bytes: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut left, mut newlines) = (bytes, 0);
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = match from.read(&mut buffer[..want]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        newlines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
        left -= read as u64;
    }
    Ok(newlines)
}

/// What the lines of a file that begins with `head` look like, if most of them are not what was said.
fn looks(head: &[u8], encode: Encode) -> Option<Encode> {
    let whole = if (head.len() as u64) < FIRST_BYTES { head.len() } else { memchr::memrchr(b'\n', head)? };
    let lines = || {
        let lines = head[..whole].split(|byte| *byte == b'\n').take(FIRST_LINES);
        lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    };
    let (mut decoded, mut fit, mut bad) = (Vec::new(), 0, 0);
    for line in lines().filter(|line| !line.is_empty()) {
        let fits = decode_line(encode, line, &mut decoded).is_ok();
        (fit, bad) = (fit + usize::from(fits), bad + usize::from(!fits));
    }
    // Some bad lines among good ones are bad lines, and no other encoding.
    if fit >= bad { None } else { Some(looks_like(lines())).filter(|looks| *looks != encode) }
}

/// Reads a file on from a position, without moving its own.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn lines_are_counted_on_and_from_the_beginning_where_that_is_needed() {
        let text = "a line of text\n".repeat(100_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        for (file, packed) in [(file(text.as_bytes()), false), (file(&gzip.finish().unwrap()), true)] {
            let mut counted = Counted::default();
            for line in [1, 2, 50_000, 99_999, 7] {
                let at = (line - 1) * 15;
                let located = locate(&file, packed, Encode::Hex, at, counted).unwrap();
                assert_eq!((located.line, located.looks), (line, Some(Encode::Text)));
                assert_eq!(located.counted, Counted { upto: at, newlines: line - 1 });
                counted = located.counted;
            }
        }
    }

    #[test]
    fn a_count_goes_on_where_the_last_one_ended() {
        let file = file(b"\n\n\n\n");
        let before = Counted { upto: 2, newlines: 70 };
        assert_eq!(locate(&file, false, Encode::Hex, 3, before).unwrap().line, 72);
    }

    #[test]
    fn first_lines_tell_their_encoding_only_when_they_are_not_what_was_said() {
        let hex = b"3c33343e74657374206d657373616765\r\n00ff\n";
        assert_eq!(looks(hex, Encode::Hex), None);
        assert_eq!(looks(b"PDE4OD5NYXkgMTcgMDg6NTQ6MDYgUw==\n", Encode::Hex), Some(Encode::Base64));
        assert_eq!(looks(b"some text\n", Encode::Base64), Some(Encode::Text));
        assert_eq!(looks(&[hex.as_slice(), b"!\n!\n"].concat(), Encode::Hex), None, "half of them");
        assert_eq!(looks(b"68656c6c6f\n6G\n686\nDEADBEEF\n", Encode::Hex), None, "half of them");
        assert_eq!(looks(b"b25l\nb2!l\nb25l\nb25l\n\n*\nb25l\n", Encode::Base64), None, "most of them");
        assert_eq!(looks(&[hex.as_slice(), b"!\n!\n!\n"].concat(), Encode::Hex), Some(Encode::Text));
    }
}
