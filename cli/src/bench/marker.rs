//! The marker that each message of a bench carries, and how it is found again in whatever a program made of the message.
//!
//! `wpb1-RUN-CONN-SEQ-TIME-LENGTH-CHECK`, all in lower-case hexadecimal of fixed width, then a space and `LENGTH` bytes of
//! text. The letters, digits and dashes pass through every parser, template and JSON writer unchanged, so the marker is
//! looked for anywhere in a line. CHECK covers the numbers in its first half and the text in its second half; thus a
//! message whose text was changed is still known by its number.
//!
//! Pure, and nothing is allocated for a message that came as it was sent.

use xxhash_rust::xxh3::xxh3_64;

/// What a marker begins with.
pub const PREFIX: &[u8; 5] = b"wpb1-";
/// Bytes of a marker.
pub const MARKER_BYTES: usize = 67;
/// Bytes of text at most.
pub const TEXT_BYTES_MAX: usize = (1 << 20) - 1;
/// The sequence number's highest bit says that the message is its connection's last.
const LAST: u64 = 1 << 47;

const RUN: usize = 5;
const CONNECTION: usize = 14;
const SEQUENCE: usize = 19;
const TIME: usize = 32;
/// From here on, but for the check of the numbers, a marker depends on its text alone.
pub const TEXT_PART: usize = 49;
const LENGTH: usize = TEXT_PART;
const CHECK: usize = 55;
const TEXT_CHECK: usize = 59;
/// Where a dash stands behind a number.
const DASHES: [usize; 5] = [13, 18, 31, 48, 54];

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The run of `bench send` it belongs to.
    pub run: u32,
    /// The connection within the run.
    pub connection: u16,
    /// Its place in the connection, from 0 on.
    pub sequence: u64,
    /// Whether its connection ends with it.
    pub last: bool,
    /// When it was due, nanoseconds since 1970.
    pub due_ns: u64,
    /// Bytes of text behind it.
    pub text_bytes: u32,
    /// The check of its text.
    pub text_check: u32,
}

/// The check of a text.
pub fn check(text: &[u8]) -> u32 {
    xxh3_64(text) as u32
}

/// What markers of a text have in common: its length and its check. The check of the numbers is left open.
pub fn text_part(text_bytes: u32, text_check: u32) -> [u8; MARKER_BYTES - TEXT_PART] {
    let mut part = [b'-'; MARKER_BYTES - TEXT_PART];
    part[..CHECK - 1 - TEXT_PART].copy_from_slice(&digits(text_bytes)[3..]);
    part[TEXT_CHECK - TEXT_PART..].copy_from_slice(&digits(text_check));
    part
}

impl Marker {
    /// Writes all of it.
    pub fn write(&self, into: &mut [u8; MARKER_BYTES]) {
        into[..RUN].copy_from_slice(PREFIX);
        for dash in DASHES {
            into[dash] = b'-';
        }
        into[RUN..CONNECTION - 1].copy_from_slice(&digits(self.run));
        into[CONNECTION..SEQUENCE - 1].copy_from_slice(&digits(self.connection.into())[4..]);
        self.write_time(into);
        into[TEXT_PART..].copy_from_slice(&text_part(self.text_bytes, self.text_check));
        self.write_number(into);
    }

    /// Writes the time over that of another marker.
    pub fn write_time(&self, into: &mut [u8]) {
        into[TIME..TIME + 8].copy_from_slice(&digits((self.due_ns >> 32) as u32));
        into[TIME + 8..TIME + 16].copy_from_slice(&digits(self.due_ns as u32));
    }

    /// Writes the sequence number, and the check of all numbers, over those of another marker.
    pub fn write_number(&self, into: &mut [u8]) {
        let sequence = self.numbered();
        into[SEQUENCE..SEQUENCE + 4].copy_from_slice(&digits((sequence >> 32) as u32)[4..]);
        into[SEQUENCE + 4..SEQUENCE + 12].copy_from_slice(&digits(sequence as u32));
        into[CHECK..TEXT_CHECK].copy_from_slice(&digits(self.number_check())[4..]);
    }

