//! Who is measured: this engine as a process of its own, or another program that a shell command starts.
//!
//! Both run in a folder of their own that goes away with them. Another program is told where its input is by variables:
//! `WPGEN_BENCH_FILE` (it is its standard input, too), `WPGEN_BENCH_PORT`, and by `WPGEN_BENCH_OUT` where it may write,
//! which is then looked through for messages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// This file, to its end.
    File(PathBuf),
    /// Syslog over TCP on this port.
    Tcp(u16),
    /// Syslog over UDP on this port.
    Udp(u16),
}

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Contender {
    /// This engine; into a file, or into nothing.
    Engine {
        /// Whether it writes its records to a file.
        writes: bool,
    },
    /// Whatever this shell command starts.
    Command(String),
}

impl Contender {
    /// What it is called in a table.
    pub fn name(&self) -> &str {
        match self {
            Self::Engine { .. } => "wpgen",
            Self::Command(command) => command,
        }
    }
}

/// The folder that a contender runs in.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// A new folder in another one.
    pub fn new(within: &Path) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("wpgen-bench-").tempdir_in(within);
        let folder = folder.map_err(|e| format!("cannot make a folder in {}: {e}", within.display()))?;
        Ok(Self { folder })
    }

    /// Where output is looked for.
    pub fn output(&self) -> PathBuf {
        self.folder.path().join("out.log")
    }

    /// The engine's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What a contender said on its standard error, its end at least.
    pub fn said(&self) -> String {
        let said = fs::read(self.said_path()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(2000)..]).into_owned();
        said.trim().to_owned()
    }

    fn said_path(&self) -> PathBuf {
        self.folder.path().join("said")
    }

    /// The command that starts a contender here.
    pub fn command(&self, contender: &Contender, input: &Input) -> Result<Command, String> {
        let made = match contender {
            Contender::Engine { writes } => self.engine(input, *writes),
            Contender::Command(line) => self.shell(line, input),
        };
        made.map_err(|e| format!("cannot set up a run in {}: {e}", self.folder.path().display()))
    }

    fn engine(&self, input: &Input, writes: bool) -> std::io::Result<Command> {
        fs::write(self.folder.path().join("wpsrc.toml"), configuration(input, writes))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--color", "never", "source", "start"]).stdin(Stdio::null());
        self.placed(command)
    }

    fn shell(&self, line: &str, input: &Input) -> std::io::Result<Command> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("WPGEN_BENCH_OUT", self.output());
        match input {
            Input::File(path) => command.env("WPGEN_BENCH_FILE", path).stdin(File::open(path)?),
            Input::Tcp(port) | Input::Udp(port) => {
                command.env("WPGEN_BENCH_PORT", port.to_string()).stdin(Stdio::null())
            }
        };
        self.placed(command)
    }

    fn placed(&self, mut command: Command) -> std::io::Result<Command> {
        let said = File::create(self.said_path())?;
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(said);
        Ok(command)
    }
}

/// One source and one sink, everything else as it is without being asked for.
fn configuration(input: &Input, writes: bool) -> String {
    let local = "addr = \"127.0.0.1\"";
    let (connector, params) = match input {
        Input::File(path) => {
            let path = toml_string(&path.to_string_lossy());
            ("file_src", format!("path = {path}\nmode = \"once\"\nstart = \"beginning\""))
        }
        Input::Tcp(port) => ("syslog_tcp_src", format!("{local}\nport = {port}\nheader_mode = \"keep\"")),
        Input::Udp(port) => ("syslog_udp_src", format!("{local}\nport = {port}\nheader_mode = \"keep\"")),
    };
    let sink = match writes {
        true => "connect = \"file_sink\"\nsources = [\"*\"]\n[sinks.params_override]\npath = \"out.log\"",
        false => "connect = \"blackhole_sink\"\nsources = [\"*\"]",
    };
    format!(
        "[engine]\ndata_dir = \"data\"\n[admin]\nlisten = \"\"\n[log]\ndir = \"logs\"\nlevel = \"warn\"\n\
         [[sources]]\nkey = \"in\"\nconnect = \"{connector}\"\n[sources.params_override]\n{params}\n\
         [[sinks]]\nkey = \"out\"\n{sink}\n"
    )
}

/// A basic TOML string, whose escapes are those of JSON.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::config::{Environment, load};

    #[test]
    fn its_configurations_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in \"put\"");
        fs::write(&input, "x\n").unwrap();
        for input in [Input::File(input), Input::Tcp(5514), Input::Udp(5514)] {
            for writes in [true, false] {
                let path = folder.path().join("wpsrc.toml");
                fs::write(&path, configuration(&input, writes)).unwrap();
                let environment = Environment { var: &|_| None, cpus: 2 };
                let loaded = load(&path, &environment).unwrap_or_else(|e| panic!("{e:?}"));
                assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            }
        }
    }
}
