//! Columns of text for people: aligned, [`COLUMNS`] wide where nothing else is said, the last column broken between words.
//!
//! Owns widths and wrapping; pure. It refuses to cut: a word that is longer than its column stands out, but stays whole,
//! because paths and commands are there to be copied.

use crate::printer::{COLUMNS, Paint, Style};

/// Where a cell's text stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
#[derive(Debug)]
pub struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Blank columns between two columns.
const GAP: usize = 2;
/// The last column is never made narrower than this by wrapping.
const LAST_MIN: usize = 24;

impl Table {
    /// A table with these headings.
    pub fn new(head: &[(&'static str, Align)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has one cell a heading.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row has a cell for each heading");
        self.rows.push(cells);
    }

    /// The table as text, each line with its newline.
    pub fn render(&self, paint: Paint) -> String {
        self.render_within(paint, COLUMNS)
    }

    /// The same, with lines of at most `columns`.
    pub fn render_within(&self, paint: Paint, columns: usize) -> String {
        let widths = self.widths(columns);
        let mut out = String::new();
        let head: Vec<&str> = self.head.iter().map(|(name, _)| *name).collect();
        self.line(&mut out, &head, &widths, |line| paint.text(Style::Bold, line));
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.line(&mut out, &cells, &widths, str::to_owned);
        }
        out
    }

    fn widths(&self, columns: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (w, cell) in widths.iter_mut().zip(row) {
                *w = (*w).max(width(cell));
            }
        }
        if let Some((last, others)) = widths.split_last_mut() {
            let taken: usize = others.iter().map(|w| w + GAP).sum();
            *last = (*last).min(columns.saturating_sub(taken).max(LAST_MIN));
        }
        widths
    }

    fn line(&self, out: &mut String, cells: &[&str], widths: &[usize], style: impl Fn(&str) -> String) {
        let Some((last, others)) = cells.split_last() else { return };
        let indent: usize = widths[..others.len()].iter().map(|w| w + GAP).sum();
        let last_align = self.head[others.len()].1;
        let mut line = String::new();
        for ((cell, w), (_, align)) in others.iter().zip(widths).zip(&self.head) {
            pad(&mut line, cell, *w, *align);
            line.push_str(&" ".repeat(GAP));
        }
        for (i, part) in wrap(last, widths[others.len()]).iter().enumerate() {
            if i > 0 {
                line = " ".repeat(indent);
            }
            pad(&mut line, part, widths[others.len()], last_align);
            out.push_str(&style(line.trim_end()));
            out.push('\n');
        }
    }
}

fn pad(line: &mut String, cell: &str, to: usize, align: Align) {
    let blanks = " ".repeat(to.saturating_sub(width(cell)));
    match align {
        Align::Left => line.extend([cell, &blanks]),
        Align::Right => line.extend([blanks.as_str(), cell]),
    }
}

/// Lines of at most `max` columns, broken between words, and between wide characters, which have no blanks between
/// them; at least one line.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut last = ' ';
    for word in text.split_whitespace() {
        for (i, piece) in pieces(word).enumerate() {
            // A line break within wide text is no blank, nor is one behind a wide mark.
            let is_joined = i > 0 || is_closing(last) || (is_wide(last) && piece.starts_with(is_wide));
            let gap = usize::from(!is_joined);
            let fits = lines.last().is_none_or(|l| l.is_empty() || width(l) + gap + width(piece) <= max);
            match lines.last_mut() {
                Some(line) if fits => {
                    if !line.is_empty() && !is_joined {
                        line.push(' ');
                    }
                    line.push_str(piece);
                }
                _ => lines.push(piece.to_owned()),
            }
        }
        last = word.chars().next_back().unwrap_or(' ');
    }
    lines
}

/// A word in pieces that a line may be broken between: each wide character with what must not begin a line behind it.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let mut end =
            if is_wide(first) { first.len_utf8() } else { rest.find(is_wide).unwrap_or(rest.len()) };
        while let Some(c) = rest[end..].chars().next().filter(|c| is_closing(*c)) {
            end += c.len_utf8();
        }
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

/// Marks that do not begin a line.
fn is_closing(c: char) -> bool {
    matches!(c, '，' | '。' | '、' | '；' | '：' | '）')
}

/// Columns that a text takes on a terminal: two for East Asian wide characters and emoji, one for others.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_carry_no_blanks_at_the_end() {
        let mut table =
            Table::new(&[("name", Align::Left), ("records", Align::Right), ("what", Align::Left)]);
        table.row(vec!["a".into(), "1".into(), "x y".into()]);
        table.row(vec!["\u{65e5}\u{672c}".into(), "12345678".into(), String::new()]);
        let text = table.render(Paint::PLAIN);
        assert_eq!(text, "name   records  what\na            1  x y\n\u{65e5}\u{672c}  12345678\n");
    }

    #[test]
    fn the_last_column_is_broken_so_that_lines_fit() {
        let mut table = Table::new(&[("code", Align::Left), ("what", Align::Left)]);
        table.row(vec!["WP101".into(), "word ".repeat(60)]);
        let text = table.render(Paint::PLAIN);
        assert!(text.lines().all(|l| l.len() <= COLUMNS), "{text}");
        assert!(
            text.lines().count() > 3 && text.lines().nth(2).is_some_and(|l| l.starts_with("       word"))
        );
    }

    #[test]
    fn a_long_word_stays_whole() {
        assert_eq!(wrap("a /a/very/long/path b", 5), ["a", "/a/very/long/path", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn wide_text_is_broken_between_its_characters_but_not_in_front_of_its_marks() {
        assert_eq!(wrap("端口占用", 6), ["端口占", "用"]);
        assert_eq!(wrap("端口占，用", 6), ["端口", "占，用"]);
        assert_eq!(wrap("端口\n占用 wpgen 或 x", 100), ["端口占用 wpgen 或 x"]);
        assert_eq!(wrap("占用；\n0.0.0.0", 100), ["占用；0.0.0.0"]);
        assert_eq!(wrap("a文b", 100), ["a文b"]);
    }
}
