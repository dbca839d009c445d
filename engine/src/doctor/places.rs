//! The folders that are written: whether they can be, how much room is left, whose they are, and what lies in them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Check, bytes};
use crate::assemble;
use crate::checkpoint;
use crate::config::Config;
use crate::config::tls::TlsConnect;
use crate::diagnosis::{Code, Diagnostic};
use crate::lock;
use crate::sink::SinkParams;
use crate::source::SourceParams;
use crate::tls::load;

/// Free bytes of a file system from which on nobody needs to look.
const FREE_BYTES: u64 = 1 << 30;
/// Free inodes, likewise.
const FREE_INODES: u64 = 1000;

/// `running` is the engine that answers in the data folder.
pub(super) fn checks(config: &Config, running: Option<u32>) -> Vec<Check> {
    let mut checks = vec![lock_of(config, running), checkpoint_of(config)];
    let mut folders = vec![config.engine.data_dir.clone(), config.log.dir.clone()];
    for sink in config.sinks.iter().filter(|sink| sink.enable) {
        if let SinkParams::File(params) = &sink.params
            && let Some(path) = &params.path
        {
            folders.push(fixed(&path.template.to_string()));
        }
    }
    folders.sort();
    folders.dedup();
    checks.extend(folders.iter().map(|folder| room(folder)));
    checks.extend(certificates(config));
    let forgotten = assemble::forgotten(config);
    checks.extend(forgotten.iter().map(|left| Check::warn("rescue", left.to_string())));
    checks
}

/// The folders of a template in front of its first placeholder.
fn fixed(template: &str) -> PathBuf {
    let fixed = template.split('{').next().unwrap_or_default();
    let end = fixed.rfind('/').unwrap_or(0);
    PathBuf::from(if end == 0 { "/" } else { &fixed[..end] })
}

fn lock_of(config: &Config, running: Option<u32>) -> Check {
    let data_dir = &config.engine.data_dir;
    let path = data_dir.join("lock");
    match (lock::held(&path), running) {
        (Ok(None), _) => Check::ok("data_dir", format!("{} is free", data_dir.display())),
        (Ok(Some(holder)), running) => {
            let is_ours = holder.as_ref().is_some_and(|holder| Some(holder.pid) == running);
            let unseen = if holder.is_none() { lock::unseen() } else { None };
            let who =
                holder.map_or_else(|| "a process that we do not see".to_owned(), |held| held.to_string());
            if is_ours {
                return Check::ok(
                    "data_dir",
                    format!("{} is locked by its engine, {who}", data_dir.display()),
                );
            }
            let found = format!("{} is locked by {who}, which does not answer as an engine", path.display());
            let check = Check::fail("data_dir", found).code(Code::WP104);
            unseen
                .into_iter()
                .fold(check, Check::note)
                .note("an engine that starts or stops answers within seconds; or it belongs to another user")
                .help("stop that process, or take another folder: [engine] data_dir = \"./data-second\"")
        }
        (Err(error), _) => {
            Check::warn("data_dir", format!("{} cannot be looked at: {error}", path.display()))
                .note("only the user that runs the engine, and root, can see more")
        }
    }
}

fn checkpoint_of(config: &Config) -> Check {
    let subject = "checkpoint";
    match checkpoint::inspect(&config.engine.data_dir) {
        Ok(None) => match checkpoint::refused_first(&config.engine.data_dir) {
            Some(refused) => refused.help().into_iter().fold(
                Check::fail(subject, format!("{refused}: no start goes on from there")),
                Check::help,
            ),
            None => Check::ok(subject, "none yet: everything is read from its start"),
        },
        Ok(Some(snapshot)) => {
            let inputs = snapshot.inputs.len();
            Check::ok(subject, format!("readable, with the positions of {inputs} inputs"))
        }
        Err(why) => Check::fail(subject, why)
            .note("a start refuses a checkpoint that is not whole, and sets it aside: nothing is read twice unasked")
            .help("restore it from a backup, or start and follow what the start says"),
    }
}

