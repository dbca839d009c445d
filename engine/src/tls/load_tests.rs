//! Files that cannot be used, and what is said of those that can.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};

use super::load;
use super::rig::Papers;

fn openssl(papers: &Papers, args: &[&str]) {
    let folder = papers.path("");
    let output = Command::new("openssl").current_dir(folder).args(args).output().expect("openssl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn dates_are_warned_of_in_time() {
    let papers = Papers::new();
    let path = papers.path("server.pem");
    let certificate = &load::certificates(&path).unwrap()[0];
    let said = |days: i64| {
        let now = Timestamp::now() + SignedDuration::from_hours(24 * days);
        load::warn_of_dates(&path, certificate, now).map(|finding| finding.message)
    };
    // It was made for 90 days.
    assert_eq!(said(0), None);
    assert_eq!(said(59), None);
    for (days, words) in
        [(61, "expires within 30 days, on "), (91, "has expired on "), (-1, "is not valid before ")]
    {
        let said = said(days).unwrap_or_default();
        assert!(said.contains(words) && said.contains("server.pem"), "{days}: {said}");
    }
}

#[test]
fn a_key_that_everybody_may_read_is_warned_of() {
    let papers = Papers::new();
    let key = papers.path("server.key");
    for (mode, is_told) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load::warn_of_mode(&key).is_some(), is_told, "{mode:o}");
    }
}

#[test]
fn other_forms_are_recognised_and_the_command_is_named() {
    let papers = Papers::new();
    openssl(&papers, &["x509", "-in", "server.pem", "-outform", "DER", "-out", "server.der"]);
    openssl(&papers, &["pkey", "-in", "server.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"]);
    let binary = load::certificates(&papers.path("server.der")).unwrap_err();
    assert!(
        binary.notes[0].contains("DER") && binary.help[0].contains("openssl x509 -inform DER"),
        "{binary:?}"
    );
    let locked = load::key(&papers.path("locked.key")).unwrap_err();
    assert!(locked.message.contains("passphrase") && locked.help[0].contains("openssl pkey"), "{locked:?}");
    let swapped = load::certificates(&papers.path("server.key")).unwrap_err();
    assert!(swapped.help[0].contains("look swapped"), "{swapped:?}");
    let folder = load::key(&papers.path("")).unwrap_err();
    assert!(folder.message.contains("no PEM file"), "{folder:?}");
    let broken = std::fs::read_to_string(papers.path("server.pem")).unwrap().replace("-----END", "");
    std::fs::write(papers.path("broken.pem"), broken).unwrap();
    assert!(load::certificates(&papers.path("broken.pem")).is_err());
}
