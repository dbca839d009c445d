//! The disks of a run that fail when they are told to.

use std::path::{Path, PathBuf};

use super::faulty::{Fault, Faulty, On};
use super::input::Place;
use super::plan::{Illness, SickDisk};

/// What they hold.
pub struct SickDisks {
    inputs: Option<Faulty>,
    files: Option<Faulty>,
    data: Option<Faulty>,
    folder: PathBuf,
}

impl SickDisks {
    /// Mounts those that are asked for, in front of the folders that the run has made.
    pub fn mount(plan: SickDisk, place: &Place, data: &Path, files: &Path) -> Self {
        let folder = place.folder.join("sick");
        let mount = |is_asked: bool, at: PathBuf, below: &Path| {
            is_asked.then(|| {
                Faulty::mount(&at, below).unwrap_or_else(|error| panic!("{}: {error}", at.display()))
            })
        };
        Self {
            inputs: mount(plan.inputs, place.inputs.clone(), &place.folder.join("in.real")),
            files: mount(plan.files, folder.join("out"), files),
            data: mount(plan.data, folder.join("data"), data),
            folder,
        }
    }

    /// Where the engine finds the data that is in `below`.
    pub fn data(&self, below: &Path) -> PathBuf {
        if self.data.is_some() { self.folder.join("data") } else { below.to_owned() }
    }

    /// Where it finds the files.
    pub fn files(&self, below: &Path) -> PathBuf {
        if self.files.is_some() { self.folder.join("out") } else { below.to_owned() }
    }

    /// From now on they fail so, or not any more.
    pub fn set(&self, illness: Option<Illness>) {
        let Some(illness) = illness else {
            [&self.inputs, &self.files, &self.data].into_iter().flatten().for_each(Faulty::heal);
            return;
        };
        let eio = Fault::Error(libc::EIO);
        // Who writes the inputs goes on, and the engine is asked over its socket, which is in the data folder.
        let (inputs, others, fault): (&[On], &[On], Fault) = match illness {
            Illness::Reads => (&[On::Read], &[On::Read], eio),
            Illness::All => {
                (&[On::Read, On::Open], &[On::Read, On::Write, On::Sync, On::Names, On::Open], eio)
            }
            Illness::Writes(number) => (&[], &[On::Write], Fault::Error(number)),
            Illness::Syncs => (&[], &[On::Sync], eio),
            Illness::Names => (&[], &[On::Names], eio),
            Illness::Short => (&[On::Read], &[On::Read, On::Write], Fault::Short),
            Illness::Stalls => (&[On::Read], &[On::Read, On::Write, On::Sync], Fault::Stall),
        };
        self.inputs.iter().for_each(|disk| disk.set(inputs, fault));
        self.files.iter().for_each(|disk| disk.set(others, fault));
        self.data.iter().for_each(|disk| disk.set(others, fault));
    }
}
