//! What a file source may be told.

use std::time::Duration;

use crate::config::kinds::Check;
use crate::config::params::{Param, Shape, params, words, wrong_type};
use crate::config::tree::{Node, Table, Value};
use crate::config::types::{OneOrMany, OrOff, PathPattern};
use crate::config::units::Size;
use crate::diagnosis::{Code, Diagnostic, Findings};
use crate::frame::multiline::Begins;

params! {
    /// The parameters of a file source.
    pub struct FileParams {
        /// The file, or a pattern of files (`*`, `?`, `[..]`, `**`). Wins over base and file.
        path: Option<PathPattern>;
        /// The folder that `file` is in.
        base: Option<PathPattern>;
        /// A file name or a pattern below `base`.
        file: Option<String>;
        /// Patterns of files to leave out, by name or by path.
        exclude: OneOrMany<String>;
        /// How each line is decoded to one record.
        encode: Encode = "text";
        /// Follow the file, or read to its end and finish.
        mode: Mode = "tail";
        /// Where a file begins to be read.
        start: Start = "checkpoint";
        /// What happens to a line that `encode` cannot decode: skip it, stop, or pass the raw line.
        on_bad_line: OnBadLine = "skip";
        /// The longest line; a longer one is handled by `long_lines`.
        max_line_bytes: Size = "1MiB", in 64..=(1 << 30);
        /// What happens to a line that is too long.
        long_lines: LongLines = "split";
        /// How lines become one record: a table with `start` or `indent`.
        multiline: OrOff<Multiline>;
        /// What the file is packed with; auto looks at its content.
        compression: Compression = "auto";
        /// Whether one big file is read in ranges by several workers (once only).
        parallel: Parallel = "auto";
        /// A last line without newline is a record after this time without growth; 0 waits for ever.
        flush_partial: Duration = "5s", in 0..=86_400_000;
    }
}

words! {
    /// How a line is decoded.
    pub enum Encode {
        /// The line is the record.
        Text = "text",
        /// Base64, standard or URL alphabet, padding optional.
        Base64 = "base64",
        /// Hexadecimal, either case.
        Hex = "hex",
    }
}

words! {
    /// Whether a file is followed.
    pub enum Mode {
        /// Follow it.
        Tail = "tail",
        /// Read to the end and finish.
        Once = "once",
    }
}

words! {
    /// Where a file begins to be read.
    pub enum Start {
        /// Where it was left; a new file at its beginning.
        Checkpoint = "checkpoint",
        /// At its beginning, whatever the checkpoint says.
        Beginning = "beginning",
        /// At its end.
        End = "end",
    }
}

words! {
    /// What happens to a line that cannot be decoded.
    pub enum OnBadLine {
        /// It is counted and left out.
        Skip = "skip",
        /// The source stops.
        Stop = "stop",
        /// The raw line is the record.
        Pass = "pass",
    }
}

words! {
    /// What happens to a line that is too long.
    pub enum LongLines {
        /// It becomes several records.
        Split = "split",
        /// It is left out.
        Drop = "drop",
    }
}

words! {
    /// What a file is packed with.
    pub enum Compression {
        /// What its content says.
        Auto = "auto",
        /// Nothing.
        None = "none",
        /// gzip.
        Gzip = "gzip",
        /// zstd.
        Zstd = "zstd",
    }
}

params! {
    /// How lines become one record.
    pub struct Multiline {
        /// A line that matches this regular expression begins a record.
        start: Option<String>;
        /// A line that begins with a blank belongs to the one before.
        indent: bool = false;
        /// Lines of one record at most.
        max_lines: u32 = 1000, in 1..=1_000_000;
        /// A record ends when no further line comes for this time.
        timeout: Duration = "1s", in 1..=3_600_000;
    }
}

/// Whether one big file is read in ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallel {
    /// Where no sink promises order.
    Auto,
    /// Never.
    Off,
    /// In this many ranges at a time.
    Ranges(u16),
}

