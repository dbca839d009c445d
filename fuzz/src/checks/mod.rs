//! The checks: each takes any bytes, makes an input of them, and panics when an invariant does not hold.
//!
//! They know the engine's public front door only, and compare it with a model that is written for being obviously
//! right, or with itself given the same input in another way. None of them is part of the product.

pub mod checkpoint;
pub mod config;
pub mod connectors;
pub mod decode;
pub mod dial;
pub mod folder;
pub mod framing;
pub mod lines;
pub mod multiline;
pub mod newline;
pub mod octet;
pub mod proxy;
pub mod rescue;
pub mod syslog;

/// A check: it returns when all is well.
pub type Check = fn(&[u8]);

/// Every check under the name of its target and of its folder of seeds.
pub const ALL: [(&str, Check); 13] = [
    ("newline", newline::check),
    ("framing", framing::check),
    ("octet", octet::check),
    ("proxy", proxy::check),
    ("syslog", syslog::check),
    ("rfc5424", syslog::check_rfc5424),
    ("decode", decode::check),
    ("multiline", multiline::check),
    ("lines", lines::check),
    ("config", config::check),
    ("connectors", connectors::check),
    ("checkpoint", checkpoint::check),
    ("rescue", rescue::check),
];
