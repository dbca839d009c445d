//! The guides' symptoms, provoked for real: each is told with its code, the cause that was found, and a mend that mends.
//!
//! Rows that other tests provoke with code and cause are only mended here: WP104 on an output ([`crate::refusals`]), kernel
//! drops to the last one ([`crate::loss`]), WP303 of a sink ([`crate::relay`]), every finding of the configuration by
//! line and column (`config/tests/findings.rs` of the engine).

mod configuration;
mod examined;
mod files;
mod guides;
mod mutations;
mod network;
mod pages;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli::{Ran, run, wpgen};

/// A user that owns nothing and may nothing.
const NOBODY: u32 = 65534;

/// What `doctor --json` found, and its exit code.
fn examine(folder: &Path) -> (Option<i32>, Vec<Value>) {
    let ran = run(folder, &["doctor", "--json"]);
    (ran.code, checks(&ran))
}

fn checks(ran: &Ran) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err));
    report["checks"].as_array().unwrap().clone()
}

/// The check of a code, if there is one.
fn of_code<'a>(checks: &'a [Value], code: &str) -> Option<&'a Value> {
    checks.iter().find(|check| check["code"] == code)
}

/// The texts of a list in a check.
fn texts(check: &Value, name: &str) -> String {
    let list = check[name].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

fn is_root() -> bool {
    // SAFETY: it asks for a number.
    unsafe { libc::geteuid() == 0 }
}

/// As one for whom permissions count, also where the tests run as root.
fn as_nobody(mut command: Command) -> Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Runs wpgen as nobody.
fn run_as_nobody(folder: &Path, args: &[&str]) -> Ran {
    Ran::from(as_nobody(wpgen(folder, args)).output().unwrap())
}

/// Runs a mend that is a command.
fn shell(command: &str) {
    let done = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(done.success(), "{command}");
}

/// The first line that begins so, from there on.
fn line_with<'a>(text: &'a str, begins: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.find(begins).map(|at| &line[at..]));
    found.unwrap_or_else(|| panic!("no {begins:?} in: {text}"))
}
