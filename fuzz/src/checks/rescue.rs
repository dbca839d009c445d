//! Rescue files of any bytes: what a start finds in them is what a plain scan finds, and no whole batch is ever deleted.

use std::fs;
use std::path::{Path, PathBuf};

use engine::rescue::{Kind, OpenError, Rescue};

use super::dial::{Dial, cut};
use super::folder;

const HEAD_BYTES: usize = 40;
const SALT: u32 = 7;

/// A segment of any bytes, one whose first line is right, or one of batches that was cut or changed.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let file = match dial.below(4) {
        0 => dial.rest().to_vec(),
        1 => with_line(2, dial.rest()),
        2 => with_line(1, dial.rest()),
        _ => segment(dial),
    };
    folder::with(|folder| {
        let path = folder.join("rescue/s/000-00000000-000000000001.rescue");
        folder::write(&path, &file);
        match Rescue::open(folder, "s", Kind::Connection, 1 << 20, None) {
            Ok(rescue) => found(folder, &path, &rescue, &file),
            Err(OpenError::Newer { version, .. }) => {
                assert!(version > 1 && fs::read(&path).expect("it is left alone") == file);
            }
            Err(other) => panic!("{other}"),
        }
    });
}

fn found(folder: &Path, path: &Path, rescue: &Rescue, file: &[u8]) {
    let status = rescue.status();
    let begin = file.iter().position(|byte| *byte == b'\n').map_or(file.len(), |at| at + 1);
    let is_ours = &file[..begin] == with_line(1, b"").as_slice();
    if is_ours {
        let (batches, hole) = scan(file, begin);
        let before = batches.iter().take_while(|(at, _)| hole.is_none_or(|hole| *at < hole));
        let sum = |records: &mut dyn Iterator<Item = &(usize, u32)>| {
            records.map(|(_, n)| u64::from(*n)).sum::<u64>()
        };
        let torn = sum(&mut before.into_iter());
        let all = sum(&mut batches.iter());
        assert!(status.records == all || status.errors == 0 && status.records == torn, "{status:?}");
    }
    let kept = fs::read(path).unwrap_or_default();
    assert_eq!(status.bytes, kept.len() as u64, "what is counted is what is there");
    assert!(file.starts_with(&kept), "a file is cut at its end, and not changed");
    if kept.is_empty() && status.errors > 0 {
        assert_eq!(fs::read(aside(path)).expect("it is put aside"), file);
    }
    let again = Rescue::open(folder, "s", Kind::Connection, 1 << 20, None)
        .expect("what was opened opens again")
        .status();
    assert_eq!((again.bytes, again.records), (status.bytes, status.records));
}

fn aside(path: &Path) -> PathBuf {
    let all = fs::read_dir(path.parent().expect("it is in a folder")).expect("the folder is there");
    let mut all = all.flatten().map(|entry| entry.path());
    all.find(|path| path.to_string_lossy().contains(".rescue.broken-")).expect("a file that was put aside")
}

/// Whole batches and how many records they say to hold, one behind the other, and the first place where there is none.
fn scan(file: &[u8], begin: usize) -> (Vec<(usize, u32)>, Option<usize>) {
    let (mut batches, mut hole, mut at) = (Vec::new(), None, begin);
    while at < file.len() {
        match batch(&file[at..]) {
            Some((len, records)) => {
                batches.push((at, records));
                at += len;
            }
            None => {
                hole.get_or_insert(at);
                at += 1;
            }
        }
    }
    (batches, hole)
}

fn batch(bytes: &[u8]) -> Option<(usize, u32)> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if &head[..4] != b"RSCU" || word(4) != crc32(SALT, &head[8..]) {
        return None;
    }
    let body = bytes[HEAD_BYTES..].get(..word(16) as usize * 4 + word(20) as usize)?;
    (crc32(0, body) == word(8)).then_some((HEAD_BYTES + body.len(), word(12)))
}

fn with_line(version: u32, body: &[u8]) -> Vec<u8> {
    let json = format!(r#"{{"sink":"s","kind":"connection","outlet":"","salt":{SALT}}}"#);
    let mut file = format!("wpgen-rescue {version} {:08x} {json}\n", crc32(0, json.as_bytes())).into_bytes();
    file.extend_from_slice(body);
    file
}

/// Batches of the input's parts, then perhaps a bit that fell over and an end that is missing.
fn segment(mut dial: Dial<'_>) -> Vec<u8> {
    let (places, syncs, bit, place, missing) =
        (dial.places(), dial.byte(), dial.byte(), dial.byte(), dial.byte());
    let mut file = with_line(1, b"");
    let mut durable = file.len() as u64;
    for (i, part) in cut(dial.rest(), &places).into_iter().enumerate() {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(b"RSCU");
        head[8..12].copy_from_slice(&crc32(0, part).to_le_bytes());
        head[12..16].copy_from_slice(&(i as u32 + 1).to_le_bytes());
        head[20..24].copy_from_slice(&(part.len() as u32).to_le_bytes());
        head[32..40].copy_from_slice(&durable.to_le_bytes());
        let crc = crc32(SALT, &head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&head);
        file.extend_from_slice(part);
        if syncs >> i & 1 == 1 {
            durable = file.len() as u64;
        }
    }
    if bit < 8 {
        let at = usize::from(place) * file.len() / 256;
        file[at] ^= 1 << bit;
    }
    file.truncate(file.len() - usize::from(missing) * file.len() / 1024);
    file
}

/// CRC-32 bit by bit, that goes on from another one.
fn crc32(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |sum, &byte| {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(byte), step)
    })
}
