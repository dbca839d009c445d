//! How the records of a batch are told apart in a stream. Pure.
//!
//! A counted record is written as it is, whatever is in it. Where a byte ends a record (newline, NUL), that byte within
//! a record is written as `#` and its three octal digits, `#012` or `#000`, as rsyslog does: a record arrives as one
//! record. An empty record has no octet count in RFC 6587, and is left out there.

use super::stream::Framing;

/// Whether the records as they are encoded, a newline behind each, are framed already.
pub fn is_framed(framing: Framing, bytes: &[u8], records: usize) -> bool {
    framing == Framing::Newline && memchr::memchr_iter(b'\n', bytes).count() == records
}

/// Puts the records of a batch behind each other as `framing` wants them; `out` is cleared first. A record lies in
/// `bytes` between the end of the one before and its own, its newline included.
pub fn frame(framing: Framing, bytes: &[u8], ends: &[u32], out: &mut Vec<u8>) {
    out.clear();
    let mut start = 0;
    for end in ends {
        let end = *end as usize;
        let record = &bytes[start..end];
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        start = end;
        match framing {
            Framing::Newline => push_terminated(out, record, b'\n', b"#012"),
            Framing::Nul => push_terminated(out, record, 0, b"#000"),
            Framing::Octet if record.is_empty() => {}
            Framing::Octet => {
                push_decimal(out, record.len());
                out.push(b' ');
                out.extend_from_slice(record);
            }
            Framing::Len32 => {
                out.extend_from_slice(&(record.len() as u32).to_be_bytes());
                out.extend_from_slice(record);
            }
        }
    }
}

/// Where records end in a batch that does not say it: a newline stands behind each, and none within.
pub fn line_ends(bytes: &[u8]) -> Vec<u32> {
    memchr::memchr_iter(b'\n', bytes).map(|at| at as u32 + 1).collect()
}

fn push_terminated(out: &mut Vec<u8>, mut record: &[u8], terminator: u8, instead: &[u8]) {
    while let Some(at) = memchr::memchr(terminator, record) {
        out.extend_from_slice(&record[..at]);
        out.extend_from_slice(instead);
        record = &record[at + 1..];
    }
    out.extend_from_slice(record);
    out.push(terminator);
}

fn push_decimal(out: &mut Vec<u8>, mut n: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Framer, Oversize, Rules};
    use proptest::prelude::{ProptestConfig, proptest};

    /// A batch as sinks are given it.
    fn batch(records: &[Vec<u8>]) -> (Vec<u8>, Vec<u32>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for record in records {
            bytes.extend_from_slice(record);
            bytes.push(b'\n');
            ends.push(bytes.len() as u32);
        }
        (bytes, ends)
    }

    /// What a source makes of a stream.
    fn read(framing: frame::Framing, stream: &[u8]) -> Vec<Vec<u8>> {
        let (prefer_newline, oversize) = (false, Oversize::Truncate);
        let rules = Rules { framing, prefer_newline, oversize, record_bytes_max: 1 << 20 };
        let (mut framer, mut spans, mut next) = (Framer::new(rules), Vec::new(), 0);
        let mut got = Vec::new();
        while next < stream.len() {
            next = framer.feed(stream, next, &mut spans).next;
            got.extend(spans.iter().map(|span| span.of(stream).to_vec()));
        }
        got
    }

    #[test]
    fn a_terminator_within_a_record_does_not_end_it() {
        let (bytes, ends) = batch(&[b"one".to_vec(), b"\ntwo\n\0".to_vec(), b"".to_vec()]);
        let mut out = Vec::new();
        frame(Framing::Newline, &bytes, &ends, &mut out);
        assert_eq!(out, b"one\n#012two#012\0\n\n");
        assert!(!is_framed(Framing::Newline, &bytes, 3) && is_framed(Framing::Newline, &out, 3));
        frame(Framing::Nul, &bytes, &ends, &mut out);
        assert_eq!(out, b"one\0\ntwo\n#000\0\0");
        assert!(!is_framed(Framing::Nul, b"one\n", 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_framed_here_is_read_there(records: Vec<Vec<u8>>) {
            let (bytes, ends) = batch(&records);
            let mut out = Vec::new();
            frame(Framing::Len32, &bytes, &ends, &mut out);
            assert_eq!(read(frame::Framing::Len32, &out), records);
            frame(Framing::Octet, &bytes, &ends, &mut out);
            let told: Vec<_> = records.iter().filter(|record| !record.is_empty()).cloned().collect();
            assert_eq!(read(frame::Framing::Octet, &out), told);
            frame(Framing::Nul, &bytes, &ends, &mut out);
            assert_eq!(read(frame::Framing::Nul, &out).len(), records.len());
            frame(Framing::Newline, &bytes, &ends, &mut out);
            assert_eq!(read(frame::Framing::Newline, &out).len(), records.len());
        }
    }
}
