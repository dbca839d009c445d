//! Syslog headers: RFC 3164 as it is found in the field, RFC 5424 whole; into ranges, without allocation.

/// A parsed header (placeholder until the parser lands).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// PRI, 0-191.
    pub pri: u8,
}
