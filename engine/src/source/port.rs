//! Binding an address, and why it cannot be bound: who holds the port, what may bind low ports, which ports are free; as
//! found here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::types::{ListenAddr, Permissions};
use crate::diagnosis::{Code, Diagnostic};
use crate::io::interfaces::{Interface, interfaces};
use crate::io::listen::Address;

/// Free ports that are named, and ports that are tried for them.
const FREE_NAMED: usize = 3;
const FREE_TRIED: u16 = 50;
/// Addresses of this machine that are named.
const ADDRESSES_NAMED: usize = 8;
/// How long a port may stay taken after the process that held it has ended.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(5);
/// Bit of CAP_NET_BIND_SERVICE.
const NET_BIND_SERVICE: u32 = 10;

/// How an address is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections.
    Stream,
    /// Datagrams.
    Datagram,
}

impl Transport {
    /// Its name for people.
    pub fn name(self, address: &Address) -> &'static str {
        match (self, address) {
            (Self::Stream, Address::Inet(_)) => "tcp",
            (Self::Datagram, Address::Inet(_)) => "udp",
            (Self::Stream, Address::Unix(_)) => "stream",
            (Self::Datagram, Address::Unix(_)) => "datagram",
        }
    }
}

/// The address that a source's parameters name.
pub fn address(addr: &ListenAddr, port: u16) -> Address {
    match addr {
        ListenAddr::Ip(ip) => Address::Inet(SocketAddr::new(*ip, port)),
        ListenAddr::Unix(path) => Address::Unix(path.clone()),
    }
}

/// What a source's records say of how they came: udp, tcp, tls or unix.
pub fn protocol(address: &Address, transport: Transport, is_tls: bool) -> &'static str {
    match (address, transport) {
        (Address::Unix(_), _) => "unix",
        (Address::Inet(_), Transport::Datagram) => "udp",
        (Address::Inet(_), Transport::Stream) => {
            if is_tls {
                "tls"
            } else {
                "tcp"
            }
        }
    }
}

/// Lets those send to a unix socket whom `permissions` allow, whatever the process's mask is.
///
/// # Errors
/// The kernel's.
pub fn open_to(address: &Address, permissions: Permissions) -> io::Result<()> {
    match address {
        Address::Unix(path) => fs::set_permissions(path, fs::Permissions::from_mode(permissions.0)),
        Address::Inet(_) => Ok(()),
    }
}

/// Binds `address`; where the port is taken and no process has it, again and again for a while: the kernel lets go of the
/// sockets that a ring held only some time after its process was killed, and who starts the next one does not wait.
///
/// # Errors
/// Those of `bind`.
pub fn patiently<T>(
    transport: Transport,
    address: &Address,
    mut bind: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let until = Instant::now() + RELEASE_MAX;
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && Instant::now() < until
                    && is_left_behind(transport, address) =>
            {
                std::thread::sleep(RELEASE_POLL);
            }
            bound => return bound,
        }
    }
}

/// Whether no process has what is at the address.
fn is_left_behind(transport: Transport, address: &Address) -> bool {
    match address {
        Address::Inet(at) => holders(transport, *at).is_empty(),
        Address::Unix(path) => {
            let sockets = sockets_at(path, &fs::read_to_string("/proc/net/unix").unwrap_or_default());
            // A file that is no socket stays what it is.
            !sockets.is_empty() && owners(&sockets).is_empty()
        }
    }
}

/// The inodes of the unix sockets that are bound to a path, of a kernel's table of them.
fn sockets_at(path: &Path, table: &str) -> Vec<u64> {
    let path = path.to_string_lossy();
    let bound = table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(6);
        let (inode, at) = (words.next()?, words.next()?);
        (at == path).then(|| inode.parse().ok())?
    });
    bound.collect()
}

/// Explains why `address` could not be bound; `who` is the source, as "source 'x'".
pub fn explain(who: &str, transport: Transport, address: &Address, error: &io::Error) -> Diagnostic {
    let what = format!("{} {address}", transport.name(address));
    match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, Address::Inet(at)) => in_use(who, &what, transport, *at),
        (io::ErrorKind::AddrInUse, Address::Unix(path)) => path_in_use(who, &what, path),
        (io::ErrorKind::PermissionDenied, Address::Inet(at)) => low_port(who, &what, *at),
        (io::ErrorKind::AddrNotAvailable, Address::Inet(at)) => not_ours(who, *at, &interfaces()),
        _ => Diagnostic::plain(format!("{who}: cannot listen on {what}: {error}")),
    }
}

