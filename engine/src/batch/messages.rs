//! What a message queue knows of each record beside its bytes: where it lay, when it was written, its key and headers.
//!
//! Keys and headers lie in bytes of their own, so that the records lie one behind the other in theirs. Headers are one
//! stretch a message: for each the length of its name and the name, then the length of its value and the value, lengths in
//! 32 bits, little end first; a value that is not there has a length of [`NO_VALUE`].

use super::Span;

/// The length of a header's value that is not there.
const NO_VALUE: u32 = u32::MAX;

/// The messages of one partition that the records of a run are, or were in.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: i32,
    /// One entry a record.
    pub rows: &'a [Message],
    /// What the spans of keys and headers point into.
    pub bytes: &'a [u8],
}

/// One message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its time, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Span>,
    /// Its headers; empty when there are none.
    pub headers: Span,
    /// Whether it has no value at all (a tombstone); its record is empty.
    pub is_null: bool,
}

/// Appends a header. Names and values are far shorter than 4 GiB: a message is.
pub fn write_header(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    write_part(out, Some(name));
    write_part(out, value);
}

fn write_part(out: &mut Vec<u8>, part: Option<&[u8]>) {
    let len = part.map_or(NO_VALUE, |part| u32::try_from(part.len()).unwrap_or(NO_VALUE));
    out.extend_from_slice(&len.to_le_bytes());
    if let Some(part) = part.filter(|_| len != NO_VALUE) {
        out.extend_from_slice(part);
    }
}

/// The headers in a stretch: name and value.
pub fn headers(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let name = read_part(&mut bytes)??;
        Some((name, read_part(&mut bytes)?))
    })
}

fn read_part<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len);
    if len == NO_VALUE {
        *bytes = rest;
        return Some(None);
    }
    let (part, rest) = rest.split_at_checked(len as usize)?;
    *bytes = rest;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_as_they_were_written() {
        let mut out = Vec::new();
        let all: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"1")), (b"", Some(b"")), (b"none", None), (b"a", Some(b"\xff\0"))];
        for (name, value) in all {
            write_header(&mut out, name, value);
        }
        assert_eq!(headers(&out).collect::<Vec<_>>(), all);
        assert_eq!(headers(&out[..out.len() - 1]).count(), 3, "what is cut is not read");
        assert_eq!(headers(b"").count(), 0);
    }
}
