//! End-to-end tests: the real binary, real files, real kill -9.

mod cli;
mod map;
mod start;
