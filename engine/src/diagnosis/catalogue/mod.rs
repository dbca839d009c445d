//! Everything that is the same for each finding of one code: what it is called, what the program finds out about it, what
//! mends it, and the long text with an example that fails and one that works; in English and in Chinese.
//!
//! Messages, `explain`, `doctor`, JSON and the reference pages all take their words from here. The phrases are those of the
//! troubleshooting guides, word for word: whoever searches for what the guides say finds the row. They stay as they are
//! in every language, because they stand so in logs.

mod cluster;
mod configuration;
mod endpoint;
mod files;
mod kafka;
pub mod reference;
mod search;
mod syslog;

pub use search::matches;

use serde::Serialize;

use super::Code;
use crate::source::SourceParams;

/// A row of the catalogue.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its code.
    pub code: Code,
    /// The guides' words for the symptom; messages of this code hold one of them, and what is at fault.
    pub phrases: &'static [&'static str],
    /// The symptom as the Chinese guide's heading has it.
    pub symptom: &'static str,
    /// What there is to say of it.
    pub english: Words,
    /// The same in Chinese.
    pub chinese: Words,
    /// A configuration or a command that leads to it.
    pub fails: &'static str,
    /// The same, mended.
    pub works: &'static str,
}

/// What a row says in one language.
#[derive(Debug, Serialize)]
pub struct Words {
    /// What the program finds out by itself.
    pub finds: &'static str,
    /// What mends it, in short.
    pub mend: &'static str,
    /// What it means, why it happens and how it is found.
    pub explain: &'static str,
}

/// A language of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Chinese.
    Chinese,
}

impl Language {
    /// The language of a locale, as `zh_CN.UTF-8` or `en`; English where there is no other.
    pub fn of_locale(locale: &str) -> Self {
        let language = locale.split(['_', '-', '.', '@']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("zh") { Self::Chinese } else { Self::English }
    }
}

impl Entry {
    /// The symptom as one line.
    pub fn title(&self, language: Language) -> String {
        let phrases = self.phrases.join(" / ");
        match language {
            Language::English => phrases,
            Language::Chinese => format!("{}：{phrases}", self.symptom),
        }
    }

    /// What it says in a language.
    pub fn words(&self, language: Language) -> &Words {
        match language {
            Language::English => &self.english,
            Language::Chinese => &self.chinese,
        }
    }
}

/// All rows, in the order of their codes.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    TABLES.iter().flat_map(|(table, _)| table.iter())
}

/// The row of a code.
pub fn entry(code: Code) -> &'static Entry {
    all().find(|entry| entry.code == code).expect("each code has a row")
}

/// The type of source that a code waits for, where this build does not have it: nothing raises the code until then.
pub fn awaited(code: Code) -> Option<&'static str> {
    // An address that cannot be bound is met by every source that listens.
    let (_, kind) = TABLES.iter().find(|(table, _)| table.iter().any(|entry| entry.code == code))?;
    let is_there = |kind: &str| SourceParams::kind_named(kind).is_some_and(|kind| kind.available);
    kind.filter(|kind| code != Code::WP502 && !is_there(kind))
}

/// The rows, and the type of source that the codes of a table are about when it is a single one.
const TABLES: [(&[Entry], Option<&str>); 6] = [
    (files::ROWS, None),
    (kafka::ROWS, Some("kafka")),
    (syslog::ROWS, None),
    (configuration::ROWS, None),
    (endpoint::ROWS, Some("mqtt")),
    (cluster::ROWS, Some("mqtt")),
];

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
            let of = |words: &'static Words| [words.finds, words.mend, words.explain];
            assert!(!entry.phrases.is_empty(), "{}", entry.code);
            let texts = [of(&entry.english), of(&entry.chinese)].concat();
            for text in texts.into_iter().chain([entry.symptom, entry.fails, entry.works]) {
                assert!(!text.trim().is_empty(), "{}", entry.code);
                assert!(seen.insert(text), "{}: {text}", entry.code);
                assert!(text.lines().all(|line| line.chars().count() <= 120), "{}: {text}", entry.code);
            }
            assert!(of(&entry.english).iter().all(|text| text.is_ascii()), "{}", entry.code);
            assert!(of(&entry.chinese).iter().all(|text| !text.is_ascii()), "{}", entry.code);
        }
    }

    #[test]
    fn a_locale_names_its_language() {
        for chinese in ["zh", "zh_CN.UTF-8", "zh-TW", "ZH_SG"] {
            assert_eq!(Language::of_locale(chinese), Language::Chinese, "{chinese}");
        }
        for english in ["", "C", "C.UTF-8", "POSIX", "en_US.UTF-8", "de_DE", "zha"] {
            assert_eq!(Language::of_locale(english), Language::English, "{english}");
        }
    }

    #[test]
    fn nobody_is_told_to_kill_who_holds_a_file() {
        assert!(all().all(|entry| !entry.english.mend.contains("kill")
            && !entry.english.explain.contains("kill -9")
            && !entry.chinese.mend.contains("kill")
            && !entry.chinese.explain.contains("kill -9")));
    }
}
