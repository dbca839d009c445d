//! An output that is no regular file: a FIFO, a terminal, a device.
//!
//! It is written without blocking: a FIFO that is full makes its batches wait, and through their credit the sources.
//! Written is delivered. When the reader goes in the middle of a record, the next one gets that record whole.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::writer::Job;

/// How long to wait for room in what cannot be waited for.
const POLL: Duration = Duration::from_millis(10);

/// An open stream.
#[derive(Debug)]
pub(super) enum Stream {
    /// The reactor says when there is room.
    Ready(AsyncFd<File>),
    /// It does not know this kind of file.
    Polled(File),
}

impl Stream {
    /// Takes a file that was opened without blocking.
    pub(super) fn new(file: File) -> io::Result<Self> {
        // SAFETY: the descriptor belongs to `file`, which is neither replaced nor closed while it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(file, Interest::WRITABLE) };
        registered.map(Self::Ready).or_else(|error| match error.into_parts() {
            (file, error) if error.raw_os_error() == Some(libc::EPERM) => Ok(Self::Polled(file)),
            (_, error) => Err(error),
        })
    }

    /// Writes what is left of a job. After an error the job goes on at the start of a record.
    pub(super) async fn write(&self, job: &mut Job) -> io::Result<()> {
        let bytes = job.batch.bytes();
        while job.done < bytes.len() {
            match self.write_some(&bytes[job.done..]).await {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => job.done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    job.done = memchr::memrchr(b'\n', &bytes[..job.done]).map_or(0, |newline| newline + 1);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Ready(ready) => loop {
                let mut guard = ready.writable().await?;
                if let Ok(result) = guard.try_io(|file| file.get_ref().write(bytes)) {
                    return result;
                }
            },
            Self::Polled(file) => loop {
                match (&*file).write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(POLL).await,
                    other => return other,
                }
            },
        }
    }
}
