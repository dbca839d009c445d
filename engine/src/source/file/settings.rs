//! What all readers of one file source go by.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::blame;
use super::known::Known;
use super::lines::{Lines, LongLines};
use super::params::Compression;
use super::reader::Way;
use super::stage::Stage;
use super::told::Told;
use crate::batch::{Mark, Origin};
use crate::decode::{Encode, OnBad};
use crate::frame::multiline::Multiline;
use crate::source::part::Surroundings;

/// A file source's settings, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source's key.
    pub key: Arc<str>,
    /// This machine's name.
    pub host: Arc<str>,
    /// The source's tags.
    pub tags: Vec<(String, String)>,
    /// The longest line, bytes.
    pub max_line_bytes: usize,
    /// What happens to a longer one.
    pub long_lines: LongLines,
    /// How each line is decoded.
    pub encode: Encode,
    /// What happens to a line that does not decode.
    pub on_bad: OnBad,
    /// How lines become one record; `None`: each is one.
    pub multiline: Option<Multiline>,
    /// What the files may be packed with.
    pub compression: Compression,
    /// What was said of bad and long lines.
    pub told: Arc<Told>,
    /// The inputs that are known, and how far they are.
    pub known: Arc<Known>,
}

impl Settings {
    /// A file's part of what every record carries.
    pub fn origin(&self, path: &Path) -> Origin {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // First: a tag of the configuration may say better what host the files are from.
        let mut tags = vec![("host".to_owned(), self.host.to_string())];
        tags.extend_from_slice(&self.tags);
        tags.extend([
            ("source_type".to_owned(), "file".to_owned()),
            ("source_path".to_owned(), path.to_string_lossy().into_owned()),
            ("source_name".to_owned(), name.into_owned()),
        ]);
        Origin {
            source: Arc::clone(&self.key),
            host: Arc::clone(&self.host),
            tags,
            peer: None,
            tls_subject: None,
            assignment: None,
            protocol: None,
            mark: Mark::default(),
        }
    }

    /// The way from bytes to records.
    pub fn way(&self) -> Way {
        let stage = match &self.multiline {
            Some(rules) => Stage::join(rules.clone(), self.max_line_bytes),
            None => Stage::decode(self.encode, self.on_bad),
        };
        let lines = Lines::new(self.max_line_bytes, self.long_lines);
        Way { lines, stage, told: Arc::clone(&self.told) }
    }

    /// The inputs that are known.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// A file could not be read: counted and said; the others go on.
    pub fn failed(&self, around: &Surroundings, path: &Path, error: &io::Error) {
        around.counters.errors.add(1);
        log::error!(target: "wpgen::file", "source '{}': {}", self.key, blame::explain(path, error));
    }
}
