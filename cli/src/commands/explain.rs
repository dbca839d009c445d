//! `explain`: what a code means, why it happens, what mends it. All words come from the engine's catalogue.

use engine::diagnosis::Code;
use engine::diagnosis::catalogue::{self, Entry};

use super::{DONE, FAILED};
use crate::printer::{COLUMNS, Paint, Printer, Style};
use crate::table::{Align, Table, wrap};

/// Rows that are shown for a text that is no code.
const MATCHES_MAX: usize = 5;

/// Explains a code, finds the rows for the words of a message, or lists all rows.
pub fn run(words: &[String], printer: &Printer) -> u8 {
    let paint = printer.out_paint();
    if words.is_empty() {
        printer.result(&listed(catalogue::all(), paint));
        printer.note("\nthe long text of one: wpgen explain WP101");
        return DONE;
    }
    let text = words.join(" ");
    if let Ok(code) = text.trim().parse::<Code>() {
        printer.result(&explained(catalogue::entry(code), paint));
        return DONE;
    }
    let found = matches(&text);
    match found.as_slice() {
        [] => {
            printer.error(&format!("no code and no known message: {text}"));
            printer.help("wpgen explain lists all");
            FAILED
        }
        [one] => {
            printer.result(&explained(one, paint));
            DONE
        }
        many => {
            printer.result(&listed(many.iter().copied(), paint));
            DONE
        }
    }
}

fn listed(rows: impl Iterator<Item = &'static Entry>, paint: Paint) -> String {
    let mut table = Table::new(&[("code", Align::Left), ("what you see", Align::Left)]);
    for row in rows {
        table.row(vec![row.code.to_string(), row.title()]);
    }
    table.render(paint)
}

fn explained(row: &Entry, paint: Paint) -> String {
    let mut text = format!("{}  {}\n", paint.text(Style::Bold, &row.code.to_string()), row.title());
    paragraph(&mut text, row.explain);
    for (name, body) in [("What wpgen finds out by itself:", row.finds), ("What mends it:", row.mend)] {
        text.push_str(&format!("\n{}\n", paint.text(Style::Bold, name)));
        lines(&mut text, body, 2);
    }
    for (name, style, body) in [("Fails:", Style::Red, row.fails), ("Works:", Style::Green, row.works)] {
        text.push_str(&format!("\n{}\n", paint.text(style, name)));
        // Examples are there to be copied, so they are not broken.
        for line in body.trim_matches('\n').lines() {
            text.push_str(format!("  {line}").trim_end());
            text.push('\n');
        }
    }
    text
}

fn paragraph(text: &mut String, body: &str) {
    for part in body.trim().split("\n\n") {
        text.push('\n');
        lines(text, part, 0);
    }
}

fn lines(text: &mut String, body: &str, indent: usize) {
    for line in wrap(body, COLUMNS - indent) {
        text.push_str(&format!("{}{line}\n", " ".repeat(indent)));
    }
}

/// The rows for the words of a message, the best first: those whose phrase is in it or holds it, else those that share
/// most of its words.
fn matches(text: &str) -> Vec<&'static Entry> {
    let wanted = text.to_lowercase();
    let mut scored: Vec<(usize, &Entry)> =
        catalogue::all().map(|row| (score(row, &wanted), row)).filter(|(score, _)| *score > 0).collect();
    scored.sort_by_key(|(score, row)| (std::cmp::Reverse(*score), row.code));
    let best = scored.first().map_or(0, |(score, _)| *score);
    scored.into_iter().filter(|(score, _)| 2 * score > best).take(MATCHES_MAX).map(|(_, row)| row).collect()
}

fn score(row: &Entry, wanted: &str) -> usize {
    let phrase = |phrase: &&str| {
        let phrase = phrase.to_lowercase();
        if phrase.contains(wanted) || wanted.contains(&phrase) {
            return 100 + phrase.len();
        }
        let words = wanted.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 3);
        10 * words.filter(|word| phrase.contains(word)).count()
    };
    row.phrases.iter().map(phrase).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_message_find_their_row() {
        let codes = |text: &str| matches(text).iter().map(|row| row.code.to_string()).collect::<Vec<_>>();
        assert_eq!(codes("cannot open /x: No such file or directory (os error 2)")[0], "WP101");
        assert_eq!(codes("bind: Address already in use")[0], "WP301");
        assert!(codes("zzzz").is_empty());
    }

    #[test]
    fn every_row_fits_the_terminal() {
        for row in catalogue::all() {
            let text = explained(row, Paint::PLAIN);
            assert!(text.contains(&row.code.to_string()));
        }
        assert!(listed(catalogue::all(), Paint::PLAIN).lines().all(|l| l.chars().count() <= COLUMNS));
    }
}
