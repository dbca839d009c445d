//! Whole configurations: what loads, and which findings what does not load gives.

mod connectors;
mod findings;
mod loads;

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Environment, Loaded, load};
use crate::diagnosis::{Diagnostic, Diagnostics};

/// A folder with files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    folder
}

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("2514".to_owned()),
        "NAME" => Some("app".to_owned()),
        "EVIL" => Some("${PORT}\n[admin]".to_owned()),
        _ => None,
    }
}

fn environment() -> Environment<'static> {
    Environment { var: &variable, cpus: 2 }
}

fn load_in(folder: &Path) -> Result<Loaded, Diagnostics> {
    load(&folder.join("wpsrc.toml"), &environment())
}

fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
    load_in(folder(&[("wpsrc.toml", text)]).path())
}

/// Loads what must load.
fn good(text: &str) -> Loaded {
    load_text(text).unwrap_or_else(|found| panic!("{text}\n{found}"))
}

/// The findings of what must not load.
fn bad(text: &str) -> Vec<Diagnostic> {
    match load_text(text) {
        Ok(_) => panic!("it loads:\n{text}"),
        Err(found) => found.all,
    }
}

/// A file source with further lines in its override.
fn file_source(lines: &str) -> String {
    format!(
        "[[sources]]\nkey = \"f\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"a.log\"\n{lines}\n"
    )
}

/// A source of a connector with lines in its override.
fn source(key: &str, connect: &str, lines: &str) -> String {
    format!("[[sources]]\nkey = \"{key}\"\nconnect = \"{connect}\"\n[sources.params_override]\n{lines}\n")
}

/// A sink of a connector with lines in its override.
fn sink(key: &str, connect: &str, lines: &str) -> String {
    format!("[[sinks]]\nkey = \"{key}\"\nconnect = \"{connect}\"\n[sinks.params_override]\n{lines}\n")
}
