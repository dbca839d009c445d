//! What is sent: a record that says who it is, and whose text is all determined by that.
//!
//! ```text
//! 02.0007.0000123 bbbbbbbbbbbbbbb     input, stream, number, and a filler of its own length and letter
//! ```

/// Bytes in front of the filler.
const HEAD: usize = 16;
/// Digits of the longest count in front of a message.
const COUNT_DIGITS: usize = 4;

/// A record by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// Which input sent it.
    pub input: u8,
    /// Which unit of order of that input it belongs to: a file, a connection, a socket.
    pub stream: u16,
    /// Its place in the stream, from 0.
    pub number: u32,
}

impl Record {
    /// Appends its text, without any newline.
    pub fn write(self, into: &mut Vec<u8>) {
        let Self { input, stream, number } = self;
        into.extend_from_slice(format!("{input:02}.{stream:04}.{number:07} ").as_bytes());
        into.resize(into.len() + self.filler_len(), self.letter());
    }

    /// Reads a text; `None` when it is not one of ours, whole and unchanged.
    pub fn read(text: &[u8]) -> Option<Self> {
        let record = Self::name(text)?;
        let filler = text.get(HEAD..)?;
        let whole = filler.len() == record.filler_len() && filler.iter().all(|b| *b == record.letter());
        (whole && text[2] == b'.' && text[7] == b'.' && text[15] == b' ').then_some(record)
    }

    /// Reads who a text says it is.
    fn name(text: &[u8]) -> Option<Self> {
        let digits = |range: std::ops::Range<usize>| -> Option<u32> {
            text.get(range)?
                .iter()
                .try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
        };
        let input = u8::try_from(digits(0..2)?).ok()?;
        Some(Self { input, stream: u16::try_from(digits(3..7)?).ok()?, number: digits(8..15)? })
    }

    /// The input of a text that is the beginning of a message of ours and not all of it.
    pub fn cut(text: &[u8]) -> Option<u8> {
        let is_head = |(at, b): (usize, &u8)| match at {
            2 | 7 => *b == b'.',
            15 => *b == b' ',
            _ => b.is_ascii_digit(),
        };
        let head = &text[..text.len().min(HEAD)];
        let input = std::str::from_utf8(text.get(..2)?).ok()?.parse().ok()?;
        if !head.iter().enumerate().all(is_head) {
            return None;
        }
        let mut whole = Vec::new();
        if let Some(record) = Self::name(text) {
            record.write(&mut whole);
            return (text.len() < whole.len() && whole.starts_with(text)).then_some(input);
        }
        Some(input)
    }

    /// Whether a text is so short a beginning that it does not say of which input it is: of a message, or of the count
    /// in front of one, where a connection was closed within it.
    pub fn is_stub(text: &[u8]) -> bool {
        (1..=COUNT_DIGITS).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
    }

    fn letter(self) -> u8 {
        b'a' + u8::try_from(self.mixed() % 26).unwrap()
    }

    /// Mostly short; one in 512 is larger than a small batch.
    fn filler_len(self) -> usize {
        let mixed = self.mixed() as usize >> 5;
        if mixed.is_multiple_of(512) { 1000 + mixed / 512 % 300 } else { mixed % 150 }
    }

    fn mixed(self) -> u32 {
        (self.number ^ u32::from(self.stream) << 20).wrapping_mul(0x9e37_79b1).rotate_left(13)
    }
}

#[test]
fn a_message_is_read_as_it_was_written_and_not_when_it_was_changed() {
    for number in 0..5000 {
        let record = Record { input: 7, stream: 123, number };
        let mut text = Vec::new();
        record.write(&mut text);
        assert_eq!(Record::read(&text), Some(record));
        let changed = [&text[..text.len() - 1], b"!"].concat();
        assert_eq!(Record::read(&changed), None);
        assert_eq!(Record::read(&text[..text.len() - 1]), None);
        (2..text.len()).for_each(|n| assert_eq!(Record::cut(&text[..n]), Some(7)));
        assert_eq!((Record::cut(&text), Record::cut(&changed)), (None, None));
        assert!(Record::is_stub(&text[..1]) && Record::is_stub(b"166"));
        assert!(!Record::is_stub(&text) && !Record::is_stub(b"") && !Record::is_stub(b"16 "));
        assert_eq!(Record::read(&[text.as_slice(), &text].concat()), None);
    }
}
