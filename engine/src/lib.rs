//! wpgen's engine.

pub mod batch;
pub mod decode;
pub mod frame;
pub mod pool;
pub mod syslog;
