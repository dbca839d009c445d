//! A finding as text for people.
//!
//! ```text
//! error[WP404]: unknown parameter 'paht' of source type 'file'
//!  --> wpsrc.toml:12:1
//!    |
//! 12 | paht = "/var/log/app.log"
//!    | ^^^^ not known
//! note: ...
//! help: did you mean 'path'?
//! ```
//!
//! Text that came from outside is shown without control characters: a configuration must not be able to write to the
//! terminal of whoever validates it.

use std::fmt::{self, Write};

use super::{Diagnostic, Diagnostics, Place, Severity};

/// With or without colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Letters only.
    Plain,
    /// With ANSI colours.
    Ansi,
}

impl Paint {
    fn on(self, style: &'static str) -> &'static str {
        if self == Paint::Ansi { style } else { "" }
    }
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const GREEN: &str = "\x1b[1;32m";
const RESET: &str = "\x1b[0m";

/// Writes one finding; its last line ends in a newline.
pub fn write(finding: &Diagnostic, paint: Paint, out: &mut impl Write) -> fmt::Result {
    write_title(finding, paint, out)?;
    if let Some(place) = &finding.place {
        let color = if finding.severity == Severity::Error { RED } else { YELLOW };
        write_place(place, finding.label.as_deref(), '^', color, paint, out)?;
    }
    for (what, place) in &finding.others {
        write_place(place, Some(what), '-', BLUE, paint, out)?;
    }
    for note in &finding.notes {
        write_item("note", BOLD, note, paint, out)?;
    }
    for help in &finding.help {
        write_item("help", GREEN, help, paint, out)?;
    }
    Ok(())
}

/// Writes all findings with an empty line between them, and how many were left out.
pub fn write_all(findings: &Diagnostics, paint: Paint, out: &mut impl Write) -> fmt::Result {
    for (i, finding) in findings.all.iter().enumerate() {
        if i > 0 {
            out.write_char('\n')?;
        }
        write(finding, paint, out)?;
    }
    if findings.dropped > 0 {
        writeln!(out, "\n{} more findings are not shown", findings.dropped)?;
    }
    Ok(())
}

fn write_title(finding: &Diagnostic, paint: Paint, out: &mut impl Write) -> fmt::Result {
    let (word, color) = match finding.severity {
        Severity::Error => ("error", RED),
        Severity::Warning => ("warning", YELLOW),
    };
    out.write_str(paint.on(color))?;
    out.write_str(word)?;
    if let Some(code) = finding.code {
        write!(out, "[{code}]")?;
    }
    out.write_str(paint.on(RESET))?;
    writeln!(out, "{}: {}{}", paint.on(BOLD), Clean(&finding.message), paint.on(RESET))
}

fn write_place(
    place: &Place,
    label: Option<&str>,
    mark: char,
    color: &'static str,
    paint: Paint,
    out: &mut impl Write,
) -> fmt::Result {
    let number = place.line.to_string();
    let margin = number.len();
    let (frame, reset) = (paint.on(BLUE), paint.on(RESET));
    writeln!(out, "{:margin$}{frame}-->{reset} {}:{}:{}", "", Clean(&place.file), place.line, place.column)?;
    if place.text.is_empty() {
        // Nothing to point at: an empty file, a command line.
        return Ok(());
    }
    writeln!(out, "{:margin$} {frame}|{reset}", "")?;
    writeln!(out, "{frame}{number} |{reset} {}", Clean(&place.text))?;
    write!(out, "{:margin$} {frame}|{reset} ", "")?;
    let before: usize = place.text.chars().take(place.indent as usize).map(columns).sum();
    let marked = place
        .text
        .chars()
        .skip(place.indent as usize)
        .take(place.length as usize)
        .map(columns)
        .sum::<usize>();
    write!(out, "{:before$}{}", "", paint.on(color))?;
    for _ in 0..marked.max(1) {
        out.write_char(mark)?;
    }
    if let Some(label) = label {
        write!(out, " {}", Clean(label))?;
    }
    writeln!(out, "{}", paint.on(RESET))
}

/// `help: first line`, with the other lines indented below it.
fn write_item(
    word: &str,
    color: &'static str,
    text: &str,
    paint: Paint,
    out: &mut impl Write,
) -> fmt::Result {
    for (i, line) in text.lines().enumerate() {
        if i == 0 {
            writeln!(out, "{}{word}{}: {}", paint.on(color), paint.on(RESET), Clean(line))?;
        } else {
            writeln!(out, "      {}", Clean(line))?;
        }
    }
    Ok(())
}

/// Text as it is shown on a terminal: without control characters, and without any that turn its direction.
pub fn clean(text: &str) -> String {
    Clean(text).to_string()
}

/// Text without control characters: a tab is a space, the others stand as escapes.
struct Clean<'a>(&'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\t' => out.write_char(' ')?,
                c if c.is_control() || is_direction(c) => write!(out, "{}", c.escape_unicode())?,
                c => out.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Characters that turn the direction of the text behind them, so that a line reads as something it is not.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Terminal columns of a character as [`Clean`] shows it.
fn columns(c: char) -> usize {
    match c {
        '\t' => 1,
        c if c.is_control() || is_direction(c) => c.escape_unicode().count(),
        // East Asian wide forms: enough to put a caret under the right place of a Chinese comment or path.
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::{Code, SourceText};

    fn text() -> SourceText {
        SourceText::new("wpsrc.toml", "/", "[engine]\n\nlist = [\"数据\" x]\n".to_owned())
    }

    #[test]
    fn a_finding_shows_its_line_with_a_caret() {
        let finding = Diagnostic::error(Code::WP401, "Failed to parse TOML configuration: unexpected x")
            .at(text().place(27..28))
            .label("here")
            .note("a note")
            .help("write:\nlist = []");
        let expected = "\
error[WP401]: Failed to parse TOML configuration: unexpected x
 --> wpsrc.toml:3:14
  |
3 | list = [\"数据\" x]
  |                ^ here
note: a note
help: write:
      list = []
";
        assert_eq!(finding.to_string(), expected);
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let finding = Diagnostic::warning(None, "m").at(text().place(0..8)).help("h");
        let mut painted = String::new();
        write(&finding, Paint::Ansi, &mut painted).expect("a string takes all");
        for style in [BOLD, RED, YELLOW, BLUE, GREEN, RESET] {
            painted = painted.replace(style, "");
        }
        assert_eq!(painted, finding.to_string());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let evil = SourceText::new("x\x1b[2J.toml", "/", "\x1b]0;title\x07 = \u{202e}1\t2".to_owned());
        let shown = Diagnostic::error(Code::WP401, "a\x1bb").at(evil.place(0..3)).help("\x1b").to_string();
        assert!(!shown.contains(['\x1b', '\x07', '\u{202e}', '\t']), "{shown:?}");
    }
}
