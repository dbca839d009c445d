//! What sends numbered messages to the engine. A further kind of source is one file here and one line in [`make`].
//!
//! An input works on a thread of its own from [`Input::begin`] on, whatever happens to the engine meanwhile, and knows by
//! itself where its units of order end: a file that is rotated, a connection that breaks.

mod datagram;
mod file;
mod pace;
mod stream;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::oracle::Sent;
use super::plan::{InputKind, InputPlan};

/// A sender, with the source that takes what it sends.
pub trait Input: Send {
    /// Its number; its source's key is `i` and the number.
    fn number(&self) -> u8;

    /// The connector and the parameters of its source, as TOML: `connect = ...` and `params = { ... }`.
    fn source(&self) -> String;

    /// Whether the source can have everything again after a crash.
    fn can_repeat(&self) -> bool;

    /// Begins to send.
    fn begin(&mut self);

    /// Messages so far.
    fn written(&self) -> u64;

    /// Begins another unit of order, as logrotate does; `false` where that means nothing.
    fn rotate(&mut self) -> bool {
        false
    }

    /// Ends, with last messages that an engine which stays up must have in full.
    fn finish(&mut self);

    /// What was sent, after [`Input::finish`]. The kernel dropped so many messages in the engine's last life.
    fn sent(&self, dropped: u64) -> Vec<Sent>;
}

/// Where inputs live.
#[derive(Clone, Debug)]
pub struct Place {
    /// The run's folder.
    pub folder: PathBuf,
    /// Where the files of file sources are.
    pub inputs: PathBuf,
    /// An address that is the run's own.
    pub address: Ipv4Addr,
}

impl Place {
    /// The port of an input, or of anything else that has a number.
    pub fn port(number: u8) -> u16 {
        15_200 + u16::from(number)
    }

    /// A place in a folder.
    pub fn new(folder: &Path, address: Ipv4Addr) -> Self {
        let inputs = folder.join("in");
        std::fs::create_dir_all(&inputs).unwrap();
        Self { folder: folder.to_owned(), inputs, address }
    }
}

/// Makes the input that a plan asks for.
pub fn make(number: u8, plan: &InputPlan, place: &Place) -> Box<dyn Input> {
    match plan.kind {
        InputKind::File => Box::new(file::FileInput::new(number, plan.rate, place)),
        InputKind::Tcp(framing) => {
            Box::new(stream::StreamInput::new(number, plan.rate, stream::Door::Tcp, framing, place))
        }
        InputKind::Unix(framing) => {
            Box::new(stream::StreamInput::new(number, plan.rate, stream::Door::Unix, framing, place))
        }
        InputKind::SyslogTcp(framing) => {
            Box::new(stream::StreamInput::new(number, plan.rate, stream::Door::Syslog, framing, place))
        }
        InputKind::Udp => Box::new(datagram::DatagramInput::new(number, plan.rate, place)),
    }
}
