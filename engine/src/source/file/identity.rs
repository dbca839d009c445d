//! "Is it the same file?": device, inode and a fingerprint of the first KiB.
//!
//! Invariants: a fingerprint covers the first `len` bytes and never more than [`FINGERPRINT_BYTES`]; a file that was
//! shorter when it was first seen keeps its short fingerprint valid while it grows, because matching hashes only the
//! *stored* length of what the file holds now. An empty fingerprint matches everything and so proves nothing: whoever
//! compares content alone (a copy, a compressed twin) must ask [`Fingerprint::proves`] first.
//!
//! Nothing here opens or stats a file: it compares what others observed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The most bytes of a file's beginning that a fingerprint covers.
pub const FINGERPRINT_BYTES: usize = 1024;

/// A hash over the first bytes of a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many bytes were hashed, at most [`FINGERPRINT_BYTES`].
    pub len: u16,
    /// xxh3 over those bytes; 0 when there were none.
    pub hash: u64,
}

impl Fingerprint {
    /// The fingerprint of a file that begins with `head`; bytes beyond the first KiB do not matter.
    pub fn of(head: &[u8]) -> Self {
        Self::over(head, head.len().min(FINGERPRINT_BYTES))
    }

    fn over(head: &[u8], len: usize) -> Self {
        let hash = if len == 0 { 0 } else { xxh3_64(&head[..len]) };
        Self { len: len as u16, hash }
    }

    /// Whether a file that now begins with `head` can be the one this was taken of. `head` must hold at least the
    /// first KiB of the file, or all of it: a shorter one means that the file has shrunk, which does not match.
    pub fn matches(&self, head: &[u8]) -> bool {
        let len = usize::from(self.len);
        head.len() >= len && Self::over(head, len) == *self
    }

    /// Whether this covers all that a fingerprint ever covers.
    pub fn is_full(&self) -> bool {
        usize::from(self.len) == FINGERPRINT_BYTES
    }

    /// Whether this covers no byte at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a match is proof enough, without device and inode, that the first `position` bytes are the same
    /// content: all of them are hashed, or a whole KiB is and the rest is taken on trust.
    pub fn proves(&self, position: u64) -> bool {
        !self.is_empty() && (self.is_full() || position <= u64::from(self.len))
    }

    /// The longest fingerprint there is to have once the file has grown to begin with `head`.
    #[must_use]
    pub fn grown(self, head: &[u8]) -> Self {
        if head.len() > usize::from(self.len) && !self.is_full() { Self::of(head) } else { self }
    }
}

/// What makes a file itself and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The device it is on.
    pub dev: u64,
    /// Its inode there; the system gives it to another file once this one is gone.
    pub ino: u64,
    /// When that inode was made, in nanoseconds since the epoch; 0 where the file system does not say.
    pub born_ns: u64,
    /// What it begins with.
    pub fingerprint: Fingerprint,
}

/// A file as it was observed at a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The path that led to it.
    pub path: PathBuf,
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// When the inode was made, in nanoseconds since the epoch; 0 where the file system does not say.
    pub born_ns: u64,
    /// When it was last written to, in milliseconds since the epoch.
    pub changed_ms: u64,
    /// Its size.
    pub size: u64,
    /// Its first KiB, or all of it.
    pub head: Vec<u8>,
    /// What is in it, if it is compressed.
    pub packed: Option<Packed>,
}

/// The content of a compressed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Its first KiB, or all of it.
    pub head: Vec<u8>,
    /// Its length modulo 2^32, where the file says it.
    pub len: Option<u32>,
}

/// What a look at an inode says about the file that was known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same file, with the same content as far as it was read.
    Same,
    /// The same inode holds less than was read, or begins otherwise: truncated in place, or (when nobody held it
    /// open) removed and its inode given to a new file. Either way it is read from its beginning.
    Anew,
    /// Another inode.
    Other,
}

