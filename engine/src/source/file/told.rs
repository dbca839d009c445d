//! What is said of lines that are bad or too long, so that a log stays readable whatever a file holds.
//!
//! Of each file the first bad line is told, then at most one a second for the whole source; of lines that are too long,
//! one message a file and minute. What is not told is counted, and the next message says how many there were.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use super::lines::{LineCounts, Lines};
use super::locate::{Counted, Located, locate};
use super::stage::BadLine;
use crate::decode::{BadByte, Encode, OnBad};
use crate::diagnosis::Code;
use crate::escape::escape_outside;
use crate::io::IoFile;

/// Between two bad lines that are told.
const BAD_LINES: Duration = Duration::from_secs(1);
/// Between two messages about long lines of one file.
const LONG_LINES: Duration = Duration::from_secs(60);
/// Finding a line's number may take this part of a reader's time.
const LOCATING_SHARE: u32 = 10;
/// Files that are remembered; with more, what was told of them is forgotten.
const FILES_MAX: usize = 65_536;

/// What was told of the files of one source; shared by its readers.
#[derive(Debug)]
pub struct Told {
    key: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By a hash of the path.
    files: HashMap<u64, OfFile>,
    /// No second bad line of a file is told before.
    bad_after: Option<Instant>,
}

#[derive(Debug, Default)]
struct OfFile {
    bad: bool,
    bad_untold: u64,
    long: Option<Instant>,
    long_untold: u64,
}

