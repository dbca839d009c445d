//! Whoever has a shard's neighbours wait: a sink that takes nothing holds back the sources that feed it and nobody else,
//! and senders that are faster than the shard leave its files their turns.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fallback;
use crate::harness::{Started, status, until};
use crate::net::{BACKENDS, own_address};

/// Bytes of a line.
const LINE: usize = 100;
/// Files whose sink takes nothing: together they would hold every read buffer of a shard, and more.
const STALLED: usize = 12;
/// Lines of each: more than is read ahead of a file.
const LINES: usize = 60_000;

fn lines(count: usize) -> Vec<u8> {
    format!("{}\n", "x".repeat(LINE - 1)).repeat(count).into_bytes()
}

fn configure(folder: &Path, io: &str, stalled: &str) {
    let source = |key: &str, path: &str, rest: &str| {
        format!(
            "[[sources]]\nkey = \"{key}\"\nconnect = \"file_src\"\nparams = {{ path = \"in/{path}*\"{rest} }}\n"
        )
    };
    let sink = |key: &str, source: &str| {
        format!(
            "[[sinks]]\nkey = \"{key}-out\"\nconnect = \"file_sink\"\nsources = [\"{source}\"]\nparams = {{ path = \"{key}\" }}\n"
        )
    };
    let config = format!(
        "[engine]\nworkers = 1\nio = \"{}\"\ndrain_timeout = \"1s\"\n[admin]\nlisten = \"\"\n{}{}{}{}",
        fallback::io(io),
        source("stalled", "stalled", stalled),
        source("sound", "sound", ""),
        sink("fifo", "stalled"),
        sink("file", "sound"),
    );
    std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
}

fn figure(folder: &Path, source: usize, name: &str) -> u64 {
    status(folder)["sources"][source][name].as_u64().unwrap_or(0)
}

/// Writes the files whose sink takes nothing, each as `pack` makes it.
fn write_stalled(folder: &Path, pack: impl Fn(&[u8]) -> Vec<u8>) {
    let content = pack(&lines(LINES));
    for n in 0..STALLED {
        std::fs::write(folder.join(format!("in/stalled{n}")), &content).unwrap();
    }
}

/// Waits until nothing more of the stalled files is read.
fn await_stalled(folder: &Path) {
    let (mut before, mut same) = (0, 0);
    until("the stalled files are read no further", || {
        let now = figure(folder, 0, "bytes_in");
        same = if now == before && now > 0 { same + 1 } else { 0 };
        before = now;
        same > 10
    });
}

fn check(stalled: &str, pack: impl Fn(&[u8]) -> Vec<u8>) {
    for io in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("in")).unwrap();
        configure(folder, io, stalled);
        write_stalled(folder, &pack);
        let fifo = CString::new(folder.join("fifo").as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a string that ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        // Opened for writing too, so that it opens at once and stays; nobody reads yet.
        let mut fifo = File::options().read(true).write(true).open(folder.join("fifo")).unwrap();
        let engine = Started::in_folder(folder);
        await_stalled(folder);
        let mut sound = 0;
        for n in 0..3 {
            std::fs::write(folder.join(format!("in/sound{n}")), lines(30_000)).unwrap();
            sound += 30_000;
            let mut first = File::options().append(true).open(folder.join("in/sound0")).unwrap();
            first.write_all(&lines(1000)).unwrap();
            sound += 1000;
            until("the others go on", || figure(folder, 1, "delivered") == sound);
        }
        let total = STALLED * LINES;
        let reader = std::thread::spawn(move || {
            let (mut left, mut buffer) = (total * LINE, vec![0; 1 << 20]);
            while left > 0 {
                left -= fifo.read(&mut buffer).unwrap();
            }
        });
        until("the stalled ones go on when they may", || figure(folder, 0, "delivered") == total as u64);
        reader.join().unwrap();
        engine.stop();
        assert_eq!(std::fs::metadata(folder.join("file")).unwrap().len(), sound * LINE as u64);
    }
}

#[test]
fn files_whose_sink_takes_nothing_leave_the_others_their_reads() {
    check("", <[u8]>::to_vec);
}

#[test]
fn files_read_once_whose_sink_takes_nothing_leave_the_others_their_reads() {
    check(", mode = \"once\"", <[u8]>::to_vec);
}

#[test]
fn compressed_files_whose_sink_takes_nothing_leave_the_others_their_reads() {
    check(", compression = \"gzip\"", |content| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    });
}

#[test]
fn files_go_on_beside_senders_that_are_faster_than_their_shard() {
    const SENDERS: usize = 4;
    for io in BACKENDS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("in")).unwrap();
        let at = SocketAddr::from((own_address(), 5140));
        let config = format!(
            "[engine]\nworkers = 1\nio = \"{}\"\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"flood\"\nconnect = \"tcp_src\"\nparams = {{ addr = \"{}\", port = {} }}\n\
             [[sources]]\nkey = \"file\"\nconnect = \"file_src\"\nparams = {{ path = \"in/a.log\" }}\n\
             [[sinks]]\nkey = \"none\"\nconnect = \"blackhole_sink\"\nsources = [\"flood\"]\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"file_sink\"\nsources = [\"file\"]\nparams = {{ path = \"out\" }}\n",
            fallback::io(io),
            at.ip(),
            at.port(),
        );
        std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
        let engine = Started::in_folder(folder);
        let stop = Arc::new(AtomicBool::new(false));
        let flood = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(at).unwrap();
                // The shortest records there are: framing them costs the shard more than sending them.
                let lines = b"a\n".repeat(1 << 15);
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&lines).unwrap();
                }
            })
        };
        let senders: Vec<_> = (0..SENDERS).map(flood).collect();
        until("it flows", || figure(folder, 0, "records_in") > 1_000_000);
        for n in 1..=5 {
            let file = File::options().create(true).append(true).open(folder.join("in/a.log"));
            file.unwrap().write_all(&lines(1)).unwrap();
            until("the file is read and written meanwhile", || figure(folder, 1, "delivered") == n);
        }
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        engine.stop();
    }
}