impl Identity {
    /// The key under which a file system knows the file.
    pub fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Judges what is seen now of a file of which `position` bytes have been read.
    pub fn judge(&self, seen: &Seen, position: u64) -> Verdict {
        let reborn = self.born_ns != 0 && seen.born_ns != 0 && self.born_ns != seen.born_ns;
        if self.inode() != (seen.dev, seen.ino) {
            Verdict::Other
        } else if reborn || seen.size < position || !self.fingerprint.matches(&seen.head) {
            Verdict::Anew
        } else {
            Verdict::Same
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: [u8; 3000] = [7; 3000];

    fn id(head: &[u8]) -> Identity {
        Identity { dev: 1, ino: 2, born_ns: 0, fingerprint: Fingerprint::of(head) }
    }

    fn seen(ino: u64, size: u64, head: &[u8]) -> Seen {
        Seen { dev: 1, ino, size, head: head.to_vec(), ..Seen::default() }
    }

    #[test]
    fn only_the_first_kib_counts() {
        let mut other = LONG;
        other[1024] = 8;
        assert_eq!(Fingerprint::of(&LONG), Fingerprint::of(&other));
        other[1023] = 8;
        assert_ne!(Fingerprint::of(&LONG), Fingerprint::of(&other));
        assert!(Fingerprint::of(&LONG).is_full());
        assert!(!Fingerprint::of(&LONG[..1023]).is_full());
    }

    #[test]
    fn a_short_file_stays_itself_while_it_grows() {
        let short = id(b"one\n");
        assert_eq!(short.judge(&seen(2, 8, b"one\ntwo\n"), 4), Verdict::Same);
        assert_eq!(short.judge(&seen(2, 8, b"two\none\n"), 4), Verdict::Anew);
        assert_eq!(short.judge(&seen(2, 3, b"one"), 4), Verdict::Anew);
        assert_eq!(short.judge(&seen(3, 8, b"one\ntwo\n"), 4), Verdict::Other);
    }

    #[test]
    fn an_empty_fingerprint_matches_all_and_proves_nothing() {
        let empty = id(b"");
        assert_eq!(empty.judge(&seen(2, 0, b""), 0), Verdict::Same);
        assert_eq!(empty.judge(&seen(2, 9, b"something"), 0), Verdict::Same);
        assert!(!empty.fingerprint.proves(0));
    }

    #[test]
    fn a_file_shorter_than_what_was_read_is_not_the_same() {
        assert_eq!(id(&LONG).judge(&seen(2, 2000, &LONG[..1024]), 3000), Verdict::Anew);
        assert_eq!(id(&LONG).judge(&seen(2, 3000, &LONG[..1024]), 3000), Verdict::Same);
    }

    #[test]
    fn an_inode_that_was_made_again_is_another_file() {
        let known = Identity { born_ns: 5, ..id(b"one\n") };
        for (born_ns, verdict) in [(5, Verdict::Same), (6, Verdict::Anew), (0, Verdict::Same)] {
            assert_eq!(known.judge(&Seen { born_ns, ..seen(2, 4, b"one\n") }, 4), verdict);
        }
    }

    #[test]
    fn what_proves_content() {
        assert!(Fingerprint::of(b"abc").proves(3));
        assert!(!Fingerprint::of(b"abc").proves(4));
        assert!(Fingerprint::of(&LONG).proves(1 << 40));
    }

    proptest! {
        #[test]
        fn growing_never_unmatches(head in prop::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000) {
            let cut = cut.min(head.len());
            let early = Fingerprint::of(&head[..cut]);
            prop_assert!(early.matches(&head));
            let late = early.grown(&head);
            prop_assert_eq!(late, Fingerprint::of(&head));
            prop_assert!(late.matches(&head));
            prop_assert_eq!(late.matches(&head[..cut]), cut >= head.len().min(FINGERPRINT_BYTES));
        }
    }
}
