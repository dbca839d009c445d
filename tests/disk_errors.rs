//! A disk that answers EIO or ENOSPC, does a part of what it is asked, loses what a sync could not write, or does not
//! answer: of an input, an output, the checkpoint and the rescue, each alone. Nothing that was acknowledged is lost, the
//! log, status, health and metrics say what is wrong, and work goes on by itself when the disk does.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::disk::faulty;
use crate::diskfull::{Place, kill};
use crate::faulty::{Fault, Faulty, On};
use crate::harness::{until, until_ok};
use crate::rescue::{Peer, repeated};

const BACKENDS: [&str; 2] = ["uring", "epoll"];
const EIO: Fault = Fault::Error(libc::EIO);
/// A file that nobody finds any more is closed sooner.
const LONG: Duration = Duration::from_secs(5);

impl Place {
    /// What is in the folder `name` is on a disk that fails when it is told to.
    fn faulty(&self, name: &str) -> Option<Faulty> {
        faulty(&self.path(name), &self.path(&format!("{}.below", name.replace('/', "-"))))
    }

    /// The exit code of a reload, and what it says of it.
    fn reload(&self) -> (Option<i32>, String) {
        let ran = crate::cli::run(&self.path("."), &["source", "reload"]);
        (ran.code, ran.err)
    }

    fn await_retries(&self, metric: &str) {
        let before = self.metric(metric);
        until("it is tried again", || self.metric(metric) >= before + 2.0);
    }
}

/// A file on such a disk, and a sink that writes to a sound one.
fn from_faulty(io: &str) -> Option<(Place, Faulty)> {
    let sink = "connect = \"file_sink\"\nparams = { path = \"out.log\" }";
    let place = Place::without_input(io, "in", sink);
    let disk = place.faulty("in")?;
    place.write(0..1000);
    Some((place, disk))
}

/// A file on a sound disk, and a sink that writes to such a one.
fn to_faulty(io: &str, rest: &str) -> Option<(Place, Faulty)> {
    let place = Place::to_file(io, "disk/out.log", rest);
    let disk = place.faulty("disk")?;
    Some((place, disk))
}

#[test]
fn an_input_that_cannot_be_read_is_read_on_by_itself_when_it_can() {
    for io in BACKENDS {
        let Some((place, disk)) = from_faulty(io) else { return };
        let engine = place.start();
        place.await_delivered(1000);
        let spell = disk.strike(&[On::Read], EIO);
        place.write(1000..30_000);
        place.await_trouble("Input/output error", || ());
        place.await_retries("wpgen_source_errors_total{source=\"app\"}");
        assert_eq!(place.delivered(), 1000);
        // By who reads it, and by a look at all files.
        let said = place.logged(&["ERROR", "cannot read", "in.log", "Input/output"]);
        assert!((1..=2).contains(&said), "once, not each time: {said}");
        // Nothing is written any more: it must find out by itself.
        drop(spell);
        place.await_delivered(30_000);
        place.await_healthy();
        kill(engine);
        let engine = place.start();
        place.await_whole("out.log", 30_000);
        engine.stop();
        place.await_whole("out.log", 30_000);
    }
}

#[test]
fn an_input_whose_disk_is_not_there_for_a_while_is_not_gone() {
    for io in BACKENDS {
        let Some((place, disk)) = from_faulty(io) else { return };
        // However long it takes, the unfinished line waits for its end.
        let config = std::fs::read_to_string(place.path("wpsrc.toml")).unwrap();
        let config = config.replace("in.log\" }", "in.log\", flush_partial = \"0s\" }");
        std::fs::write(place.path("wpsrc.toml"), config).unwrap();
        let engine = place.start();
        place.await_delivered(1000);
        let line = format!("{:099}\n", 1000);
        let (begin, rest) = line.as_bytes().split_at(60);
        let (more, end) = rest.split_at(1);
        let file = OpenOptions::new().append(true).open(place.path("in/in.log")).unwrap();
        (&file).write_all(begin).unwrap();
        // It was seen, and waits for its end.
        until("the beginning of a line is read", || {
            place.metric("wpgen_source_lag_bytes{source=\"app\"}") == 0.0
        });
        let spell = disk.strike(&[On::Look, On::Open, On::Read, On::Names], EIO);
        // Who waits for a file to grow asks its disk nothing until it does.
        (&file).write_all(more).unwrap();
        place.await_trouble("Input/output error", || ());
        let since = Instant::now();
        until("it is away for long", || since.elapsed() > LONG);
        drop(spell);
        (&file).write_all(end).unwrap();
        place.write(1001..5000);
        place.await_delivered(5000);
        place.await_healthy();
        engine.stop();
        place.await_whole("out.log", 5000);
    }
}

