//! `include = ["conf.d/*.toml"]`: further files with sources and sinks.
//!
//! A pattern stands for file names in one folder. What an included file includes is refused: a loop of includes and an
//! order that nobody can tell are then not possible.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::GlobBuilder;

use super::params::wrong_type;
use super::tree::{self, Node, Table};
use super::variables::Lookup;
use super::{files, params};
use crate::diagnosis::{Code, Diagnostic, Findings};

/// Files that are included at most.
const FILES_MAX: usize = 4096;

/// Reads the included files, in the order of `include`, those of a pattern sorted by name.
pub fn read(root: &Table, lookup: Lookup<'_>, findings: &mut Findings) -> Vec<Table> {
    let Some(node) = root.get("include") else { return Vec::new() };
    let Some(nodes) = node.as_array() else {
        wrong_type(
            node,
            "include",
            &params::Shape::List(&params::Shape::Text("a path or a pattern")),
            findings,
        );
        return Vec::new();
    };
    let mut trees = Vec::new();
    for node in nodes {
        for path in paths(node, findings) {
            if trees.len() >= FILES_MAX {
                let finding =
                    Diagnostic::error(Code::WP401, format!("more than {FILES_MAX} files are included"));
                findings.push(finding.at(node.place()));
                return trees;
            }
            trees.extend(tree_of(&path, node, lookup, findings));
        }
    }
    trees
}

/// A file that cannot be read is told where it is included.
fn tree_of(path: &Path, node: &Node, lookup: Lookup<'_>, findings: &mut Findings) -> Option<Table> {
    match files::read(path) {
        Ok(file) => tree::parse(&Arc::new(file), lookup, findings),
        Err(mut wrong) => {
            if wrong.place.is_none() {
                wrong.place = Some(node.place());
            }
            findings.push(wrong);
            None
        }
    }
}

fn paths(node: &Node, findings: &mut Findings) -> Vec<PathBuf> {
    let Some(text) = node.as_text() else {
        wrong_type(node, "include", &params::Shape::Text("a path or a pattern"), findings);
        return Vec::new();
    };
    let path = node.file().folder().join(text);
    let is_pattern = |part: &str| part.contains(['*', '?', '[', '{']);
    let (folder, name) = text.rsplit_once('/').unwrap_or((".", text));
    if !is_pattern(text) {
        return vec![path];
    }
    if is_pattern(folder) {
        let finding = Diagnostic::error(
            Code::WP401,
            format!("include '{text}': a pattern stands for a file name only"),
        );
        findings
            .push(finding.at(node.place()).help("name each folder: include = [\"a/*.toml\", \"b/*.toml\"]"));
        return Vec::new();
    }
    matching(&node.file().folder().join(folder), name).unwrap_or_else(|why| {
        let finding = Diagnostic::error(Code::WP401, format!("cannot include '{text}': {why}"));
        findings.push(finding.at(node.place()));
        Vec::new()
    })
}

fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| error.kind().to_string())?;
    let matcher = glob.compile_matcher();
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| matcher.is_match(entry.file_name()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    Ok(found)
}
