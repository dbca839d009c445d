//! WP101 to WP106.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{NOBODY, examine, is_root, line_with, of_code, run_as_nobody, shell, texts};
use crate::cli::run;
use crate::harness::{Site, fifo, until};

const SINK: &str = "path = \"out\"\nformat = \"raw\"";

#[test]
fn wp101_a_missing_file_names_the_near_one_and_works_when_that_is_written() {
    let site = Site::new("auto", "path = \"in/ap.log\"\nmode = \"once\"", SINK);
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    let (code, checks) = examine(site.folder());
    let found = of_code(&checks, "WP101").unwrap();
    assert_eq!(
        (code, &found["subject"], &found["place"]["line"]),
        (Some(2), &"source 'app'".into(), &7.into())
    );
    let path = site.path("in/ap.log");
    assert!(found["found"].as_str().unwrap().contains(path.to_str().unwrap()), "{found}");
    let deepest = format!("the deepest folder that exists is {}", site.path("in").display());
    assert!(texts(found, "notes").contains(&deepest), "{found}");
    let help = texts(found, "help");
    let near = help.split("near names there: ").nth(1).unwrap();
    site.configure("auto", &format!("path = \"in/{near}\"\nmode = \"once\""), SINK);
    assert_eq!(run(site.folder(), &["source", "start"]).code, Some(0));
    assert_eq!(site.read("out"), b"one\n");
}

/// A site that nobody may enter and write in, with a log that nobody may read.
fn closed_to_nobody() -> Site {
    let site = Site::new("auto", "path = \"in/app.log\"\nmode = \"once\"", SINK);
    fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    fs::set_permissions(site.path("in/app.log"), Permissions::from_mode(0o600)).unwrap();
    site
}

#[test]
fn wp102_an_unreadable_file_names_owner_mode_and_us_and_its_command_mends_it() {
    if !is_root() {
        return;
    }
    let site = closed_to_nobody();
    let ran = run_as_nobody(site.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1));
    let path = site.path("in/app.log");
    for part in [
        "error[WP102]",
        "Permission denied (os error 13)",
        &format!("the file {} has owner root, group root, mode 0600", path.display()),
        "(uid 65534), who may not read it",
    ] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    shell(line_with(&ran.err, "chmod o+r "));
    let ran = run_as_nobody(site.folder(), &["source", "start"]);
    assert_eq!((ran.code, site.read("out")), (Some(0), b"one\n".to_vec()), "{}", ran.err);
}

