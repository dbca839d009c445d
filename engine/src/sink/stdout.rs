//! The sink that writes to standard output.

use crate::config::kinds::Check;
use crate::config::params::params;
use crate::config::tree::Table;
use crate::diagnosis::Findings;
use crate::sink::format::Format;

params! {
    /// The parameters of a stdout sink.
    pub struct StdoutParams {
        /// How a record is written.
        format: Format = "raw";
    }
}

impl Check for StdoutParams {
    fn check(&self, _table: &Table, _findings: &mut Findings) {}
}
