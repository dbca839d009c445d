//! Where a record ends in a stream, both ways.

/// A framing that sources and sinks know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline behind each record.
    Newline,
    /// Its length in digits and a blank before each.
    Octet,
    /// A NUL behind each.
    Nul,
    /// Its length in four bytes before each.
    Len32,
}

impl Framing {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Newline => "newline",
            Self::Octet => "octet",
            Self::Nul => "nul",
            Self::Len32 => "len32",
        }
    }

    /// Appends a framed record.
    pub fn write(self, record: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::Octet => into.extend_from_slice(format!("{} ", record.len()).as_bytes()),
            Self::Len32 => into.extend_from_slice(&u32::try_from(record.len()).unwrap().to_be_bytes()),
            Self::Newline | Self::Nul => {}
        }
        into.extend_from_slice(record);
        match self {
            Self::Newline => into.push(b'\n'),
            Self::Nul => into.push(0),
            Self::Octet | Self::Len32 => {}
        }
    }

    /// Gives out the whole records of `bytes`; an unfinished one at the end is left out.
    pub fn read(self, mut bytes: &[u8], mut give: impl FnMut(&[u8])) {
        while let Some((record, behind)) = self.first(bytes) {
            give(record);
            bytes = behind;
        }
    }

    fn first(self, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let counted = |head: usize, len: usize| Some((bytes.get(head..head + len)?, &bytes[head + len..]));
        let ended = |end: u8| {
            let at = bytes.iter().position(|b| *b == end)?;
            Some((&bytes[..at], &bytes[at + 1..]))
        };
        match self {
            Self::Newline => ended(b'\n'),
            Self::Nul => ended(0),
            Self::Octet => {
                let digits = bytes.iter().position(|b| *b == b' ')?;
                counted(digits + 1, std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?)
            }
            Self::Len32 => counted(4, u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize),
        }
    }
}

#[test]
fn what_is_framed_is_read_and_a_rest_is_left() {
    for framing in [Framing::Newline, Framing::Octet, Framing::Nul, Framing::Len32] {
        let mut bytes = Vec::new();
        ["one", "", "three"].iter().for_each(|record| framing.write(record.as_bytes(), &mut bytes));
        for cut in 0..=bytes.len() {
            let mut records = Vec::new();
            framing.read(&bytes[..cut], |record| records.push(record.to_vec()));
            assert!(records.len() < 3 || cut == bytes.len(), "{framing:?}");
            assert!(records.iter().zip(["one", "", "three"]).all(|(a, b)| a == b.as_bytes()), "{framing:?}");
        }
    }
}
