//! What Prometheus and orchestrators see: the page, the law of conservation on it at every scrape, and health.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::cli::{run, wpgen};
use crate::harness::{Site, Writer, until};

/// The samples of a page, by name and labels as they are written.
type Samples = BTreeMap<String, f64>;

/// Reads a page as strictly as `promtool check metrics` does; a mistake in it fails the test.
pub fn parse(text: &str) -> Samples {
    let (mut samples, mut families) = (Samples::new(), BTreeSet::new());
    let mut family: Option<(String, String)> = None;
    assert!(text.ends_with('\n'), "the last line ends");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap();
            assert!(!help.is_empty() && families.insert(name.to_owned()), "{name} once, with help");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_owned();
            assert!(kind == "counter" || kind == "gauge", "{kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(
                name.starts_with("wpgen_")
                    && !["_ms", "_kb", "_percent"].iter().any(|unit| name.ends_with(unit))
            );
            family = Some((name.to_owned(), kind));
            continue;
        }
        let (name, kind) = family.as_ref().expect("samples stand behind their help");
        let rest = line.strip_prefix(name.as_str()).unwrap_or_else(|| panic!("{line} is no {name}"));
        let value = match rest.strip_prefix('{') {
            Some(labels) => behind_labels(labels),
            None => rest,
        };
        let value: f64 = value.strip_prefix(' ').unwrap().parse().unwrap();
        assert!(value.is_finite() && (kind == "gauge" || value >= 0.0), "{line}");
        let labelled = line.rsplit_once(' ').unwrap().0.to_owned();
        assert!(samples.insert(labelled, value).is_none(), "{line} stands twice");
    }
    samples
}

/// What stands behind the labels, which must be well formed.
fn behind_labels(mut labels: &str) -> &str {
    loop {
        let (name, value) = labels.split_once("=\"").unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with("__"));
        let mut escaped = false;
        let end = value.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            assert!(!escaped || matches!(b, b'\\' | b'"' | b'n'), "an escape that is none: {value}");
            escaped = b == b'\\' && !escaped;
            ends
        });
        let rest = &value[end.unwrap() + 1..];
        match rest.strip_prefix(',') {
            Some(more) => labels = more,
            None => return rest.strip_prefix('}').unwrap(),
        }
    }
}

/// Asks over TCP; the answer's code and body.
pub fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Puts an address of the admin API into a configuration.
fn open_admin(site: &Site) -> SocketAddr {
    let at = free_address();
    let path = site.path("wpsrc.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text.replace("listen = \"\"", &format!("listen = \"{at}\""))).unwrap();
    at
}

/// Checks the law for the source `app` between two scrapes, and returns what is received and what is in flight.
fn check_law(samples: &Samples, before: &Samples) -> (f64, f64) {
    let of = |what: &str| samples[&format!("wpgen_source_{what}{{source=\"app\"}}")];
    let dropped = samples.iter().filter(|(name, _)| name.starts_with("wpgen_source_dropped_records_total{"));
    let dropped: f64 = dropped.map(|(_, n)| n).sum();
    let (received, in_flight) = (of("received_records_total"), of("in_flight_records"));
    let out = of("delivered_records_total") + of("rejected_records_total") + dropped;
    assert!(
        out <= received && in_flight == received - out,
        "received {received}, out {out}, in flight {in_flight}"
    );
    for (name, value) in samples.iter().filter(|(name, _)| name.contains("_total")) {
        assert!(before.get(name).is_none_or(|before| before <= value), "{name} went back");
    }
    (received, in_flight)
}

#[test]
fn the_law_holds_at_every_scrape_through_load_and_reloads() {
    let site = Site::new(
        "auto",
        "path = \"in/*.log\"\nstart = \"beginning\"\nmax_line_bytes = 64\nlong_lines = \"drop\"",
        "path = \"out.log\"",
    );
    let at = open_admin(&site);
    let writer = Writer::start(&site.path("in/a.log"));
    let engine = site.start();
    let config = std::fs::read_to_string(site.path("wpsrc.toml")).unwrap();
    let (mut before, mut flown) = (Samples::new(), 0.0f64);
    for scrape in 0..300 {
        if scrape % 60 == 30 {
            let more = "[[sinks]]\nkey = \"more\"\nconnect = \"blackhole_sink\"\n";
            let added = scrape % 120 == 30;
            std::fs::write(
                site.path("wpsrc.toml"),
                if added { config.clone() + more } else { config.clone() },
            )
            .unwrap();
            engine.signal(libc::SIGHUP);
        }
        let (code, text) = get(at, "/metrics");
        assert_eq!(code, 200);
        let samples = parse(&text);
        let (_, in_flight) = check_law(&samples, &before);
        flown = flown.max(in_flight);
        // Eight batches of 1 MiB on each of two shards, and a run on the way: nothing else can be in flight.
        assert!(in_flight <= 2.0 * 9.0 * 1_048_576.0 / 10.0, "{in_flight}");
        before = samples;
    }
    let written = writer.end() as f64;
    until("all is out", || {
        let samples = parse(&get(at, "/metrics").1);
        check_law(&samples, &before) == (written, 0.0)
    });
    assert!(flown > 0.0, "something was in flight at some scrape");
    let samples = parse(&get(at, "/metrics").1);
    assert!(samples["wpgen_source_dropped_records_total{source=\"app\",reason=\"too_long\"}"] > 0.0);
    assert!(samples["wpgen_checkpoint_writes_total"] > 0.0 && samples["wpgen_checkpoint_age_seconds"] < 60.0);
    engine.stop();
}

