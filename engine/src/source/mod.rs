//! Sources: where records come from, one file or folder a kind, and the registry of kinds.
//!
//! A source knows no sink.

pub mod file;
pub mod kafka;
pub mod mqtt;
pub mod part;
pub mod stop;
pub mod syslog;
pub mod tcp;

use crate::config::kinds::kinds;

kinds! {
    /// The parameters of a source, by kind. The last word of a line says whether this build has the kind.
    pub enum SourceParams {
        File(file::params::FileParams) = "file", true;
        Syslog(syslog::SyslogParams) = "syslog", false;
        Tcp(tcp::TcpParams) = "tcp", false;
        Kafka(kafka::KafkaParams) = "kafka", false;
        Mqtt(mqtt::MqttParams) = "mqtt", false;
    }
}
