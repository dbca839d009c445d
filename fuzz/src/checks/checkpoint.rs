//! Checkpoint files of any bytes: read whole or refused, never lost, and what was read comes back when it is written.

use std::fs;
use std::path::Path;

use engine::checkpoint::{OpenError, Snapshot, Store};

use super::dial::Dial;
use super::folder;

/// A file of any bytes, or one whose first line is right for any body.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let head = dial.below(5);
    let body = dial.rest();
    let file = match head {
        0 => body.to_vec(),
        1 => with_head(5, body),
        2 => with_head(2, body),
        3 => with_head(4, body),
        _ => with_head(1, body),
    };
    folder::with(|folder| {
        folder::write(&folder.join("checkpoint"), &file);
        match Store::open(folder) {
            Ok((store, snapshot)) => comes_back(folder, store, snapshot),
            Err(error) => refused(folder, &error, &file),
        }
    });
}

fn with_head(version: u32, body: &[u8]) -> Vec<u8> {
    let mut file =
        format!("wpgen-checkpoint {version} {:08x} {:012}\n", crc32(body), body.len()).into_bytes();
    file.extend_from_slice(body);
    file
}

/// CRC-32 bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(byte), step)
    })
}

fn comes_back(folder: &Path, mut store: Store, snapshot: Snapshot) {
    assert!(snapshot.inputs.iter().all(|input| input.id < snapshot.next_input), "an id would be given twice");
    assert!(snapshot.partitions.iter().all(|partition| partition.id < snapshot.next_input), "the same");
    let mut snapshot = snapshot;
    // What did not change is copied from what was written before: as it was, with one more, with one less, unchanged.
    for change in [unchanged, forward, without_first, unchanged] {
        change(&mut snapshot);
        store.write(snapshot.clone()).expect("a checkpoint is written");
    }
    drop(store);
    let (_, again) = Store::open(folder).expect("what was written is read");
    assert_eq!(again, snapshot);
}

fn unchanged(_: &mut Snapshot) {}

fn forward(snapshot: &mut Snapshot) {
    if let Some(last) = snapshot.inputs.last_mut() {
        last.position = last.position.wrapping_add(1);
    }
}

fn without_first(snapshot: &mut Snapshot) {
    if !snapshot.inputs.is_empty() {
        snapshot.inputs.remove(0);
    }
    if !snapshot.partitions.is_empty() {
        snapshot.partitions.remove(0);
    }
}

/// Whatever it is, its bytes are still there, and no start goes on without it.
fn refused(folder: &Path, error: &OpenError, file: &[u8]) {
    match error {
        OpenError::Broken { aside, .. } => {
            assert_eq!(fs::read(aside).expect("it is set aside"), file);
            assert!(matches!(Store::open(folder), Err(OpenError::StillAside { .. })), "a start without it");
        }
        OpenError::Newer { path, version } => {
            assert!(*version > 2 && fs::read(path).expect("it is left alone") == file);
        }
        other => panic!("{other}"),
    }
}
