//! wpgen's engine.

pub mod batch;
pub mod pool;
pub mod syslog;