    /// Reads one; none when a digit or the check of its numbers is wrong.
    pub fn read(from: &[u8; MARKER_BYTES]) -> Option<Self> {
        let long =
            |at: usize| Some(u64::from(number(from, at, 8)?) << 32 | u64::from(number(from, at + 8, 8)?));
        let numbered =
            u64::from(number(from, SEQUENCE, 4)?) << 32 | u64::from(number(from, SEQUENCE + 4, 8)?);
        let marker = Self {
            run: number(from, RUN, 8)?,
            connection: number(from, CONNECTION, 4)? as u16,
            sequence: numbered & !LAST,
            last: numbered & LAST != 0,
            due_ns: long(TIME)?,
            text_bytes: number(from, LENGTH, 5)?,
            text_check: number(from, TEXT_CHECK, 8)?,
        };
        let whole = from.starts_with(PREFIX) && DASHES.iter().all(|dash| from[*dash] == b'-');
        (whole && number(from, CHECK, 4)? == marker.number_check()).then_some(marker)
    }

    fn numbered(&self) -> u64 {
        (self.sequence & (LAST - 1)) | if self.last { LAST } else { 0 }
    }

    /// Sixteen bits over all the numbers.
    fn number_check(&self) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = (u64::from(self.run) << 16 | u64::from(self.connection)).wrapping_mul(ODD);
        mixed = (mixed.rotate_left(23) ^ self.numbered()).wrapping_mul(ODD);
        mixed = (mixed.rotate_left(23) ^ self.due_ns).wrapping_mul(ODD);
        mixed ^= u64::from(self.text_bytes) << 32 | u64::from(self.text_check);
        (mixed.wrapping_mul(ODD) >> 48) as u32
    }
}

/// Eight hexadecimal digits, highest first.
fn digits(number: u32) -> [u8; 8] {
    // One nibble a byte: spread by halves, then 10 to 15 become letters.
    let mut spread = u64::from(number);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

/// The number that `count` hexadecimal digits stand for.
fn number(from: &[u8; MARKER_BYTES], at: usize, count: usize) -> Option<u32> {
    let mut value = 0;
    let mut wrong = 0;
    for digit in &from[at..at + count] {
        let nibble = NIBBLES[usize::from(*digit)];
        wrong |= nibble;
        value = value << 4 | u32::from(nibble & 15);
    }
    (wrong < 16).then_some(value)
}

/// What each byte stands for as a digit; 255 is none.
const NIBBLES: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_marker() -> impl Strategy<Value = Marker> {
        let numbers = (any::<u32>(), any::<u16>(), 0..LAST, any::<bool>());
        (numbers, any::<u64>(), 0u32..1 << 20, any::<u32>()).prop_map(
            |((run, connection, sequence, last), due_ns, text_bytes, text_check)| Marker {
                run,
                connection,
                sequence,
                last,
                due_ns,
                text_bytes,
                text_check,
            },
        )
    }

    #[test]
    fn a_marker_looks_as_it_is_told() {
        let marker = Marker {
            run: 0xabc,
            connection: 7,
            sequence: 255,
            last: false,
            due_ns: 16,
            text_bytes: 20,
            text_check: 0xdead_beef,
        };
        let mut bytes = [0; MARKER_BYTES];
        marker.write(&mut bytes);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(&text[..CHECK], "wpb1-00000abc-0007-0000000000ff-0000000000000010-00014-");
        assert_eq!(&text[TEXT_CHECK..], "deadbeef");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(marker in any_marker()) {
            let mut bytes = [0; MARKER_BYTES];
            marker.write(&mut bytes);
            prop_assert_eq!(Marker::read(&bytes), Some(marker));
        }

        #[test]
        fn a_changed_byte_is_noticed(marker in any_marker(), at in 0..TEXT_CHECK, to in any::<u8>()) {
            let mut bytes = [0; MARKER_BYTES];
            marker.write(&mut bytes);
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            // Sixteen bits of check: one change in 65,536 may pass, and must then have changed a number.
            let read = Marker::read(&bytes);
            prop_assert!(read != Some(marker));
        }

        #[test]
        fn digits_are_those_of_the_standard_library(n in any::<u32>()) {
            prop_assert_eq!(digits(n).to_vec(), format!("{n:08x}").into_bytes());
        }
    }
}
