//! WP101 to WP106.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::{NOBODY, examine, is_root, line_with, of_code, run_as_nobody, shell, texts};
use crate::cli::run;
use crate::harness::{Site, Started, fifo, until, until_ok};

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
fn wp102_an_unreadable_configuration_has_the_command_that_mends_it_first() {
    if !is_root() {
        return;
    }
    let site = closed_to_nobody();
    fs::set_permissions(site.path("wpsrc.toml"), Permissions::from_mode(0o600)).unwrap();
    let ran = run_as_nobody(site.folder(), &["source", "validate"]);
    assert_eq!(ran.code, Some(1));
    let path = site.path("wpsrc.toml");
    let mend = format!("help: chmod o+r {}", path.display());
    for part in
        ["error[WP102]: cannot read 'wpsrc.toml'", "owner root, group root, mode 0600", "(uid 65534)", &mend]
    {
        assert!(ran.out.contains(part), "{part} in {}", ran.out);
    }
    shell(line_with(&ran.out, "chmod o+r "));
    assert_eq!(run_as_nobody(site.folder(), &["source", "validate"]).code, Some(0));
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
    let started = run_as_nobody(site.folder(), &["source", "start"]);
    assert!(started.code == Some(1) && started.err.contains("error[WP102]: sink "), "{}", started.err);
    assert!(started.err.contains("install -d -o "), "{}", started.err);
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

/// Two engines that write one file: the first runs, the second is a site whose output is the first one's.
fn two_on_one_output() -> (Started, Site, Site) {
    let first = Site::new("auto", "path = \"in/*\"", SINK);
    fs::write(first.path("in/app.log"), "one\n").unwrap();
    let engine = first.start();
    until("the output is open", || first.read("out") == b"one\n");
    let sink = format!("path = \"{}\"\nformat = \"raw\"", first.path("out").display());
    let second = Site::new("auto", "path = \"in/*\"", &sink);
    fs::write(second.path("in/app.log"), "two\n").unwrap();
    (engine, first, second)
}

#[test]
fn wp104_a_locked_output_names_its_engine_before_a_start_and_the_command_frees_it() {
    let (engine, first, second) = two_on_one_output();
    let by = format!("in use by another engine, PID {} (wpgen)", engine.pid());
    let tried = run(second.folder(), &["source", "test"]);
    assert_eq!(tried.code, Some(1));
    assert!(tried.out.contains("[WP104]") && tried.out.contains(&by), "{}", tried.out);
    assert!(tried.out.contains("Resource busy (os error 16)"), "{}", tried.out);
    let (code, checks) = examine(second.folder());
    let found = of_code(&checks, "WP104").unwrap();
    assert!(code == Some(2) && found["found"].as_str().unwrap().contains(&by), "{found}");
    // Its own engine is no stranger.
    let own = run(first.folder(), &["source", "test"]);
    assert!(
        own.code == Some(0) && own.out.contains("out is written by the engine that runs here"),
        "{}",
        own.out
    );
    assert!(of_code(&examine(first.folder()).1, "WP104").is_none());
    let ran = run(second.folder(), &["source", "start"]);
    assert_eq!(ran.code, Some(1));
    shell(line_with(&ran.err, "kill -TERM "));
    assert_eq!(engine.end().code, Some(0));
    assert_eq!(run(second.folder(), &["source", "test"]).code, Some(0));
    second.start().stop();
}

#[test]
fn wp104_where_a_holder_cannot_be_seen_it_says_which_right_would_show_it() {
    if !is_root() {
        return;
    }
    let (engine, first, second) = two_on_one_output();
    for path in [first.path("out"), second.path("wpsrc.toml")] {
        fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
    }
    for folder in [first.folder(), second.folder()] {
        fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    }
    for command in ["start", "test"] {
        let ran = run_as_nobody(second.folder(), &["source", command]);
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, Some(1), "{said}");
        for part in ["[WP104]", "in use by another process", "uid 65534", "CAP_SYS_PTRACE"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert!(!said.contains("kill"), "nobody is named who was not found: {said}");
    }
    engine.stop();
}

#[test]
fn wp104_a_lock_of_another_users_program_is_found_in_the_kernels_table() {
    if !is_root() {
        return;
    }
    let site = Site::new("auto", "path = \"in/*\"", SINK);
    fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
    let out = File::create(site.path("out")).unwrap();
    out.set_permissions(Permissions::from_mode(0o666)).unwrap();
    // SAFETY: an all-zero flock is valid, and the descriptor is open.
    unsafe {
        let mut whole: libc::flock = std::mem::zeroed();
        whole.l_type = libc::F_WRLCK as libc::c_short;
        assert_eq!(libc::fcntl(out.as_raw_fd(), libc::F_SETLK, &raw const whole), 0);
    }
    let ran = run_as_nobody(site.folder(), &["source", "start"]);
    let by = format!("PID {} (", std::process::id());
    assert!(ran.err.contains("error[WP104]") && ran.err.contains(&by), "{}", ran.err);
}

#[test]
fn wp104_who_has_a_sources_file_open_is_told() {
    let site = Site::new("auto", "path = \"in/app.log\"", SINK);
    let mut writer = Command::new("sh");
    writer.args(["-c", "exec 3>> in/app.log; echo one >&3; exec sleep 600"]).current_dir(site.folder());
    let mut writer = writer.spawn().unwrap();
    until("it has written", || fs::read(site.path("in/app.log")).is_ok_and(|text| text == b"one\n"));
    let by = format!("sleep (PID {}, writes)", writer.id());
    until_ok("it is told", || {
        let tried = run(site.folder(), &["source", "test"]);
        assert_eq!(tried.code, Some(0), "{}", tried.out);
        if tried.out.contains(&by) { Ok(()) } else { Err(tried.out) }
    });
    let (_, checks) = examine(site.folder());
    let source = checks.iter().find(|check| check["subject"] == "source 'app'").unwrap();
    assert!(source["verdict"] == "ok" && source["found"].as_str().unwrap().contains(&by), "{source}");
    if is_root() {
        fs::set_permissions(site.folder(), Permissions::from_mode(0o777)).unwrap();
        let tried = run_as_nobody(site.folder(), &["source", "test"]);
        assert!(tried.out.contains("no process that we see has it open"), "{}", tried.out);
        assert!(tried.out.contains("CAP_SYS_PTRACE"), "{}", tried.out);
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
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
        while reader.read(&mut piece).is_ok_and(|read| read > 0) {}
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
    until_ok("memory is used up", || {
        let (_, checks) = examine(site.folder());
        let found = of_code(&checks, "WP106").cloned().ok_or_else(|| format!("{checks:#?}"))?;
        assert!(found["found"].as_str().unwrap().contains("memory_limit (16777216)"), "{found}");
        assert!(texts(&found, "notes").contains(" batches on their way to sinks"), "{found}");
        if texts(&found, "help").contains("the sink that is slow") { Ok(()) } else { Err(found.to_string()) }
    });
    drop(engine);
}
