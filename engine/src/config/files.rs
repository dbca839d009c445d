//! Reading configuration files: bounded, regular files only, UTF-8.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use super::tree::{self, Table};
use super::variables::Lookup;
use crate::diagnosis::{Code, Diagnostic, Findings, SourceText};
use crate::source::file::blame;

/// The longest configuration file. Ten thousand sources fit several times over.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads and parses a file, or tells why not.
pub fn read_tree(path: &Path, lookup: Lookup<'_>, findings: &mut Findings) -> Option<Table> {
    let file = Arc::new(read(path).map_err(|wrong| findings.push(wrong)).ok()?);
    tree::parse(&file, lookup, findings)
}

/// Reads a file.
pub fn read(path: &Path) -> Result<SourceText, Diagnostic> {
    // A FIFO would block the open, a device might never end: what it is comes first.
    let about = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !about.is_file() {
        let what = if about.is_dir() { "a folder" } else { "not a regular file" };
        return Err(failed(path, &format!("it is {what}"))
            .help("a TOML file is wanted here: name one, or move this out of the way"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(too_large(path, about.len()));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| cannot_read(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(path, bytes.len() as u64));
    }
    let absolute = std::path::absolute(path).map_err(|error| cannot_read(path, &error))?;
    let folder = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
    let name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceText::new(name, folder, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            let first_bad = bytes[at];
            let shown = SourceText::new(name, folder, String::from_utf8_lossy(&bytes).into_owned());
            let finding = failed(path, &format!("byte 0x{first_bad:02x} at offset {at} is not UTF-8"));
            // Everything before the bad byte is valid, so the offset holds in the shown text too.
            let help = match bytes.as_slice() {
                [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it begins as UTF-16 does: save it as UTF-8",
                _ => "save the file as UTF-8",
            };
            Err(finding.at(shown.place(at..at + 1)).help(help))
        }
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Diagnostic {
    let message = format!("cannot read '{}': {error}", path.display());
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match error.kind() {
        ErrorKind::PermissionDenied => Diagnostic { message, ..blame::denied(&absolute).into_diagnostic() },
        ErrorKind::NotFound => Diagnostic::error(Code::WP101, message)
            .help("name a file that is there; `wpgen init` makes a first wpsrc.toml"),
        _ => Diagnostic::error(Code::WP101, message),
    }
}

fn failed(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::error(Code::WP401, format!("Failed to parse TOML configuration: '{}': {why}", path.display()))
}

fn too_large(path: &Path, bytes: u64) -> Diagnostic {
    failed(path, &format!("{bytes} bytes, more than the {FILE_BYTES_MAX} of a configuration file"))
        .help("split it, and name the parts: include = [\"conf.d/*.toml\"]")
}
