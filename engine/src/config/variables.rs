//! `${VAR}`, `${VAR:-default}` and `${file:/run/secrets/x}` in string values; `$${` stands for `${`.
//!
//! What a variable gives is not looked at again, so nothing that comes from outside can name another variable or file.

use std::fs;
use std::path::Path;

use crate::diagnosis::{Code, Diagnostic};

/// How variables are looked up: the engine itself reads no environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A secret's file is a password or a token, never more than this.
const SECRET_MAX: u64 = 64 * 1024;

/// The text with its variables in place, or nothing when there are none.
pub fn expand(text: &str, folder: &Path, lookup: Lookup<'_>) -> Result<Option<String>, Diagnostic> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(|| unclosed(&rest[at..]))?;
        out.push_str(&value(&inner[..end], folder, lookup)?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn value(inner: &str, folder: &Path, lookup: Lookup<'_>) -> Result<String, Diagnostic> {
    if let Some(path) = inner.strip_prefix("file:") {
        return secret(&folder.join(path));
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(failed(format!("'{name}' is not the name of a variable"))
            .help("a name has letters, digits and '_'; write '$${' where a literal '${' is meant"));
    }
    // As in a shell, `:-` also takes the place of a variable that is set and empty.
    let found = lookup(name).filter(|value| default.is_none() || !value.is_empty());
    found.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
        failed(format!("variable '{name}' is not set and has no default"))
            .help(format!("set it: export {name}=..."))
            .help(format!("or give a default: ${{{name}:-value}}"))
    })
}

fn secret(path: &Path) -> Result<String, Diagnostic> {
    let wrong = |why: String| failed(format!("cannot read '{}': {why}", path.display()));
    let about = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !about.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    if about.len() > SECRET_MAX {
        return Err(wrong(format!("{} bytes, more than the {SECRET_MAX} of a secret", about.len())));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn unclosed(text: &str) -> Diagnostic {
    let shown: String = text.chars().take(40).collect();
    failed(format!("'{shown}' has no closing '}}'")).help("write '$${' where a literal '${' is meant")
}

fn failed(why: String) -> Diagnostic {
    Diagnostic::error(Code::WP401, format!("Failed to parse TOML configuration: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        expand(text, Path::new("/"), &lookup)
            .map(|new| new.unwrap_or_else(|| text.to_owned()))
            .map_err(|wrong| wrong.message)
    }

    #[test]
    fn variables_are_put_in_place() {
        for (text, expected) in [
            ("plain $A {source}", "plain $A {source}"),
            ("${A}", "1"),
            ("x${A}y${A}z", "x1y1z"),
            ("${B:-two}", "two"),
            ("${B:-}", ""),
            ("${A:-two}", "1"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY}", ""),
            ("${NESTED}", "${A}"),
            ("$${A}", "${A}"),
            ("cost$$${A}", "cost$${A}"),
            ("${B:-http://x:-y}", "http://x:-y"),
        ] {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, words) in [
            ("${B}", "variable 'B' is not set"),
            ("${A", "no closing"),
            ("${}", "not the name"),
            ("${A B}", "not the name"),
            ("${file:/nowhere/at/all}", "No such file"),
            ("${file:/dev/zero}", "not a regular file"),
        ] {
            let message = run(text).expect_err(text);
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn a_secret_loses_its_last_newline() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("s"), "word \n\n").expect("written");
        let got = expand("<${file:s}>", folder.path(), &|_| None).expect("expanded");
        assert_eq!(got.as_deref(), Some("<word >"));
    }
}
