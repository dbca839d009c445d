//! `source reload` and SIGHUP: what is the same is not touched, what is new runs, and nothing is lost on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::cli::{Ran, run};
use crate::harness::{Started, Writer, numbers, status, until, until_ok};

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder whose configuration is written anew again and again.
struct Site {
    folder: tempfile::TempDir,
    port: u16,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A TCP source and a file sink for it, and what is added to them.
    fn configure(&self, more: &str) {
        let config = format!(
            "[engine]\nworkers = 2\n[admin]\nlisten = \"\"\n\
             [[sources]]\nkey = \"net\"\nconnect = \"tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {} }}\n{more}\n\
             [[sinks]]\nkey = \"kept\"\nconnect = \"file_sink\"\nsources = [\"net\"]\nparams = {{ path = \"kept.log\" }}\n",
            self.port
        );
        std::fs::write(self.path().join("wpsrc.toml"), config).unwrap();
    }

    fn reload(&self) -> Ran {
        run(self.path(), &["source", "reload"])
    }

    fn reload_well(&self) -> String {
        let ran = self.reload();
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        ran.out
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        numbers(&std::fs::read(self.path().join(name)).unwrap_or_default())
    }
}

/// Every number below `upto` once, in order.
fn all_in_order(numbers: &[u64], upto: u64) {
    let wrong = numbers.iter().zip(0..).position(|(number, wanted)| *number != wanted);
    let around = wrong.map(|at| &numbers[at.saturating_sub(2)..numbers.len().min(at + 3)]);
    assert_eq!((around, numbers.len() as u64), (None, upto), "at {wrong:?}");
}

fn sink(key: &str, more: &str) -> String {
    format!(
        "[[sinks]]\nkey = \"{key}\"\nconnect = \"file_sink\"\nsources = [\"net\", \"app\"]\nparams = {{ path = \"{key}.log\"{more} }}\n"
    )
}

fn app(tags: &str) -> String {
    format!(
        "[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\ntags = [{tags}]\nparams = {{ path = \"app.log\", start = \"beginning\" }}\n"
    )
}

