//! gzip and zstd, a piece at a time: compressed bytes in, content out, as much as the buffers at hand hold.
//!
//! Knows no file. Memory is flat whatever comes: output goes into the caller's buffer and stops when that is full, so a
//! bomb is only a long file; a zstd frame that asks for a window above 8 MiB is refused. Members and frames that
//! follow each other are one content. What was unpacked before a fault is content; the fault says where it is.

use std::fmt;
use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// The largest zstd window, as a power of two: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;
/// The same in bytes.
pub const WINDOW_BYTES_MAX: usize = 1 << WINDOW_LOG_MAX;

/// A compressed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Packing {
    /// Recognises compressed content by how it begins.
    pub fn sniff(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A skippable frame, as pzstd puts in front.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Whether a file that holds `head` and nothing more may be recognised when there is more of it.
    pub fn may_follow(head: &[u8]) -> bool {
        let zstd: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        FIXED.starts_with(head) || (head.len() < zstd.len() && zstd.starts_with(head))
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of input that were used up.
    pub taken: usize,
    /// Bytes of output that were made.
    pub made: usize,
}

/// Where and why unpacking cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The position in the compressed file.
    pub packed: u64,
    /// How much content there was before.
    pub content: u64,
    /// What is wrong.
    pub reason: String,
    /// Whether the file ends too early, and is well as far as it goes: more of it may come.
    pub is_cut: bool,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} ({} bytes of content before it)", self.reason, self.packed, self.content)
    }
}

impl std::error::Error for Corrupt {}

impl Corrupt {
    /// What is wrong with a compressed file, if that is what an error says.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// Unpacks one file.
pub struct Unpacker {
    inner: Inner,
    packed: u64,
    content: u64,
    /// A fault behind content that was handed out first.
    fault: Option<String>,
}

enum Inner {
    Gzip(Box<Gzip>),
    Zstd { decoder: Box<Decoder<'static>>, inside: bool },
}

impl Unpacker {
    /// Begins a file.
    pub fn new(packing: Packing) -> io::Result<Self> {
        let inner = match packing {
            Packing::Gzip => Inner::Gzip(Box::new(Gzip::new())),
            Packing::Zstd => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                Inner::Zstd { decoder: Box::new(decoder), inside: false }
            }
        };
        Ok(Self { inner, packed: 0, content: 0, fault: None })
    }

    /// Unpacks from `input` into `out`. Go on with what was not taken until a step with room in `out` makes nothing more.
    pub fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Corrupt> {
        if let Some(reason) = &self.fault {
            return Err(self.corrupt(reason.clone()));
        }
        let (step, result) = match &mut self.inner {
            Inner::Gzip(gzip) => gzip.step(input, out),
            Inner::Zstd { decoder, inside } => zstd_step(decoder, inside, input, out),
        };
        self.packed += step.taken as u64;
        self.content += step.made as u64;
        match result {
            Ok(()) => Ok(step),
            Err(reason) => {
                let corrupt = self.corrupt(reason.clone());
                self.fault = Some(reason);
                if step.made > 0 { Ok(step) } else { Err(corrupt) }
            }
        }
    }

    /// The compressed file has ended: was it whole?
    pub fn finish(&self) -> Result<(), Corrupt> {
        let whole = match &self.inner {
            Inner::Gzip(gzip) => gzip.is_between(),
            Inner::Zstd { inside, .. } => !inside,
        };
        if whole {
            return Ok(());
        }
        Err(Corrupt { is_cut: true, ..self.corrupt("the compressed file is cut off".into()) })
    }

    /// How much content there was so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    fn corrupt(&self, reason: String) -> Corrupt {
        Corrupt { packed: self.packed, content: self.content, reason, is_cut: false }
    }
}

fn zstd_step(
    decoder: &mut Decoder<'static>,
    inside: &mut bool,
    input: &[u8],
    out: &mut [u8],
) -> (Step, Result<(), String>) {
    let mut from = InBuffer::around(input);
    let mut to = OutBuffer::around(out);
    let result = loop {
        let before = (from.pos(), to.pos());
        let hint = match decoder.run(&mut from, &mut to) {
            Ok(hint) => hint,
            Err(error) => break Err(error.to_string()),
        };
        if (from.pos(), to.pos()) == before {
            // Nothing came of it; behind a frame the decoder already hints at the next one.
            break Ok(());
        }
        *inside = hint != 0;
        if to.pos() == to.capacity() {
            break Ok(());
        }
    };
    (Step { taken: from.pos(), made: to.pos() }, result)
}

/// Where in a gzip file the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// So many bytes of the ten that begin a member.
    Fixed(usize),
    /// The two bytes of the extra field's length, so many read.
    ExtraLen(usize),
    /// In the extra field, so many left.
    Extra(usize),
    /// In the name, which ends in a zero.
    Name,
    /// In the comment, which ends in a zero.
    Comment,
    /// The two bytes of the header's checksum, so many left.
    HeaderSum(usize),
    /// In the deflated data.
    Body,
    /// So many bytes of the eight that end a member.
    Trailer(usize),
    /// In the zeros that some tapes put behind the last member.
    Padding,
}

struct Gzip {
    inflate: Decompress,
    at: At,
    flags: u8,
    extra: usize,
    trailer: [u8; 8],
    crc: crc32fast::Hasher,
    len: u32,
    members: u64,
}

const FIXED: [u8; 3] = [0x1f, 0x8b, 8];
const FLAG_HEADER_SUM: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

