//! Base64 and hex against decoders that go character by character through an alphabet.

use engine::batch::Span;
use engine::decode::{BadByte, Encode, OnBad, decode_line, decode_run, looks_like};

use super::dial::Dial;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Lines of any bytes: each decodes as the naive decoder says, or names the byte that it names.
pub fn check(data: &[u8]) {
    let mut dial = Dial::new(data);
    let how = dial.one_of(&[Encode::Base64, Encode::Hex, Encode::Text]);
    let answer = dial.one_of(&[OnBad::Skip, OnBad::Pass, OnBad::Stop]);
    let times = 1 + dial.below(8);
    let bytes = dial.rest().repeat(times);
    let spans = lines(&bytes);

    let (mut want, mut want_bad, mut want_next) = (Vec::new(), Vec::new(), spans.len());
    for (i, span) in spans.iter().enumerate() {
        let line = span.of(&bytes);
        let naive = naive(how, line);
        alone(how, line, &naive);
        match naive {
            Ok(record) => want.push(record),
            Err(bad) => {
                want_bad.push((i, bad));
                match answer {
                    OnBad::Skip => {}
                    OnBad::Pass => want.push(line.to_vec()),
                    OnBad::Stop => {
                        want_next = i;
                        break;
                    }
                }
            }
        }
    }
    let (mut out, mut got, mut bad) = (b"before".to_vec(), Vec::new(), Vec::new());
    let next = decode_run(how, &bytes, &spans, &mut out, &mut got, &mut |i, why| {
        bad.push((i, why));
        answer
    });
    assert_eq!((next, bad), (want_next, want_bad));
    let records: Vec<&[u8]> = got.iter().map(|span| span.of(&out)).collect();
    assert_eq!(records, want);
    assert_eq!(out.len(), 6 + records.iter().map(|record| record.len()).sum::<usize>());
    assert!(out.starts_with(b"before"));

    let guess = looks_like(spans.iter().map(|span| span.of(&bytes)));
    if guess != Encode::Text {
        assert!(
            spans.iter().all(|span| self::naive(guess, span.of(&bytes)).is_ok()),
            "{guess:?} does not decode"
        );
    }
}

fn lines(bytes: &[u8]) -> Vec<Span> {
    let mut start = 0;
    let line = |line: &[u8]| {
        let span = Span { start, end: start + line.len() as u32 };
        start = span.end + 1;
        span
    };
    bytes.split(|&byte| byte == b'\n').map(line).collect()
}

fn alone(how: Encode, line: &[u8], want: &Result<Vec<u8>, BadByte>) {
    let mut out = Vec::new();
    let got = decode_line(how, line, &mut out).map(|()| out.clone());
    assert_eq!(&got, want, "{how:?} {}", line.escape_ascii());
    assert!(got.is_ok() || out.is_empty(), "a bad line left {} bytes", out.len());
}

fn naive(how: Encode, line: &[u8]) -> Result<Vec<u8>, BadByte> {
    match how {
        Encode::Text => Ok(line.to_vec()),
        Encode::Hex => hex(line),
        Encode::Base64 => base64(line),
    }
}

fn hex(line: &[u8]) -> Result<Vec<u8>, BadByte> {
    let digits = all(line, line.len(), |byte| char::from(byte).to_digit(16))?;
    if digits.len() % 2 == 1 {
        return Err(BadByte { at: line.len(), byte: None });
    }
    Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

fn base64(line: &[u8]) -> Result<Vec<u8>, BadByte> {
    let place = |alphabet: &[u8], byte| alphabet.iter().position(|&known| known == byte).map(|at| at as u32);
    let padding = line.iter().rev().take_while(|&&byte| byte == b'=').count();
    // As many as fill the last group of four, or fewer; any other `=` is a bad byte.
    let may = [0, 0, 2, 1][(line.len() - padding) % 4];
    let body = if padding <= may { line.len() - padding } else { line.len() };
    let sextets = all(line, body, |byte| place(STANDARD, byte).or_else(|| place(URL, byte)))?;
    if sextets.len() % 4 == 1 {
        return Err(BadByte { at: line.len(), byte: None });
    }
    let bits = |group: &[u32]| group.iter().fold(0, |sum, value| sum << 6 | value) << (6 * (4 - group.len()));
    Ok(sextets.chunks(4).flat_map(|group| bits(group).to_be_bytes()[1..group.len()].to_vec()).collect())
}

/// The values of the first `body` bytes, or the first byte that has none.
fn all(line: &[u8], body: usize, value: impl Fn(u8) -> Option<u32>) -> Result<Vec<u32>, BadByte> {
    let one = |(at, &byte)| value(byte).ok_or(BadByte { at, byte: Some(byte) });
    line[..body].iter().enumerate().map(one).collect()
}
