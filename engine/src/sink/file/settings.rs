//! What a file sink was told, resolved.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::params::{self, Compress, Existing, FileParams};
use crate::lane::CREDIT_BATCHES;
use crate::sink::format::Format;
use crate::sink::template::Template;

/// When written records count as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// When they are synced, which happens this often, and before when much is waiting.
    Interval(Duration),
    /// When they are synced, which happens as often as the disk can.
    Batch,
    /// When they are written.
    Never,
}

/// When a file is put aside and a new one begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// Before it grows past this many bytes.
    pub size: Option<u64>,
    /// At each multiple of this time by the wall clock.
    pub every: Option<Duration>,
    /// Rotated files that are kept; 0 keeps all.
    pub keep: u32,
}

/// What closed files are packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to, absolute.
    pub template: Template,
    /// Whose clock dates in paths and times of rotation follow.
    pub zone: TimeZone,
    /// How records are written.
    pub format: Format,
    /// What happens to a file that is there from before.
    pub existing: Existing,
    /// When a new file is begun.
    pub rotate: Option<Rotate>,
    /// What closed files (rotated ones, and those of a past date) are packed with.
    pub packing: Option<Packing>,
    /// When written records count as delivered.
    pub fsync: Fsync,
    /// Permissions of files that are made.
    pub mode: Option<u32>,
    /// Batches of one lane that may wait for a sync: half of a lane's credit, so that it fills the other half.
    pub unsynced_batches_max: u32,
}

impl Settings {
    /// What the parameters say, by the clock of `zone`; `None` without a path, which validation refuses.
    pub fn new(params: &FileParams, zone: TimeZone) -> Option<Self> {
        let fsync = match params.fsync {
            params::Fsync::Interval => Fsync::Interval(params.fsync_interval),
            params::Fsync::Batch => Fsync::Batch,
            params::Fsync::Never => Fsync::Never,
        };
        let packing = match params.compress {
            Compress::None => None,
            Compress::Gzip => Some(Packing::Gzip),
            Compress::Zstd => Some(Packing::Zstd),
        };
        let rotate = params.rotate.0.as_ref();
        Some(Self {
            template: params.path.as_ref()?.template.clone(),
            zone,
            format: params.format,
            existing: params.existing,
            rotate: rotate.map(|r| Rotate { size: r.size.map(|size| size.0), every: r.every, keep: r.keep }),
            packing,
            fsync,
            mode: Some(params.permissions.0),
            unsynced_batches_max: CREDIT_BATCHES / 2,
        })
    }
}
