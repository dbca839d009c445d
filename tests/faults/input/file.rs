//! Appends lines to a log file that is renamed now and then; each file is a unit of order.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::pace::{Pace, Sender};
use super::{Input, Place};
use crate::message::Record;
use crate::oracle::{Must, Sent};

/// A program that writes a log.
pub(super) struct FileInput {
    number: u8,
    rate: u32,
    path: PathBuf,
    pen: Arc<Mutex<Pen>>,
    sender: Sender<()>,
}

/// The file that is written to.
struct Pen {
    input: u8,
    file: File,
    stream: u16,
    next: u32,
    /// Messages of the files before.
    done: Vec<u32>,
}

impl Pen {
    /// Writes lines; the last one comes in two pieces.
    fn write(&mut self, lines: u32) {
        let mut text = Vec::new();
        for number in self.next..self.next + lines {
            Record { input: self.input, stream: self.stream, number }.write(&mut text);
            text.push(b'\n');
        }
        let cut = text.len().saturating_sub(7);
        self.file.write_all(&text[..cut]).unwrap();
        self.file.write_all(&text[cut..]).unwrap();
        self.next += lines;
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

impl FileInput {
    pub(super) fn new(number: u8, rate: u32, place: &Place) -> Self {
        let path = place.inputs.join(format!("in{number}.log"));
        let pen = Pen { input: number, file: open(&path), stream: 0, next: 0, done: Vec::new() };
        Self { number, rate, path, pen: Arc::new(Mutex::new(pen)), sender: Sender::new() }
    }
}

impl Input for FileInput {
    fn number(&self) -> u8 {
        self.number
    }

    fn source(&self) -> String {
        let path = format!("{}*", self.path.display());
        format!("connect = \"file_src\"\nparams = {{ path = {path:?} }}\n")
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn begin(&mut self) {
        let (pen, mut pace) = (Arc::clone(&self.pen), Pace::new(self.rate));
        self.sender.begin(move |shared| {
            while !shared.ending.load(Ordering::Acquire) {
                let lines = pace.next();
                pen.lock().unwrap().write(lines);
                shared.written.fetch_add(lines.into(), Ordering::Relaxed);
            }
        });
    }

    fn written(&self) -> u64 {
        // The counter lags behind the file; the pen does not.
        let pen = self.pen.lock().unwrap();
        pen.done.iter().chain([&pen.next]).map(|n| u64::from(*n)).sum()
    }

    fn rotate(&mut self) -> bool {
        let mut pen = self.pen.lock().unwrap();
        let aside = format!("{}.{}", self.path.display(), pen.stream);
        std::fs::rename(&self.path, aside).unwrap();
        pen.file = open(&self.path);
        let messages = std::mem::take(&mut pen.next);
        pen.done.push(messages);
        pen.stream += 1;
        true
    }

    fn finish(&mut self) {
        self.sender.finish();
        self.pen.lock().unwrap().write(20);
    }

    fn sent(&self, _dropped: u64) -> Vec<Sent> {
        let pen = self.pen.lock().unwrap();
        let messages = pen.done.iter().chain([&pen.next]);
        let sent = |(stream, messages): (u16, &u32)| Sent {
            input: self.number,
            stream,
            messages: *messages,
            must: Must::All,
            may_turn: false,
        };
        (0..).zip(messages).map(sent).collect()
    }
}
