//! The configuration of a run's engine, as it is at one moment of the plan.

use std::fmt::Write as _;

use super::input::Input;
use super::output::Output;
use super::plan::Plan;

/// What reloads change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounds {
    /// How often the sources were changed.
    pub sources: u32,
    /// How often the sinks were.
    pub sinks: u32,
    /// Whether the last one did not wait for long for what it took out.
    pub hasty: bool,
}

/// The text.
pub fn text(plan: &Plan, rounds: Rounds, inputs: &[Box<dyn Input>], outputs: &[Box<dyn Output>]) -> String {
    let Plan { io, workers, memory_mib, checkpoint_ms, .. } = plan;
    let drain = if rounds.hasty { "1s" } else { "40s" };
    let mut text = format!(
        "[engine]\nio = \"{io}\"\nworkers = {workers}\nmemory_limit = \"{memory_mib}MiB\"\n\
         checkpoint_interval = \"{checkpoint_ms}ms\"\ndrain_timeout = \"{drain}\"\n[log]\nlevel = \"debug\"\n[admin]\nlisten = \"\"\n"
    );
    if inputs.is_empty() {
        text += "[[sources]]\nkey = \"idle\"\nconnect = \"file_src\"\nparams = { path = \"idle*\" }\n\
                 [[sinks]]\nkey = \"nowhere\"\nconnect = \"blackhole_sink\"\n";
    }
    for input in inputs {
        // A String takes every write.
        let _ = write!(
            text,
            "[[sources]]\nkey = \"i{}\"\ntags = [\"round:{}\"]\n{}",
            input.number(),
            rounds.sources,
            input.source()
        );
    }
    for (output, plan) in outputs.iter().zip(&plan.outputs) {
        let linger = 3 + rounds.sinks;
        let rescue = if plan.rescue { "rescue = true\n" } else { "" };
        let _ = write!(
            text,
            "[[sinks]]\nkey = \"o{}\"\n{}batch_bytes = {}\nlinger = \"{linger}ms\"\n{rescue}",
            output.number(),
            output.sink(),
            plan.batch_bytes,
        );
    }
    text
}
