//! wpgen's engine.

pub mod batch;
pub mod checkpoint;
pub mod decode;
pub mod frame;
pub mod lock;
pub mod pool;
pub mod source;
pub mod sink;
pub mod syslog;
