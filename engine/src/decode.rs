//! Lines that carry encoded records: base64 and hex, a run at a time.
//!
//! Base64 is taken as it is found: standard and URL alphabet, also mixed in one line, with or without padding. Hex is
//! taken in either case. Nothing else is: a blank inside a line is a bad byte, and the line keeps its place in the run.
//!
//! The common case is one SIMD pass a line, in the alphabet that fitted the line before. Whatever that pass refuses goes
//! through the scalar decoder, which knows both alphabets, does not mind non-zero bits behind the last byte, and is the one that
//! finds the bad byte. Nothing is allocated for a line; output is grown, and zeroed, by strides.

use base64_simd::{AsOut, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::batch::Span;

/// Output grows by at least this: small enough to be zeroed and decoded into within the first cache level.
const STRIDE_BYTES: usize = 16 << 10;

/// How a line carries its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encode {
    /// As it is.
    #[default]
    Text,
    /// Base64, standard or URL alphabet, padding optional.
    Base64,
    /// Two hex digits a byte, either case.
    Hex,
}

/// Why a line is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadByte {
    /// Offset within the line of the first byte that cannot stand there; the line's length if the line ends too early.
    pub at: usize,
    /// That byte; `None` if the line ends too early.
    pub byte: Option<u8>,
}

/// What becomes of a bad line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// It yields no record.
    Skip,
    /// The undecoded line is the record.
    Pass,
    /// The run ends before it.
    Stop,
}

/// Decodes each line of a run to one record: appends its bytes to `out` and its span, over `out`, to `out_spans`.
///
/// `bad` is asked for each line that does not decode, with the line's index. Returns the index of the first line not
/// taken: `lines.len()`, or the line at which `bad` said stop. With [`Encode::Text`] lines are copied; callers that can,
/// use the lines themselves.
///
/// # Panics
/// If `out` would grow beyond what a [`Span`] can say.
pub fn decode_run(
    encode: Encode,
    bytes: &[u8],
    lines: &[Span],
    out: &mut Vec<u8>,
    out_spans: &mut Vec<Span>,
    bad: &mut dyn FnMut(usize, BadByte) -> OnBad,
) -> usize {
    match encode {
        Encode::Text => run(bytes, lines, out, out_spans, bad, copy),
        Encode::Hex => run(bytes, lines, out, out_spans, bad, hex),
        Encode::Base64 => {
            let mut url_first = false;
            run(bytes, lines, out, out_spans, bad, |line, out| base64(line, out, &mut url_first))
        }
    }
}

/// Decodes one line, for a message or a test; appends to `out`, which is left as it was if the line is bad.
///
/// # Errors
/// The first bad byte.
pub fn decode_line(encode: Encode, line: &[u8], out: &mut Vec<u8>) -> Result<(), BadByte> {
    let (span, mut spans, mut found) =
        (Span { start: 0, end: line.len() as u32 }, Vec::with_capacity(1), None);
    decode_run(encode, line, &[span], out, &mut spans, &mut |_, bad| {
        found = Some(bad);
        OnBad::Skip
    });
    found.map_or(Ok(()), Err)
}

/// The loop over a run; `decode` gets a line and at least as many bytes of room, and says how many it wrote.
fn run(
    bytes: &[u8],
    lines: &[Span],
    out: &mut Vec<u8>,
    out_spans: &mut Vec<Span>,
    bad: &mut dyn FnMut(usize, BadByte) -> OnBad,
    mut decode: impl FnMut(&[u8], &mut [u8]) -> Result<usize, BadByte>,
) -> usize {
    out_spans.reserve(lines.len());
    let mut at = out.len();
    let mut taken = lines.len();
    for (i, span) in lines.iter().enumerate() {
        let line = span.of(bytes);
        if out.len() - at < line.len() {
            out.resize(at + line.len().max(STRIDE_BYTES), 0);
        }
        let len = match decode(line, &mut out[at..]) {
            Ok(len) => len,
            Err(why) => match bad(i, why) {
                OnBad::Skip => continue,
                OnBad::Pass => {
                    out[at..at + line.len()].copy_from_slice(line);
                    line.len()
                }
                OnBad::Stop => {
                    taken = i;
                    break;
                }
            },
        };
        assert!(at + len <= u32::MAX as usize, "{} bytes of decoded records in one run", at + len);
        out_spans.push(Span { start: at as u32, end: (at + len) as u32 });
        at += len;
    }
    out.truncate(at);
    taken
}

// One signature for the three; a copy cannot fail.
#[allow(clippy::unnecessary_wraps)]
fn copy(line: &[u8], out: &mut [u8]) -> Result<usize, BadByte> {
    out[..line.len()].copy_from_slice(line);
    Ok(line.len())
}

fn hex(line: &[u8], out: &mut [u8]) -> Result<usize, BadByte> {
    match hex_simd::decode(line, out.as_out()) {
        Ok(decoded) => Ok(decoded.len()),
        Err(_) => Err(first_bad(line, |byte| byte.is_ascii_hexdigit())),
    }
}

