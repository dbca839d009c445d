//! How rescued batches lie in a segment: one line of text that says what it is, then batches one behind the other.
//!
//! The line is `wpgen-rescue VERSION CRC32 {"sink":...,"kind":...,"outlet":...,"salt":...}` and a newline, so that `head -1`
//! tells a person what the file is. A batch is a head of [`HEAD_BYTES`], where each record ends (if its sink asked for that),
//! and its bytes; numbers are little-endian. The head has a checksum of itself, begun with the line's salt, and one of the
//! rest. A record that holds what looks like a batch does not know the salt: it is never taken for one.
//!
//! Each head also says up to where the file was durable when it was written. That tells two kinds of damage apart:
//! what breaks off behind the last sync was never acknowledged and is cut ([`Ended::Torn`]); a hole in front of a
//! batch that was written when the hole was durable is a loss ([`Ended::Broken`]). Pure.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::batch::Ticket;

const NAME: &str = "wpgen-rescue";
const VERSION: u32 = 1;
const MAGIC: [u8; 4] = *b"RSCU";
/// Bytes of a batch's head.
pub(super) const HEAD_BYTES: usize = 40;
/// Longest first line that is written, and looked for.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Whose batches a segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The sink's key.
    pub(super) sink: String,
    /// What kind of sink: only one of the same kind can send them.
    pub(super) kind: String,
    /// The outlet's name; empty where the sink has one only.
    pub(super) outlet: String,
    /// What the checksums of heads begin with: a number that nobody could have guessed.
    pub(super) salt: u32,
}

/// Why a file is no segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is of a later version.
    Newer(u32),
    /// Its first line is cut, changed or something else.
    Broken,
}

/// The first line.
pub(super) fn line(owner: &Owner) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(owner)?;
    let mut line = Vec::new();
    writeln!(line, "{NAME} {VERSION} {:08x} {json}", crc32fast::hash(json.as_bytes()))?;
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its outlet's name is too long to be kept"));
    }
    Ok(line)
}

/// Reads the first line: whose it is, and where the batches begin.
pub(super) fn read_line(bytes: &[u8]) -> Result<(Owner, usize), Wrong> {
    let end = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_BYTES_MAX)]).ok_or(Wrong::Broken)?;
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Wrong::Broken)?;
    let mut words = text.splitn(4, ' ');
    if words.next() != Some(NAME) {
        return Err(Wrong::Broken);
    }
    match words.next().and_then(|version| version.parse::<u32>().ok()) {
        Some(VERSION) => {}
        Some(version) if version > VERSION => return Err(Wrong::Newer(version)),
        _ => return Err(Wrong::Broken),
    }
    let (Some(crc), Some(json)) = (words.next(), words.next()) else { return Err(Wrong::Broken) };
    if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(json.as_bytes())) {
        return Err(Wrong::Broken);
    }
    serde_json::from_str(json).map(|owner| (owner, end + 1)).map_err(|_| Wrong::Broken)
}

/// What stands in front of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Records in it.
    pub(super) records: u32,
    /// How many ends of records follow the head.
    pub(super) ends: u32,
    /// Bytes of records behind the ends.
    pub(super) bytes: u32,
    /// Receipt of the oldest record, nanoseconds since the Unix epoch.
    pub(super) oldest_ns: i64,
    /// Up to where the file was durable when this was written.
    pub(super) durable: u64,
    body_crc: u32,
}

impl Head {
    /// Bytes behind the head.
    pub(super) fn body_bytes(&self) -> usize {
        self.ends as usize * 4 + self.bytes as usize
    }

    fn encode(&self, salt: u32) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.body_crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.records.to_le_bytes());
        out[16..20].copy_from_slice(&self.ends.to_le_bytes());
        out[20..24].copy_from_slice(&self.bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.oldest_ns.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable.to_le_bytes());
        let crc = salted(salt, &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a head; `None` where there is none.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if head[..4] != MAGIC || word(4) != salted(salt, &head[8..]) {
            return None;
        }
        Some(Self {
            body_crc: word(8),
            records: word(12),
            ends: word(16),
            bytes: word(20),
            oldest_ns: long(24).cast_signed(),
            durable: long(32),
        })
    }

    /// Whether `body` is what was written behind this head.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes() && crc32fast::hash(body) == self.body_crc
    }

    /// The ends of records, and their bytes.
    pub(super) fn split<'a>(&self, body: &'a [u8]) -> (Vec<u32>, &'a [u8]) {
        let (ends, bytes) = body.split_at(self.ends as usize * 4);
        let ends = ends.chunks_exact(4).map(|end| u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
        (ends.collect(), bytes)
    }
}

fn salted(salt: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(bytes);
    crc.finalize()
}

