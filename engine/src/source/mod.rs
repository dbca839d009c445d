//! Sources: where records come from, one file or folder a kind, and the registry of kinds.
//!
//! A source knows no sink.

pub mod datagram;
pub mod desk;
pub mod file;
pub mod headers;
pub mod inlet;
pub mod kafka;
pub mod limited;
pub mod mqtt;
pub mod part;
#[cfg(test)]
pub(crate) mod playground;
pub mod port;
pub mod proxy;
pub mod rate;
pub mod remedy;
pub mod seldom;
pub mod stop;
pub mod stream;
pub mod syslog;
pub mod tcp;

use crate::config::kinds::kinds;

kinds! {
    /// The parameters of a source, by kind. The last word of a line says whether this build has the kind.
    pub enum SourceParams {
        File(file::params::FileParams) = "file", true;
        Syslog(syslog::SyslogParams) = "syslog", true;
        Tcp(tcp::TcpParams) = "tcp", true;
        Kafka(kafka::KafkaParams) = "kafka", cfg!(feature = "kafka");
        Mqtt(mqtt::MqttParams) = "mqtt", false;
    }
}

impl SourceParams {
    /// Whether what was received and is not delivered can be had again after a crash.
    pub fn can_repeat(&self) -> bool {
        match self {
            Self::File(_) | Self::Kafka(_) => true,
            Self::Syslog(_) | Self::Tcp(_) | Self::Mqtt(_) => false,
        }
    }
}
