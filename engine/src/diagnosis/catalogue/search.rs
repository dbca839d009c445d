//! The rows for the words of a message: a line of a log, a phrase of the guides, or what somebody remembers of one.
//!
//! Pure, and told in one number: a phrase that is in the text, or the text in a phrase, beats any number of single words.

use std::cmp::Reverse;

use super::{Entry, all};
use crate::diagnosis::Code;

/// Rows that are given for one text.
const MATCHES_MAX: usize = 5;
/// What a whole phrase counts at least; words of other rows do not reach it.
const PHRASE: usize = 1000;
/// What one word of a phrase counts.
const WORD: usize = 10;
/// Letters of a word that says nothing by itself: "the", "in".
const SMALL_WORD: usize = 3;

/// Words of the system in messages of a code, which its phrases do not have.
const OTHER_WORDS: [(&str, Code); 1] = [("too many open files", Code::WP101)];

/// The rows for the words of a message, the best first: those whose phrase is in it or holds it, else those that share
/// most of its words.
pub fn matches(text: &str) -> Vec<&'static Entry> {
    let wanted = text.trim().to_lowercase();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut scored: Vec<(usize, &Entry)> =
        all().map(|row| (score(row, &wanted), row)).filter(|(score, _)| *score > 0).collect();
    scored.sort_by_key(|(score, row)| (Reverse(*score), row.code));
    let best = scored.first().map_or(0, |(score, _)| *score);
    scored.into_iter().filter(|(score, _)| 2 * score > best).take(MATCHES_MAX).map(|(_, row)| row).collect()
}

fn score(row: &Entry, wanted: &str) -> usize {
    let others = OTHER_WORDS.iter().filter(|(_, code)| *code == row.code).map(|(words, _)| words);
    let phrases = row.phrases.iter().chain([&row.symptom]).chain(others);
    phrases.map(|phrase| of_phrase(&phrase.to_lowercase(), wanted)).max().unwrap_or(0)
}

fn of_phrase(phrase: &str, wanted: &str) -> usize {
    let whole = holds(phrase, wanted) || holds(wanted, phrase) || has_pattern(wanted, phrase);
    if whole {
        return PHRASE + phrase.len();
    }
    let words = wanted.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > SMALL_WORD);
    WORD * words.map(|word| pieces(word).filter(|piece| phrase.contains(piece)).count()).sum::<usize>()
}

/// Whether `whole` holds `part`. A single letter is held by everything and says nothing.
fn holds(whole: &str, part: &str) -> bool {
    part.chars().count() > 1 && whole.contains(part)
}

/// Whether the words of a phrase stand in the text in their order, when those that stand for something else are left
/// out: the x of `Connector 'x' not found`, the N of `Port N is already in use`.
fn has_pattern(text: &str, phrase: &str) -> bool {
    let fixed = |part: &&str| !matches!(*part, "'x'" | "n" | "a:n");
    if phrase.split(' ').all(|part| fixed(&part)) {
        return false;
    }
    let mut rest = text;
    phrase.split(' ').filter(fixed).all(|word| match rest.find(word) {
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}

/// A word as it is searched for: whole where its script has words, else each two letters of it.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let size = if word.is_ascii() { word.len() } else { 2 };
    let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).chain([word.len()]).collect();
    let last = if word.is_ascii() { 1 } else { starts.len().saturating_sub(size) };
    (0..last).map(move |i| &word[starts[i]..starts[i + size]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        matches(text).iter().map(|row| row.code.to_string()).collect()
    }

    #[test]
    fn words_of_a_message_find_their_row() {
        for (text, code) in [
            ("cannot open /x: No such file or directory (os error 2)", "WP101"),
            ("bind: Address already in use", "WP301"),
            ("Error: Connector 'unknown_connector' not found", "WP402"),
            ("Error: Parameter 'invalid_param' not in allow_override list", "WP403"),
            ("ERROR: Port 1883 is already in use", "WP501"),
            ("ERROR: Failed to bind to address 0.0.0.0:1883", "WP502"),
            ("allow_override", "WP403"),
            ("rebalance failed", "WP204"),
            ("lost on udp", "WP305"),
            ("cannot read /x: Too many open files (os error 24)", "WP101"),
        ] {
            assert_eq!(codes(text).first().map(String::as_str), Some(code), "{text}: {:?}", codes(text));
        }
    }

    #[test]
    fn what_says_nothing_finds_nothing() {
        for text in ["", " ", "zzzz", "x", "n", "的"] {
            assert!(codes(text).is_empty(), "{text:?}: {:?}", codes(text));
        }
    }

    #[test]
    fn every_phrase_finds_its_own_row() {
        for row in all() {
            for phrase in row.phrases.iter().chain([&row.symptom]) {
                assert!(codes(phrase).contains(&row.code.to_string()), "{phrase}: {:?}", codes(phrase));
            }
        }
    }

    #[test]
    fn chinese_words_find_their_row() {
        for (text, code) in [
            ("端口占用", "WP301"),
            ("文件不存在错误", "WP101"),
            ("权限不足错误", "WP102"),
            ("消息丢失", "WP305"),
            ("读取很缓慢怎么办", "WP105"),
        ] {
            assert_eq!(codes(text).first().map(String::as_str), Some(code), "{text}: {:?}", codes(text));
        }
    }
}
