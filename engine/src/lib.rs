//! wpgen's engine: logs and device messages into a Linux machine, counted, and acknowledged when their sinks have them.
//!
//! # The map
//!
//! ```text
//!  config ──> assemble ──> engine ──> shard 0        shard 1       ...   one pinned thread each
//!  (what the   (opens, or   (spawn,    │ source part   │
//!   user        says why     drain)    │  read, frame, decode, parse: a Run, hot in the cache
//!   wrote)      not)                   │ lane          │
//!                                      │  encode into an open Batch (arena + tickets)
//!                                      ▼               ▼
//!                                     queue: to the one owner of the sink's outlet
//!                                      │ sink owner: write, sync, verdict
//!                                      ▼
//!                                     home: settle tickets, give credit back, recycle the arena
//!                                      │
//!                          keeper <────┘ positions that every sink has: the checkpoint
//! ```
//!
//! A record runs to completion on the shard that received it. What leaves the shard is a [`batch::Batch`]. It goes out
//! once and comes home once; coming home is the acknowledgement, the release of memory and the end of backpressure.
//!
//! # Where to begin
//!
//! [`config::load`] reads what the user wrote and finds everything that is wrong with it. [`assemble::start`] makes it
//! run and returns an [`engine::Engine`], which can be asked ([`engine::Engine::status`]), waited for and drained. To see
//! how a record travels, read in this order: [`source::file::reader`], [`lane`], [`shard`], [`sink::file`], [`settle`],
//! [`keeper`]. A new source or sink is one file with its parameters and one line in the registry of [`source`] or
//! [`sink`].
//!
//! # What holds everywhere
//!
//! - Shards share nothing but mail ([`queue`]); nothing is allocated, counted or shared for a single record.
//! - Everything has a bound, written where it is created: buffers a shard, credit a lane, letters a box; and all buffers
//!   together have one, `memory_limit` ([`memory`]).
//! - A position moves only over what every sink has, and only in order ([`settle`]); the checkpoint never runs ahead of
//!   a sync ([`keeper`], [`sink::file`]).
//! - [`frame`], [`syslog`], [`decode`], [`batch`] and [`settle`] know no socket, file, thread, clock or environment;
//!   [`source`] knows no [`sink`] and the reverse; system calls on a shard are made in [`io`]. A test reads the `use`
//!   lines and holds this.
//! - The engine prints nothing, exits never, and reads no environment variable: it logs through [`log`], returns
//!   findings ([`diagnosis`]), and looks variables up through a function it is given.
//!
//! # What each module is for
//!
//! - what the user wrote: [`config`], [`diagnosis`], [`trial`] (what `source test` does), [`doctor`], [`escape`]
//! - life cycle: [`assemble`], [`engine`], [`reload`], [`shard`], [`status`], [`process`], [`metrics`], [`exposition`],
//!   [`alert`], [`health`], [`admin`]
//! - the record's way: [`io`], [`tls`], `kafka` (what its source and sink share), [`frame`], [`decode`], [`syslog`], [`source`], [`lane`], [`sink`]
//! - the currency and its way home: [`batch`], [`pool`], [`memory`], [`queue`], [`settle`]
//! - what survives: [`checkpoint`], [`keeper`], [`rescue`], [`lock`]

pub mod admin;
pub mod alert;
pub mod assemble;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod decode;
pub mod diagnosis;
pub mod doctor;
pub mod engine;
pub mod escape;
pub mod exposition;
pub mod frame;
pub mod health;
pub mod io;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod keeper;
pub mod lane;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod pool;
pub mod process;
pub mod queue;
pub mod reload;
pub mod rescue;
pub mod settle;
pub mod shard;
pub mod sink;
pub mod source;
pub mod status;
pub mod syslog;
pub mod tls;
pub mod trial;
