//! What this process may have of the machine: open files, locked memory, watches, receive buffers.
//!
//! A limit is compared with what the configuration asks for; without one, it is only told. Where the kernel can be
//! asked by doing, it is asked so: a number that is read may not be the one that holds.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Check, bytes};
use crate::config::{Config, SourceConfig};
use crate::diagnosis::Code;
use crate::io::affinity;
use crate::io::datagram::grants;
use crate::io::runtime::READ_BUFFER_BYTES;
use crate::source::SourceParams;
use crate::source::datagram::SO_RCVBUF;
use crate::source::syslog::Protocol;

/// Open files that an engine needs beside its connections: rings, logs, outputs, inputs that are read.
const OPEN_BESIDE: u64 = 256;
/// Capabilities that lift a limit: their bits.
const CAP_NET_ADMIN: u32 = 12;
const CAP_IPC_LOCK: u32 = 14;

pub(super) fn checks(config: Option<&Config>) -> Vec<Check> {
    let mut checks = vec![open_files(config), locked_memory(config), watches()];
    checks.extend(receive_buffers(config));
    checks
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a struct that the kernel fills during the call.
    let told = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
    told.then_some((limit.rlim_cur, limit.rlim_max))
}

/// Raises the limit of open files to the hard one: the soft one is kept low for programs that use `select`, and this one
/// holds a descriptor for each connection, followed file and output. What stays is told by [`super::examine`].
pub fn raise_open_files() {
    let Some((soft, hard)) = limit(libc::RLIMIT_NOFILE) else { return };
    let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: the pointer is to a struct that the kernel reads during the call.
    if soft < hard && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
        log::debug!(target: "wpgen::start", "open files: the limit stays {soft}: {}", io::Error::last_os_error());
    }
}

fn shown(limit: u64) -> String {
    if limit == libc::RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() }
}

fn enabled(config: Option<&Config>) -> impl Iterator<Item = &SourceConfig> {
    config.into_iter().flat_map(|config| &config.sources).filter(|source| source.enable)
}

fn open_files(config: Option<&Config>) -> Check {
    let subject = "open files";
    // An engine raises its own to the hard one.
    let Some((_, may)) = limit(libc::RLIMIT_NOFILE) else {
        return Check::ok(subject, "no limit is told");
    };
    let connections = |source: &SourceConfig| match &source.params {
        SourceParams::Syslog(syslog) if syslog.protocol != Protocol::Udp => u64::from(syslog.max_connections),
        SourceParams::Tcp(tcp) => u64::from(tcp.max_connections),
        _ => 0,
    };
    let wanted: u64 = enabled(config).map(connections).sum();
    if may >= wanted + OPEN_BESIDE {
        let found = format!("{} may be open; connections that are allowed: {wanted}", shown(may));
        return Check::ok(subject, found);
    }
    let need = wanted + OPEN_BESIDE;
    Check::warn(
        subject,
        format!("{} may be open, but max_connections of the sources allow {wanted}", shown(may)),
    )
    .note("beyond the limit new connections are not accepted until others close")
    .note("it is the hard limit, which only root can raise")
    .help(format!("LimitNOFILE={need} in the systemd unit"))
    .help("or lower max_connections to what is needed")
}

fn locked_memory(config: Option<&Config>) -> Check {
    let subject = "locked memory";
    let Some((soft, _)) = limit(libc::RLIMIT_MEMLOCK) else { return Check::ok(subject, "no limit is told") };
    let shards = config.map_or_else(affinity::available, |config| config.shards(affinity::available()));
    let need = (shards * READ_BUFFER_BYTES) as u64;
    if soft >= need || has_capability(CAP_IPC_LOCK) {
        let may = if soft == libc::RLIM_INFINITY { "unlimited".to_owned() } else { bytes(soft) };
        return Check::ok(subject, format!("{may}; registered read buffers take at least {}", bytes(need)));
    }
    Check::warn(subject, format!("{} is too little for the read buffers of {shards} shards", bytes(soft)))
        .note("files are then read into plain memory, which takes about a tenth more CPU")
        .help(format!("ulimit -l {}", need.div_ceil(1024)))
        .help(format!("LimitMEMLOCK={need} in the systemd unit"))
}

/// Makes a watch, as each file source that follows does, and lets it go.
fn watches() -> Check {
    let subject = "inotify";
    // SAFETY: the call takes flags and returns a descriptor or -1.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    if fd < 0 {
        return no_watch(subject, "fs.inotify.max_user_instances", 1024);
    }
    // SAFETY: the descriptor was just made and nobody else has it; it is closed when this is dropped.
    let _inotify = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the path is a string that ends in a zero.
    if unsafe { libc::inotify_add_watch(fd, c"/".as_ptr(), libc::IN_CREATE) } < 0 {
        return no_watch(subject, "fs.inotify.max_user_watches", 524_288);
    }
    let read = |name| sysctl(name).map_or_else(|| "?".to_owned(), |n| n.to_string());
    let found = format!(
        "folders can be watched (at most {} watches, {} sources)",
        read("fs.inotify.max_user_watches"),
        read("fs.inotify.max_user_instances")
    );
    Check::ok(subject, found)
}

fn no_watch(subject: &str, name: &str, to: u64) -> Check {
    let error = io::Error::last_os_error();
    let now = sysctl(name).map_or_else(|| "?".to_owned(), |n| n.to_string());
    Check::warn(subject, format!("this user can watch no more folders: {error}"))
        .note(format!("{name} is {now}, shared by all processes of this user"))
        .note("folders without a watch are looked at every few seconds instead")
        .help(format!("sysctl -w {name}={to}"))
}

/// Asks the kernel for the buffer of each source of datagrams.
fn receive_buffers(config: Option<&Config>) -> Vec<Check> {
    enabled(config)
        .filter_map(|source| match &source.params {
            SourceParams::Syslog(syslog) if syslog.protocol == Protocol::Udp => {
                Some((source, syslog.so_rcvbuf.map_or(SO_RCVBUF, |size| size.0)))
            }
            _ => None,
        })
        .map(|(source, wished)| receive_buffer(source, wished))
        .collect()
}

fn receive_buffer(source: &SourceConfig, wished: u64) -> Check {
    let subject = format!("buffer of '{}'", source.key);
    let buffer = match grants(wished) {
        Ok(buffer) => buffer,
        Err(error) => return Check::warn(subject, format!("cannot be asked for: {error}")),
    };
    if !buffer.is_short() {
        return Check::ok(
            subject,
            format!("{} for datagrams that wait, as wished", bytes(buffer.granted_bytes)),
        );
    }
    let most = sysctl("net.core.rmem_max").map_or_else(|| "?".to_owned(), bytes);
    let may_force = if has_capability(CAP_NET_ADMIN) { "" } else { "; CAP_NET_ADMIN would pass it" };
    let (granted, wish) = (bytes(buffer.granted_bytes), bytes(wished));
    let mut check =
        Check::warn(subject, format!("the kernel grants {granted} of {wish}: bursts may be lost on UDP"))
            .code(Code::WP305)
            .note(format!("net.core.rmem_max is {most}{may_force}"))
            .help(format!("sysctl -w net.core.rmem_max={wished}"));
    check.place = Some(source.place.clone());
    check
}

fn sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn has_capability(bit: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> bit & 1 == 1)
}
