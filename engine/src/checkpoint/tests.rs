//! The store from outside, and the format bit by bit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use super::*;

fn input(id: u64) -> Input {
    Input {
        id,
        source: "file_1".into(),
        path: format!("/var/log/app/{id}.log").into(),
        dev: 64768,
        ino: 1_000_000 + id,
        fingerprint: Fingerprint::of(&id.to_le_bytes()),
        position: id * 1_000_003,
        ..Input::default()
    }
}

fn rich() -> Snapshot {
    let mut odd = input(2);
    odd.path = OsStr::from_bytes(b"/var/log/\xff \"quoted\"\n.log").into();
    odd.ranges =
        vec![Range { start: 0, end: 100, position: 40 }, Range { start: 100, end: 180, position: 100 }];
    odd.done = true;
    odd.content = Some(Fingerprint::of(b"unpacked"));
    let output = Output { path: "/out/a.log".into(), dev: 1, ino: u64::MAX, committed_len: 5 };
    let group = Group {
        sink: "archive".into(),
        key: "0".into(),
        files: vec![output],
        positions: vec![(1, 7), (2, 9)],
        only_copy: true,
    };
    let partition = Partition {
        id: 3,
        source: "k".into(),
        group: "k_group".into(),
        topic: "t".into(),
        number: 11,
        position: 70,
        committed: Some(60),
        stale: None,
    };
    let first = Partition { id: 4, committed: None, stale: Some(90), ..partition.clone() };
    Snapshot {
        next_input: 5,
        inputs: vec![input(1), odd],
        groups: vec![group],
        partitions: vec![partition, first],
    }
}

fn encoded(snapshot: &Snapshot) -> Vec<u8> {
    format::Encoder::default().encode(snapshot, &[]).expect("memory").to_vec()
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("deep/data");
    let (mut store, first) = Store::open(&data).expect("a first start");
    assert_eq!(first, Snapshot { next_input: 1, ..Snapshot::default() });
    store.write(input_list(3)).expect("written");
    store.write(rich()).expect("written over");
    drop(store);
    assert_eq!(Store::open(&data).expect("a second start").1, rich());
    assert!(!data.join(NAME_NEXT).exists());
}

#[test]
fn a_folder_made_anew_is_locked_again_unless_another_engine_has_it() {
    let place = tempfile::tempdir().expect("a folder");
    let data = place.path().join("data");
    let (mut store, _) = Store::open(&data).expect("a first start");
    let anew = || {
        std::fs::remove_dir_all(&data).expect("it is there");
        std::fs::create_dir(&data).expect("it is gone");
    };
    anew();
    store.write(rich()).expect("nobody else is in it");
    assert!(matches!(Store::open(&data), Err(OpenError::Locked(_))), "it is locked");
    anew();
    let (mut other, _) = Store::open(&data).expect("the lock went with the folder");
    other.write(input_list(3)).expect("written");
    let error = store.write(rich()).expect_err("it is the other's").to_string();
    assert!(error.contains("made anew") && error.contains("stop one of the two"), "{error}");
    drop(other);
    assert_eq!(inspect(&data), Ok(Some(input_list(3))));
    store.write(rich()).expect("the other has ended");
    assert_eq!(inspect(&data), Ok(Some(rich())));
}

fn input_list(count: u64) -> Snapshot {
    Snapshot { next_input: count, inputs: (0..count).map(input).collect(), ..Snapshot::default() }
}

#[test]
fn what_is_taken_from_the_encoding_before_is_the_same() {
    let mut encoder = format::Encoder::default();
    let mut before = Vec::new();
    let mut snapshot = input_list(100);
    for step in 0..60u64 {
        match step % 6 {
            0 => drop(snapshot.inputs.drain(3..5)),
            1 => snapshot.inputs.iter_mut().step_by(7).for_each(|input| input.position += step),
            2 => snapshot.inputs.push(input(200 + step)),
            3 => snapshot.inputs.swap(1, 10),
            4 => snapshot.inputs.rotate_left(25),
            _ => {}
        }
        snapshot.next_input = 300 + step;
        let bytes = encoder.encode(&snapshot, &before).expect("memory").to_vec();
        assert!(bytes == encoded(&snapshot), "at step {step}");
        before.clone_from(&snapshot.inputs);
    }
}

#[test]
fn a_second_engine_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Store::open(folder.path()).expect("the first");
    let second = Store::open(folder.path()).expect_err("the second");
    assert!(matches!(second, OpenError::Locked(Refused::Held { .. })), "{second}");
    assert!(second.to_string().contains(&format!("PID {}", std::process::id())), "{second}");
}

