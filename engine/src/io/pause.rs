//! How a task gives way while it has more to do at once.
//!
//! tokio-uring hands the kernel what files asked for when its runtime has nothing left to run and goes to wait
//! (`on_thread_park`). A task that yields leaves it something to run: beside sockets that always have more, the shard's
//! files would stand still. So while a file waits for an answer ([`asked`]), and now and then for those that only close, a
//! task that goes on for long rings a bell of its own and waits for that: the runtime goes to wait, and wakes at once.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;

use tokio::io::unix::AsyncFd;

use super::ring::{event_counter, watched};

/// So often in a row a task yields. From then on it lets the runtime wait each time, which costs a microsecond: two tasks that
/// did so now and then would each be up while the other one waits.
const YIELDS: u32 = 16;
/// Of so many turns of a thread's tasks [`CLOSING_TURNS`] let the runtime wait, whether a file is known to need it or not.
const TURNS: u32 = 1024;
/// As many in a row as any tasks that are up at a time need to wait all at once.
const CLOSING_TURNS: u32 = 16;

thread_local! {
    /// Turns of this thread's tasks.
    static TURN: Cell<u32> = const { Cell::new(0) };
    /// What this thread asked of tokio-uring and has no answer to.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// One that is counted.
struct Asked;

impl Asked {
    fn new() -> Self {
        ASKED.set(ASKED.get() + 1);
        Self
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        ASKED.set(ASKED.get() - 1);
    }
}

/// Waits for what tokio-uring was asked.
pub(super) async fn asked<T>(operation: impl Future<Output = T>) -> T {
    let _counted = Asked::new();
    operation.await
}

/// The way of one task.
pub(super) struct Pause {
    bell: AsyncFd<File>,
    yields: u32,
}

impl Pause {
    /// For a task on this thread, within its runtime.
    ///
    /// # Errors
    /// The kernel's, that has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { bell: watched(event_counter()?)?, yields: 0 })
    }

    /// Waits for something: a task that had to wait has given way.
    pub(super) async fn until<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        poll_fn(|cx| {
            let polled = what.as_mut().poll(cx);
            if polled.is_pending() {
                self.yields = 0;
            }
            polled
        })
        .await
    }

    /// Lets everything else on the thread have its turn.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn give_way(&mut self) -> io::Result<()> {
        let turn = TURN.get();
        TURN.set((turn + 1) % TURNS);
        if self.yields < YIELDS || ASKED.get() == 0 && turn >= CLOSING_TURNS {
            self.yields = self.yields.saturating_add(1);
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.bell.get_ref().write_all(&1_u64.to_ne_bytes())?;
        self.bell.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::io::Backend;
    use crate::io::runtime::Runtime;

    #[test]
    fn files_go_on_beside_tasks_that_always_have_more_to_do() {
        for backend in [Backend::Uring, Backend::Epoll] {
            let Ok(runtime) = Runtime::new(backend) else { continue };
            let read = Rc::new(Cell::new(false));
            runtime.block_on(async {
                let busy = || {
                    let read = Rc::clone(&read);
                    tokio::task::spawn_local(async move {
                        let mut pause = Pause::new().unwrap();
                        let mut turns = 0_u64;
                        while !read.get() {
                            pause.give_way().await.unwrap();
                            turns += 1;
                            assert!(turns < 1_000_000, "the file is read meanwhile");
                        }
                    })
                };
                let (one, other) = (busy(), busy());
                if backend == Backend::Uring {
                    let file = tokio_uring::fs::File::open("/dev/zero").await.unwrap();
                    let (got, _) = asked(file.read_at(vec![1; 8], 0)).await;
                    assert_eq!(got.unwrap(), 8);
                } else {
                    tokio::task::spawn_blocking(|| ()).await.unwrap();
                }
                read.set(true);
                one.await.unwrap();
                other.await.unwrap();
            });
        }
    }
    #[test]
    fn a_file_closes_beside_them() {
        use std::os::fd::AsRawFd;
        let Ok(runtime) = Runtime::new(Backend::Uring) else { return };
        let temporary = tempfile::NamedTempFile::new().unwrap();
        runtime.block_on(async {
            let file = tokio_uring::fs::File::open(temporary.path()).await.unwrap();
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let busy = || {
                let (link, path) = (link.clone(), temporary.path().to_owned());
                tokio::task::spawn_local(async move {
                    let mut pause = Pause::new().unwrap();
                    let mut turns = 0;
                    while std::fs::read_link(&link).is_ok_and(|at| at == path) {
                        pause.give_way().await.unwrap();
                        turns += 1;
                        assert!(turns < 1_000_000, "the file is closed meanwhile");
                    }
                })
            };
            let (one, other) = (busy(), busy());
            drop(file);
            one.await.unwrap();
            other.await.unwrap();
        });
    }
}