/// One connection that sends numbered lines until it is told to end; it fails if the connection does.
struct Sender {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sender {
    fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while !seen.load(Ordering::Relaxed) {
                let mut text = String::new();
                for number in next..next + 50 {
                    writeln!(text, "{number:08} a message over a connection that lasts").unwrap();
                }
                stream.write_all(text.as_bytes()).unwrap();
                next += 50;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            next
        });
        Self { ending, thread }
    }

    fn end(self) -> u64 {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_connection_outlives_twenty_reloads_and_no_message_is_lost() {
    let site = Site::new();
    site.configure("");
    let engine = Started::in_folder(site.path());
    let sender = Sender::start(site.port);
    for round in 0..20 {
        // A sink comes, is made anew at its path, takes something else, and goes.
        let more = match round % 4 {
            0 => sink("more", ""),
            1 => sink("more", ", fsync = \"batch\""),
            2 => sink("more", ", fsync = \"batch\"") + "where = { env = \"nowhere\" }\n",
            _ => String::new(),
        };
        site.configure(&more);
        let out = site.reload_well();
        assert!(out.starts_with("sources  kept net\nsinks    kept "), "{out}");
        let fate = ["added more", "changed more", "kept more, kept", "removed more"][round % 4];
        assert!(out.contains(fate), "{fate}: {out}");
        let before = site.numbers("kept.log").len();
        until("messages go on", || site.numbers("kept.log").len() > before);
    }
    let sent = sender.end();
    engine.stop();
    all_in_order(&site.numbers("kept.log"), sent);
    let more = site.numbers("more.log");
    assert!(more.len() > 100 && more.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
}

#[test]
fn a_source_that_changes_goes_on_at_its_position_and_a_sink_at_its_end() {
    let site = Site::new();
    let writer = Writer::start(&site.path().join("app.log"));
    site.configure(&(app("") + &sink("all", "")));
    let engine = Started::in_folder(site.path());
    for round in 0..6usize {
        writer.await_lines(200);
        // Now the one, now the other, and both at first.
        let tags = format!("\"round:{}\"", round.div_ceil(2));
        let fsync = [", fsync = \"batch\"", ", existing = \"truncate\""][round / 2 % 2];
        site.configure(&(app(&tags) + &sink("all", fsync)));
        let out = site.reload_well();
        assert!(out.contains("changed"), "{out}");
    }
    writer.await_lines(200);
    let written = writer.end();
    until("all lines are there", || site.numbers("all.log").len() as u64 >= written);
    engine.stop();
    all_in_order(&site.numbers("all.log"), written);
}

/// A file source that is switched off goes on where it was once it is switched on, by a reload and by a restart; one that
/// is configured no more is forgotten, and that is said.
#[test]
fn a_source_that_is_switched_off_and_on_goes_on_where_it_was() {
    let site = Site::new();
    let input = site.path().join("app.log");
    let append = |numbers: std::ops::Range<u64>| {
        let text: String = numbers.map(|n| format!("{n:08}\n")).collect();
        let mut file = std::fs::File::options().create(true).append(true).open(&input).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let app = |enable: bool| {
        format!(
            "[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nenable = {enable}\nparams = {{ path = \"app.log\" }}\n"
        ) + &sink("all", "")
    };
    let all_are_there = |many: usize| until("all are there", || site.numbers("all.log").len() >= many);
    append(0..100);
    site.configure(&app(true));
    let engine = Started::in_folder(site.path());
    all_are_there(100);
    site.configure(&app(false));
    site.reload_well();
    append(100..200);
    site.configure(&app(true));
    site.reload_well();
    all_are_there(200);
    site.configure(&app(false));
    site.reload_well();
    engine.stop();
    Started::in_folder(site.path()).stop();
    site.configure(&app(true));
    let engine = Started::in_folder(site.path());
    append(200..300);
    all_are_there(300);
    site.configure("");
    let ran = site.reload();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err.contains("source 'app' is configured no more: how far its files were read is forgotten"),
        "{}",
        ran.err
    );
    engine.stop();
    all_in_order(&site.numbers("all.log"), 300);
    let log = std::fs::read_to_string(site.path().join("logs/wpgen.log")).unwrap();
    assert_eq!(log.matches("source 'app' is configured no more").count(), 1, "{log}");
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told() {
    let site = Site::new();
    site.configure("");
    let engine = Started::in_folder(site.path());
    let sender = Sender::start(site.port);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let other = format!(
        "[[sources]]\nkey = \"b\"\nconnect = \"tcp_src\"\nparams = {{ addr = \"127.0.0.1\", port = {port} }}\n"
    );
    for (more, words) in [
        ("[[sources]]\nkey = 7\n".to_owned(), "WP404"),
        (sink("more", "") + &other, "WP301"),
        (sink("more", ""), "[engine] workers has changed"),
    ] {
        site.configure(&more);
        if words.starts_with("[engine]") {
            let path = site.path().join("wpsrc.toml");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("workers = 2", "workers = 1")).unwrap();
        }
        let ran = site.reload();
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
        assert!(ran.err.contains(words) && ran.err.contains("nothing was changed"), "{words}: {}", ran.err);
        let status = status_when_loadable(&site);
        assert_eq!(status["sinks"].as_array().unwrap().len(), 1, "{status:#}");
    }
    // The same by a signal: the log says it.
    site.configure("nonsense");
    engine.signal(libc::SIGHUP);
    let log = || std::fs::read_to_string(site.path().join("logs/wpgen.log")).unwrap_or_default();
    until("the log says it", || log().contains("the configuration was refused") && log().contains("WP401"));
    site.configure(&sink("more", ""));
    engine.signal(libc::SIGHUP);
    until("it is there", || log().contains("sinks: 1 kept, 1 added (more)"));
    let sent = sender.end();
    engine.stop();
    all_in_order(&site.numbers("kept.log"), sent);
}

/// The status, which the command asks for at the place that a sound configuration names.
fn status_when_loadable(site: &Site) -> serde_json::Value {
    site.configure("");
    status(site.path())
}

#[test]
fn a_source_that_goes_delivers_what_it_took_and_frees_its_port() {
    let site = Site::new();
    site.configure("");
    let engine = Started::in_folder(site.path());
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.write_all(b"00000000 first\n").unwrap();
    until("it is taken", || status(site.path())["records_in"] == 1);
    // Its successor has its port and another name.
    let old = std::fs::read_to_string(site.path().join("wpsrc.toml")).unwrap();
    std::fs::write(site.path().join("wpsrc.toml"), old.replace("\"net\"", "\"net2\"")).unwrap();
    let out = site.reload_well();
    assert!(out.contains("sources  added net2; removed net\n"), "{out}");
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.write_all(b"00000001 second\n").unwrap();
    until("both are there", || site.numbers("kept.log") == [0, 1]);
    engine.stop();
}

#[test]
fn a_source_that_listens_and_changes_has_its_port_again() {
    let site = Site::new();
    site.configure("");
    let engine = Started::in_folder(site.path());
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.write_all(b"00000000 first\n").unwrap();
    until("it is taken", || status(site.path())["records_in"] == 1);
    let old = std::fs::read_to_string(site.path().join("wpsrc.toml")).unwrap();
    let changed = old.replace("addr = ", "max_connections = 5, addr = ");
    std::fs::write(site.path().join("wpsrc.toml"), changed).unwrap();
    let out = site.reload_well();
    assert!(out.contains("sources  changed net\n"), "{out}");
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.write_all(b"00000001 second\n").unwrap();
    until("both are there", || site.numbers("kept.log") == [0, 1]);
    assert_eq!(status(site.path())["records_in"], 2, "its counters go on");
    engine.stop();
}

#[test]
fn a_sink_that_is_down_can_be_taken_out_and_its_source_goes_on() {
    let site = Site::new();
    let pipe = std::ffi::CString::new(site.path().join("pipe").to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that lives for the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let down = "[[sinks]]\nkey = \"down\"\nconnect = \"file_sink\"\nparams = { path = \"pipe\" }\n";
    let drain = |more: &str| {
        site.configure(more);
        let path = site.path().join("wpsrc.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("workers = 2", "workers = 2\ndrain_timeout = \"200ms\"")).unwrap();
    };
    drain(down);
    let engine = Started::in_folder(site.path());
    let port = site.port;
    // More than a sink without a reader is given on credit.
    let lines: String = (0..400_000).map(|n| format!("{n:08} {}\n", "x".repeat(90))).collect();
    let sender = std::thread::spawn(move || {
        TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(lines.as_bytes()).unwrap();
    });
    until("its source stands still", || {
        let status = status(site.path());
        let source = &status["sources"][0];
        status["overall"] == "degraded" && source["waited_for_sinks_percent"].as_u64() > Some(0)
    });
    assert!(site.numbers("kept.log").len() < 400_000);
    drain("");
    let ran = site.reload();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("removed down") && ran.err.contains("still writes what it was given"),
        "{}",
        ran.err
    );
    sender.join().unwrap();
    until("the other sink has all", || site.numbers("kept.log").len() == 400_000);
    all_in_order(&site.numbers("kept.log"), 400_000);
    let told = status(site.path());
    let sink = &told["sinks"][1];
    assert_eq!((&sink["key"], &sink["state"]), (&"down".into(), &"leaving".into()), "{told:#}");
    assert!(
        sink["batches_in_flight"].as_u64() > Some(0) && told["records_in_flight"].as_u64() > Some(0),
        "{told:#}"
    );
    let shown = run(site.path(), &["source", "status"]).out;
    assert!(shown.contains("leaving      sink 'down' was taken out and still has"), "{shown}");
    assert!(!shown.contains("nothing in flight"), "{shown}");
    let doctor = run(site.path(), &["doctor", "--json"]).out;
    assert!(doctor.contains("sink 'down' was taken out and still has"), "{doctor}");
    // What the other one was given when it was configured is not delivered: a stop cannot call that well.
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("not everything that was taken could be delivered"), "{}", ran.err);
    assert!(ran.err.contains("sink 'down', which was taken out, has not taken"), "{}", ran.err);
}

