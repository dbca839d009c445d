//! Whole, joined, cut, damaged and hostile files, through buffers of every size.

use std::io::Write;

use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::*;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder =
        GzBuilder::new().filename("a.log").comment("c").extra("extra").write(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 1).expect("compressed")
}

fn pack(packing: Packing, content: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Gzip => gzip(content),
        Packing::Zstd => zstd(content),
    }
}

fn lines() -> Vec<u8> {
    (0..5000).flat_map(|n| format!("line {n} {}\n", n * 7919 % 1009).into_bytes()).collect()
}

/// Unpacks in pieces of `taken` and `made` bytes; what came out, and the fault if there was one.
fn unpack(packing: Packing, packed: &[u8], taken: usize, made: usize) -> (Vec<u8>, Option<Corrupt>) {
    let mut unpacker = Unpacker::new(packing).expect("made");
    let mut content = Vec::new();
    let mut out = vec![0; made];
    for piece in packed.chunks(taken) {
        let mut rest = piece;
        loop {
            match unpacker.step(rest, &mut out) {
                Ok(step) => {
                    content.extend(&out[..step.made]);
                    rest = &rest[step.taken..];
                    if rest.is_empty() && step.made < out.len() {
                        break;
                    }
                    assert!(step != Step::default(), "no way on");
                }
                Err(corrupt) => return (content, Some(corrupt)),
            }
        }
    }
    assert_eq!(unpacker.content(), content.len() as u64);
    (content, unpacker.finish().err())
}

const BOTH: [Packing; 2] = [Packing::Gzip, Packing::Zstd];

#[test]
fn it_is_known_by_its_beginning() {
    for packing in BOTH {
        assert_eq!(Packing::sniff(&pack(packing, b"x")), Some(packing));
    }
    assert_eq!(Packing::sniff(b"line\n"), None);
    assert_eq!(Packing::sniff(b"\x1f\x8b"), None);
    assert_eq!(Packing::sniff(b""), None);
}

#[test]
fn joined_members_are_one_content() {
    let content = lines();
    for packing in BOTH {
        let mut packed = pack(packing, &content[..1000]);
        packed.extend(pack(packing, b""));
        packed.extend(pack(packing, &content[1000..]));
        for (taken, made) in [(1, 1), (7, 4096), (1 << 20, 13), (1 << 20, 1 << 20)] {
            let (got, fault) = unpack(packing, &packed, taken, made);
            assert!(got == content, "{packing:?} {taken} {made}: {} bytes", got.len());
            assert_eq!(fault, None, "{packing:?} {taken} {made}");
        }
    }
}

#[test]
fn a_cut_is_told_at_every_byte_and_what_was_before_it_is_kept() {
    let content = &lines()[..2000];
    for packing in BOTH {
        let packed = pack(packing, content);
        for cut in 1..packed.len() {
            let (got, fault) = unpack(packing, &packed[..cut], 64, 64);
            let fault = fault.unwrap_or_else(|| panic!("{packing:?} cut at {cut}"));
            assert!(content.starts_with(&got));
            assert_eq!((fault.packed, fault.content), (cut as u64, got.len() as u64));
            assert!(fault.is_cut && fault.reason.contains("cut off"), "{fault}");
        }
    }
}

#[test]
fn a_wrong_checksum_is_told_behind_the_content() {
    let content = lines();
    let mut packed = gzip(&content);
    let sum = packed.len() - 8;
    packed[sum] ^= 1;
    let (got, fault) = unpack(Packing::Gzip, &packed, 4096, 4096);
    assert!(got == content);
    assert!(fault.expect("a fault").reason.contains("checksum"));
}

#[test]
fn zeros_behind_are_padding_and_other_bytes_are_told() {
    let mut packed = gzip(b"content\n");
    packed.extend([0; 100]);
    assert_eq!(unpack(Packing::Gzip, &packed, 9, 9), (b"content\n".to_vec(), None));
    packed.push(b'x');
    let (got, fault) = unpack(Packing::Gzip, &packed, 9, 9);
    assert_eq!((got, fault.is_some()), (b"content\n".to_vec(), true));
}

#[test]
fn a_bomb_comes_in_pieces() {
    for packing in BOTH {
        let packed = pack(packing, &vec![0; 64 << 20]);
        assert!(packed.len() < 1 << 20);
        let mut reader = Unpacked::new(packed.as_slice(), packing, 4096).expect("made");
        let mut piece = vec![0; 4096];
        let mut total = 0;
        loop {
            match reader.read(&mut piece).expect("unpacked") {
                0 => break,
                got => total += got,
            }
        }
        assert_eq!(total, 64 << 20);
    }
}

#[test]
fn a_window_above_8_mib_is_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("made");
    encoder.window_log(27).expect("set");
    encoder.write_all(&lines()).expect("memory");
    let packed = encoder.finish().expect("memory");
    let (got, fault) = unpack(Packing::Zstd, &packed, 4096, 4096);
    assert_eq!(got, b"");
    assert!(fault.expect("refused").reason.contains("memory"));
}

proptest! {
    #[test]
    fn no_damage_panics_or_hangs(at in 0usize..4000, flip in 1u8.., taken in 1usize..300, made in 1usize..300) {
        for packing in BOTH {
            let mut packed = pack(packing, &lines());
            let at = at % packed.len();
            packed[at] ^= flip;
            let _ = unpack(packing, &packed, taken, made);
        }
    }
}
