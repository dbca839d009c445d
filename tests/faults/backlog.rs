//! What lies in the rescue of a sink, as a reader of its files sees it: messages that a crash may bring again.

use std::collections::HashMap;
use std::path::Path;

use super::oracle::Allowed;

/// What an engine that is killed amid sending rescued records sends again at most: a segment, and what the sink had in
/// its hands.
const SEGMENT_BYTES: usize = 8 << 20;
/// Rescued batches that a sink has in its hands at most.
const HANDS: usize = 4;
/// Bytes of the shortest message.
const MESSAGE_BYTES_MIN: usize = 17;

/// Messages that a sink with such batches has in its hands at most, of those that were rescued.
pub fn in_hands(batch_bytes: usize) -> u64 {
    (HANDS * batch_bytes / MESSAGE_BYTES_MIN) as u64
}

/// Messages of each input that may come again from the rescue in `folder` after a crash.
pub fn in_rescue(folder: &Path, batch_bytes: usize) -> Allowed {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut files: Vec<_> = entries.filter_map(|entry| Some((name(&entry.path())?, entry.path()))).collect();
    files.retain(|(name, _)| name.ends_with(".rescue"));
    files.sort_unstable();
    let (mut all, mut read) = (Allowed::new(), HashMap::<String, usize>::new());
    for (name, path) in files {
        // An owner's segments have names that differ behind the last dash only.
        let owner = name.rsplit_once('-').map_or(&*name, |(owner, _)| owner).to_owned();
        let read = read.entry(owner).or_default();
        let bytes = std::fs::read(path).unwrap_or_default();
        let most = (SEGMENT_BYTES + HANDS * batch_bytes).saturating_sub(*read).min(bytes.len());
        *read += most;
        count(&bytes[..most], &mut all);
    }
    all
}

/// Counts the messages in bytes of any kind, by what they begin with.
fn count(bytes: &[u8], all: &mut Allowed) {
    let is_head = |head: &&[u8]| {
        let shape = head.iter().zip(b"00.0000.0000000 ");
        shape.clone().all(|(byte, is)| if *is == b'0' { byte.is_ascii_digit() } else { byte == is })
    };
    for head in bytes.windows(16).filter(is_head) {
        *all.entry((head[0] - b'0') * 10 + (head[1] - b'0')).or_default() += 1;
    }
}

#[test]
fn messages_in_segments_are_counted_by_input_and_up_to_what_may_repeat() {
    use super::message::Record;
    let folder = tempfile::tempdir().unwrap();
    assert!(in_rescue(&folder.path().join("none"), 0).is_empty());
    let segment = |input: u8, numbers: std::ops::Range<u32>| {
        let mut bytes = b"wpgen-rescue 1 {\"salt\":20.0001.0000001}\nRSCU".to_vec();
        numbers.for_each(|number| Record { input, stream: 0, number }.write(&mut bytes));
        bytes
    };
    std::fs::write(folder.path().join("000-abcd-000000000001.rescue"), segment(3, 0..5)).unwrap();
    std::fs::write(folder.path().join("000-abcd-000000000002.rescue"), segment(4, 0..7)).unwrap();
    std::fs::write(folder.path().join("000-abcd-000000000002.rescue.sent"), segment(4, 0..7)).unwrap();
    assert_eq!(in_rescue(folder.path(), 0), Allowed::from([(3, 5), (4, 7)]));
    std::fs::write(folder.path().join("000-abcd-000000000001.rescue"), vec![b'x'; SEGMENT_BYTES]).unwrap();
    assert!(in_rescue(folder.path(), 0).is_empty());
}
