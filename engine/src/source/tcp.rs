//! Plain TCP: records by framing alone.

use std::time::Duration;

use crate::config::kinds::Check;
use crate::config::params::{params, words};
use crate::config::tls::TlsListen;
use crate::config::tree::Table;
use crate::config::types::{Cidr, ListenAddr, OneOrMany, Permissions};
use crate::config::units::Size;
use crate::diagnosis::Findings;

params! {
    /// The parameters of a tcp source.
    pub struct TcpParams {
        /// The address to listen on; `unix:/path` is a unix socket.
        addr: ListenAddr = "0.0.0.0";
        /// The port to listen on.
        port: u16 = 9000, in 1..=65535;
        /// Permissions of a unix socket, in octal: who may write may send.
        permissions: Permissions = "0666";
        /// Where a record ends.
        framing: Framing = "newline";
        /// The source's receive memory on each shard, shared by its connections.
        tcp_recv_bytes: Size = "10485760", in 65536..=(1 << 30);
        /// The kernel's receive buffer; without it the system's own.
        so_rcvbuf: Option<Size>, in 2304..=(1 << 30);
        /// Networks whose peers may send; empty allows all.
        allow: OneOrMany<Cidr>;
        /// Records a second for the source; 0 is no limit. A stop takes what has come and is on its way without it.
        rate_limit: u64 = 0;
        /// The longest record; a longer one is handled by `oversize`.
        max_message_bytes: Size = "1MiB", in 64..=(1 << 30);
        /// What happens to a record that is too long.
        oversize: Oversize = "truncate";
        /// Open connections at most; the newest is refused.
        max_connections: u32 = 10000, in 1..=1_000_000;
        /// A connection silent for this long is closed; 0 never.
        idle_timeout: Duration = "0", in 0..=604_800_000;
        /// Certificate and key; with it the source speaks TLS only.
        tls: Option<TlsListen>;
        /// Whether each connection begins with a PROXY header (v1 or v2).
        proxy_protocol: bool = false;
    }
}

words! {
    /// Where a record ends.
    pub enum Framing {
        /// At a newline.
        Newline = "newline",
        /// After the bytes that are counted in front of it in digits (RFC 6587).
        Octet = "octet",
        /// At a NUL.
        Nul = "nul",
        /// After the bytes that are counted in front of it in 32 bits, big end first.
        Len32 = "len32",
    }
}

words! {
    /// What happens to a record that is too long.
    pub enum Oversize {
        /// Its first bytes are the record.
        Truncate = "truncate",
        /// It is left out.
        Drop = "drop",
    }
}

impl Check for TcpParams {
    fn check(&self, table: &Table, findings: &mut Findings) {
        if let Some(tls) = &self.tls {
            tls.check(table, findings);
        }
    }
}
