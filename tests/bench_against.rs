//! `bench run --against` real programs, as Debian has them and as `benches/against` starts them, on the same input in
//! alternation: what they wrote is found, verified, and set beside ours.

use std::path::Path;

use serde_json::Value;

use crate::cli::run;
use crate::senders::Debian;

/// Runs a case beside a command; both rows.
fn beside(case: &str, command: &str) -> [Value; 2] {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let common = ["bench", "run", "--json", "--rounds", "1", "--duration", "300ms", "--rate", "5k"];
    let more =
        ["--messages", "5000", "--sink", "file", "--scratch", dir, "--case", case, "--against", command];
    let ran = run(folder.path(), &[&common[..], &more].concat());
    assert_eq!(ran.code, Some(0), "{command}: {}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(report["ratios"][0]["messages_per_s"].as_f64() > Some(0.0), "{report:#}");
    [report["results"][0].clone(), report["results"][1].clone()]
}

/// Whoever is measured wrote what it was sent over TCP, all of it and nothing twice.
fn wrote_everything(row: &Value) {
    let account = ["lost", "duplicated", "corrupted"].map(|key| row[key].as_u64());
    assert_eq!(account, [Some(0); 3], "{row:#}");
    assert!(row["messages"].as_u64() > Some(0) && row["memory_peak_bytes"].as_u64() > Some(0), "{row:#}");
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/against").join(name).display().to_string()
}

#[test]
fn rsyslog_and_syslog_ng_get_the_same_messages() {
    let Some(debian) = Debian::unpacked() else { return };
    let libraries = debian.libraries();
    let modules = debian.rsyslog_modules();
    let at = |program: &str| debian.root.join(program).display().to_string();
    let rsyslog = format!(
        "LD_LIBRARY_PATH={libraries} RSYSLOGD={} RSYSLOG_MODULES={} {}",
        at("usr/sbin/rsyslogd"),
        modules.display(),
        script("rsyslog")
    );
    let syslog_ng = format!(
        "LD_LIBRARY_PATH={libraries} SYSLOGNG_PREFIX={} SYSLOG_NG={} {}",
        at("usr"),
        at("usr/sbin/syslog-ng"),
        script("syslog-ng")
    );
    for command in [rsyslog, syslog_ng] {
        beside("tcp", &command).iter().for_each(wrote_everything);
        // What a busy machine loses of datagrams is not the bench's; that both took some is.
        let [ours, theirs] = beside("udp", &command);
        assert!(ours["messages"].as_u64() > Some(0) && theirs["messages"].as_u64() > Some(0), "{theirs:#}");
    }
}

#[test]
fn whoever_throws_it_away_is_measured_too() {
    let [ours, theirs] = beside("file", "cat > /dev/null");
    assert_eq!((ours["messages"].as_u64(), theirs["messages"].as_u64()), (Some(5000), Some(5000)));
    // Nothing was written that could be verified.
    assert!(theirs["lost"].is_null() && theirs["cpu_s"].as_f64() >= Some(0.0), "{theirs:#}");
}

#[test]
fn how_a_program_ended_that_said_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let common = ["bench", "run", "--case", "file", "--rounds", "1", "--messages", "100", "--scratch", "."];
    let ran = run(folder.path(), &[&common[..], &["--against", "exit 3"]].concat());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("error: exit 3 failed (exit status 3)\n"), "{}", ran.err);
}
