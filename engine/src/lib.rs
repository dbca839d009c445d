//! wpgen's engine.

pub mod batch;
pub mod checkpoint;
pub mod decode;
pub mod frame;
pub mod io;
pub mod lane;
pub mod lock;
pub mod metrics;
pub mod pool;
pub mod queue;
pub mod settle;
pub mod shard;
pub mod sink;
pub mod source;
pub mod syslog;
