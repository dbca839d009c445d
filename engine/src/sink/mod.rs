//! Sinks: how records are written, where to, and what it takes until they are durable.

pub mod blackhole;
pub mod format;
mod json;
mod meta;
mod ndjson;
mod rfc5424;
pub mod route;
pub mod template;
