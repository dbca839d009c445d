//! What a file sink may be told.

use std::path::Path;
use std::time::Duration;

use crate::config::kinds::Check;
use crate::config::params::{Param, Shape, params, words, wrong_type, wrong_value};
use crate::config::tree::{Node, Table};
use crate::config::types::{OrOff, Permissions};
use crate::config::units::Size;
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::sink::format::Format;
use crate::sink::template::Template;

params! {
    /// The parameters of a file sink.
    pub struct FileParams {
        /// The file; may hold {source}, {host}, {tag:name} and {date:%Y%m%d} (time of receipt).
        path: Option<PathTemplate>;
        /// How a record is written.
        format: Format = "raw";
        /// What happens to a file that is there from before.
        existing: Existing = "append";
        /// When a new file is begun: a table with `size`, `every`, or both, and `keep`.
        rotate: OrOff<Rotate>;
        /// What rotated files are packed with.
        compress: Compress = "none";
        /// When the file is synced, and so when its records count as delivered.
        fsync: Fsync = "interval";
        /// The time between syncs with fsync = "interval".
        fsync_interval: Duration = "200ms", in 1..=60_000;
        /// Permissions of files that are made, in octal.
        permissions: Permissions = "0640";
    }
}

words! {
    /// What happens to a file that is there from before.
    pub enum Existing {
        /// Records go behind what it holds.
        Append = "append",
        /// It is emptied.
        Truncate = "truncate",
    }
}

words! {
    /// What rotated files are packed with.
    pub enum Compress {
        /// Nothing.
        None = "none",
        /// gzip.
        Gzip = "gzip",
        /// zstd.
        Zstd = "zstd",
    }
}

words! {
    /// When the file is synced.
    pub enum Fsync {
        /// Each `fsync_interval`.
        Interval = "interval",
        /// After each batch.
        Batch = "batch",
        /// Never: written is delivered; then only crashes of the process are covered.
        Never = "never",
    }
}

params! {
    /// When a new file is begun.
    pub struct Rotate {
        /// Past this many bytes.
        size: Option<Size>, in 4096..=(1 << 50);
        /// At each multiple of this time, as "1h" or "1d".
        every: Option<Duration>, in 1000..=31_622_400_000;
        /// Rotated files that are kept; 0 keeps all.
        keep: u32 = 0;
    }
}

/// A path with placeholders, made absolute by the folder of the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// As it was written.
    pub text: String,
    /// The absolute template.
    pub template: Template,
}

impl PathTemplate {
    /// Reads a template; a relative one lies below `folder`, whose own braces mean nothing.
    pub fn new(text: &str, folder: &Path) -> Result<Self, String> {
        // Its own offsets are those the operator knows, so the text is read before the folder stands in front of it.
        Template::parse(text).map_err(|error| error.to_string())?;
        let absolute = if text.starts_with('/') {
            text.to_owned()
        } else {
            let folder = folder.to_string_lossy().replace('{', "{{").replace('}', "}}");
            format!("{}/{}", folder.trim_end_matches('/'), text.trim_start_matches("./"))
        };
        let template = Template::parse(&absolute).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), template })
    }
}

impl Param for PathTemplate {
    const SHAPE: Shape = Shape::Text("a path, with placeholders as {source}");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        Self::new(text, node.file().folder()).map_err(|why| wrong_value(node, name, &why, findings)).ok()
    }
}

impl Check for FileParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        if self.path.is_none() {
            let finding = Diagnostic::error(Code::WP404, "a file sink needs 'path'").at(table.place());
            findings.push(finding.help("name the file:\npath = \"./data/out/{source}.log\""));
        }
        if let Some(rotate) = &self.rotate.0
            && rotate.size.is_none()
            && rotate.every.is_none()
        {
            let message = "'rotate' has neither 'size' nor 'every'";
            let finding = Diagnostic::error(Code::WP404, message).at(table.place_of("rotate"));
            findings
                .push(finding.help("say when:\nrotate = { size = \"100MB\", every = \"1d\", keep = 10 }"));
        }
        // A file whose date is over is packed too.
        let dated = self.path.as_ref().is_some_and(|path| path.template.has_date());
        if self.compress != Compress::None && self.rotate.0.is_none() && !dated {
            let message = "'compress' packs rotated files, and there is no 'rotate'";
            findings.push(Diagnostic::warning(Some(Code::WP404), message).at(table.place_of("compress")));
        }
    }
}