impl Gzip {
    fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            at: At::Fixed(0),
            flags: 0,
            extra: 0,
            trailer: [0; 8],
            crc: crc32fast::Hasher::new(),
            len: 0,
            members: 0,
        }
    }

    fn is_between(&self) -> bool {
        matches!(self.at, At::Padding) || (self.at == At::Fixed(0) && self.members > 0)
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> (Step, Result<(), String>) {
        let mut step = Step::default();
        loop {
            if self.at == At::Body {
                let (taken, made) = (step.taken, step.made);
                match self.inflate(&input[taken..], &mut out[made..]) {
                    Ok((used, got)) => {
                        step.taken += used;
                        step.made += got;
                        if self.at == At::Body {
                            return (step, Ok(()));
                        }
                    }
                    Err(reason) => return (step, Err(reason)),
                }
            }
            let Some(&byte) = input.get(step.taken) else { return (step, Ok(())) };
            match self.frame(byte) {
                Ok(()) => step.taken += 1,
                Err(reason) => return (step, Err(reason.into())),
            }
        }
    }

    /// Inflates until the input or the room is used up, or the data ends.
    fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), String> {
        let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, out, FlushDecompress::None);
        let used = (self.inflate.total_in() - taken) as usize;
        let got = (self.inflate.total_out() - made) as usize;
        self.crc.update(&out[..got]);
        self.len = self.len.wrapping_add(got as u32);
        match status {
            Ok(Status::StreamEnd) => self.at = At::Trailer(0),
            Ok(Status::Ok | Status::BufError) => {}
            Err(error) if got == 0 => return Err(format!("the deflated data is damaged: {error}")),
            Err(_) => {}
        }
        Ok((used, got))
    }

    /// Takes one byte that is not deflated data.
    fn frame(&mut self, byte: u8) -> Result<(), &'static str> {
        self.at = match self.at {
            At::Fixed(0) if byte == 0 && self.members > 0 => At::Padding,
            At::Padding if byte == 0 => At::Padding,
            At::Padding => return Err("there is something behind the last gzip member"),
            At::Fixed(n) if n < 3 && byte != FIXED[n] => {
                let first = self.members == 0;
                return Err(if first {
                    "this is no gzip header"
                } else {
                    "what follows a gzip member is none"
                });
            }
            At::Fixed(3) => {
                self.flags = byte;
                At::Fixed(4)
            }
            At::Fixed(9) => self.begin(FLAG_EXTRA),
            At::Fixed(n) => At::Fixed(n + 1),
            At::ExtraLen(0) => {
                self.extra = usize::from(byte);
                At::ExtraLen(1)
            }
            At::ExtraLen(_) => match self.extra | usize::from(byte) << 8 {
                0 => self.begin(FLAG_NAME),
                len => At::Extra(len),
            },
            At::Extra(1) => self.begin(FLAG_NAME),
            At::Extra(left) => At::Extra(left - 1),
            At::Name if byte == 0 => self.begin(FLAG_COMMENT),
            At::Comment if byte == 0 => self.begin(FLAG_HEADER_SUM),
            At::Name => At::Name,
            At::Comment => At::Comment,
            At::HeaderSum(2) => At::HeaderSum(1),
            At::HeaderSum(_) => self.body(),
            At::Body => At::Body,
            At::Trailer(n) => {
                self.trailer[n] = byte;
                if n == 7 { self.end()? } else { At::Trailer(n + 1) }
            }
        };
        Ok(())
    }

    /// The next part of the header, from the one that `flag` stands for.
    fn begin(&mut self, flag: u8) -> At {
        let parts = [
            (FLAG_EXTRA, At::ExtraLen(0)),
            (FLAG_NAME, At::Name),
            (FLAG_COMMENT, At::Comment),
            (FLAG_HEADER_SUM, At::HeaderSum(2)),
        ];
        let from = parts.iter().position(|(part, _)| *part == flag).unwrap_or(parts.len());
        let next = parts[from..].iter().find(|(part, _)| self.flags & part != 0);
        next.map_or_else(|| self.body(), |(_, at)| *at)
    }

    fn body(&mut self) -> At {
        self.inflate.reset(false);
        self.crc.reset();
        self.len = 0;
        At::Body
    }

    fn end(&mut self) -> Result<At, &'static str> {
        let [a, b, c, d, e, f, g, h] = self.trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.clone().finalize() {
            return Err("the checksum of a gzip member is wrong");
        }
        if u32::from_le_bytes([e, f, g, h]) != self.len {
            return Err("the length of a gzip member is wrong");
        }
        self.members += 1;
        Ok(At::Fixed(0))
    }
}

/// The content of a compressed stream as a plain reader, for whoever may block.
pub struct Unpacked<R> {
    from: R,
    unpacker: Unpacker,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Unpacked<R> {
    /// Unpacks what `from` gives, through a buffer of `bytes`.
    pub fn new(from: R, packing: Packing, bytes: usize) -> io::Result<Self> {
        Ok(Self { from, unpacker: Unpacker::new(packing)?, buffer: vec![0; bytes.max(1)], start: 0, end: 0 })
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let wrong = |corrupt| io::Error::new(io::ErrorKind::InvalidData, corrupt);
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let step = self.unpacker.step(&self.buffer[self.start..self.end], out).map_err(wrong)?;
            self.start += step.taken;
            if step.made > 0 {
                return Ok(step.made);
            }
            if self.start == self.end {
                (self.start, self.end) = (0, self.from.read(&mut self.buffer)?);
                if self.end == 0 {
                    return self.unpacker.finish().map(|()| 0).map_err(wrong);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