/// A batch, as far as a segment keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) records: u32,
    pub(super) ends: &'a [u32],
    pub(super) bytes: &'a [u8],
    pub(super) oldest_ns: i64,
    /// Not in the file: see [`super::segment::Entry::positions`].
    pub(super) tickets: &'a [Ticket],
}

impl Content<'_> {
    /// Bytes it takes in a segment.
    pub(super) fn len(&self) -> usize {
        HEAD_BYTES + self.ends.len() * 4 + self.bytes.len()
    }

    /// Writes it behind `durable` bytes that are on disk.
    pub(super) fn write(&self, durable: u64, salt: u32, out: &mut impl Write) -> io::Result<()> {
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let mut body_crc = crc32fast::Hasher::new();
        body_crc.update(&ends);
        body_crc.update(self.bytes);
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a batch of 4 GiB");
        let head = Head {
            records: self.records,
            ends: u32::try_from(self.ends.len()).map_err(too_long)?,
            bytes: u32::try_from(self.bytes.len()).map_err(too_long)?,
            oldest_ns: self.oldest_ns,
            durable,
            body_crc: body_crc.finalize(),
        };
        out.write_all(&head.encode(salt))?;
        out.write_all(&ends)?;
        out.write_all(self.bytes)
    }
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With its last batch.
    Whole,
    /// What is behind this was never acknowledged, and is not whole.
    Torn(usize),
    /// From here on bytes are missing or changed that were durable once.
    Broken(usize),
}

/// What a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where whole batches begin.
    pub(super) batches: Vec<(usize, Head)>,
    /// How it ends.
    pub(super) ended: Ended,
}

/// Finds the whole batches of a segment from `from` on. Of one that another one follows, all was durable.
pub(super) fn scan(bytes: &[u8], from: usize, salt: u32, is_followed: bool) -> Scanned {
    let mut batches: Vec<(usize, Head)> = Vec::new();
    let (mut at, mut hole) = (from, None);
    while at < bytes.len() {
        match batch_at(bytes, at, salt) {
            Some(head) => {
                batches.push((at, head));
                at += HEAD_BYTES + head.body_bytes();
            }
            None => {
                hole.get_or_insert(at);
                at = next_batch(bytes, at + 1, salt).unwrap_or(bytes.len());
            }
        }
    }
    let Some(hole) = hole else { return Scanned { batches, ended: Ended::Whole } };
    let was_durable = |(at, head): &(usize, Head)| *at > hole && head.durable > hole as u64;
    if is_followed || batches.iter().any(was_durable) {
        return Scanned { batches, ended: Ended::Broken(hole) };
    }
    batches.retain(|(at, _)| *at < hole);
    Scanned { batches, ended: Ended::Torn(hole) }
}

/// Whether there is something in `bytes` that may have been a batch, whatever the salt.
pub(super) fn may_hold_batches(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, &MAGIC).is_some()
}

fn batch_at(bytes: &[u8], at: usize, salt: u32) -> Option<Head> {
    let head = Head::decode(&bytes[at..], salt)?;
    let body = bytes[at + HEAD_BYTES..].get(..head.body_bytes())?;
    head.fits(body).then_some(head)
}

