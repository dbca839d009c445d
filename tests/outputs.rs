//! Output files: how large they become, and what is in them when somebody else cuts them or the engine is killed.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fallback;
use crate::harness::{Site, Started, status, until};
use crate::net::BACKENDS;

/// Bytes of a line.
const LINE: usize = 80;

fn line(number: usize) -> String {
    format!("{number:0width$}\n", width = LINE - 1)
}

/// The numbers in these lines; each line is whole.
fn numbers(bytes: &[u8]) -> Vec<usize> {
    assert_eq!(bytes.len() % LINE, 0);
    let number = |line: &[u8]| std::str::from_utf8(&line[..LINE - 1]).unwrap().parse().unwrap();
    bytes.chunks_exact(LINE).map(number).collect()
}

#[test]
fn a_file_that_is_rotated_by_size_is_no_larger() {
    const SIZE: usize = 64 << 10;
    const LINES: usize = 30_000;
    for io in BACKENDS {
        let site = Site::new(
            io,
            "path = \"in/app.log\"\nmode = \"once\"",
            "path = \"out/app.log\"\nrotate = { size = \"64KiB\" }",
        );
        fs::write(site.path("in/app.log"), (0..LINES).map(line).collect::<String>()).unwrap();
        Started::in_folder(site.folder()).end();
        let rotated = |number: usize| site.path(&format!("out/app.log.{number}"));
        let last = (1..).take_while(|number| rotated(*number).exists()).last().unwrap_or(0);
        let files = (1..=last).rev().map(rotated).chain([site.path("out/app.log")]);
        let pieces: Vec<Vec<u8>> = files.map(|path| fs::read(path).unwrap()).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= SIZE), "{:?}", pieces.iter().map(Vec::len));
        assert_eq!(numbers(&pieces.concat()), (0..LINES).collect::<Vec<_>>());
    }
}

fn append(site: &Site, numbers: Range<usize>) {
    let file = fs::OpenOptions::new().create(true).append(true).open(site.path("in/app.log"));
    file.unwrap().write_all(numbers.map(line).collect::<String>().as_bytes()).unwrap();
}

fn await_delivered(site: &Site, lines: usize) {
    until("it is delivered", || status(site.folder())["sources"][0]["delivered"] == lines);
}

#[test]
fn an_output_that_somebody_cuts_has_no_hole() {
    for io in BACKENDS {
        let site = Site::new(io, "path = \"in/app.log\"", "path = \"out/app.log\"");
        let append = |numbers| append(&site, numbers);
        let out = || fs::read(site.path("out/app.log")).unwrap_or_default();
        append(0..1000);
        let engine = Started::in_folder(site.folder());
        let delivered = |lines| await_delivered(&site, lines);
        delivered(1000);
        fs::OpenOptions::new().write(true).open(site.path("out/app.log")).unwrap().set_len(0).unwrap();
        append(1000..1010);
        delivered(1010);
        assert_eq!(numbers(&out()), (1000..1010).collect::<Vec<_>>());
        // More than goes through the page cache.
        append(1010..20_000);
        delivered(20_000);
        engine.signal(libc::SIGKILL);
        engine.end();
        let engine = Started::in_folder(site.folder());
        append(20_000..20_010);
        until("the rest is there", || out().len() == (20_010 - 1000) * LINE);
        engine.stop();
        assert_eq!(numbers(&out()), (1000..20_010).collect::<Vec<_>>());
    }
}

#[test]
fn an_output_that_somebody_removes_with_its_folder_is_begun_anew() {
    for io in BACKENDS {
        let site = Site::new(io, "path = \"in/app.log\"", "path = \"out/app.log\"");
        let append = |numbers| append(&site, numbers);
        append(0..1000);
        let engine = Started::in_folder(site.folder());
        let delivered = |lines| await_delivered(&site, lines);
        delivered(1000);
        fs::remove_dir_all(site.path("out")).unwrap();
        append(1000..2000);
        delivered(2000);
        assert_eq!(numbers(&site.read("out/app.log")), (1000..2000).collect::<Vec<_>>());
        engine.stop();
        let log = String::from_utf8(site.read("logs/wpgen.log")).unwrap();
        assert_eq!(log.matches("somebody removed it, with the 80000 bytes").count(), 1, "{log}");
    }
}

/// Sends lines until it is told to stop, or the connection breaks.
fn send(port: u16, stop: &AtomicBool) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    for number in 0.. {
        if stop.load(Ordering::Acquire) || stream.write_all(line(number).as_bytes()).is_err() {
            return;
        }
    }
}

fn whole_lines(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn what_a_socket_brought_and_is_in_the_file_stays_there_after_a_kill() {
    for io in BACKENDS {
        for fsync in ["interval", "never"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "[engine]\nworkers = 1\nio = \"{}\"\n[admin]\nlisten = \"\"\n\
                 [[sources]]\nkey = \"a\"\nconnect = \"tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {port} }}\n\
                 [[sinks]]\nkey = \"o\"\nconnect = \"file_sink\"\nparams = {{ path = \"out\", fsync = \"{fsync}\" }}\n",
                fallback::io(io)
            );
            fs::write(folder.join("wpsrc.toml"), config).unwrap();
            let out = folder.join("out");
            for _ in 0..5 {
                let engine = Started::in_folder(folder);
                let stop = Arc::new(AtomicBool::new(false));
                let stops = Arc::clone(&stop);
                let sender = std::thread::spawn(move || send(port, &stops));
                // To read the file each time would take longer than to write as much again.
                let len = || fs::metadata(&out).map_or(0, |meta| meta.len());
                let enough = len() + 5000 * LINE as u64;
                until("lines are in the file", || len() > enough);
                engine.signal(libc::SIGKILL);
                engine.end();
                stop.store(true, Ordering::Release);
                sender.join().unwrap();
                let there = whole_lines(&out);
                let engine = Started::in_folder(folder);
                let stays = whole_lines(&out);
                assert!(stays >= there, "{io}, {fsync}: {there} lines were there, {stays} are");
                engine.stop();
                numbers(&fs::read(&out).unwrap());
            }
        }
    }
}
