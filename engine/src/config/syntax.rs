//! What is wrong with a text that is not TOML, and what was probably meant (WP401).

use toml::de::Error;

use crate::diagnosis::{Code, Diagnostic, SourceText};

/// The findings for the parser's errors. Where an array is not closed, what comes behind is that one mistake.
pub fn explain_all(file: &SourceText, errors: &[Error]) -> Vec<Diagnostic> {
    let start = |error: &Error| error.span().map_or(0, |span| span.start);
    let open = super::unclosed::array(file.text()).filter(|open| errors.iter().any(|e| start(e) >= *open));
    let before = errors.iter().filter(|error| open.is_none_or(|open| start(error) < open));
    let mut told: Vec<Diagnostic> = before.map(|error| explain(file, error)).collect();
    told.extend(open.map(|open| {
        let message = "Failed to parse TOML configuration: an array that begins here is not closed";
        Diagnostic::error(Code::WP401, message)
            .at(file.place(open..open + 1))
            .help("close the array with ']' behind its last element")
    }));
    told
}

/// The finding for a syntax error of the parser.
fn explain(file: &SourceText, error: &Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let place = file.place(span.clone());
    let line = place.text.clone();
    let finding =
        Diagnostic::error(Code::WP401, format!("Failed to parse TOML configuration: {}", error.message()));
    let finding = match likely(&line, error.message()) {
        Some(help) => finding.help(help),
        None => finding,
    };
    finding.at(place)
}

/// The mend, as far as the line itself tells.
fn likely(line: &str, message: &str) -> Option<String> {
    if message.contains("duplicate key") {
        return Some(
            "a key stands once in a table: remove one of the two, or begin a table of its own above it"
                .into(),
        );
    }
    if message.contains("recurs") {
        return Some("a configuration is a few levels deep: are all brackets and braces closed?".into());
    }
    if line.contains('\0') {
        return Some("the line holds NUL bytes: a configuration is text, saved as UTF-8".into());
    }
    if line.contains('\r') {
        return Some("lines end in LF or CR LF; a carriage return alone ends none".into());
    }
    if line.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
        return Some("the line holds typographic quotes; TOML takes the straight \"".into());
    }
    if line.contains(['\u{ff0c}', '\u{ff1d}', '\u{ff1a}']) {
        return Some("the line holds full-width punctuation; TOML takes the ASCII , = and :".into());
    }
    let trimmed = line.trim();
    if let Some((key, value)) = trimmed.split_once('=') {
        return value_help(key.trim(), value.trim());
    }
    if trimmed.starts_with('[') && !trimmed.ends_with(']') {
        return Some(format!("close the table's name: {}", close_header(trimmed)));
    }
    if let Some((key, value)) = trimmed.split_once(':')
        && is_bare(key.trim())
    {
        return Some(format!(
            "TOML writes '=' between key and value: {} = {}",
            key.trim(),
            quoted(value.trim())
        ));
    }
    if is_bare(trimmed) && !trimmed.is_empty() {
        return Some(format!("a key needs a value: {trimmed} = \"...\""));
    }
    None
}

fn value_help(key: &str, value: &str) -> Option<String> {
    if value.is_empty() || value.starts_with('#') {
        return Some(format!("give it a value: {key} = \"...\""));
    }
    if !key.is_empty() && !is_key(key) {
        return Some(format!(
            "a key with other characters than letters, digits, '_' and '-' is quoted: {} = ...",
            quoted(key)
        ));
    }
    let opens_string = value.starts_with('"') && !value.starts_with("\"\"\"");
    if opens_string && value.contains('\\') {
        return Some(format!(
            "a backslash begins an escape in \"...\"; in '...' it stands for itself: {key} = '{}'",
            value.trim_matches('"')
        ));
    }
    if opens_string && value[1..].matches('"').count() == 0 {
        return Some(format!("close the string: {key} = {value}\""));
    }
    let bare = value.split(" #").next().unwrap_or(value).trim_end();
    let plain = !bare.starts_with(['"', '\'', '[', '{', '#']);
    (plain && !bare.is_empty()).then(|| format!("a string stands in quotes: {key} = {}", quoted(bare)))
}

fn close_header(header: &str) -> String {
    let open = if header.starts_with("[[") { 2 } else { 1 };
    let name = header.trim_matches(['[', ']']).split_whitespace().next().unwrap_or("name");
    format!("{}{name}{}", &"[["[..open], &"]]"[..open])
}

fn is_bare(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_key(key: &str) -> bool {
    key.contains(['"', '\'']) || key.split('.').all(|part| is_bare(part.trim()))
}

fn quoted(text: &str) -> String {
    if text.starts_with(['"', '\'', '[', '{']) { text.to_owned() } else { format!("{text:?}") }
}