#[test]
fn an_input_that_gives_a_part_of_each_read_is_read_whole() {
    for io in BACKENDS {
        let Some((place, disk)) = from_faulty(io) else { return };
        let spell = disk.strike(&[On::Read], Fault::Short);
        let engine = place.start();
        for from in (1000..50_000).step_by(7000) {
            place.write(from..from + 7000);
        }
        place.await_delivered(50_000);
        assert!(disk.struck() > 10);
        drop(spell);
        engine.stop();
        place.await_whole("out.log", 50_000);
    }
}

#[test]
fn an_input_that_does_not_answer_is_read_on_when_it_does() {
    for io in BACKENDS {
        let Some((place, disk)) = from_faulty(io) else { return };
        let engine = place.start();
        place.await_delivered(1000);
        let spell = disk.strike(&[On::Read], Fault::Stall);
        place.write(1000..20_000);
        until("a read waits", || disk.struck() > 0);
        drop(spell);
        place.await_delivered(20_000);
        place.await_healthy();
        engine.stop();
        place.await_whole("out.log", 20_000);
    }
}

#[test]
fn a_reload_while_a_worker_waits_for_a_disk_is_refused_and_says_so() {
    for io in BACKENDS {
        let Some((place, disk)) = from_faulty(io) else { return };
        let engine = place.start();
        place.await_delivered(1000);
        // Whoever looks at what has grown waits, and so does the worker that does.
        let file = OpenOptions::new().append(true).open(place.path("in/in.log")).unwrap();
        let lines: String = (1000..2000).map(|number| format!("{number:099}\n")).collect();
        let spell = disk.strike(&[On::Read, On::Look], Fault::Stall);
        (&file).write_all(lines.as_bytes()).unwrap();
        until("somebody waits", || disk.struck() > 0);
        until_ok("a reload is answered, and refused", || {
            let (code, err) = place.reload();
            let is_told = err.contains("worker 0") && err.contains("does not answer");
            if code == Some(1) && is_told && err.contains("nothing was changed") { Ok(()) } else { Err(err) }
        });
        drop(spell);
        until_ok("a reload does what it is asked", || match place.reload() {
            (Some(0), _) => Ok(()),
            (_, err) => Err(err),
        });
        place.await_delivered(2000);
        engine.stop();
        place.await_whole("out.log", 2000);
    }
}

#[test]
fn an_output_that_cannot_be_written_holds_its_sources_back_and_gets_everything_when_it_can() {
    for io in BACKENDS {
        for (number, words) in [(libc::EIO, "Input/output error"), (libc::ENOSPC, "No space left on device")]
        {
            let Some((place, disk)) = to_faulty(io, "") else { return };
            let engine = place.start();
            place.write(1..10_000);
            place.await_whole("disk/out.log", 10_000);
            let spell = disk.strike(&[On::Write], Fault::Error(number));
            place.write(10_000..40_000);
            place.await_trouble(words, || ());
            assert!(place.delivered() <= 10_000);
            assert_eq!(place.metric("wpgen_sink_state{sink=\"out\",state=\"waiting\"}"), 1.0);
            place.await_retries("wpgen_sink_errors_total{sink=\"out\"}");
            assert_eq!(place.logged(&["WARN", "out.log", words]), 1, "once, not each time");
            kill(engine);
            drop(spell);
            let engine = place.start();
            place.await_whole("disk/out.log", 40_000);
            place.await_healthy();
            assert_eq!(place.metric("wpgen_sink_state{sink=\"out\",state=\"ready\"}"), 1.0);
            engine.stop();
            place.await_whole("disk/out.log", 40_000);
        }
    }
}