fn base64(line: &[u8], out: &mut [u8], url_first: &mut bool) -> Result<usize, BadByte> {
    let body = unpadded(line);
    let alphabets = [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
    if let Ok(decoded) = alphabets[usize::from(*url_first)].decode(body, out.as_out()) {
        return Ok(decoded.len());
    }
    if let Ok(decoded) = alphabets[usize::from(!*url_first)].decode(body, out.as_out()) {
        *url_first = !*url_first;
        return Ok(decoded.len());
    }
    base64_scalar(line, body, out)
}

/// The line without such padding as its length allows; other `=` stay and are bad bytes.
#[inline]
fn unpadded(line: &[u8]) -> &[u8] {
    match line {
        [body @ .., b'=', b'='] if body.len() % 4 == 2 => body,
        [body @ .., b'='] if body.len() % 4 >= 2 => body,
        _ => line,
    }
}

/// Both alphabets at once, any bits behind the last byte; and the place of the first bad byte.
#[cold]
fn base64_scalar(line: &[u8], body: &[u8], out: &mut [u8]) -> Result<usize, BadByte> {
    if body.len() % 4 == 1 || body.iter().any(|&byte| sextet(byte).is_none()) {
        return Err(first_bad(line, |byte| sextet(byte).is_some()));
    }
    let (mut len, mut bits, mut held) = (0, 0u32, 0);
    for value in body.iter().filter_map(|&byte| sextet(byte)) {
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out[len] = (bits >> held) as u8;
            len += 1;
        }
    }
    Ok(len)
}

#[inline]
fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn first_bad(line: &[u8], good: impl Fn(u8) -> bool) -> BadByte {
    let at = line.iter().position(|&byte| !good(byte)).unwrap_or(line.len());
    BadByte { at, byte: line.get(at).copied() }
}

/// What the first lines of an input look like: for the help under a decoding error, never for a decision.
///
/// Every line that is not empty must fit, and the lines together must be long enough that it is no accident: `deadbeef` alone
/// is a word.
pub fn looks_like<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Encode {
    const TELLING_BYTES: usize = 16;
    let (mut hex, mut base64, mut total, mut mixed) = (true, true, 0, 0u8);
    for line in lines.into_iter().filter(|line| !line.is_empty()) {
        let body = unpadded(line);
        hex &= line.len() % 2 == 0 && line.iter().all(u8::is_ascii_hexdigit);
        base64 &= body.len() % 4 != 1 && body.iter().all(|&byte| sextet(byte).is_some());
        total += line.len();
        mixed |= line.iter().fold(0, |kinds, &byte| kinds | kind_of(byte));
        if !hex && !base64 {
            return Encode::Text;
        }
    }
    match (total >= TELLING_BYTES, hex, base64) {
        (true, true, _) => Encode::Hex,
        // Words and numbers are in the alphabet too; encoded bytes have both cases.
        (true, false, true) if mixed & 3 == 3 => Encode::Base64,
        _ => Encode::Text,
    }
}

