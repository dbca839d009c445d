//! Who a data folder is, for what is kept of it elsewhere: a random name, as long as its checkpoint lives.
//!
//! Ids of inputs begin anew where a checkpoint is gone. So the identity does as well: what is known elsewhere of the ids before
//! is never taken for that of others.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::Path;

/// The file's name.
pub const NAME: &str = "identity";
const NAME_NEXT: &str = "identity.next";
/// Hexadecimal digits of one.
const DIGITS: usize = 16;

/// The identity of a data folder that is locked; a new one where there is none.
///
/// # Errors
/// What the system says, or that the file holds something else.
pub fn identity(folder: &Path) -> io::Result<String> {
    match fs::read_to_string(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => {
            let text = read?.trim().to_owned();
            let is_whole = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let wrong = || {
                io::Error::new(io::ErrorKind::InvalidData, format!("it is not {DIGITS} hexadecimal digits"))
            };
            return is_whole.then_some(text).ok_or_else(wrong);
        }
    }
    // Seeded by the system for each state.
    let identity = format!("{:016x}", RandomState::new().build_hasher().finish());
    let next = folder.join(NAME_NEXT);
    let mut file = File::create(&next)?;
    writeln!(file, "{identity}")?;
    file.sync_data()?;
    fs::rename(&next, folder.join(NAME))?;
    File::open(folder)?.sync_all()?;
    Ok(identity)
}

/// The checkpoint is gone, and with it what the identity stood for.
pub(super) fn forget(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Snapshot, Store};

    #[test]
    fn an_identity_lives_as_long_as_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path()).unwrap().0;
        let mut store = open();
        let first = identity(folder.path()).unwrap();
        assert_eq!(identity(folder.path()).unwrap(), first);
        store.write(Snapshot::default()).unwrap();
        drop(store);
        drop(open());
        assert_eq!(identity(folder.path()).unwrap(), first);
        fs::remove_file(folder.path().join("checkpoint")).unwrap();
        drop(open());
        assert_ne!(identity(folder.path()).unwrap(), first);
        fs::write(folder.path().join(NAME), "x").unwrap();
        assert!(identity(folder.path()).is_err());
    }
}