#[test]
fn a_broken_one_is_set_aside_and_never_forgotten_silently() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bytes = encoded(&rich());
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    fs::write(folder.path().join(NAME), &bytes).expect("written");

    let error = Store::open(folder.path()).expect_err("broken");
    let OpenError::Broken { aside, reason } = &error else { panic!("{error}") };
    assert_eq!(reason, "its checksum is wrong");
    assert_eq!(fs::read(aside).expect("kept"), bytes);
    assert!(!folder.path().join(NAME).exists());

    let again = Store::open(folder.path()).expect_err("still no checkpoint");
    assert!(matches!(&again, OpenError::StillAside { aside: same } if same == aside), "{again}");
    assert!(again.help().iter().any(|line| line.contains(".seen")), "{:?}", again.help());

    let mut seen = aside.clone().into_os_string();
    seen.push(SEEN);
    fs::rename(aside, seen).expect("the operator's decision");
    assert_eq!(Store::open(folder.path()).expect("anew").1.inputs, []);
}

#[test]
fn a_newer_one_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(NAME);
    fs::write(&path, "wpgen-checkpoint 9 zz what ever it may be\n").expect("written");
    let error = Store::open(folder.path()).expect_err("newer");
    assert!(matches!(error, OpenError::Newer { version: 9, .. }), "{error}");
    assert!(path.exists());
}

#[test]
fn no_cut_and_no_flipped_bit_is_taken_for_a_snapshot() {
    let whole = encoded(&rich());
    assert_eq!(format::decode(&whole).expect("whole"), rich());
    for cut in 0..whole.len() {
        assert!(format::decode(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..whole.len() * 8 {
        let mut other = whole.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        // The case of a hexadecimal digit is the one bit that means nothing.
        assert!(format::decode(&other).is_err() || other.eq_ignore_ascii_case(&whole), "bit {bit}");
    }
}

#[test]
fn an_id_beyond_the_next_one_is_refused() {
    let snapshot = Snapshot { next_input: 5, inputs: vec![input(5)], ..Snapshot::default() };
    let error = format::decode(&encoded(&snapshot)).expect_err("5 is still to be given");
    assert_eq!(error, format::Wrong::Broken("input 5 was never given out".into()));
    let partition = Partition { id: 7, ..Partition::default() };
    let snapshot = Snapshot { next_input: 7, partitions: vec![partition], ..Snapshot::default() };
    let error = format::decode(&encoded(&snapshot)).expect_err("7 is still to be given");
    assert_eq!(error, format::Wrong::Broken("input 7 was never given out".into()));
}

#[test]
fn an_engine_of_before_reads_what_it_knows_and_refuses_what_it_would_cut() {
    let mut snapshot = rich();
    assert!(encoded(&snapshot).starts_with(b"wpgen-checkpoint 4 "));
    snapshot.groups[0].only_copy = false;
    assert!(encoded(&snapshot).starts_with(b"wpgen-checkpoint 2 "));
    snapshot.partitions.clear();
    assert!(encoded(&snapshot).starts_with(b"wpgen-checkpoint 1 "));
    assert_eq!(format::decode(&encoded(&snapshot)).expect("version 1"), snapshot);
}

#[test]
fn what_a_file_has_of_a_partition_is_known_as_long_as_the_partition_is() {
    let group = Group { positions: vec![(3, 1), (8, 1)], ..Group::default() };
    let partition = Partition { id: 3, ..Partition::default() };
    let snapshot =
        Snapshot { next_input: 9, partitions: vec![partition], groups: vec![group], ..Snapshot::default() };
    assert_eq!(snapshot.without_forgotten().groups[0].positions, [(3, 1)]);
}

#[test]
fn ten_thousand_inputs_are_written_quickly() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut store, _) = Store::open(folder.path()).expect("opened");
    let mut snapshot = input_list(10_000);
    store.write(snapshot.clone()).expect("the first, which makes the buffer");
    snapshot.inputs.iter_mut().step_by(1000).for_each(|input| input.position += 1);
    let start = Instant::now();
    store.write(snapshot).expect("written");
    let took = start.elapsed();
    // 20 ms is the aim on an idle machine in release; the test only guards against a change of kind.
    assert!(took.as_millis() < 500, "{took:?}");
    println!("10 000 inputs: {took:?}");
}