#[test]
fn wp102_a_folder_that_blocks_is_named_and_its_command_mends_it() {
    if !is_root() {
        return;
    }
    let site = closed_to_nobody();
    fs::set_permissions(site.path("in/app.log"), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(site.path("in"), Permissions::from_mode(0o700)).unwrap();
    let tried = run_as_nobody(site.folder(), &["source", "test"]);
    assert_eq!(tried.code, Some(1));
    let blocks = format!("the folder {} has owner root", site.path("in").display());
    assert!(tried.out.contains("[WP102]") && tried.out.contains(&blocks), "{}", tried.out);
    shell(line_with(&tried.out, "chmod o+x "));
    assert_eq!(run_as_nobody(site.folder(), &["source", "test"]).code, Some(0));
}

#[test]
fn wp102_an_output_that_may_not_be_made_has_a_command_that_makes_it_ours() {
    if !is_root() {
        return;
    }
    let site = Site::new("auto", "path = \"in/app.log\"\nmode = \"once\"", "path = \"closed/out/app.log\"");
    fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    fs::create_dir(site.path("closed")).unwrap();
    fs::set_permissions(site.path("closed"), Permissions::from_mode(0o755)).unwrap();
    let tried = run_as_nobody(site.folder(), &["source", "test"]);
    assert!(tried.out.contains("[WP102] cannot make "), "{}", tried.out);
    shell(line_with(&tried.out, "install -d -o "));
    assert_eq!(fs::metadata(site.path("closed/out")).unwrap().uid(), NOBODY);
    let ran = run_as_nobody(site.folder(), &["source", "start"]);
    assert_eq!((ran.code, site.read("closed/out/app.log")), (Some(0), b"one\n".to_vec()), "{}", ran.err);
}

#[test]
fn wp103_a_corrupt_line_is_named_by_line_and_offset_and_the_encoding_it_looks_like_works() {
    let site = Site::new("auto", "path = \"in/app.log\"\nmode = \"once\"\nencode = \"base64\"", SINK);
    fs::write(site.path("in/app.log"), "b25l\nb25l\nb2!l\n").unwrap();
    let ran = run(site.folder(), &["source", "start"]);
    let place = format!("[WP103] Invalid base64 encoding: {}:3:12:", site.path("in/app.log").display());
    let log = String::from_utf8(site.read("logs/wpgen.log")).unwrap();
    assert!(log.contains(&place) && log.contains("'!' is byte 3 of the line"), "{log}{}", ran.err);
    assert_eq!(site.read("out"), b"one\none\n");

    fs::write(site.path("in/app.log"), "plain text\n").unwrap();
    let tried = run(site.folder(), &["source", "test"]);
    assert!(tried.out.contains("[WP103]"), "{}", tried.out);
    let mend = line_with(&tried.out, "encode = ");
    site.configure("auto", &format!("path = \"in/app.log\"\nmode = \"once\"\n{mend}"), SINK);
    assert_eq!(run(site.folder(), &["source", "test"]).code, Some(0));
}

#[test]
fn wp104_a_locked_data_dir_names_the_engine_that_holds_it_and_another_folder_works() {
    let site = Site::new("auto", "path = \"in/*\"", SINK);
    fs::write(site.path("in/app.log"), "one\n").unwrap();
    let engine = site.start();
    // One that hangs holds its lock and answers nobody.
    engine.signal(libc::SIGSTOP);
    let (code, checks) = examine(site.folder());
    engine.signal(libc::SIGCONT);
    let found = of_code(&checks, "WP104").unwrap();
    assert_eq!(code, Some(2));
    let said = found["found"].as_str().unwrap();
    assert!(said.contains(&format!("PID {} (wpgen)", engine.pid())), "{said}");
    let mend = line_with(found["help"][0].as_str().unwrap(), "data_dir = ").to_owned();
    engine.stop();
    let config = fs::read_to_string(site.path("wpsrc.toml")).unwrap();
    fs::write(site.path("wpsrc.toml"), config.replace("[engine]\n", &format!("[engine]\n{mend}\n"))).unwrap();
    let (_, checks) = examine(site.folder());
    assert!(of_code(&checks, "WP104").is_none(), "{checks:?}");
    site.start().stop();
    assert!(site.path("data-second/checkpoint").exists());
}

#[test]
fn wp105_a_sink_that_holds_up_is_named_and_is_not_when_it_goes_on() {
    let site = Site::new("auto", "path = \"in/*\"", SINK);
    fs::write(site.path("in/app.log"), format!("{:99}\n", "x").repeat(600_000)).unwrap();
    fifo(&site.path("out"));
    let engine = site.start();
    until("the sink is found to limit", || {
        let (code, checks) = examine(site.folder());
        let found = of_code(&checks, "WP105").cloned();
        found.is_some_and(|found| {
            let said = found["found"].as_str().unwrap();
            code != Some(0)
                && said.contains("source 'app' waited for its sinks")
                && texts(&found, "notes").contains("sink 'out'")
        })
    });
    let mut reader = File::open(site.path("out")).unwrap();
    std::thread::spawn(move || {
        let mut piece = [0; 1 << 16];
        while reader.read(&mut piece).is_ok() {}
    });
    until("it limits no more", || {
        let (_, checks) = examine(site.folder());
        of_code(&checks, "WP105").is_none() && checks.iter().any(|check| check["subject"] == "engine")
    });
    engine.stop();
}

#[test]
fn wp106_a_memory_limit_that_is_used_up_names_who_holds_it() {
    let site = Site::empty();
    let mut config = "[engine]\nmemory_limit = \"16MiB\"\nworkers = 2\n[admin]\nlisten = \"\"\n".to_owned();
    for n in 0..8 {
        fs::write(site.path(&format!("in/{n}.log")), format!("{:99}\n", n).repeat(100_000)).unwrap();
        config += &format!(
            "[[sources]]\nkey = \"s{n}\"\nconnect = \"file_src\"\nparams = {{ path = \"in/{n}.log\" }}\n\
             [[sinks]]\nkey = \"o{n}\"\nconnect = \"tcp_sink\"\nsources = [\"s{n}\"]\nparams = {{ addr = \"127.0.0.1:1\" }}\n"
        );
    }
    fs::write(site.path("wpsrc.toml"), config).unwrap();
    let engine = site.start();
    until("memory is used up", || {
        let (_, checks) = examine(site.folder());
        let found = of_code(&checks, "WP106").cloned();
        found.is_some_and(|found| {
            let said = found["found"].as_str().unwrap();
            let owners = texts(&found, "notes");
            assert!(said.contains("memory_limit (16777216)"), "{found}");
            assert!(owners.contains(" batches on their way to sinks"), "{found}");
            texts(&found, "help").contains("the sink that is slow")
        })
    });
    drop(engine);
}