/// Says what is at the path of a unix socket.
fn path_in_use(who: &str, what: &str, path: &Path) -> Diagnostic {
    let finding = Diagnostic::error(Code::WP301, format!("{who}: Address already in use: {what}"));
    let shown = path.display();
    let kind = match fs::symlink_metadata(path).map(|meta| meta.file_type()) {
        Ok(kind) if kind.is_socket() => {
            let sockets = sockets_at(path, &fs::read_to_string("/proc/net/unix").unwrap_or_default());
            let finding = match owners(&sockets).first() {
                Some((pid, name)) => finding.note(format!("{name} (PID {pid}) listens at {shown}")),
                None => finding.note(format!("a process that we do not see listens at {shown}")),
            };
            return finding.help("name another path, or stop the process that listens there");
        }
        Ok(kind) if kind.is_file() => "a regular file",
        Ok(kind) if kind.is_dir() => "a folder",
        Ok(kind) if kind.is_symlink() => "a symbolic link",
        Ok(_) => "a device or FIFO",
        Err(_) => return finding.help("name another path"),
    };
    finding
        .note(format!("{shown} is {kind} and no socket"))
        .help("name another path, or move away what is there")
}

/// The address is no interface's, or of one that is down.
fn not_ours(who: &str, at: SocketAddr, interfaces: &[Interface]) -> Diagnostic {
    let message =
        format!("{who}: Failed to bind to address {at}: it is none of this machine's (os error 99)");
    let mut finding = Diagnostic::error(Code::WP502, message);
    if let Some(down) = interfaces.iter().find(|one| one.address == at.ip() && !one.is_up) {
        finding = finding
            .note(format!("it belongs to the interface {}, which is down", down.name))
            .help(format!("ip link set {} up", down.name));
    }
    let mut near: Vec<&Interface> =
        interfaces.iter().filter(|one| one.is_up && one.address.is_ipv4() == at.is_ipv4()).collect();
    near.sort_by_key(|one| std::cmp::Reverse(bits_alike(one.address, at.ip())));
    let shown = near.iter().take(ADDRESSES_NAMED).map(|one| format!("{} ({})", one.address, one.name));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = near.len().saturating_sub(ADDRESSES_NAMED);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    let kind = if at.is_ipv4() { "IPv4" } else { "IPv6" };
    finding = finding.note(if near.is_empty() {
        format!("this machine has no address of {kind} that is up")
    } else {
        format!("this machine's addresses of {kind}: {shown}{more}")
    });
    // The loopback is no likely slip of an address that others are to reach.
    if let Some(nearest) = near.iter().find(|one| !one.address.is_loopback() || at.ip().is_loopback()) {
        finding = finding.help(format!("addr = \"{}\"   (the nearest to what is written)", nearest.address));
    }
    let all = if at.is_ipv4() { "0.0.0.0" } else { "::" };
    finding.help(format!("addr = \"{all}\"   (every address of the machine)"))
}

/// How many bits two addresses of one kind have in common at their beginning.
fn bits_alike(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

fn in_use(who: &str, what: &str, transport: Transport, at: SocketAddr) -> Diagnostic {
    let message = format!("{who}: Address already in use: {what} (os error 98)");
    let mut finding = Diagnostic::error(Code::WP301, message);
    let holders = holders(transport, at);
    for (pid, name) in &holders {
        finding = finding.note(format!("held by {name} (PID {pid})"));
    }
    if holders.is_empty() {
        finding = finding.note("held by a process that this user may not look into");
    }
    let free = free_near(transport, at);
    if free.is_empty() {
        return finding.help("stop the process that holds the port");
    }
    let list: Vec<String> = free.iter().map(u16::to_string).collect();
    finding
        .help(format!("free ports near it: {}", list.join(", ")))
        .help(format!("port = {}", free[0]))
        .help("or stop the process that holds the port")
}

fn low_port(who: &str, what: &str, at: SocketAddr) -> Diagnostic {
    let start = first_unprivileged();
    let message = format!("{who}: Permission denied: {what} (os error 13)");
    if at.port() >= start {
        return Diagnostic::plain(message);
    }
    let capable = if has_capability() { "is there" } else { "is not there" };
    Diagnostic::error(Code::WP302, message)
        .note(format!(
            "ports below {start} (net.ipv4.ip_unprivileged_port_start) are for privileged processes"
        ))
        .note(format!("CAP_NET_BIND_SERVICE {capable}"))
        .help(format!("port = {}", at.port().saturating_add(1000).max(start)))
        .help("setcap cap_net_bind_service=+ep $(command -v wpgen)")
        .help(format!("sysctl -w net.ipv4.ip_unprivileged_port_start={}", at.port()))
}

fn first_unprivileged() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn has_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> NET_BIND_SERVICE & 1 == 1
}

