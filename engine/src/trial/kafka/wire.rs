//! As much of Kafka's protocol as it takes to find out what a listener speaks: the versions it knows, and the mechanisms by
//! which one may say who one is. Both may be asked before anything else, on every listener.
//!
//! Bytes in, bytes out; whatever an answer holds, nothing panics: what is none of Kafka's is nothing.

/// A larger answer is none: those asked for have some hundred bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;

const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const CLIENT: &[u8] = b"wpgen";

/// What a listener is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// Which requests it knows.
    Versions,
    /// Whether it takes this mechanism.
    Mechanism(&'a str),
}

impl Question<'_> {
    /// The request, with its length in front; the answer bears the same number.
    pub(super) fn bytes(self, number: i32) -> Vec<u8> {
        let (key, version, name): (i16, i16, Option<&str>) = match self {
            Self::Versions => (API_VERSIONS, 0, None),
            Self::Mechanism(name) => (SASL_HANDSHAKE, 1, Some(name)),
        };
        let mut body = [&key.to_be_bytes()[..], &version.to_be_bytes(), &number.to_be_bytes()].concat();
        push_string(&mut body, CLIENT);
        if let Some(name) = name {
            push_string(&mut body, name.as_bytes());
        }
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&length.to_be_bytes()[..], &body].concat()
    }
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    let length = i16::try_from(text.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&text[..usize::try_from(length).unwrap_or(0)]);
}

/// The length of an answer, from the four bytes in front of it; nothing when no answer is that long.
pub(super) fn length(head: [u8; 4]) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(head)).ok().filter(|length| (4..=ANSWER_BYTES_MAX).contains(length))
}

/// How many kinds of requests a broker knows; nothing when the answer is none to [`Question::Versions`].
pub(super) fn versions(answer: &[u8], number: i32) -> Option<usize> {
    let mut body = Body::of(answer, number)?;
    let (error, count) = (body.short()?, body.count()?);
    (error == 0 && body.0.len() >= count * 6).then_some(count)
}

/// The code of an answer to [`Question::Mechanism`], and the mechanisms that the listener takes.
pub(super) fn mechanisms(answer: &[u8], number: i32) -> Option<(i16, Vec<String>)> {
    let mut body = Body::of(answer, number)?;
    let (error, count) = (body.short()?, body.count()?);
    let names: Option<Vec<String>> = (0..count.min(body.0.len())).map(|_| body.string()).collect();
    Some((error, names?))
}

/// What is left of an answer.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn of(answer: &'a [u8], number: i32) -> Option<Self> {
        let (head, rest) = answer.split_first_chunk::<4>()?;
        (i32::from_be_bytes(*head) == number).then_some(Self(rest))
    }

    fn short(&mut self) -> Option<i16> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*head))
    }

    fn count(&mut self) -> Option<usize> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        usize::try_from(i32::from_be_bytes(*head)).ok().filter(|count| *count <= ANSWER_BYTES_MAX)
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.short()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_those_of_the_protocol() {
        let asked = Question::Versions.bytes(7);
        assert_eq!(asked, b"\0\0\0\x0f\0\x12\0\0\0\0\0\x07\0\x05wpgen");
        let asked = Question::Mechanism("PLAIN").bytes(8);
        assert_eq!(asked, b"\0\0\0\x16\0\x11\0\x01\0\0\0\x08\0\x05wpgen\0\x05PLAIN");
    }

    #[test]
    fn answers_are_read_and_others_are_none() {
        let answer = b"\0\0\0\x08\0\x21\0\0\0\x02\0\x05PLAIN\0\x0dSCRAM-SHA-256";
        let (error, names) = mechanisms(answer, 8).unwrap();
        assert_eq!((error, names), (33, vec!["PLAIN".to_owned(), "SCRAM-SHA-256".to_owned()]));
        assert_eq!(mechanisms(answer, 7), None, "another number");
        assert_eq!(versions(b"\0\0\0\x07\0\0\0\0\0\x01\0\x12\0\0\0\x04", 7), Some(1));
        assert_eq!(versions(b"\0\0\0\x07\0\0\0\0\0\x02\0\x12\0\0\0\x04", 7), None, "cut short");
        assert_eq!(length(*b"HTTP"), None);
        assert_eq!(length([0, 0, 0, 20]), Some(20));
    }

    proptest! {
        #[test]
        fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..64)) {
            let number = answer.first_chunk::<4>().map_or(0, |head| i32::from_be_bytes(*head));
            let _ = (versions(&answer, number), mechanisms(&answer, number));
        }
    }
}
