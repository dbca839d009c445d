//! As a service: the unit, the manager's socket, and the seccomp profile for containers, each against the real thing.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command};

use crate::cli::{run, wpgen};
use crate::harness::PATIENCE;

/// A child that does not outlive a failed test.
struct Service(Child);

impl Service {
    fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.0.id().cast_signed(), signal) }, 0);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configure(folder: &Path, port: u16) {
    let config = format!(
        "[admin]\nlisten = \"\"\n[[sources]]\nkey = \"net\"\nconnect = \"tcp_src\"\n\
         params = {{ addr = \"127.0.0.1\", port = {port} }}\n[[sinks]]\nkey = \"out\"\nconnect = \"blackhole_sink\"\n"
    );
    std::fs::write(folder.join("wpsrc.toml"), config).unwrap();
}

#[test]
fn the_manager_hears_when_all_is_open_each_reload_the_watchdog_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    configure(folder.path(), port);
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = wpgen(folder.path(), &["-q", "source", "start"]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "200000");
    let mut service = Service(command.spawn().unwrap());
    let word = || {
        let mut bytes = [0; 1024];
        let n = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    };
    // The next word that is no mere sign of life.
    let next = || {
        loop {
            match word() {
                word if word.starts_with("STATUS=") => assert!(word.contains("records in"), "{word}"),
                word if word != "WATCHDOG=1" => break word,
                _ => {}
            }
        }
    };
    assert_eq!(next(), "READY=1");
    TcpStream::connect(("127.0.0.1", port)).expect("everything is open when it is ready");
    service.signal(libc::SIGHUP);
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1");
    // The watchdog is fed while nothing else happens.
    let mut fed = 0;
    while fed < 5 {
        fed += u32::from(word() == "WATCHDOG=1");
    }
    service.signal(libc::SIGTERM);
    assert_eq!(next(), "STOPPING=1");
    assert!(service.0.wait().unwrap().success());
}

#[test]
fn the_unit_is_sound_and_hardened() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["init", "."]).code, Some(0));
    let unit = folder.path().join("wpgen.service");
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg(&unit).output().ok()?;
        Some((
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        ))
    };
    let Some((sound, said)) = analyze(&["verify"]) else {
        eprintln!("systemd-analyze is not here: the unit is not checked");
        return;
    };
    assert!(sound && said.trim().is_empty(), "{said}");
    let (_, said) = analyze(&["security", "--offline=true", "--no-pager"]).unwrap();
    let exposure =
        said.lines().find_map(|line| line.split_once("Overall exposure level for wpgen.service: "));
    let exposure: f64 = exposure.unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(exposure <= 2.0, "{said}");
}

/// Numbers of system calls by name.
#[cfg(target_arch = "x86_64")]
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const CALLS: &[(&str, libc::c_long)] = calls![
    SYS_accept4 SYS_access SYS_arch_prctl SYS_bind SYS_brk SYS_chmod SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close SYS_connect SYS_dup SYS_dup2 SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_epoll_wait SYS_eventfd2 SYS_execve SYS_exit SYS_exit_group
    SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchmod SYS_fchmodat SYS_fcntl SYS_fdatasync
    SYS_flock SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_getcpu SYS_getcwd SYS_getdents64
    SYS_getegid SYS_geteuid SYS_getgid SYS_getpeername SYS_getpid SYS_getppid SYS_getrandom SYS_getrlimit
    SYS_getrusage SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid SYS_inotify_add_watch
    SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_uring_enter SYS_io_uring_register SYS_io_uring_setup SYS_ioctl
    SYS_kill SYS_listen SYS_lseek SYS_lstat SYS_madvise SYS_membarrier SYS_mkdir SYS_mkdirat SYS_mmap SYS_mprotect
    SYS_mremap SYS_munmap SYS_nanosleep SYS_newfstatat SYS_open SYS_openat SYS_pipe2 SYS_poll SYS_ppoll SYS_prctl
    SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readlink
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_rename SYS_renameat SYS_renameat2
    SYS_restart_syscall SYS_rmdir SYS_rseq SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait
    SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_yield SYS_sendmmsg SYS_sendmsg SYS_sendto
    SYS_set_robust_list SYS_set_tid_address SYS_setsid SYS_setsockopt SYS_shutdown SYS_sigaltstack SYS_socket
    SYS_socketpair SYS_stat SYS_statfs SYS_statx SYS_sysinfo SYS_tgkill SYS_timerfd_create SYS_timerfd_settime
    SYS_umask SYS_uname SYS_unlink SYS_unlinkat SYS_wait4 SYS_write SYS_writev
];

#[cfg(target_arch = "x86_64")]
fn profile() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/containers/seccomp.json");
    let profile: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let names = profile["syscalls"][0]["names"].as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The profile as the kernel takes it: what it names is allowed, all else is EPERM.
#[cfg(target_arch = "x86_64")]
fn filter(names: &[String]) -> Vec<libc::sock_filter> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = vec![step(0x20, 0, 0, 0)];
    for name in names {
        let (_, number) = CALLS
            .iter()
            .find(|(known, _)| known.strip_prefix("SYS_") == Some(name))
            .unwrap_or_else(|| panic!("no call {name}"));
        filter.push(step(0x15, 0, 1, u32::try_from(*number).unwrap()));
        filter.push(step(0x06, 0, 0, 0x7fff_0000));
    }
    filter.push(step(0x06, 0, 0, 0x0005_0000 | libc::EPERM.cast_unsigned()));
    filter
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_container_profile_allows_all_that_is_needed_on_both_ways_to_the_kernel() {
    use std::os::unix::process::CommandExt;

    let filter = filter(&profile());
    for io in ["uring", "epoll"] {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..20_000).map(|n| format!("{n} {}\n", "x".repeat(n % 97))).collect();
        std::fs::write(folder.path().join("in.log"), &lines).unwrap();
        let config = format!(
            "[engine]\nio = \"{io}\"\n[[sources]]\nkey = \"a\"\nconnect = \"file_src\"\n\
             params = {{ path = \"in.log\", mode = \"once\" }}\n[[sinks]]\nkey = \"b\"\nconnect = \"file_sink\"\n\
             params = {{ path = \"out.log\" }}\n"
        );
        std::fs::write(folder.path().join("wpsrc.toml"), config).unwrap();
        let mut command = wpgen(folder.path(), &["source", "start"]);
        let mut filter = filter.clone();
        let confine = move || {
            let len = u16::try_from(filter.len()).map_err(std::io::Error::other)?;
            let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
            // SAFETY: prctl takes numbers and a program that lives for the call; the kernel copies it.
            let refused = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                    || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
                        != 0
            };
            if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec the closure only makes two system calls.
        unsafe { command.pre_exec(confine) };
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("refused"), "{io}: {said}");
        assert!(std::fs::read_to_string(folder.path().join("out.log")).unwrap() == lines, "{io}");
    }
}
