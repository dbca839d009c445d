//! Sinks: how records are written, where to, and what it takes until they are durable; and the registry of kinds.
//!
//! A sink knows no source.

pub mod blackhole;
pub mod common;
pub mod console;
pub mod file;
pub mod format;
pub mod framing;
mod json;
pub mod kafka;
mod messages;
mod meta;
mod ndjson;
pub mod remote;
mod rfc3164;
mod rfc5424;
pub mod route;
pub mod stdout;
pub mod stream;
pub mod template;

use crate::config::kinds::kinds;

kinds! {
    /// The parameters of a sink, by kind. The last word of a line says whether this build has the kind.
    pub enum SinkParams {
        Blackhole(blackhole::BlackholeParams) = "blackhole", true;
        Stdout(stdout::StdoutParams) = "stdout", true;
        File(file::params::FileParams) = "file", true;
        Kafka(kafka::KafkaParams) = "kafka", cfg!(feature = "kafka");
        Tcp(stream::TcpParams) = "tcp", true;
        Syslog(stream::SyslogParams) = "syslog", true;
    }
}
