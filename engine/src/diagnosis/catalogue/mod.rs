//! Everything that is the same for each finding of one code: what it is called, what the program finds out about it, what
//! mends it, and the long text with an example that fails and one that works.
//!
//! Messages, `explain`, `doctor`, JSON and the reference page all take their words from here. The phrases are those of the
//! troubleshooting guides, word for word: whoever searches for what the guides say finds the row.

mod cluster;
mod configuration;
mod endpoint;
mod files;
mod kafka;
mod syslog;

use serde::Serialize;

use super::Code;

/// A row of the catalogue.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its code.
    pub code: Code,
    /// The guides' words for the symptom; messages of this code hold one of them, and what is at fault.
    pub phrases: &'static [&'static str],
    /// What the program finds out by itself.
    pub finds: &'static str,
    /// What mends it, in short.
    pub mend: &'static str,
    /// What it means, why it happens and how it is found.
    pub explain: &'static str,
    /// A configuration or a command that leads to it.
    pub fails: &'static str,
    /// The same, mended.
    pub works: &'static str,
}

impl Entry {
    /// The phrases as one line.
    pub fn title(&self) -> String {
        self.phrases.join(" / ")
    }
}

/// All rows, in the order of their codes.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The row of a code.
pub fn entry(code: Code) -> &'static Entry {
    all().find(|entry| entry.code == code).expect("each code has a row")
}

const TABLES: [&[Entry]; 6] =
    [files::ROWS, kafka::ROWS, syslog::ROWS, configuration::ROWS, endpoint::ROWS, cluster::ROWS];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_code_has_one_row_in_order() {
        let codes: Vec<Code> = all().map(|entry| entry.code).collect();
        assert_eq!(codes, Code::ALL);
    }

    #[test]
    fn rows_are_whole_and_no_text_stands_twice() {
        let mut seen = HashSet::new();
        for entry in all() {
            let texts = [entry.finds, entry.mend, entry.explain, entry.fails, entry.works];
            assert!(!entry.phrases.is_empty(), "{}", entry.code);
            for text in texts {
                assert!(!text.trim().is_empty(), "{}", entry.code);
                assert!(seen.insert(text), "{}: {text}", entry.code);
                assert!(text.lines().all(|line| line.chars().count() <= 120), "{}: {text}", entry.code);
            }
        }
    }

    #[test]
    fn nobody_is_told_to_kill_who_holds_a_file() {
        assert!(all().all(|entry| !entry.mend.contains("kill") && !entry.explain.contains("kill -9")));
    }
}
