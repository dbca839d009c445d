//! Where a finding is: a file's text, and one stretch of one of its lines.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Characters of a line that are shown; of a longer one only the part around the finding is.
const SHOWN_MAX: usize = 160;
/// Characters shown in front of the finding in a line that is too long.
const SHOWN_BEFORE: usize = 60;

/// One stretch of one line of a file, with the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The line, or the part of it around the finding.
    pub text: String,
    /// Characters of `text` in front of the finding.
    #[serde(skip)]
    pub indent: u32,
    /// Characters the finding covers, at least 1.
    pub length: u32,
}

/// The text of a file that was read, and what relative paths in it are relative to.
#[derive(Debug)]
pub struct SourceText {
    name: String,
    folder: PathBuf,
    text: String,
    /// Offset of each line's first byte.
    lines: Vec<u32>,
}

impl SourceText {
    /// Keeps a text of less than 4 GiB.
    pub fn new(name: impl Into<String>, folder: impl Into<PathBuf>, text: String) -> Self {
        assert!(u32::try_from(text.len()).is_ok(), "a configuration file is bounded before it is read");
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { name: name.into(), folder: folder.into(), text, lines }
    }

    /// The file as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its relative paths are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of a stretch of bytes; one that reaches beyond its first line is cut there.
    pub fn place(&self, span: Range<usize>) -> Place {
        let start = self.char_floor(span.start);
        let line = self.lines.partition_point(|&first| first as usize <= start) - 1;
        let first = self.lines[line] as usize;
        let last = self.lines.get(line + 1).map_or(self.text.len(), |&next| next as usize - 1);
        let last = if self.text[first..last].ends_with('\r') { last - 1 } else { last };
        let start = start.min(last);
        let end = self.char_floor(span.end).clamp(start, last);
        let column = self.text[first..start].chars().count();
        let length = self.text[start..end].chars().count().max(1);
        let skipped = if last - first > SHOWN_MAX { column.saturating_sub(SHOWN_BEFORE) } else { 0 };
        Place {
            file: self.name.clone(),
            line: line as u32 + 1,
            column: column as u32 + 1,
            text: self.text[first..last].chars().skip(skipped).take(SHOWN_MAX).collect(),
            indent: (column - skipped) as u32,
            length: length as u32,
        }
    }

    fn char_floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, span: Range<usize>) -> (u32, u32, String, u32, u32) {
        let place = SourceText::new("x.toml", "/", text.to_owned()).place(span);
        (place.line, place.column, place.text, place.indent, place.length)
    }

    #[test]
    fn places_count_lines_and_characters() {
        assert_eq!(of("a = 1\nb = 2\n", 10..11), (2, 5, "b = 2".into(), 4, 1));
        assert_eq!(of("a = 1\r\nb = 2\r\n", 4..100), (1, 5, "a = 1".into(), 4, 1));
        assert_eq!(of("数 = x", 6..7), (1, 5, "数 = x".into(), 4, 1));
        assert_eq!(of("数 = x", 1..2), (1, 1, "数 = x".into(), 0, 1));
        assert_eq!(of("", 0..0), (1, 1, String::new(), 0, 1));
        assert_eq!(of("a\n", 2..9), (2, 1, String::new(), 0, 1));
        assert_eq!(of("a", 900..901), (1, 2, "a".into(), 1, 1));
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let (line, column, text, indent, length) =
            of(&format!("{}wrong{}", "x".repeat(5000), "y".repeat(5000)), 5000..5005);
        assert_eq!((line, column, indent, length), (1, 5001, SHOWN_BEFORE as u32, 5));
        assert_eq!(text.len(), SHOWN_MAX);
        assert_eq!(&text[SHOWN_BEFORE..SHOWN_BEFORE + 5], "wrong");
    }

    #[test]
    fn every_offset_of_a_text_has_a_place() {
        let text = SourceText::new("x", "/", "é\n\n\r\n数据\nz".to_owned());
        for start in 0..20 {
            for end in 0..20 {
                assert!(text.place(start..end).length >= 1);
            }
        }
    }
}