/// A bit for lower case, upper case, and anything else.
fn kind_of(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::{BadByte, Encode, OnBad, Span, decode_line, decode_run, looks_like};

    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    /// RFC 4648 by hand; `alphabet` is asked for each character, so that a line may mix them.
    fn encode(bytes: &[u8], pad: bool, mut alphabet: impl FnMut() -> &'static [u8; 64]) -> Vec<u8> {
        let mut line = Vec::new();
        for three in bytes.chunks(3) {
            let group =
                three.iter().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte)) << (8 * (3 - three.len()));
            for i in 0..=three.len() {
                line.push(alphabet()[(group >> (18 - 6 * i)) as usize & 63]);
            }
            if pad {
                line.resize(line.len() + 3 - three.len(), b'=');
            }
        }
        line
    }

    fn decoded(how: Encode, line: &[u8]) -> Result<Vec<u8>, BadByte> {
        let mut out = b"before".to_vec();
        decode_line(how, line, &mut out).map(|()| {
            assert_eq!(&out[..6], b"before");
            out.split_off(6)
        })
    }

    fn bad(at: usize, byte: impl Into<Option<u8>>) -> BadByte {
        BadByte { at, byte: byte.into() }
    }

    fn record() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..400)
    }

    proptest! {
        #[test]
        fn base64_comes_back(record in record(), pad: bool, url: u64) {
            let mut url = url;
            let mut mixed = || {
                url = url.rotate_left(1);
                if url & 1 == 0 { STANDARD } else { URL }
            };
            for line in [encode(&record, pad, || STANDARD), encode(&record, pad, || URL), encode(&record, pad, &mut mixed)] {
                prop_assert_eq!(&decoded(Encode::Base64, &line), &Ok(record.clone()));
            }
        }

        #[test]
        fn hex_comes_back(record in record(), upper: u64) {
            let mut line = Vec::new();
            for (i, byte) in record.iter().enumerate() {
                let upper = upper >> (i % 64) & 1 == 1;
                line.extend(if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }.into_bytes());
            }
            prop_assert_eq!(decoded(Encode::Hex, &line), Ok(record));
        }

        #[test]
        fn one_bad_byte_is_found(record in vec(any::<u8>(), 1..300), at: proptest::sample::Index, byte in proptest::sample::select(b" !#\n\xff\0".as_slice())) {
            let mut line = encode(&record, false, || STANDARD);
            let at = at.index(line.len());
            line[at] = byte;
            prop_assert_eq!(decoded(Encode::Base64, &line), Err(bad(at, byte)));
            let mut line: Vec<u8> = record.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect();
            let at = at.min(line.len() - 1);
            line[at] = byte;
            prop_assert_eq!(decoded(Encode::Hex, &line), Err(bad(at, byte)));
        }

        #[test]
        fn anything_decodes_or_names_its_byte(line in vec(any::<u8>(), 0..200)) {
            for how in [Encode::Base64, Encode::Hex] {
                match decoded(how, &line) {
                    Ok(record) => prop_assert!(record.len() <= line.len()),
                    Err(why) => prop_assert_eq!(why.byte, line.get(why.at).copied()),
                }
            }
        }
    }

    #[test]
    fn padding_is_optional_but_not_free() {
        let b64 = |line: &str| decoded(Encode::Base64, line.as_bytes());
        for line in ["TQ==", "TQ=", "TQ", "TR=="] {
            assert_eq!(b64(line), Ok(b"M".to_vec()), "{line}");
        }
        for line in ["TWE=", "TWE"] {
            assert_eq!(b64(line), Ok(b"Ma".to_vec()), "{line}");
        }
        assert_eq!(b64(""), Ok(Vec::new()));
        assert_eq!(b64("TWFu"), Ok(b"Man".to_vec()));
        assert_eq!(b64("TWFu="), Err(bad(4, b'=')));
        assert_eq!(b64("TWE=="), Err(bad(3, b'=')));
        assert_eq!(b64("TQ==="), Err(bad(2, b'=')));
        assert_eq!(b64("="), Err(bad(0, b'=')));
        assert_eq!(b64("T"), Err(bad(1, None)));
        assert_eq!(b64("TWFuT"), Err(bad(5, None)));
        assert_eq!(b64("TQ==TQ=="), Err(bad(2, b'=')));
    }

    #[test]
    fn hex_ends_early_or_late() {
        assert_eq!(decoded(Encode::Hex, b"4d6"), Err(bad(3, None)));
        assert_eq!(decoded(Encode::Hex, b"4g6"), Err(bad(1, b'g')));
        assert_eq!(decoded(Encode::Hex, b"0x4d"), Err(bad(1, b'x')));
        assert_eq!(decoded(Encode::Hex, b""), Ok(Vec::new()));
    }

    #[test]
    fn a_run_keeps_order_and_says_which_lines_were_bad() {
        let text = b"TWFu\n!!\n\nTWE\nT\nTQ==\n";
        let mut lines = Vec::new();
        crate::frame::newline::lines(text, 0, usize::MAX, &mut lines);
        let go = |answer: OnBad| {
            let (mut out, mut spans, mut seen) = (Vec::new(), Vec::new(), Vec::new());
            let next = decode_run(Encode::Base64, text, &lines, &mut out, &mut spans, &mut |i, why| {
                seen.push((i, why));
                answer
            });
            let records: Vec<Vec<u8>> = spans.iter().map(|s: &Span| s.of(&out).to_vec()).collect();
            (next, records, seen)
        };
        let all = vec![(1, bad(0, b'!')), (4, bad(1, None))];
        let (next, records, seen) = go(OnBad::Skip);
        assert_eq!((next, &seen), (6, &all));
        assert_eq!(records, [&b"Man"[..], b"", b"Ma", b"M"]);
        let (next, records, seen) = go(OnBad::Pass);
        assert_eq!((next, &seen), (6, &all));
        assert_eq!(records, [&b"Man"[..], b"!!", b"", b"Ma", b"T", b"M"]);
        let (next, records, seen) = go(OnBad::Stop);
        assert_eq!((next, &seen[..]), (1, &all[..1]));
        assert_eq!(records, [b"Man"]);
    }

    #[test]
    fn guesses() {
        let guess = |lines: &[&str]| looks_like(lines.iter().map(|line| line.as_bytes()));
        assert_eq!(guess(&[]), Encode::Text);
        assert_eq!(guess(&["", ""]), Encode::Text);
        assert_eq!(guess(&["deadbeef"]), Encode::Text);
        assert_eq!(guess(&["3c33343e74657374206d657373616765", "", "00FF"]), Encode::Hex);
        assert_eq!(guess(&["PDE4OD5NYXkgMTcgMDg6NTQ6MDYg"]), Encode::Base64);
        assert_eq!(guess(&["PDE4OD5NYXkgMTcgMDg6NTQ6MDYgUw=="]), Encode::Base64);
        assert_eq!(guess(&["PDE4OD5NYXkgMTcgMDg6NTQ6MDYg", "a line of text"]), Encode::Text);
        assert_eq!(guess(&["internationalization", "configuration"]), Encode::Text);
    }
}
