//! Values of DER, one behind the other: as much of it as it takes to walk through a certificate.
//!
//! Whatever the bytes are, nothing panics: what is no value of the kind asked for is nothing.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// The certificate's version, which may be left out.
const VERSION: u8 = 0xa0;

/// What is left of a DER value's content.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// What a certificate says behind its issuer: the dates, the subject, and more.
    pub(super) fn behind_issuer(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Self(Self(Self(certificate).next(SEQUENCE)?).next(SEQUENCE)?);
        if signed.kind() == Some(VERSION) {
            signed.next(VERSION)?;
        }
        signed.next(INTEGER)?;
        let (_algorithm, _issuer) = (signed.next(SEQUENCE)?, signed.next(SEQUENCE)?);
        Some(signed)
    }

    /// The kind of the next value.
    pub(super) fn kind(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next value, which must be of this kind.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, first], rest) = self.0.split_first_chunk::<2>()?;
        if found != tag {
            return None;
        }
        // A length below 128 stands there itself; else the number of its bytes does.
        let digits = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
        let (digits, rest) = rest.split_at_checked(digits)?;
        let len = match digits.len() {
            0 if first < 0x80 => usize::from(first),
            1..=4 => digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(content)
    }
}
