//! How a frame begins: is it counted, and how many bytes does it count?
//!
//! A header is judged on its first bytes alone, at most [`HEADER_BYTES_MAX`], and the same bytes give the same answer
//! however they came. Numbers have a bound of digits before they are numbers, so that nothing overflows and a million
//! digits are text after the eleventh.

/// The most bytes that are looked at: digits, space, PRI.
pub(super) const HEADER_BYTES_MAX: usize = DIGITS_MAX + 1 + 5;

/// RFC 6587 sets no limit; ten digits are more than any frame that is kept.
const DIGITS_MAX: usize = 10;

/// What the first bytes of a frame say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// It depends on bytes that are not there yet.
    More,
    /// No counted frame.
    Text,
    /// A counted frame: `header` bytes that are not part of it, then `body` bytes.
    Counted {
        /// Bytes before the body.
        header: usize,
        /// Bytes of the body, as declared.
        body: u64,
    },
}

/// What must follow the octet count before it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    None,
    /// `<`, with which every syslog message begins.
    Open,
    /// A whole PRI (`<`, one to three digits, `>`) within the count.
    Pri,
}

/// RFC 6587: `MSG-LEN SP`, where MSG-LEN does not begin with 0.
pub(super) fn octet(bytes: &[u8], proof: Proof) -> Header {
    let mut body = 0;
    let mut header = 0;
    loop {
        match bytes.get(header) {
            None => return Header::More,
            Some(b'0') if header == 0 => return Header::Text,
            Some(digit @ b'0'..=b'9') if header < DIGITS_MAX => body = body * 10 + u64::from(digit - b'0'),
            Some(b' ') if header > 0 => break,
            Some(_) => return Header::Text,
        }
        header += 1;
    }
    header += 1;
    let counted = Header::Counted { header, body };
    match (proof, bytes.get(header)) {
        (Proof::None, _) | (Proof::Open, Some(b'<')) => counted,
        (Proof::Pri, Some(b'<')) => pri(&bytes[header + 1..], body, counted),
        (_, None) => Header::More,
        (_, Some(_)) => Header::Text,
    }
}

/// The rest of a PRI, behind its `<`.
fn pri(bytes: &[u8], body: u64, counted: Header) -> Header {
    let digits = bytes.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    // The body must reach over what was seen of it: `<`, the digits, and the byte that follows.
    if body < digits as u64 + 2 {
        return Header::Text;
    }
    match bytes.get(digits) {
        Some(b'>') if digits > 0 => counted,
        None => Header::More,
        Some(_) => Header::Text,
    }
}

/// A length of four bytes, big-endian.
pub(super) fn len32(bytes: &[u8]) -> Header {
    match bytes.first_chunk::<4>() {
        Some(length) => Header::Counted { header: 4, body: u64::from(u32::from_be_bytes(*length)) },
        None => Header::More,
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, Proof, len32, octet};

    fn counted(header: usize, body: u64) -> Header {
        Header::Counted { header, body }
    }

    #[test]
    fn octet_counts() {
        for (text, none, open, pri) in [
            ("12 <34>x", counted(3, 12), counted(3, 12), counted(3, 12)),
            ("12 <b>", counted(3, 12), counted(3, 12), Header::Text),
            ("12 <>", counted(3, 12), counted(3, 12), Header::Text),
            ("12 <3456>", counted(3, 12), counted(3, 12), Header::Text),
            ("12 <345", counted(3, 12), counted(3, 12), Header::More),
            ("4 <34>", counted(2, 4), counted(2, 4), counted(2, 4)),
            ("3 <34>", counted(2, 3), counted(2, 3), Header::Text),
            ("1 <", counted(2, 1), counted(2, 1), Header::Text),
            ("2018 01 30", counted(5, 2018), Header::Text, Header::Text),
            ("12 ", counted(3, 12), Header::More, Header::More),
            ("12", Header::More, Header::More, Header::More),
            (
                "9999999999 <1>",
                counted(11, 9_999_999_999),
                counted(11, 9_999_999_999),
                counted(11, 9_999_999_999),
            ),
            ("99999999999 <1>", Header::Text, Header::Text, Header::Text),
            ("0 <1>", Header::Text, Header::Text, Header::Text),
            ("007 <1>", Header::Text, Header::Text, Header::Text),
            (" 7 <1>", Header::Text, Header::Text, Header::Text),
            ("7\n", Header::Text, Header::Text, Header::Text),
            ("-7 <1>", Header::Text, Header::Text, Header::Text),
            ("<1>", Header::Text, Header::Text, Header::Text),
        ] {
            for (proof, want) in [(Proof::None, none), (Proof::Open, open), (Proof::Pri, pri)] {
                assert_eq!(octet(text.as_bytes(), proof), want, "{text} {proof:?}");
            }
        }
    }

    #[test]
    fn a_prefix_never_says_otherwise() {
        for text in
            ["12 <34>x", "12 <b>", "2018 01 30", "3 <34>", "99999999999 <1>", "0 <1>", "12 <345>x", "5 <>"]
        {
            for proof in [Proof::None, Proof::Open, Proof::Pri] {
                let whole = octet(text.as_bytes(), proof);
                for len in 1..text.len() {
                    let part = octet(&text.as_bytes()[..len], proof);
                    assert!(part == Header::More || part == whole, "{text} {len} {proof:?}: {part:?}");
                }
            }
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(len32(&[0, 0, 1, 2, 9]), counted(4, 258));
        assert_eq!(len32(&[0, 0, 1]), Header::More);
        assert_eq!(len32(&[255; 4]), counted(4, u64::from(u32::MAX)));
    }
}
