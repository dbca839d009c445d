//! Where the engine's records arrive. A further kind of sink is one file here and one line in [`make`].

mod file;
mod peer;
mod text;

use std::path::PathBuf;

use super::input::Place;
use super::oracle::Seen;
use super::plan::{OutputKind, OutputPlan};

/// A place that a sink writes to.
pub trait Output: Send {
    /// Its number; its sink's key is `o` and the number.
    fn number(&self) -> u8;

    /// The connector and the parameters of its sink, as TOML: `connect = ...` and the parameters one by one, each on a line
    /// of its own behind `[sinks.params_override]`.
    fn sink(&self) -> String;

    /// Everything that has arrived.
    fn seen(&self) -> Seen;

    /// Whether records may come twice when something breaks.
    fn may_repeat(&self) -> bool {
        false
    }

    /// Takes nothing for a while, or again; `false` where it cannot.
    fn stall(&mut self, _stalls: bool) -> bool {
        false
    }

    /// Breaks all connections; `false` where there are none.
    fn reset(&mut self) -> bool {
        false
    }

    /// Is not there for a while, or again; `false` where that means nothing.
    fn leave(&mut self, _is_away: bool) -> bool {
        false
    }
}

/// Where a file sink's files are: as the engine sees them, and as this harness reads them.
#[derive(Clone, Debug)]
pub struct Files {
    /// The engine's way.
    pub at: PathBuf,
    /// A way on which nothing fails.
    pub below: PathBuf,
}

/// Makes the output that a plan asks for.
pub fn make(number: u8, plan: &OutputPlan, place: &Place, files: &Files) -> Box<dyn Output> {
    match plan.kind {
        OutputKind::File { rotate } => Box::new(file::FileOutput::new(number, plan, rotate, files)),
        OutputKind::Peer(framing) => Box::new(peer::PeerOutput::new(number, plan, framing, place)),
    }
}