#[test]
fn an_output_that_takes_a_part_of_each_write_has_everything_once() {
    for io in BACKENDS {
        let Some((place, disk)) = to_faulty(io, "") else { return };
        let spell = disk.strike(&[On::Write], Fault::Short);
        let engine = place.start();
        for from in (1..30_000).step_by(50) {
            place.write(from..from + 50);
        }
        place.write(30_001..60_000);
        place.await_delivered(60_000);
        assert!(disk.struck() > 10);
        drop(spell);
        kill(engine);
        let engine = place.start();
        place.await_whole("disk/out.log", 60_000);
        engine.stop();
        place.await_whole("disk/out.log", 60_000);
    }
}

/// The next sync that succeeds says nothing of what the failed one lost.
#[test]
fn what_a_failed_sync_loses_is_written_again() {
    for io in BACKENDS {
        for rescue in ["", "rescue = true"] {
            let Some((place, disk)) = to_faulty(io, rescue) else { return };
            let engine = place.start();
            let mut lines = 1;
            for round in 0..3 {
                place.write(lines..lines + 5000);
                lines += 5000;
                place.await_delivered(lines);
                let spell = disk.strike(&[On::Sync], EIO);
                let struck = disk.struck();
                until("a sync fails", || {
                    // What is small is pending in blocks, what is large goes past the page cache.
                    let more = if round == 1 { 20_000 } else { 100 };
                    place.write(lines..lines + more);
                    lines += more;
                    disk.struck() > struck
                });
                if rescue.is_empty() {
                    place.await_trouble("syncing: Input/output error", || ());
                    assert!(place.delivered() < lines as u64, "what fsync refused is not delivered");
                }
                drop(spell);
                place.await_delivered(lines);
                place.await_healthy();
            }
            until("the rescue is empty", || {
                rescue.is_empty() || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0
            });
            kill(engine);
            let engine = place.start();
            place.await_whole("disk/out.log", lines);
            engine.stop();
            place.await_whole("disk/out.log", lines);
        }
    }
}

