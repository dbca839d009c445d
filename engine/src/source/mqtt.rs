//! MQTT endpoints: what devices publish becomes records.

use crate::config::kinds::Check;
use crate::config::params::params;
use crate::config::tls::TlsListen;
use crate::config::tree::Table;
use crate::config::types::ListenAddr;
use crate::config::units::Size;
use crate::diagnosis::Findings;

params! {
    /// The parameters of an mqtt source.
    pub struct MqttParams {
        /// The address to listen on.
        addr: ListenAddr = "0.0.0.0";
        /// The port to listen on.
        port: u16 = 1883, in 1..=65535;
        /// MQTT over WebSocket instead of plain TCP.
        websocket: bool = false;
        /// The WebSocket path.
        path: String = "/mqtt";
        /// The largest packet that is accepted.
        message_max_size: Size = "4194304", in 1024..=16_777_216;
        /// Kept sessions of clients that are away.
        max_session_size: u32 = 100, in 1..=10_000;
        /// Open connections at most.
        max_connection_size: u32 = 1000, in 1..=65_535;
        /// Connections accepted a second.
        max_connection_per_second: u32 = 100, in 1..=65_535;
        /// Certificate and key; with it the endpoint speaks TLS only.
        tls: Option<TlsListen>;
    }
}

impl Check for MqttParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        if let Some(tls) = &self.tls {
            tls.check(table, findings);
        }
    }
}