/// How much room there is, at the deepest folder that exists.
fn room(folder: &Path) -> Check {
    let subject = "disk";
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let Some(told) = CString::new(there.as_os_str().as_bytes()).ok().and_then(|path| stat(&path)) else {
        return Check::warn(subject, format!("the file system of {} cannot be asked", there.display()));
    };
    let free = told.f_bavail * told.f_frsize;
    let found = format!("{}: {} free", folder.display(), bytes(free));
    if told.f_flag & libc::ST_RDONLY != 0 {
        return Check::fail(subject, format!("{} is on a file system that is read-only", folder.display()))
            .help(format!("mount -o remount,rw the file system of {}", there.display()));
    }
    // A file system that does not count inodes says 0 of 0.
    if told.f_files > 0 && told.f_favail < FREE_INODES {
        return Check::warn(subject, format!("{found}, but only {} inodes", told.f_favail))
            .help(format!("df -i {}: many small files take them", there.display()));
    }
    if free == 0 {
        return Check::fail(subject, found)
            .note("sinks wait until there is room; sources stop reading then, and UDP is lost")
            .help(format!("df -h {}", there.display()));
    }
    if free < FREE_BYTES {
        return Check::warn(subject, found)
            .help(format!("df -h {}; rotate = {{ size = ..., keep = ... }} bounds a sink", there.display()));
    }
    Check::ok(subject, found)
}

fn stat(path: &CString) -> Option<libc::statvfs> {
    // SAFETY: an all-zero statvfs is valid.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero, and the kernel fills a struct that lives through the call.
    (unsafe { libc::statvfs(path.as_ptr(), &raw mut told) } == 0).then_some(told)
}

/// The dates of every certificate that is named; whether the files fit together is told with the configuration.
fn certificates(config: &Config) -> Vec<Check> {
    let of_source = |params: &SourceParams| match params {
        SourceParams::Syslog(syslog) => syslog.tls.clone(),
        SourceParams::Tcp(tcp) => tcp.tls.clone(),
        _ => None,
    };
    let of_sink = |params: &SinkParams| -> Option<TlsConnect> {
        match params {
            SinkParams::Syslog(syslog) => syslog.tls.clone(),
            SinkParams::Tcp(tcp) => tcp.tls.clone(),
            _ => None,
        }
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for tls in
        config.sources.iter().filter(|source| source.enable).filter_map(|source| of_source(&source.params))
    {
        files.extend([tls.cert, tls.client_ca].into_iter().flatten());
    }
    for tls in config.sinks.iter().filter(|sink| sink.enable).filter_map(|sink| of_sink(&sink.params)) {
        files.extend([tls.cert, tls.ca].into_iter().flatten());
    }
    files.sort();
    files.dedup();
    files.iter().map(|file| dates(file)).collect()
}

fn dates(file: &Path) -> Check {
    let subject = "certificate";
    let found: Result<_, Diagnostic> = load::certificates(file);
    let now = jiff::Timestamp::now();
    match found.map(|all| all.iter().find_map(|one| load::warn_of_dates(file, one, now))) {
        Ok(None) => Check::ok(subject, format!("{} is good for more than 30 days", file.display())),
        Ok(Some(finding)) | Err(finding) => Check::of(subject, finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_template_ends_in_front_of_its_first_placeholder() {
        for (template, folder) in [
            ("/var/log/out/{source}.log", "/var/log/out"),
            ("/var/log/{date:%Y}/x/{source}.log", "/var/log"),
            ("/data/app-{source}.log", "/data"),
            ("/{source}", "/"),
            ("/a/b.log", "/a"),
        ] {
            assert_eq!(fixed(template), Path::new(folder), "{template}");
        }
    }

    #[test]
    fn room_is_told_of_the_deepest_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let check = room(&folder.path().join("not/yet"));
        assert!(check.found.contains("not/yet: ") && check.found.ends_with(" free"), "{check:?}");
        assert!(!folder.path().join("not").exists());
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
