//! Where io_uring is refused, the engine runs on epoll with the same result, and says why in one line.
//!
//! With WPGEN_TEST_NO_URING set, every engine of all these tests runs so: what they ask of io_uring they ask of `auto`.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const CONFIGURATION: &str = r#"
[engine]
io = "IO"
[admin]
listen = ""
[[sources]]
key = "lines"
connect = "file_src"
params = { path = "in.log", mode = "once" }
[[sinks]]
key = "copy"
connect = "file_sink"
params = { path = "out.log" }
"#;

/// Whether every engine is to be refused io_uring.
pub fn is_asked() -> bool {
    std::env::var_os("WPGEN_TEST_NO_URING").is_some()
}

/// The word for `io` in a test's configuration: who asks for io_uring and is refused does not start.
pub fn io(wanted: &str) -> &str {
    if is_asked() && wanted == "uring" { "auto" } else { wanted }
}

/// Has io_uring refused to a program, where that is asked for.
pub fn filter(command: &mut Command) {
    if is_asked() {
        // SAFETY: between fork and exec the closure only makes two system calls.
        unsafe { command.pre_exec(refuse_io_uring) };
    }
}

/// Has the kernel answer io_uring_setup with EPERM, as container runtimes' default profiles do.
pub fn refuse_io_uring() -> io::Result<()> {
    const LOAD_NUMBER: libc::sock_filter = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let is_setup = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: 425 };
    let refuse = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x0005_0000 | libc::EPERM.cast_unsigned() };
    let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut filter = [LOAD_NUMBER, is_setup, refuse, allow];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: prctl takes numbers and a program that lives for the call; the kernel copies it.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn run_filtered(folder: &Path, io: &str) -> Output {
    std::fs::write(folder.join("wpsrc.toml"), CONFIGURATION.replace("IO", io)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
    command.args(["source", "start", "wpsrc.toml", "--no-daemon"]).current_dir(folder);
    // SAFETY: between fork and exec the closure only makes two system calls.
    unsafe { command.pre_exec(refuse_io_uring) };
    command.output().unwrap()
}

#[test]
fn a_seccomp_filter_means_epoll_and_the_same_output() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..50_000).map(|n| format!("{n} {}\n", "x".repeat(n % 97))).collect();
    std::fs::write(folder.path().join("in.log"), &lines).unwrap();
    let output = run_filtered(folder.path(), "auto");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(std::fs::read_to_string(folder.path().join("out.log")).unwrap() == lines);
    let refusals: Vec<&str> = said.lines().filter(|line| line.contains("io_uring is refused")).collect();
    assert_eq!(refusals.len(), 1, "{said}");
    assert!(refusals[0].contains("seccomp") && refusals[0].contains("epoll"), "{said}");
}

#[test]
fn io_uring_that_is_asked_for_and_refused_is_an_error_with_its_mend() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.log"), "one\n").unwrap();
    let output = run_filtered(folder.path(), "uring");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("seccomp") && said.contains("io = \"auto\""), "{said}");
}