impl Param for Parallel {
    const SHAPE: Shape = Shape::Either(&Shape::Word(&["auto", "off"]), &Shape::Integer);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        match (node.as_text(), node.as_integer(), node.as_boolean()) {
            (Some("auto"), ..) => Some(Self::Auto),
            (Some("off"), ..) | (_, _, Some(false)) | (_, Some(1), _) => Some(Self::Off),
            (_, Some(count @ 2..=1024), _) => Some(Self::Ranges(count as u16)),
            _ => {
                wrong_type(node, name, &Self::SHAPE, findings);
                None
            }
        }
    }
}

impl Check for FileParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        self.check_path(table, findings);
        if let Some(multiline) = &self.multiline.0 {
            self.check_multiline(multiline, table, findings);
        }
        let path = self.path.iter().map(|path| ("path", path.text.as_str()));
        let file = self.file.iter().map(|file| ("file", file.as_str()));
        let exclude = self.exclude.0.iter().map(|glob| ("exclude", glob.as_str()));
        for (name, pattern) in path.chain(file).chain(exclude) {
            if let Err(error) = globset::Glob::new(pattern) {
                let message = format!("wrong value for '{name}': '{pattern}': {}", error.kind());
                findings.push(Diagnostic::error(Code::WP404, message).at(table.place_of(name)));
            }
        }
        if matches!(self.parallel, Parallel::Ranges(_)) {
            self.check_parallel(table, findings);
        }
    }
}

impl FileParams {
    fn check_path(&self, table: &Table, findings: &mut Findings) {
        if self.path.is_none() && (self.file.is_none() || self.base.is_none()) {
            let finding = Diagnostic::error(Code::WP404, "a file source needs 'path', or 'base' and 'file'");
            findings.push(finding.at(table.place()).help("name the file:\npath = \"/var/log/app.log\""));
        }
        if let (Some(_), Some(_)) = (&self.path, self.file.as_ref()) {
            let message = "'path' is there, so 'base' and 'file' are not looked at";
            findings.push(Diagnostic::warning(Some(Code::WP404), message).at(table.place_of("file")));
        }
    }

    fn check_multiline(&self, multiline: &Multiline, table: &Table, findings: &mut Findings) {
        let place = |key| match table.get("multiline").map(|node| &node.value) {
            Some(Value::Table(inner)) => inner.place_of(key),
            _ => table.place_of("multiline"),
        };
        let error = |message| Diagnostic::error(Code::WP404, message);
        match (&multiline.start, multiline.indent) {
            (None, false) => {
                let finding = error("'multiline' has neither 'start' nor 'indent'".to_owned());
                findings.push(finding.at(table.place_of("multiline")).help(
                    "say how a record begins:\nmultiline = { start = \"^[0-9]{4}-\" }\nmultiline = { indent = true }",
                ));
            }
            (Some(_), true) => {
                let finding =
                    error("'start' and 'indent' are two ways to say how a record begins".to_owned());
                findings.push(finding.at(place("indent")).help("take one of them out"));
            }
            (Some(start), false) => {
                if let Err(why) = Begins::pattern(start) {
                    let finding = error(format!("'start' is no regular expression: {start:?}"));
                    findings.push(
                        finding
                            .at(place("start"))
                            .note(why)
                            .help("start = \"^[0-9]{4}-\" for lines that begin with a year"),
                    );
                }
            }
            (None, true) => {}
        }
        if self.encode != Encode::Text {
            let finding = error("'multiline' joins lines of text, not encoded ones".to_owned());
            findings
                .push(finding.at(table.place_of("multiline")).help("with 'multiline', encode = \"text\""));
        }
    }

    fn check_parallel(&self, table: &Table, findings: &mut Findings) {
        let reason = if self.mode == Mode::Tail {
            "mode = \"once\""
        } else if self.multiline.0.is_some() {
            "single lines, not 'multiline'"
        } else if matches!(self.compression, Compression::Gzip | Compression::Zstd) {
            "a file that is not compressed"
        } else {
            return;
        };
        let message = format!("'parallel' needs {reason}; the file will be read by one worker");
        findings.push(Diagnostic::warning(Some(Code::WP404), message).at(table.place_of("parallel")));
    }
}