#[test]
fn an_output_that_does_not_answer_holds_its_sources_back() {
    for io in BACKENDS {
        for on in [On::Write, On::Sync] {
            let Some((place, disk)) = to_faulty(io, "") else { return };
            let engine = place.start();
            place.write(1..1000);
            place.await_delivered(1000);
            let spell = disk.strike(&[on], Fault::Stall);
            let struck = disk.struck();
            place.write(1000..20_000);
            until("it waits", || disk.struck() > struck);
            assert!(place.delivered() < 20_000);
            drop(spell);
            place.await_delivered(20_000);
            place.await_healthy();
            engine.stop();
            place.await_whole("disk/out.log", 20_000);
        }
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_stops_nothing_and_a_kill_then_repeats_nothing_in_files() {
    for io in BACKENDS {
        for on in [On::Write, On::Sync, On::Names] {
            let place = Place::to_file(io, "out.log", "");
            let Some(disk) = place.faulty("data") else { return };
            let engine = place.start();
            let mut lines = 1000;
            place.write(1..lines);
            place.await_checkpoint(lines);
            let spell = disk.strike(&[on], EIO);
            place.await_trouble("the checkpoint cannot be written: Input/output error", || {
                place.write(lines..lines + 100);
                lines += 100;
            });
            place.await_delivered(lines);
            assert_eq!(place.metric("wpgen_checkpoint_up"), 0.0);
            place.await_retries("wpgen_checkpoint_failures_total");
            assert_eq!(
                place.logged(&["ERROR", "writing the checkpoint", "Input/output"]),
                1,
                "once, not each time"
            );
            kill(engine);
            drop(spell);
            let spell = disk.strike(&[On::Read, On::Write], Fault::Short);
            let engine = place.start();
            place.write(lines..lines + 1000);
            lines += 1000;
            place.await_checkpoint(lines);
            place.await_healthy();
            assert_eq!(place.metric("wpgen_checkpoint_up"), 1.0);
            engine.stop();
            drop(spell);
            place.await_whole("out.log", lines);
        }
    }
}

#[test]
fn a_checkpoint_whose_disk_does_not_answer_is_written_when_it_does() {
    for io in BACKENDS {
        let place = Place::to_file(io, "out.log", "");
        let Some(disk) = place.faulty("data") else { return };
        let engine = place.start();
        place.write(1..1000);
        place.await_checkpoint(1000);
        let spell = disk.strike(&[On::Sync], Fault::Stall);
        place.write(1000..20_000);
        // Records go on: what is in the file is delivered, whether it is in the checkpoint or not.
        place.await_delivered(20_000);
        until("it waits", || disk.struck() > 0);
        // What runs is written down when it can be.
        assert_eq!(place.reload(), (Some(0), String::new()));
        drop(spell);
        place.await_checkpoint(20_000);
        place.await_healthy();
        engine.stop();
        place.await_whole("out.log", 20_000);
    }
}

#[test]
fn a_rescue_whose_disk_fails_keeps_what_it_has_and_sends_it_when_it_can() {
    const LINES: usize = 60_000;
    for io in BACKENDS {
        for (on, attempt) in [(On::Write, "writing"), (On::Sync, "writing"), (On::Names, "writing")] {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let params = format!(
                "rescue = true\nconnect = \"tcp_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", \
                 reconnect_min = \"20ms\", reconnect_max = \"100ms\" }}"
            );
            let place = Place::new(io, &params);
            let Some(disk) = place.faulty("data/rescue") else { return };
            let engine = place.start();
            // Names are needed when a segment of 8 MiB is followed by another one.
            let mut lines = 1;
            let spell = disk.strike(&[On::Read, On::Write], Fault::Short);
            place.write(lines..LINES / 2);
            lines = LINES / 2;
            place.await_delivered(lines);
            drop(spell);
            let spell = disk.strike(&[on], EIO);
            let words = format!("the rescue of sink 'out' does not work: {attempt}: Input/output error");
            place.await_trouble(&words, || {
                if lines < 4 * LINES {
                    place.write(lines..lines + 10_000);
                    lines += 10_000;
                }
            });
            assert!(place.delivered() < lines as u64);
            assert_eq!(place.metric("wpgen_sink_rescue_up{sink=\"out\"}"), 0.0);
            place.await_retries("wpgen_sink_rescue_refusals_total{sink=\"out\"}");
            assert_eq!(
                place.logged(&["ERROR", "rescue of sink 'out'", "Input/output"]),
                1,
                "once, not each time"
            );
            drop(spell);
            place.await_delivered(lines);
            assert_eq!(place.metric("wpgen_sink_rescue_up{sink=\"out\"}"), 1.0);
            // What is there cannot be read for a while, and then comes in parts; what is sent cannot be removed.
            let spell = disk.strike(&[On::Read], EIO);
            let peer = Peer::listen(port);
            place.await_trouble("the rescue of sink 'out' does not work: reading: Input/output error", || ());
            drop(spell);
            let spell = disk.strike(&[On::Read], Fault::Short);
            peer.await_last(lines - 1);
            drop(spell);
            until("the rescue is empty", || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0);
            place.await_healthy();
            engine.stop();
            assert_eq!(repeated(&peer.lines(), lines), 0, "nobody was killed");
            peer.end();
        }
    }
}

#[test]
fn what_a_rescue_has_sent_and_cannot_remove_is_removed_later_and_not_sent_again() {
    const LINES: usize = 200_000;
    for io in BACKENDS {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let params = format!(
            "rescue = true\nconnect = \"tcp_sink\"\nparams = {{ addr = \"127.0.0.1:{port}\", reconnect_min = \"20ms\", \
             reconnect_max = \"100ms\" }}"
        );
        let place = Place::new(io, &params);
        let Some(disk) = place.faulty("data/rescue") else { return };
        let engine = place.start();
        place.write(1..LINES);
        place.await_delivered(LINES);
        let spell = disk.strike(&[On::Names], EIO);
        let peer = Peer::listen(port);
        peer.await_last(LINES - 1);
        until_ok("it says so", || {
            let said = place.logged(&["WARN", "cannot be removed", "Input/output"]);
            if said == 1 { Ok(()) } else { Err(said) }
        });
        drop(spell);
        until("the rescue is empty", || place.metric("wpgen_sink_rescue_bytes{sink=\"out\"}") == 0.0);
        let left = std::fs::read_dir(place.path("data/rescue/out")).unwrap().count();
        assert_eq!(left, 0);
        engine.stop();
        place.start().stop();
        assert_eq!(repeated(&peer.lines(), LINES), 0, "nobody was killed");
        peer.end();
    }
}
