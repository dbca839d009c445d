//! The only printer: results to standard output, everything else to standard error.
//!
//! Owns both streams, the colours, and the one line at the terminal's foot that progress rewrites.
//! Invariants: colours are decided once for each stream; a note never tears the progress line apart; when the reader of
//! standard output has left (`| head`), later results go nowhere, and the command ends with its own exit code; where it
//! cannot be written for another reason, [`Printer::has_lost`] says so.
//! It refuses to panic on a stream that is gone.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::args::ColorChoice;

/// Columns that every table and message fits.
pub const COLUMNS: usize = 100;

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Names and headings.
    Bold,
    /// What may be overlooked.
    Dim,
    /// Errors.
    Red,
    /// Warnings.
    Yellow,
    /// What went well.
    Green,
    /// Help.
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Yellow => "1;33",
            Self::Green => "32",
            Self::Cyan => "1;36",
        }
    }
}

/// Whether one stream takes colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// Text without colours, for files and tests.
    pub const PLAIN: Self = Self(false);

    /// Whether there are colours.
    pub fn is_on(self) -> bool {
        self.0
    }

    /// The text in a style, or as it is.
    pub fn text(self, style: Style, text: &str) -> String {
        if self.0 { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}

/// Both streams.
#[derive(Debug)]
pub struct Printer {
    out: Paint,
    err: Paint,
    err_is_terminal: bool,
    quiet: bool,
    screen: Mutex<Screen>,
}

#[derive(Debug, Default)]
struct Screen {
    /// The progress line that stands on the terminal now, without a newline; empty when none does.
    foot: String,
    /// The reader of standard output has left, or it cannot be written.
    out_closed: bool,
    /// A result could not be written, and somebody waits for it.
    out_lost: bool,
}

impl Printer {
    /// Decides the colours: `--color` wins, then NO_COLOR (set and not empty), then whether the stream is a terminal.
    pub fn new(color: ColorChoice, no_color: bool, quiet: bool) -> Self {
        let paint = |terminal: bool| match color {
            ColorChoice::Always => Paint(true),
            ColorChoice::Never => Paint(false),
            ColorChoice::Auto => Paint(terminal && !no_color),
        };
        let err_is_terminal = stderr().is_terminal();
        Self {
            out: paint(stdout().is_terminal()),
            err: paint(err_is_terminal),
            err_is_terminal,
            quiet,
            screen: Mutex::default(),
        }
    }

    /// The colours of standard output.
    pub fn out_paint(&self) -> Paint {
        self.out
    }

    /// The colours of standard error.
    pub fn err_paint(&self) -> Paint {
        self.err
    }

    /// Columns of a line on standard error: nothing is broken where no person watches.
    pub fn err_columns(&self) -> usize {
        if self.err_is_terminal { terminal_columns() } else { usize::MAX }
    }

    /// Whether a person watches standard error, so that progress makes sense there.
    pub fn shows_progress(&self) -> bool {
        self.err_is_terminal && !self.quiet
    }

    /// A result, as it is; the caller ends its lines.
    pub fn result(&self, text: &str) {
        let mut screen = self.screen();
        if screen.out_closed {
            return;
        }
        screen.clear();
        let mut out = stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => screen.draw(),
            Err(e) => {
                screen.out_closed = true;
                if e.kind() != ErrorKind::BrokenPipe {
                    screen.out_lost = true;
                    let line =
                        self.label(Style::Red, "error", &format!("cannot write to standard output: {e}"));
                    to_stderr(&line);
                }
            }
        }
    }

    /// Whether a result was lost: a full disk, not a reader that has left.
    pub fn has_lost(&self) -> bool {
        self.screen().out_lost
    }

    /// Something for people that is no result: what was opened, how it went. `-q` silences it.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// A warning. `-q` silences it.
    pub fn warning(&self, text: &str) {
        self.warning_of(None, text);
    }

    /// A warning with its code.
    pub fn warning_of(&self, code: Option<&str>, text: &str) {
        if !self.quiet {
            self.line(&self.label(Style::Yellow, &with_code("warning", code), text));
        }
    }

    /// An error. Nothing silences it.
    pub fn error(&self, text: &str) {
        self.error_of(None, text);
    }

    /// An error with its code.
    pub fn error_of(&self, code: Option<&str>, text: &str) {
        self.line(&self.label(Style::Red, &with_code("error", code), text));
    }

    /// What to do about the error or warning above it.
    pub fn help(&self, text: &str) {
        self.line(&self.label(Style::Cyan, "  help", text));
    }

    /// A line or block that is already laid out, to standard error whatever `-q` says: a diagnostic, a log line.
    pub fn line(&self, text: &str) {
        let screen = self.screen();
        screen.clear();
        to_stderr(text.trim_end_matches('\n'));
        screen.draw();
    }

    /// Rewrites the terminal's last line; an empty text takes it away.
    pub fn progress(&self, text: &str) {
        if self.shows_progress() {
            let mut screen = self.screen();
            screen.clear();
            screen.foot.clear();
            screen.foot.push_str(text);
            screen.draw();
        }
    }

    fn label(&self, style: Style, label: &str, text: &str) -> String {
        format!("{} {text}", self.err.text(style, &format!("{label}:")))
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        // A panic while printing leaves at worst a torn line behind.
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `error[WP101]`, or the label alone.
fn with_code(label: &str, code: Option<&str>) -> String {
    code.map_or_else(|| label.to_owned(), |code| format!("{label}[{code}]"))
}

impl Screen {
    fn clear(&self) {
        if !self.foot.is_empty() {
            let _ = stderr().write_all(b"\r\x1b[K");
        }
    }

    fn draw(&self) {
        if !self.foot.is_empty() {
            let _ = stderr().write_all(self.foot.as_bytes());
        }
    }
}

/// One write a line, so that lines of two processes on one terminal do not mix. Nobody is left to tell of a failure.
fn to_stderr(text: &str) {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    let _ = stderr().write_all(line.as_bytes());
}

/// Columns of the terminal on standard error, or [`COLUMNS`].
pub fn terminal_columns() -> usize {
    // SAFETY: an all-zero winsize is valid, and the kernel fills it for the call's duration only.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) == 0 { Some(size) } else { None }
    };
    size.map_or(COLUMNS, |s| usize::from(s.ws_col)).clamp(20, 4 * COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_colour_choice_wins_over_no_color() {
        assert_eq!(Printer::new(ColorChoice::Always, true, false).out_paint(), Paint(true));
        assert_eq!(Printer::new(ColorChoice::Never, false, false).err_paint(), Paint(false));
        assert_eq!(Printer::new(ColorChoice::Auto, true, false).out_paint(), Paint(false));
    }

    #[test]
    fn paint_wraps_or_leaves() {
        assert_eq!(Paint(true).text(Style::Red, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Paint::PLAIN.text(Style::Red, "x"), "x");
    }
}