#[test]
fn a_source_that_cannot_drain_yet_is_opened_as_configured_when_it_can() {
    let site = Site::new();
    crate::harness::fifo(&site.path().join("pipe"));
    let configure = |params: &str| {
        site.configure("[[sinks]]\nkey = \"down\"\nconnect = \"file_sink\"\nparams = { path = \"pipe\" }\n");
        let path = site.path().join("wpsrc.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("workers = 2", "workers = 2\ndrain_timeout = \"200ms\"");
        std::fs::write(&path, text.replace("params = { addr", &format!("params = {{ {params}addr"))).unwrap();
    };
    configure("");
    let engine = Started::in_folder(site.path());
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    stream.write_all(b"00000000 first\n").unwrap();
    until("it waits for the pipe", || site.numbers("kept.log") == [0]);
    configure("max_connections = 5, ");
    let ran = site.reload();
    assert!(
        ran.err.contains("once that is delivered, it is opened as configured now"),
        "{}{}",
        ran.out,
        ran.err
    );
    // The engine's only source has stopped, and the engine goes on.
    let pipe = std::fs::File::open(site.path().join("pipe")).unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(pipe).unwrap());
    let mut stream = until_ok("the port is open again", || TcpStream::connect(("127.0.0.1", site.port)));
    stream.write_all(b"00000001 second\n").unwrap();
    until("both are there", || site.numbers("kept.log") == [0, 1]);
    engine.stop();
    assert_eq!(reader.join().unwrap(), "00000000 first\n00000001 second\n");
}

