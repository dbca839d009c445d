//! Finds the array that somebody forgot to close. Asked only of a text that is not TOML: the parser takes the lines
//! behind such an array for its elements, and finds each of them wrong.
//!
//! It reads no more of TOML than strings, comments and brackets, and takes a line for the next thing in the file when it
//! looks like one: a table's header, or a key with its equals sign.

/// Where the array begins that is still open at the end, or where a line stands that belongs in none.
pub(super) fn array(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if scan.quote.is_none() {
            if scan.open.is_empty() && line.trim_start().starts_with('[') {
                at += line.len();
                continue;
            }
            if !scan.open.is_empty() && scan.braces == 0 && (is_header(line) || is_assignment(line)) {
                break;
            }
        }
        scan.line(line, at);
        at += line.len();
    }
    scan.open.last().copied()
}

#[derive(Default)]
struct Scan {
    /// Where the open arrays begin.
    open: Vec<usize>,
    braces: usize,
    /// The quotes that end the string at hand; only one of three lines' quotes goes beyond its line.
    quote: Option<&'static str>,
}

impl Scan {
    fn line(&mut self, line: &str, offset: usize) {
        let mut at = 0;
        while let Some(c) = line[at..].chars().next() {
            let rest = &line[at..];
            if let Some(quote) = self.quote {
                if rest.starts_with(quote) {
                    self.quote = None;
                    at += quote.len();
                } else {
                    let escapes = c == '\\' && quote.starts_with('"');
                    at += c.len_utf8();
                    at += if escapes { line[at..].chars().next().map_or(0, char::len_utf8) } else { 0 };
                }
                continue;
            }
            at += c.len_utf8();
            match c {
                '#' => break,
                '[' => self.open.push(offset + at - 1),
                ']' => drop(self.open.pop()),
                '{' => self.braces += 1,
                '}' => self.braces = self.braces.saturating_sub(1),
                '"' | '\'' => {
                    let quotes = ["\"\"\"", "'''", "\"", "'"];
                    self.quote = quotes.into_iter().find(|quote| rest.starts_with(quote));
                    at += self.quote.map_or(0, |quote| quote.len() - 1);
                }
                _ => {}
            }
        }
        self.quote = self.quote.filter(|quote| quote.len() == 3);
    }
}

fn is_header(line: &str) -> bool {
    let line = line.trim();
    let name = line.trim_start_matches('[').trim_end_matches(']');
    line.starts_with('[')
        && line.ends_with(']')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn is_assignment(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim();
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_array_that_is_open_is_found() {
        for (text, at) in [
            ("a = [1, 2\nb = 3\n", Some(4)),
            ("a = [1, 2\n[table]\n", Some(4)),
            ("a = [\n  \"x\",\n  \"y\"\n\n[[sinks]]\n", Some(4)),
            ("a = [[1], [2]\nb = 3\n", Some(4)),
            ("a = [1,", Some(4)),
            ("[table]\na = [1]\nb = [\n2,\n] # [\n[[more]]\nc = 1\n", None),
            ("a = \"[\"\nb = '['\nc = \"\"\"\n[\n\"\"\"\nd = \"\\\"[\"\n", None),
            ("a = [\n{ x = 1,\n y = 2 },\n]\n", None),
            ("a = \"\u{e4}\\", None),
        ] {
            assert_eq!(array(text), at, "{text}");
        }
    }
}
