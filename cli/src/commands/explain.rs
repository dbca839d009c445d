//! `explain`: what a code means, why it happens, what mends it. All words come from the engine's catalogue.

use engine::diagnosis::Code;
use engine::diagnosis::catalogue::{self, Entry, Language, reference};

use super::{DONE, FAILED};
use crate::language;
use crate::printer::{COLUMNS, Paint, Printer, Style};
use crate::table::{Align, Table, wrap};

/// Explains a code, finds the rows for the words of a message, or lists all rows.
pub fn run(words: &[String], as_markdown: bool, printer: &Printer) -> u8 {
    let language = language::chosen();
    let paint = printer.out_paint();
    if as_markdown {
        printer.result(&reference::page(language));
        return DONE;
    }
    if words.is_empty() {
        printer.result(&listed(catalogue::all(), language, paint));
        printer.note("\nthe long text of one: wpgen explain WP101");
        return DONE;
    }
    let text = words.join(" ");
    if let Some(code) = code_in(&text) {
        printer.result(&explained(catalogue::entry(code), language, paint));
        return DONE;
    }
    if let Some(words) = without_code(&text) {
        printer.result(words);
        return DONE;
    }
    match catalogue::matches(&text).as_slice() {
        [] => {
            printer.error(&format!("no code and no known message: {text}"));
            printer.help("wpgen explain lists all");
            FAILED
        }
        [one] => {
            printer.result(&explained(one, language, paint));
            DONE
        }
        many => {
            printer.result(&listed(many.iter().copied(), language, paint));
            DONE
        }
    }
}

/// The code, alone or as it stands in a message: `error[WP301]: ...`.
fn code_in(text: &str) -> Option<Code> {
    let in_brackets = || text.split('[').skip(1).find_map(|rest| rest.split(']').next()?.parse().ok());
    text.trim().parse().ok().or_else(in_brackets)
}

/// Errors of the system that come with no code, since the machine has to be mended and no configuration.
fn without_code(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let is_full =
        ["no space left on device", "os error 28", "enospc"].iter().any(|words| text.contains(words));
    is_full.then_some(FULL)
}

const FULL: &str = "\
No space left on device (os error 28): a file system is full. It has no code of its own.

  What wpgen does: the sink, the rescue or the checkpoint that met it waits, takes nothing more, and goes
  on by itself once there is room. Nothing is lost meanwhile that a source can hold back or read again.

  What mends it: df -h and df -i of the path in the message show which file system it is, and whether
  bytes or inodes are used up. Make room there, or write elsewhere.
";

/// What stands in front of the parts of an explanation.
struct Headings {
    finds: &'static str,
    mend: &'static str,
    fails: &'static str,
    works: &'static str,
}

fn headings(language: Language) -> Headings {
    match language {
        Language::English => Headings {
            finds: "What wpgen finds out by itself:",
            mend: "What mends it:",
            fails: "Fails:",
            works: "Works:",
        },
        Language::Chinese => Headings {
            finds: "wpgen 自行查明：",
            mend: "解决办法：",
            fails: "错误示例：",
            works: "正确示例：",
        },
    }
}

fn listed(rows: impl Iterator<Item = &'static Entry>, language: Language, paint: Paint) -> String {
    let head = match language {
        Language::English => [("code", Align::Left), ("what you see", Align::Left)],
        Language::Chinese => [("代码", Align::Left), ("现象", Align::Left)],
    };
    let mut table = Table::new(&head);
    for row in rows {
        table.row(vec![row.code.to_string(), row.title(language)]);
    }
    table.render(paint)
}

fn explained(row: &Entry, language: Language, paint: Paint) -> String {
    let (words, said) = (row.words(language), headings(language));
    let mut text = titled(row, language, paint);
    if let Some(kind) = catalogue::awaited(row.code) {
        text.push_str(&paint.text(Style::Yellow, &reference::not_yet(kind, language)));
        text.push('\n');
    }
    for part in words.explain.trim().split("\n\n") {
        text.push('\n');
        lines(&mut text, part, 0);
    }
    for (name, body) in [(said.finds, words.finds), (said.mend, words.mend)] {
        text.push_str(&format!("\n{}\n", paint.text(Style::Bold, name)));
        lines(&mut text, body, 2);
    }
    for (name, style, body) in [(said.fails, Style::Red, row.fails), (said.works, Style::Green, row.works)] {
        text.push_str(&format!("\n{}\n", paint.text(style, name)));
        // Examples are there to be copied, so they are not broken.
        for line in body.trim_matches('\n').lines() {
            text.push_str(format!("  {line}").trim_end());
            text.push('\n');
        }
    }
    text
}

/// The code, and the symptom beside it.
fn titled(row: &Entry, language: Language, paint: Paint) -> String {
    let code = row.code.to_string();
    let indent = code.len() + 2;
    let lines = wrap(&row.title(language), COLUMNS - indent);
    let beside = lines.join(&format!("\n{}", " ".repeat(indent)));
    format!("{}  {beside}\n", paint.text(Style::Bold, &code))
}

fn lines(text: &mut String, body: &str, indent: usize) {
    for line in wrap(body, COLUMNS - indent) {
        text.push_str(&format!("{}{line}\n", " ".repeat(indent)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::width;

    #[test]
    fn every_row_fits_the_terminal_in_both_languages() {
        for language in [Language::English, Language::Chinese] {
            for row in catalogue::all() {
                let text = explained(row, language, Paint::PLAIN);
                assert!(text.starts_with(&row.code.to_string()));
                assert!(text.lines().all(|line| width(line) <= COLUMNS), "{text}");
            }
            let all = listed(catalogue::all(), language, Paint::PLAIN);
            assert!(all.lines().all(|line| width(line) <= COLUMNS), "{all}");
        }
    }
}