impl Told {
    /// Nothing told yet of the source `key`.
    pub fn new(key: &Arc<str>) -> Arc<Self> {
        Arc::new(Self { key: Arc::clone(key), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `lines` lines of a file were bad, `bad` the first of them.
    pub(super) async fn bad_lines(
        &self,
        path: &str,
        file: &IoFile,
        packed: bool,
        bad: BadLine,
        lines: u64,
        counted: &mut Counted,
    ) {
        if bad.on_bad == OnBad::Pass {
            return;
        }
        let begun = Instant::now();
        let turn = self.state().bad_turn(path, lines, bad.on_bad == OnBad::Stop, begun);
        let Some(untold) = turn else { return };
        let located = located(file, packed, bad, *counted).await;
        if let Some(located) = located {
            *counted = located.counted;
        }
        let message = bad_message(Path::new(path), bad, located, untold);
        self.state().bad_after = Some(Instant::now() + BAD_LINES.max(begun.elapsed() * LOCATING_SHARE));
        match bad.on_bad {
            OnBad::Stop => log::error!(target: "wpgen::file", "source '{}': {message}", self.key),
            _ => log::warn!(target: "wpgen::file", "source '{}': {message}", self.key),
        }
    }

    /// Lines of a file were split or dropped.
    pub(super) fn long_lines(&self, path: &str, counts: LineCounts, lines: &Lines) {
        let now = Instant::now();
        let Some(all) = self.state().long_turn(path, counts.split + counts.dropped, now) else { return };
        let (many, what) = match (all, counts.dropped > 0) {
            (1, true) => ("1 line is".to_owned(), "left out"),
            (1, false) => ("1 line is".to_owned(), "split"),
            (_, true) => (format!("{all} lines are"), "left out"),
            (_, false) => (format!("{all} lines are"), "split"),
        };
        log::warn!(
            target: "wpgen::file",
            "source '{}': {}: {many} longer than max_line_bytes ({} bytes), and {what}",
            self.key, escape_outside(path.as_bytes()), lines.max_bytes()
        );
    }
}

impl State {
    fn of(&mut self, path: &str) -> &mut OfFile {
        let file = xxh3_64(path.as_bytes());
        if self.files.len() >= FILES_MAX && !self.files.contains_key(&file) {
            self.files.clear();
        }
        self.files.entry(file).or_default()
    }

    /// Whether bad lines are told now; then, how many others were not told before.
    fn bad_turn(&mut self, path: &str, lines: u64, always: bool, now: Instant) -> Option<u64> {
        let waits = self.bad_after.is_some_and(|after| now < after);
        let file = self.of(path);
        file.bad_untold += lines;
        if file.bad && waits && !always {
            return None;
        }
        file.bad = true;
        let untold = std::mem::take(&mut file.bad_untold) - 1;
        // Until the line is found, other readers hold their peace.
        self.bad_after = Some(now + BAD_LINES);
        Some(untold)
    }

    /// Whether long lines are told now; then, how many.
    fn long_turn(&mut self, path: &str, lines: u64, now: Instant) -> Option<u64> {
        let file = self.of(path);
        file.long_untold += lines;
        if file.long.is_some_and(|told| now < told + LONG_LINES) {
            return None;
        }
        file.long = Some(now);
        Some(std::mem::take(&mut file.long_untold))
    }
}

async fn located(file: &IoFile, packed: bool, bad: BadLine, counted: Counted) -> Option<Located> {
    let file = file.try_clone_std().ok()?;
    let look = move || locate(&file, packed, bad.encode, bad.line_at, counted);
    // Without a number there is still the offset.
    tokio::task::spawn_blocking(look).await.ok()?.ok()
}

/// The words of the catalogue, then file, line, byte offset and byte.
fn bad_message(path: &Path, bad: BadLine, located: Option<Located>, untold: u64) -> String {
    let phrases = Code::WP103.entry().phrases;
    let phrase = phrases[usize::from(bad.encode == Encode::Hex)];
    let line = located.map_or_else(|| "?".to_owned(), |located| located.line.to_string());
    let BadByte { at, byte } = bad.bad;
    let path = escape_outside(path.as_os_str().as_encoded_bytes());
    let mut message = format!("[{}] {phrase}: {path}:{line}:{}: ", Code::WP103, bad.line_at + at as u64);
    match byte {
        Some(byte) => message += &format!("'{}' is byte {} of the line", escape_outside(&[byte]), at + 1),
        None => message += &format!("the line ends too early, after {at} bytes"),
    }
    if let Some(looks) = located.and_then(|located| located.looks) {
        message += &format!("; the first lines look like encode = \"{}\"", name(looks));
    }
    message += if bad.on_bad == OnBad::Stop { "; the source stops" } else { "; the line is left out" };
    if untold > 0 {
        message += &format!(" ({untold} more since the last message)");
    }
    message
}

fn name(encode: Encode) -> &'static str {
    match encode {
        Encode::Text => "text",
        Encode::Base64 => "base64",
        Encode::Hex => "hex",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(encode: Encode, on_bad: OnBad, byte: impl Into<Option<u8>>) -> BadLine {
        BadLine { line_at: 100, bad: BadByte { at: 7, byte: byte.into() }, encode, on_bad }
    }

    #[test]
    fn a_bad_line_is_told_in_the_guides_words() {
        let path = Path::new("/var/log/a\n.log");
        let located = |looks| Some(Located { line: 12, looks, counted: Counted::default() });
        assert_eq!(
            bad_message(path, bad(Encode::Base64, OnBad::Skip, b'\x1b'), located(Some(Encode::Text)), 0),
            "[WP103] Invalid base64 encoding: /var/log/a\\n.log:12:107: '\\x1b' is byte 8 of the line; \
             the first lines look like encode = \"text\"; the line is left out"
        );
        assert_eq!(
            bad_message(path, bad(Encode::Hex, OnBad::Stop, None), located(None), 3),
            "[WP103] Invalid hex encoding: /var/log/a\\n.log:12:107: the line ends too early, after 7 bytes; \
             the source stops (3 more since the last message)"
        );
        assert!(bad_message(path, bad(Encode::Hex, OnBad::Stop, None), None, 0).contains(".log:?:107: "));
    }

    #[test]
    fn the_first_bad_line_of_each_file_is_told_then_one_a_second() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.bad_turn("a", 3, false, now), Some(2));
        assert_eq!(state.bad_turn("a", 5, false, now), None);
        assert_eq!(state.bad_turn("b", 1, false, now), Some(0), "another file");
        assert_eq!(state.bad_turn("a", 5, false, now + BAD_LINES / 2), None);
        assert_eq!(state.bad_turn("a", 1, false, now + BAD_LINES), Some(10));
        assert_eq!(state.bad_turn("b", 1, false, now + BAD_LINES), None, "one a second in all");
        assert_eq!(state.bad_turn("b", 1, true, now + BAD_LINES), Some(1), "what stops is told");
    }

    #[test]
    fn long_lines_are_told_once_a_minute_for_each_file() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.long_turn("a", 2, now), Some(2));
        assert_eq!(state.long_turn("b", 1, now), Some(1));
        assert_eq!(state.long_turn("a", 4, now + LONG_LINES / 2), None);
        assert_eq!(state.long_turn("a", 1, now + LONG_LINES), Some(5));
    }

    #[test]
    fn what_is_remembered_of_files_is_bounded() {
        let (mut state, now) = (State::default(), Instant::now());
        for n in 0..=FILES_MAX {
            state.long_turn(&n.to_string(), 1, now);
        }
        assert!(state.files.len() <= FILES_MAX);
    }
}
