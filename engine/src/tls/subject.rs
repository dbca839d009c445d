//! Whom a certificate names as its holder, as one line of text.
//!
//! The form is that of RFC 4514, which `openssl x509 -nameopt RFC2253` prints too: the last attribute first, a comma
//! between two of them, what has a meaning in that form behind a backslash. What cannot be shown as text is `#` and its
//! DER in hexadecimal digits, so a name is never changed to fit: one that is too long is none.
//!
//! It verifies nothing. Ask it for certificates that were verified.

use std::fmt::Write;

use super::der::{Der, OBJECT_IDENTIFIER, SEQUENCE, SET};

/// A longer name is none: it would be a part of every record.
const BYTES_MAX: usize = 1024;

const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// The subject of a certificate; nothing when it is none, when it names nobody, and when the name is too long.
pub fn of(certificate: &[u8]) -> Option<String> {
    let mut signed = Der::behind_issuer(certificate)?;
    signed.next(SEQUENCE)?;
    let mut name = Der(signed.next(SEQUENCE)?);
    let mut parts = Vec::new();
    while name.kind().is_some() {
        parts.push(part(Der(name.next(SET)?))?);
    }
    parts.reverse();
    let text = parts.join(",");
    (1..=BYTES_MAX).contains(&text.len()).then_some(text)
}

/// One part of a name: an attribute, or several that belong together.
fn part(mut set: Der<'_>) -> Option<String> {
    let mut text = String::new();
    while set.kind().is_some() {
        let mut attribute = Der(set.next(SEQUENCE)?);
        if !text.is_empty() {
            text.push('+');
        }
        let id = attribute.next(OBJECT_IDENTIFIER)?;
        match short_name(id) {
            Some(name) => text.push_str(name),
            None => push_dotted(&mut text, id),
        }
        text.push('=');
        push_value(&mut text, attribute)?;
    }
    Some(text)
}

fn short_name(id: &[u8]) -> Option<&'static str> {
    Some(match id {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 4] => "SN",
        [0x55, 4, 5] => "serialNumber",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "street",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 12] => "title",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1] => "emailAddress",
        _ => return None,
    })
}

/// An identifier in its numbers, seven bits of them a byte; the first two share one.
fn push_dotted(text: &mut String, id: &[u8]) {
    let mut number = 0u64;
    let mut is_first = true;
    for byte in id {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // Memory takes all that is written.
        let _ = if std::mem::take(&mut is_first) {
            let top = (number / 40).min(2);
            write!(text, "{top}.{}", number - top * 40)
        } else {
            write!(text, ".{number}")
        };
        number = 0;
    }
}

fn push_value(text: &mut String, mut attribute: Der<'_>) -> Option<()> {
    let Der(whole) = attribute;
    let kind = attribute.kind()?;
    let content = attribute.next(kind)?;
    let is_text = matches!(kind, UTF8_STRING | NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING);
    match std::str::from_utf8(content).ok().filter(|_| is_text) {
        Some(value) => push_escaped(text, value),
        None => {
            text.push('#');
            let der = &whole[..whole.len() - attribute.0.len()];
            push_hex(text, "", der);
        }
    }
    Some(())
}

/// Two digits a byte, each pair behind a mark.
fn push_hex(text: &mut String, mark: &str, bytes: &[u8]) {
    for byte in bytes {
        // Memory takes all that is written.
        let _ = write!(text, "{mark}{byte:02x}");
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if i == 0 => text.push_str("\\#"),
            ' ' if i == 0 || i == last => text.push_str("\\ "),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                push_hex(text, "\\", c.encode_utf8(&mut bytes).as_bytes());
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::der::INTEGER;
    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = content.len();
        [&[tag, 0x82, (len >> 8) as u8, len as u8], content].concat()
    }

    fn attribute(id: &[u8], kind: u8, text: &[u8]) -> Vec<u8> {
        value(SEQUENCE, &[value(OBJECT_IDENTIFIER, id), value(kind, text)].concat())
    }

    /// A certificate as far as this module reads it; each part of its name is a set of attributes.
    fn certificate(parts: &[Vec<u8>]) -> Vec<u8> {
        let name: Vec<u8> = parts.iter().flat_map(|part| value(SET, part)).collect();
        let signed = [
            value(INTEGER, &[1]),
            value(SEQUENCE, &[0; 9]),
            value(SEQUENCE, &[0; 20]),
            value(SEQUENCE, &[]),
            value(SEQUENCE, &name),
        ];
        value(SEQUENCE, &value(SEQUENCE, &signed.concat()))
    }

    #[test]
    fn the_last_attribute_comes_first() {
        let parts = [
            attribute(&[0x55, 4, 6], PRINTABLE_STRING, b"DE"),
            attribute(&[0x55, 4, 10], UTF8_STRING, "M\u{fc}ller, S\u{f6}hne".as_bytes()),
            [
                attribute(&[0x55, 4, 3], UTF8_STRING, b" web 7#"),
                attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], IA5_STRING, b"a@b"),
            ]
            .concat(),
        ];
        let text = of(&certificate(&parts)).unwrap();
        assert_eq!(text, "CN=\\ web 7#+emailAddress=a@b,O=M\u{fc}ller\\, S\u{f6}hne,C=DE");
    }

    #[test]
    fn what_is_no_text_or_unknown_is_shown_all_the_same() {
        let parts = [
            attribute(&[0x55, 4, 3], UTF8_STRING, b"line\none\\"),
            attribute(&[0x88, 0x37, 3], 0x1e, &[0, b'x']),
            attribute(&[0x55, 4, 3], UTF8_STRING, b"\xff"),
        ];
        let text = of(&certificate(&parts)).unwrap();
        assert_eq!(text, "CN=#0c820001ff,2.999.3=#1e8200020078,CN=line\\0aone\\\\");
    }

    #[test]
    fn nobody_and_a_name_without_end_are_none() {
        assert_eq!(of(&certificate(&[])), None);
        let long = |len: usize| certificate(&[attribute(&[0x55, 4, 3], UTF8_STRING, &vec![b'x'; len])]);
        assert_eq!(of(&long(BYTES_MAX - 3)).map(|text| text.len()), Some(BYTES_MAX));
        assert_eq!(of(&long(BYTES_MAX - 2)), None);
        let whole = long(5);
        for cut in 0..whole.len() {
            assert_eq!(of(&whole[..cut]), None, "cut at {cut}");
        }
    }
}
