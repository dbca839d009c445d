//! Telling the service manager how we are: systemd's notification protocol, without its library.
//!
//! Invariants: nothing is sent where no manager listens; a message that cannot be sent is lost and nothing else is, for
//! a service must not end because its manager is busy. The environment is looked up through a function.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The manager that the environment names: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` for this process.
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let Some(address) = variable("NOTIFY_SOCKET").and_then(|name| address(&name).ok()) else {
            return Self::default();
        };
        let Ok(socket) = UnixDatagram::unbound() else { return Self::default() };
        // A manager that does not read must not hold us up.
        let _ = socket.set_nonblocking(true);
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|usec| usec.parse().ok());
        let watchdog = watchdog.filter(|usec| *usec > 0).map(Duration::from_micros);
        Self { manager: Some((socket, address)), watchdog }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// How long the manager waits for a word before it takes us for hung.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Everything is open; also at the end of a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read anew.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec()));
    }

    /// What was taken is being delivered, then we end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// Still alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.manager
            && let Err(e) = socket.send_to_addr(message.as_bytes(), address)
        {
            log::debug!("the service manager does not hear: {e}");
        }
    }
}

/// A path, or an abstract name behind `@`.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

fn monotonic_usec() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives for the call, which fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("wpgen-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}"), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ];
        for (name, socket) in sockets {
            let notify = Notify::new(|variable| match variable {
                "NOTIFY_SOCKET" => Some(name.clone()),
                "WATCHDOG_USEC" => Some("3000000".into()),
                _ => None,
            });
            assert_eq!(notify.watchdog(), Some(Duration::from_secs(3)));
            notify.ready();
            notify.status("two\nlines");
            let mut bytes = [0; 64];
            let mut next = || {
                let n = socket.recv(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[..n]).into_owned()
            };
            assert_eq!((next(), next()), ("READY=1".into(), "STATUS=two lines".into()));
        }
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_a_watchdog_may_be_another_ones() {
        let none = Notify::new(|_| None);
        none.ready();
        assert!(!none.is_heard() && none.watchdog().is_none());
        let other = Notify::new(|variable| match variable {
            "NOTIFY_SOCKET" => Some("/nowhere/notify".into()),
            "WATCHDOG_USEC" => Some("1000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        });
        other.ready();
        assert!(other.is_heard() && other.watchdog().is_none());
    }
}