#[test]
fn a_file_that_is_changed_while_its_sink_is_down_goes_on_at_its_position() {
    let site = Site::new();
    crate::harness::fifo(&site.path().join("pipe"));
    let configure = |tags: &str| {
        let pipe = "[[sinks]]\nkey = \"down\"\nconnect = \"file_sink\"\nparams = { path = \"pipe\" }\n";
        site.configure(&format!("{}{pipe}{}", app(tags), sink("both", "")));
        let path = site.path().join("wpsrc.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("workers = 2", "workers = 2\ndrain_timeout = \"200ms\"")).unwrap();
    };
    configure("");
    let lines = |from: u64, to: u64| (from..to).map(|n| format!("{n:08} line\n")).collect::<String>();
    std::fs::write(site.path().join("app.log"), lines(0, 1000)).unwrap();
    let engine = Started::in_folder(site.path());
    until("the other sink has them", || site.numbers("both.log").len() == 1000);
    configure("\"a:1\"");
    let ran = site.reload();
    assert!(
        ran.err.contains("once that is delivered, it is opened as configured now"),
        "{}{}",
        ran.out,
        ran.err
    );
    let pipe = std::fs::File::open(site.path().join("pipe")).unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(pipe).unwrap());
    let mut file = std::fs::File::options().append(true).open(site.path().join("app.log")).unwrap();
    file.write_all(lines(1000, 2000).as_bytes()).unwrap();
    until("it goes on", || site.numbers("both.log").len() >= 2000);
    let source =
        status(site.path())["sources"].as_array().unwrap().iter().find(|s| s["key"] == "app").cloned();
    assert_eq!(source.unwrap()["records_in"], 2000, "its counters go on, too");
    engine.stop();
    all_in_order(&site.numbers("both.log"), 2000);
    assert_eq!(reader.join().unwrap(), lines(0, 2000));
}

#[test]
fn a_source_waits_for_a_sink_that_is_not_closed_yet() {
    let site = Site::new();
    crate::harness::fifo(&site.path().join("pipe"));
    let configure = |tags: &str, fsync: &str| {
        let pipe = format!(
            "[[sinks]]\nkey = \"down\"\nconnect = \"file_sink\"\nsources = [\"app\"]\n\
             params = {{ path = \"pipe\", fsync = \"{fsync}\" }}\n"
        );
        site.configure(&(app(tags) + &pipe));
        let path = site.path().join("wpsrc.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("workers = 2", "workers = 2\ndrain_timeout = \"200ms\"")).unwrap();
    };
    configure("", "interval");
    let lines = |from: u64, to: u64| (from..to).map(|n| format!("{n:08} line\n")).collect::<String>();
    std::fs::write(site.path().join("app.log"), lines(0, 1000)).unwrap();
    let engine = Started::in_folder(site.path());
    let figure = |name: &str| {
        let status = status(site.path());
        let app = status["sources"].as_array().unwrap().iter().find(|s| s["key"] == "app").cloned();
        app.map_or(0, |app| app[name].as_u64().unwrap())
    };
    until("they are on their way", || figure("records_in") == 1000);
    configure("\"a:1\"", "never");
    let ran = site.reload();
    assert!(ran.err.contains("sink 'down'"), "{}{}", ran.out, ran.err);
    let mut file = std::fs::File::options().append(true).open(site.path().join("app.log")).unwrap();
    file.write_all(lines(1000, 2000).as_bytes()).unwrap();
    // Open for writing, too: it does not end between the two sinks.
    let path = site.path().join("pipe");
    let open = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let pipe = std::fs::File::open(&path).unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(pipe).unwrap());
    until("source and sink are opened by themselves", || figure("delivered") == 2000);
    engine.stop();
    drop(open);
    assert_eq!(reader.join().unwrap(), lines(0, 2000), "no record was without its sink");
}

/// A sink whose file cannot be opened again, and how it is held back.
struct Missing {
    site: Site,
}

impl Missing {
    /// The source `app` with this tag, and its only sink, whose file cannot be opened anew: what stands in its folder's
    /// place is no folder.
    fn configure(&self, tags: &str, path: &str, fsync: &str) {
        let sink = format!(
            "[[sinks]]\nkey = \"gone\"\nconnect = \"file_sink\"\nsources = [\"app\", \"net\"]\n\
             params = {{ path = \"{path}\", fsync = \"{fsync}\" }}\n"
        );
        self.site.configure(&(app(tags) + &sink));
    }

