//! `init`: a folder to start from.
//!
//! Invariants: it runs as it is, and shows a result within a second; every file in it says what to change next.
//! It refuses to overwrite: when one of its files exists, nothing at all is written.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{DONE, FAILED};
use crate::printer::Printer;

/// Each file and its text. What stands in braces in the unit is put in as a unit has it: `{folder}` is the folder's absolute
/// path, and `{folder_word}` as one word of several; `{config}` and `{wpgen}` are the words of wpsrc.toml and this program in a
/// command; `{uid}` is the user's number.
const FILES: [(&str, &str); 5] = [
    ("wpsrc.toml", include_str!("init/wpsrc.toml")),
    ("connectors/source.d/50-app-log.toml", include_str!("init/source.toml")),
    ("connectors/sink.d/50-archive.toml", include_str!("init/sink.toml")),
    ("sample.log", include_str!("init/sample.log")),
    ("wpgen.service", include_str!("init/wpgen.service")),
];

/// Writes the files into a folder.
pub fn run(folder: &Path, printer: &Printer) -> u8 {
    let there: Vec<PathBuf> = FILES
        .iter()
        .map(|(name, _)| folder.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    if !there.is_empty() {
        for path in &there {
            printer.error(&format!("{} exists already and is not overwritten", path.display()));
        }
        printer.help("name another folder: wpgen init my-logs");
        return FAILED;
    }
    match write_all(folder) {
        Ok(written) => {
            for path in &written {
                printer.result(&format!("{}\n", path.display()));
            }
            printer.note(&next_steps(folder));
            DONE
        }
        Err((path, e)) => {
            printer.error(&format!("cannot write {}: {e}", path.display()));
            FAILED
        }
    }
}

fn next_steps(folder: &Path) -> String {
    let at = if folder == Path::new(".") { String::new() } else { format!("-C {} ", shell_word(folder)) };
    format!(
        "\nnow try:  wpgen {at}source start\nthen put your own path into {}",
        folder.join("wpsrc.toml").display()
    )
}

fn write_all(folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    std::fs::create_dir_all(folder).map_err(|e| (folder.to_owned(), e))?;
    let absolute = folder.canonicalize().map_err(|e| (folder.to_owned(), e))?;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/local/bin/wpgen"));
    // SAFETY: no precondition, and it never fails.
    let user = unsafe { libc::geteuid() };
    let mut written = Vec::new();
    for (name, text) in FILES {
        let path = folder.join(name);
        let command = |path: &Path| unit_word(&unit_path(path).replace('$', "$$"));
        let text = match path.extension().is_some_and(|ending| ending == "service") {
            true => text
                .replace("{folder_word}", &unit_word(&unit_path(&absolute)))
                .replace("{folder}", &unit_path(&absolute))
                .replace("{config}", &command(&absolute.join("wpsrc.toml")))
                .replace("{wpgen}", &command(&program))
                .replace("{uid}", &user.to_string()),
            false => text.to_owned(),
        };
        create(&path, &text).map_err(|e| (path.clone(), e))?;
        written.push(path);
    }
    Ok(written)
}

/// A path as units have it: `%` begins a specifier there (systemd.unit(5)).
fn unit_path(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

/// One word of a list of words (systemd.syntax(7)).
fn unit_word(text: &str) -> String {
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// One word for a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Whether a letter of a path means nothing else to a shell or a unit.
fn is_plain(letter: char) -> bool {
    letter.is_alphanumeric() || "/._-+@:,%".contains(letter)
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_for_units_and_shells() {
        let path = Path::new("/a b/50%/it's \"x\"");
        assert_eq!(unit_word(&unit_path(path)), "\"/a b/50%%/it's \\\"x\\\"\"");
        assert_eq!(shell_word(path), "'/a b/50%/it'\\''s \"x\"'");
        let plain = Path::new("/srv/logs-1/wpgen_x");
        assert_eq!(
            (unit_word(&unit_path(plain)), shell_word(plain)),
            ("/srv/logs-1/wpgen_x".into(), "/srv/logs-1/wpgen_x".into())
        );
    }
}
