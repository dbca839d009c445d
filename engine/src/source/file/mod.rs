//! The file source. Which files there are, whether a file is one that is known, and reading it are three things.

mod beside;
pub mod blame;
pub mod catalog;
pub mod find;
pub mod follow;
pub mod identity;
mod join;
pub mod known;
pub mod lines;
mod locate;
pub mod make;
pub mod observe;
pub mod once;
#[cfg(test)]
mod once_tests;
pub mod params;
mod plan;
pub mod reader;
#[cfg(test)]
mod rig;
pub mod segments;
pub mod settings;
pub mod source;
pub mod stage;
pub mod tail;
pub mod told;
pub mod unpack;
pub mod watch;