/// The processes that have the port at this address or at all, as far as they can be seen.
pub fn holders(transport: Transport, at: SocketAddr) -> Vec<(u32, String)> {
    let tables: [&str; 2] = match transport {
        Transport::Stream => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Datagram => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| {
            text.lines().skip(1).filter_map(|line| bound(line, transport, at)).collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() { Vec::new() } else { owners(&inodes) }
}

/// The inode of a line of the kernel's table of sockets, if it keeps others from binding `at` and is no mere connection.
fn bound(line: &str, transport: Transport, at: SocketAddr) -> Option<u64> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    let (ip, port) = local.rsplit_once(':')?;
    let (ip, wanted) = (ip_of(ip)?, unmapped(at.ip()));
    let meets = ip == wanted || ip.is_unspecified() || wanted.is_unspecified();
    let here = u16::from_str_radix(port, 16).ok()? == at.port() && meets;
    let listens = transport == Transport::Datagram || *state == "0A";
    (here && listens).then(|| inode.parse().ok())?
}

/// An address of that table: its bytes in words of four, each printed as a number of this machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0u8; 16];
            for (n, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(n * 8)?);
            }
            Some(unmapped(IpAddr::from(bytes)))
        }
        _ => None,
    }
}

fn owners(inodes: &[u64]) -> Vec<(u32, String)> {
    let sockets: Vec<PathBuf> =
        inodes.iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_open(*pid, &sockets)).map(|pid| (pid, name(pid))).collect()
}

fn has_open(pid: u32, sockets: &[PathBuf]) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| sockets.contains(&target)))
}

fn name(pid: u32) -> String {
    let comm = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    comm.map_or_else(|_| "a process that has just ended".to_owned(), |comm| comm.trim().to_owned())
}

fn free_near(transport: Transport, at: SocketAddr) -> Vec<u16> {
    let is_free = |port: &u16| {
        let near = SocketAddr::new(unmapped(at.ip()), *port);
        match transport {
            Transport::Stream => TcpListener::bind(near).is_ok(),
            Transport::Datagram => UdpSocket::bind(near).is_ok(),
        }
    };
    let ports = at.port().saturating_add(1)..=at.port().saturating_add(FREE_TRIED);
    ports.filter(|port| *port > at.port()).filter(is_free).take(FREE_NAMED).collect()
}

fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder_and_free_ones() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (transport, at) in
            [(Transport::Stream, tcp.local_addr().unwrap()), (Transport::Datagram, udp.local_addr().unwrap())]
        {
            let error = io::Error::from(io::ErrorKind::AddrInUse);
            let finding = explain("source 's'", transport, &Address::Inet(at), &error);
            assert_eq!(finding.code, Some(Code::WP301));
            assert!(finding.message.starts_with("source 's': Address already in use: "), "{finding:?}");
            let me = format!("(PID {})", std::process::id());
            assert!(finding.notes.iter().any(|note| note.ends_with(&me)), "{finding:?}");
            assert!(finding.help.iter().any(|help| help.starts_with("free ports near it: ")), "{finding:?}");
        }
    }

    #[test]
    fn a_port_that_nobody_has_is_tried_again_and_one_that_somebody_has_is_not() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (at, tries) in [(free, 3), (held.local_addr().unwrap(), 1)] {
            let mut tried = 0;
            let bound = patiently(Transport::Stream, &Address::Inet(at), || {
                tried += 1;
                if tried < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
            });
            assert_eq!((tried, bound.is_ok()), (tries, tries == 3));
        }
    }

    #[test]
    fn an_address_of_nobody_names_ours_the_nearest_first_and_a_link_that_is_down() {
        let one = |name: &str, address: &str, is_up| Interface {
            name: name.into(),
            address: address.parse().unwrap(),
            is_up,
        };
        let ours = [
            one("lo", "127.0.0.1", true),
            one("eth0", "10.1.2.3", true),
            one("eth1", "10.1.9.9", false),
            one("eth0", "fe80::1", true),
        ];
        let finding = not_ours("source 's'", "10.1.2.4:514".parse().unwrap(), &ours);
        assert_eq!(finding.code, Some(Code::WP502));
        assert!(finding.message.starts_with("source 's': Failed to bind to address 10.1.2.4:514: "));
        assert_eq!(finding.notes, ["this machine's addresses of IPv4: 10.1.2.3 (eth0), 127.0.0.1 (lo)"]);
        assert!(
            finding.help[0].starts_with("addr = \"10.1.2.3\"") && finding.help[1].contains("\"0.0.0.0\"")
        );
        let finding = not_ours("source 's'", "10.1.9.9:514".parse().unwrap(), &ours);
        assert_eq!(finding.help[0], "ip link set eth1 up");
        let finding = not_ours("source 's'", "[2001:db8::1]:514".parse().unwrap(), &ours[..3]);
        assert_eq!(finding.notes, ["this machine has no address of IPv6 that is up"]);
        assert_eq!(finding.help, ["addr = \"::\"   (every address of the machine)"]);
    }

    #[test]
    fn a_low_port_names_both_mends() {
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        let at = Address::Inet("0.0.0.0:0".parse().unwrap());
        let finding = explain("source 's'", Transport::Datagram, &at, &error);
        if first_unprivileged() > 0 {
            assert_eq!(finding.code, Some(Code::WP302));
            assert_eq!(finding.help.len(), 3);
        }
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path_and_one_that_somebody_has_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = Address::Unix(path.clone());
        assert!(!is_left_behind(Transport::Stream, &address), "nothing is there");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(sockets_at(&path, &fs::read_to_string("/proc/net/unix").unwrap()).len(), 1);
        assert!(!is_left_behind(Transport::Stream, &address));
        drop(listener);
        assert!(!is_left_behind(Transport::Stream, &address), "a file that nobody listens at");
        let table =
            "Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 77 /a\n";
        assert_eq!(
            (sockets_at(Path::new("/a"), table), sockets_at(Path::new("/b"), table)),
            (vec![77], vec![])
        );
    }

    #[test]
    fn what_is_at_the_path_of_a_unix_socket_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("file"), folder.path().join("socket"));
        fs::write(&file, "").unwrap();
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let me = format!("(PID {}) listens at {}", std::process::id(), socket.display());
        let regular = format!("{} is a regular file and no socket", file.display());
        for (path, note) in [(file, regular), (socket, me)] {
            let error = io::Error::from(io::ErrorKind::AddrInUse);
            let finding = explain("source 's'", Transport::Stream, &Address::Unix(path), &error);
            assert!(finding.code == Some(Code::WP301) && finding.notes[0].ends_with(&note), "{finding}");
        }
    }

    #[test]
    fn lines_of_the_sockets_table_are_read() {
        let line =
            "  0: 0100007F:05EA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0";
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let here = at("127.0.0.1:1514");
        for taken in [here, at("0.0.0.0:1514"), at("[::]:1514"), at("[::ffff:127.0.0.1]:1514")] {
            assert_eq!(bound(line, Transport::Stream, taken), Some(4711), "{taken}");
        }
        for free in [at("127.0.0.1:514"), at("127.0.0.2:1514"), at("[::1]:1514")] {
            assert_eq!(bound(line, Transport::Stream, free), None, "{free}");
        }
        let any = line.replace("0100007F", "00000000000000000000000000000000");
        assert_eq!(bound(&any, Transport::Stream, here), Some(4711));
        let own = line.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(bound(&own, Transport::Stream, at("[::1]:1514")), Some(4711));
        assert_eq!(bound(&line.replace(" 0A ", " 01 "), Transport::Stream, here), None);
        assert_eq!(bound("sl local", Transport::Datagram, here), None);
    }
}
