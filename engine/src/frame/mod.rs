//! Framing: bytes as they come, records as they were sent. Pure: no socket, file, thread or clock.

pub mod newline;
mod simd;