/// Where the next whole batch begins.
fn next_batch(bytes: &[u8], from: usize, salt: u32) -> Option<usize> {
    let places = memchr::memmem::find_iter(&bytes[from..], &MAGIC);
    places.map(|at| from + at).find(|at| batch_at(bytes, *at, salt).is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: u32 = 0x5eed_5a17;

    /// A segment of batches, synced after each group, and where each batch begins.
    fn segment(groups: &[Vec<Vec<u8>>]) -> (Vec<u8>, Vec<usize>) {
        let owner = Owner { sink: "s".into(), kind: "file".into(), outlet: "a \"name\"".into(), salt: SALT };
        let mut out = line(&owner).unwrap();
        let mut starts = Vec::new();
        for group in groups {
            let durable = out.len() as u64;
            for bytes in group {
                starts.push(out.len());
                let ends = [bytes.len() as u32];
                let content = Content { records: 1, ends: &ends, bytes, oldest_ns: -5, tickets: &[] };
                content.write(durable, SALT, &mut out).unwrap();
            }
        }
        (out, starts)
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let batch =
            prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'R'), 1 => Just(b'S')], 0..60);
        prop::collection::vec(prop::collection::vec(batch, 1..4), 1..5)
    }

    fn begin(bytes: &[u8]) -> usize {
        read_line(bytes).unwrap().1
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, starts) = segment(&[vec![b"one\n".to_vec(), Vec::new()], vec![b"three\n".to_vec()]]);
        let (owner, from) = read_line(&bytes).unwrap();
        assert_eq!((&*owner.sink, &*owner.outlet, from), ("s", "a \"name\"", starts[0]));
        let scanned = scan(&bytes, from, SALT, false);
        assert_eq!(scanned.ended, Ended::Whole);
        assert_eq!(scanned.batches.iter().map(|(at, _)| *at).collect::<Vec<_>>(), starts);
        let (at, head) = scanned.batches[2];
        let body = &bytes[at + HEAD_BYTES..];
        assert_eq!(head.split(body), (vec![6], &b"three\n"[..]));
        assert_eq!((head.records, head.oldest_ns, head.durable), (1, -5, at as u64));
    }

    #[test]
    fn a_batch_in_a_record_is_no_batch() {
        let (bytes, starts) = segment(&[vec![b"forged\n".to_vec()]]);
        let mut inner = bytes[starts[0]..].to_vec();
        // Whoever sends it knows how heads look, not the salt.
        let crc = salted(0, &inner[8..HEAD_BYTES]);
        inner[4..8].copy_from_slice(&crc.to_le_bytes());
        let (mut bytes, starts) = segment(&[vec![inner, b"behind\n".to_vec()], vec![b"last\n".to_vec()]]);
        bytes[starts[0]] ^= 1;
        let scanned = scan(&bytes, begin(&bytes), SALT, false);
        assert_eq!(scanned.batches.iter().map(|(at, _)| *at).collect::<Vec<_>>(), starts[1..]);
    }

    #[test]
    fn a_first_line_that_would_not_be_found_again_is_not_written() {
        let owner =
            |bytes| Owner { sink: "s".into(), kind: "kafka".into(), outlet: "k".repeat(bytes), salt: SALT };
        let long = owner(63 << 10);
        let line = |owner: &Owner| super::line(owner);
        assert_eq!(read_line(&line(&long).unwrap()).unwrap().0, long);
        assert!(line(&owner(64 << 10)).is_err());
    }

    #[test]
    fn a_first_line_of_another_version_or_none_is_refused() {
        let (bytes, _) = segment(&[]);
        let text = String::from_utf8(bytes).unwrap();
        let newer = text.replace("rescue 1", "rescue 2");
        assert_eq!(read_line(newer.as_bytes()), Err(Wrong::Newer(2)));
        let changed = text.replace("\"s\"", "\"t\"");
        for wrong in [changed.as_str(), "", "\n", "wpgen-rescue\n", &text[..text.len() - 1]] {
            assert_eq!(read_line(wrong.as_bytes()), Err(Wrong::Broken), "{wrong:?}");
        }
    }

    proptest! {
        /// Cut anywhere, all batches in front of the cut are read, and nothing is taken for damage.
        #[test]
        fn a_cut_segment_ends_at_its_last_whole_batch(groups in groups(), cut in any::<prop::sample::Index>()) {
            let (bytes, starts) = segment(&groups);
            let from = begin(&bytes);
            let cut = from + cut.index(bytes.len() - from + 1);
            let scanned = scan(&bytes[..cut], from, SALT, false);
            let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
            let whole = ends.take_while(|end| *end <= cut).count();
            prop_assert_eq!(scanned.batches.len(), whole);
            let end = if whole == 0 { from } else { ends_of(&scanned) };
            prop_assert_eq!(scanned.ended, if end == cut { Ended::Whole } else { Ended::Torn(end) });
        }

        /// A changed byte costs the batch that it is in, and no other; where that batch was acknowledged, it is said.
        #[test]
        fn a_changed_byte_costs_one_batch_and_is_told(
            groups in groups(), place in any::<prop::sample::Index>(), bit in 0u32..8,
        ) {
            let (mut bytes, starts) = segment(&groups);
            let from = begin(&bytes);
            prop_assume!(bytes.len() > from);
            let place = from + place.index(bytes.len() - from);
            bytes[place] ^= 1 << bit;
            let hit = starts.iter().rposition(|start| *start <= place).unwrap();
            let scanned = scan(&bytes, from, SALT, false);
            let last_group = groups.last().map_or(0, Vec::len);
            let was_synced = hit + last_group < starts.len();
            if was_synced {
                prop_assert_eq!(scanned.ended, Ended::Broken(starts[hit]));
                prop_assert_eq!(scanned.batches.len(), starts.len() - 1);
            } else {
                prop_assert_eq!(scanned.ended, Ended::Torn(starts[hit]));
                prop_assert_eq!(scanned.batches.len(), hit);
            }
            prop_assert_eq!(scan(&bytes, from, SALT, true).ended, Ended::Broken(starts[hit]), "one follows: all was durable");
        }

        /// Whatever a file holds, reading it ends, and what is read lies within it.
        #[test]
        fn any_bytes_are_scanned(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_line(&bytes);
            let scanned = scan(&bytes, 0, SALT, false);
            prop_assert!(scanned.batches.iter().all(|(at, head)| at + HEAD_BYTES + head.body_bytes() <= bytes.len()));
        }
    }

    fn ends_of(scanned: &Scanned) -> usize {
        scanned.batches.last().map_or(0, |(at, head)| at + HEAD_BYTES + head.body_bytes())
    }
}