    fn append(&self, from: u64, to: u64) {
        let path = self.site.path().join("app.log");
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let lines: String = (from..to).map(|n| format!("{n:08} line\n")).collect();
        file.write_all(lines.as_bytes()).unwrap();
    }

    fn set_up() -> (Self, Started) {
        let missing = Self { site: Site::new() };
        missing.configure("", "dir/gone.log", "interval");
        missing.append(0, 1000);
        let engine = Started::in_folder(missing.site.path());
        until("the sink has them", || missing.site.numbers("dir/gone.log").len() == 1000);
        (missing, engine)
    }

    fn lag_bytes(&self) -> u64 {
        let status = status(self.site.path());
        let app = status["sources"].as_array().unwrap().iter().find(|source| source["key"] == "app").cloned();
        app.unwrap()["lag_bytes"].as_u64().unwrap()
    }

    /// A reload takes the sink out, and neither the new one nor the old one can be opened.
    fn take_out(&self) {
        self.take_out_as("never");
    }

    fn take_out_as(&self, fsync: &str) {
        std::fs::rename(self.site.path().join("dir"), self.site.path().join("away")).unwrap();
        std::fs::write(self.site.path().join("dir"), "").unwrap();
        self.configure("", "dir/gone.log", fsync);
        let ran = self.site.reload();
        assert!(ran.err.contains("sink 'gone'"), "{}{}", ran.out, ran.err);
        assert_eq!(status(self.site.path())["sinks"].as_array().unwrap().len(), 1);
    }

    fn bring_back(&self) {
        std::fs::remove_file(self.site.path().join("dir")).unwrap();
        std::fs::rename(self.site.path().join("away"), self.site.path().join("dir")).unwrap();
    }
}

#[test]
fn a_source_that_waits_for_a_sink_can_be_stopped_and_the_next_start_reads_on() {
    let (missing, engine) = Missing::set_up();
    missing.take_out();
    missing.append(1000, 2000);
    until("they are seen", || missing.lag_bytes() >= 14_000);
    engine.stop();
    missing.bring_back();
    // A start that reads on where the one before came to.
    let path = missing.site.path().join("wpsrc.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, config.replace(", start = \"beginning\"", "")).unwrap();
    let engine = Started::in_folder(missing.site.path());
    until("the rest is there", || missing.site.numbers("dir/gone.log").len() >= 2000);
    engine.stop();
    all_in_order(&missing.site.numbers("dir/gone.log"), 2000);
}

#[test]
fn a_source_that_waits_for_a_sink_can_be_changed() {
    let (missing, engine) = Missing::set_up();
    missing.take_out();
    missing.append(1000, 2000);
    until("they are seen", || missing.lag_bytes() >= 14_000);
    missing.configure("\"a:1\"", "there.log", "never");
    let out = missing.site.reload_well();
    assert!(out.contains("changed app"), "{out}");
    until("it goes on", || missing.site.numbers("there.log").len() >= 1000);
    engine.stop();
    let numbers = missing.site.numbers("there.log");
    assert!(numbers.iter().copied().eq(1000..2000), "{} of them", numbers.len());
}

#[test]
fn a_file_that_is_opened_again_late_keeps_what_it_has() {
    let (missing, engine) = Missing::set_up();
    missing.take_out_as("never\", existing = \"truncate");
    missing.append(1000, 2000);
    until("they are seen", || missing.lag_bytes() >= 14_000);
    missing.bring_back();
    until("it goes on by itself", || missing.lag_bytes() == 0);
    engine.stop();
    all_in_order(&missing.site.numbers("dir/gone.log"), 2000);
}

#[test]
fn what_a_stream_gave_before_a_stop_and_no_sink_could_take_is_told() {
    let (missing, engine) = Missing::set_up();
    missing.take_out();
    let before = status(missing.site.path())["sources"][0]["bytes_in"].as_u64();
    let mut stream = TcpStream::connect(("127.0.0.1", missing.site.port)).unwrap();
    stream.write_all(b"00000000 a message\n00000001 a message\n").unwrap();
    until("it is received", || status(missing.site.path())["sources"][0]["bytes_in"].as_u64() > before);
    engine.signal(libc::SIGTERM);
    let ran = engine.end();
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("not everything that was taken could be delivered"), "{}", ran.err);
    let log = std::fs::read_to_string(missing.site.path().join("logs/wpgen.log")).unwrap();
    assert!(log.contains("what it had received is lost (2 records so far)"), "{log}");
    assert!(missing.site.numbers("kept.log").is_empty());
}
