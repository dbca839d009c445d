//! What is to be read of one file with `mode = "once"`: all of it, its ranges, or what an earlier run left of it.
//!
//! Invariant: no content is read twice, whether it is found in the file it was read from or in a compressed one that took that
//! file's place. Compressed files are read from their beginning, so they are not split; positions are those of the content.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::identity::{Fingerprint, Packed, Seen};
use super::observe;
use super::once::{Job, RANGE_BYTES, ranges};
use super::params::Compression;
use super::settings::Settings;
use super::source::OnceStart;
use super::unpack::Packing;
use crate::checkpoint::{Input, Range};

/// The jobs of one file.
///
/// # Errors
/// What opening or looking at it said, or that it is not packed as it should be.
pub(super) fn jobs(settings: &Settings, path: &Path, start: OnceStart) -> io::Result<Vec<Job>> {
    let seen = observe::file(&File::open(path)?, path, settings.compression != Compression::None)?;
    check_packing(settings.compression, &seen)?;
    let plan = Plan { settings, seen };
    let mut known = settings.known.find(&plan.seen);
    if !start.resume {
        known.drain(..).for_each(|old| settings.known.forget(old.id));
    } else if let (true, Some(packed)) = (known.is_empty(), &plan.seen.packed) {
        match plan.twin(packed) {
            Twin::None => {}
            Twin::There => return Ok(Vec::new()),
            Twin::Gone(adopted) => known = adopted,
        }
    }
    Ok(plan.jobs(&known, start.parallel))
}

/// The jobs of the rest of a file that is read because it is known, under whatever name: none when it is not.
pub(super) fn rest(settings: &Settings, seen: Seen) -> Vec<Job> {
    let plan = Plan { settings, seen };
    let mut known = settings.known.find(&plan.seen);
    if let (true, Some(packed)) = (known.is_empty(), &plan.seen.packed)
        && let Twin::Gone(adopted) = plan.twin(packed)
    {
        known = adopted;
    }
    let read = known.iter().map(|input| input.position).max().unwrap_or(0);
    let unread =
        known.iter().any(|input| !input.done) || (plan.seen.packed.is_none() && plan.seen.size > read);
    if known.is_empty() || !unread { Vec::new() } else { plan.jobs(&known, false) }
}

/// Whose content a compressed file has.
enum Twin {
    /// Nobody's.
    None,
    /// That of a file which is still there, and is read itself.
    There,
    /// That of a file which is gone: these inputs are now this file.
    Gone(Vec<Input>),
}

struct Plan<'a> {
    settings: &'a Settings,
    seen: Seen,
}

impl Plan<'_> {
    fn jobs(&self, known: &[Input], parallel: bool) -> Vec<Job> {
        let left = known.iter().filter(|input| input.ranges.is_empty() || !input.done);
        let mut jobs: Vec<Job> = left.map(|input| self.job(input)).collect();
        let begin = known.iter().flat_map(|input| &input.ranges).map(|range| range.end).max().unwrap_or(0);
        let whole = known.iter().any(|input| input.ranges.is_empty());
        let is_packed = self.seen.packed.is_some();
        // How much content a compressed file has is known when it was read: its last range has no end.
        let end = if is_packed { u64::MAX } else { self.seen.size };
        if whole || (begin > 0 && begin >= end) {
            return jobs;
        }
        let range = |start, end| self.fresh(vec![Range { start, end, position: start }], start);
        if begin > 0 && is_packed {
            jobs.push(range(begin, end));
        } else if begin > 0 || (parallel && !is_packed && end >= 2 * RANGE_BYTES) {
            jobs.extend(ranges(begin, end).map(|(start, end)| range(start, end)));
        } else {
            jobs.push(self.fresh(Vec::new(), 0));
        }
        jobs
    }

    fn job(&self, input: &Input) -> Job {
        let content = self.seen.packed.as_ref().and_then(|packed| packed.len).map(u64::from);
        Job {
            input: input.id,
            path: self.seen.path.clone(),
            start: input.ranges.first().map_or(0, |range| range.start),
            end: input.ranges.first().map_or(content.unwrap_or(self.seen.size), |range| range.end),
            position: input.position,
            range: !input.ranges.is_empty(),
            packed: self.seen.packed.is_some(),
        }
    }

    /// A new input.
    fn fresh(&self, ranges: Vec<Range>, position: u64) -> Job {
        let mut input = Input { source: self.settings.key.to_string(), position, ranges, ..Input::default() };
        self.is_now(&mut input);
        input.id = self.settings.known.add(input.clone());
        self.job(&input)
    }

    /// The input is read from this file from now on.
    fn is_now(&self, input: &mut Input) {
        let seen = &self.seen;
        input.path = seen.path.clone();
        (input.dev, input.ino, input.born_ns) = (seen.dev, seen.ino, seen.born_ns);
        input.fingerprint = Fingerprint::of(&seen.head);
        input.content = seen.packed.as_ref().map(|packed| Fingerprint::of(&packed.head));
    }

    fn twin(&self, packed: &Packed) -> Twin {
        let exact = self.content_len(packed);
        let mut twins = self.settings.known.with_content(&packed.head);
        // Content alone decides only where it cannot be another file's that begins alike.
        twins.retain(|input| {
            let read = input.ranges.iter().map(|range| range.position).max().unwrap_or(input.position);
            input.fingerprint.proves(read) && exact.is_none_or(|len| len >= read)
        });
        let there: Vec<u64> = twins.iter().filter_map(size_now).collect();
        if there.iter().any(|size| exact.is_none_or(|len| len == *size)) {
            return Twin::There;
        }
        if twins.is_empty() || !there.is_empty() {
            return Twin::None;
        }
        for input in &mut twins {
            self.is_now(input);
            self.settings.known.update(input.id, |known| self.is_now(known));
        }
        Twin::Gone(twins)
    }

    /// The length of the content, where what the file says of it modulo 2^32 is all of it: deflate packs a thousandfold
    /// at most.
    fn content_len(&self, packed: &Packed) -> Option<u64> {
        let gzip = Packing::sniff(&self.seen.head) == Some(Packing::Gzip);
        let small = self.seen.size < u64::from(u32::MAX) / 1100;
        packed.len.filter(|_| gzip && small).map(u64::from)
    }
}

/// The size of the file an input was read from, if it is still there.
fn size_now(input: &Input) -> Option<u64> {
    let meta = fs::metadata(&input.path).ok()?;
    ((meta.dev(), meta.ino()) == (input.dev, input.ino)).then(|| meta.size())
}

/// Whether a file holds what `compression` says.
pub(super) fn check_packing(compression: Compression, seen: &Seen) -> io::Result<()> {
    let (wanted, name) = match compression {
        Compression::Auto | Compression::None => return Ok(()),
        Compression::Gzip => (Packing::Gzip, "gzip"),
        Compression::Zstd => (Packing::Zstd, "zstd"),
    };
    if seen.size == 0 || Packing::sniff(&seen.head) == Some(wanted) {
        return Ok(());
    }
    let message = format!("compression = \"{name}\", but the file does not begin as {name} does");
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
