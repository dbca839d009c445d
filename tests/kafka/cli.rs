//! The binary under test, for what is shared with the other tests of it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// With nothing of the tester's environment that would change its words.
pub fn wpgen(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wpgen"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "RUST_LOG", "CLICOLOR", "CLICOLOR_FORCE", "WPGEN_LANG"] {
        command.env_remove(name);
    }
    command
}

/// Runs to the end.
pub fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::from(wpgen(folder, args).output().unwrap())
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
