//! What Kafka's source, its sink and the trial of both share.
//!
//! - [`client`] makes librdkafka's settings of ours
//! - [`blame`] turns what librdkafka reports into findings, and [`voice`] tells them, seldom
//! - [`load`] produces for load tests
//! - [`topics`] makes topics that do not exist
//! - [`native`] and [`cargo`] call librdkafka without its crate: whole runs of messages in and out; [`assigned`] does for what
//!   the crate leaves out of transactions, and is what source and sink know of each other

pub mod assigned;
pub mod blame;
pub mod cargo;
pub mod client;
pub mod load;
pub mod native;
pub mod topics;
pub mod voice;
