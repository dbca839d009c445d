//! What every sink may be told, whatever its kind.

use std::time::Duration;

use crate::config::params::{Param, Shape, params, wrong_word};
use crate::config::tree::Node;
use crate::config::units::Size;
use crate::diagnosis::Findings;
use crate::sink::format::Format;

params! {
    /// What every sink may be told.
    pub struct CommonParams {
        /// Whether the records of one input keep their order.
        ordered: bool = true;
        /// Whether records the sink cannot take wait in `data_dir/rescue` instead of holding up the sources.
        rescue: bool = false;
        /// Bytes kept in `data_dir/rescue` for this sink; the oldest stay.
        rescue_bytes: Size = "1GiB", in 1048576..=(1 << 50);
        /// A batch is sent when it has this many bytes.
        batch_bytes: Size = "1MiB", in 4096..=(1 << 20);
        /// A batch is sent after this time, however full it is.
        linger: Duration = "5ms", in 0..=60_000;
    }
}

impl Param for Format {
    const SHAPE: Shape = Shape::Word(WORDS);

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let format = node.as_text().and_then(Format::from_name);
        if format.is_none() {
            wrong_word(node, name, WORDS, findings);
        }
        format
    }
}

const WORDS: &[&str] = &["raw", "ndjson", "syslog5424", "syslog3164"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_formats() {
        assert_eq!(Format::ALL.map(Format::name), WORDS);
    }
}