#[test]
fn health_turns_with_the_sinks_and_the_law_holds_while_one_is_down() {
    let site = Site::new("auto", "path = \"in/*.log\"\nstart = \"beginning\"", "path = \"pipe\"");
    // A FIFO without a reader: the sink waits.
    let pipe = std::ffi::CString::new(site.path("pipe").to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string that lives for the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let at = open_admin(&site);
    let engine = site.start();
    assert_eq!((get(at, "/health/live").0, get(at, "/health/ready").0), (200, 200));
    std::fs::write(site.path("in/a.log"), "00000000 a\n00000001 b\n").unwrap();
    until("it is not ready", || get(at, "/health/ready").0 == 503);
    let (_, body) = get(at, "/health/ready");
    assert!(body.contains("sink 'out' waits") && body.contains("degraded"), "{body}");
    assert_eq!(get(at, "/health/live").0, 200, "it is alive all the same");
    let samples = parse(&get(at, "/metrics").1);
    assert_eq!(check_law(&samples, &Samples::new()), (2.0, 2.0));
    assert_eq!(samples["wpgen_sink_state{sink=\"out\",state=\"waiting\"}"], 1.0);
    let mut text = [0; 22];
    std::fs::File::open(site.path("pipe")).unwrap().read_exact(&mut text).unwrap();
    until("it is ready", || get(at, "/health/ready").0 == 200);
    until("nothing is in flight", || {
        check_law(&parse(&get(at, "/metrics").1), &Samples::new()) == (2.0, 0.0)
    });
    engine.stop();
}

#[test]
fn an_address_that_was_chosen_must_be_free_and_the_default_gives_way() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.log"), "one\n").unwrap();
    let config = |admin: &str| {
        let text = format!(
            "{admin}\n[[sources]]\nkey = \"app\"\nconnect = \"file_src\"\nparams = {{ path = \"app.log\", mode = \"once\" }}\n\
             [[sinks]]\nkey = \"out\"\nconnect = \"blackhole_sink\"\n"
        );
        std::fs::write(folder.path().join("wpsrc.toml"), text).unwrap();
        wpgen(folder.path(), &["source", "start"]).output().unwrap()
    };
    let refused = config(&format!("[admin]\nlisten = \"{}\"", taken.local_addr().unwrap()));
    let err = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{err}");
    assert!(err.contains("error[WP301]: the admin API: Address already in use"), "{err}");
    let open = config("[admin]\nlisten = \"0.0.0.0:0\"");
    assert_eq!(open.status.code(), Some(3), "open to the world without a token");
    let nowhere = config("[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"nope\"");
    let err = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert_eq!(nowhere.status.code(), Some(3), "{err}");
    assert!(err.contains("wpsrc.toml:3:"), "{err}");
    // Another engine may have the default: then this one holds it.
    let _default = TcpListener::bind("127.0.0.1:8080");
    let well = config("");
    let err = String::from_utf8_lossy(&well.stderr).into_owned();
    assert_eq!(well.status.code(), Some(0), "{err}");
    assert!(err.contains("warning: no admin API: the admin API: Address already in use"), "{err}");
    assert_eq!(run(folder.path(), &["-q", "source", "start"]).err, "");
}

#[test]
fn a_tag_raises_an_alert_and_everybody_sees_it() {
    let tags = "encode = \"hex\"\nstart = \"beginning\"\npath = \"in/*.log\"";
    let site = Site::new("auto", tags, "path = \"out.log\"");
    let at = open_admin(&site);
    let path = site.path("wpsrc.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let tags = "tags = [\"alert_on_error:true\", \"alert_threshold:2\"]\n";
    std::fs::write(
        &path,
        text.replace("connect = \"file_src\"\n", &format!("connect = \"file_src\"\n{tags}")),
    )
    .unwrap();
    let engine = site.start();
    until("it waits for a file that matches", || {
        String::from_utf8(site.read("logs/wpgen.log")).unwrap().contains("no file matches")
    });
    let active = || parse(&get(at, "/metrics").1)["wpgen_alert_active{source=\"app\",alert=\"error\"}"];
    std::fs::write(site.path("in/a.log"), "6162\nno hex\n").unwrap();
    // That there was no file yet is no error.
    until("the first bad line is counted, and nothing else", || {
        parse(&get(at, "/metrics").1)["wpgen_source_errors_total{source=\"app\"}"] == 1.0
    });
    assert_eq!(active(), 0.0, "below the threshold");
    std::fs::write(site.path("in/b.log"), "neither\n6364\n").unwrap();
    until("the alert is active", || active() == 1.0);
    let health: serde_json::Value = serde_json::from_str(&get(at, "/api/system/health").1).unwrap();
    assert_eq!(
        (&health["data"]["alerts"][0]["source"], &health["data"]["alerts"][0]["alert"]),
        (&"app".into(), &"error".into())
    );
    let told = run(site.folder(), &["source", "status"]);
    assert!(told.out.contains("app error: 2 errors in the last minute"), "{} {}", told.out, told.err);
    until("the log warns of it", || {
        let log = String::from_utf8(site.read("logs/wpgen.log")).unwrap();
        log.lines().any(|line| line.contains("[WARN]") && line.contains("source 'app': alert error"))
    });
    engine.stop();
}
