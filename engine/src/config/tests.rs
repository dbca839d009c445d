//! Whole configurations: what loads, and which findings what does not load gives.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A folder with files, the first of which is wpsrc.toml.
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
        _ => None,
    }
}

fn load_in(folder: &Path) -> Result<Loaded, Diagnostics> {
    load(&folder.join("wpsrc.toml"), &Environment { var: &variable, cpus: 2 })
}

fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
    load_in(folder(&[("wpsrc.toml", text)]).path())
}

#[test]
fn a_small_configuration_loads() {
    let text = "[[sources]]\nkey = \"file_1\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"app.log\"\n";
    let loaded = load_text(text).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(loaded.config.sources.len(), 1);
    assert_eq!(loaded.config.sinks.len(), 1);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}
