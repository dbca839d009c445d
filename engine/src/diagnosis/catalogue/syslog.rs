//! WP3xx: syslog and tcp.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP301,
        phrases: &["Address already in use"],
        finds: "the process that holds the port (PID and name), and free ports near it",
        mend: "take a free port, or stop the process that holds this one",
        explain: "\
One socket listens on an address and port; UDP and TCP count apart. The port 514 is often held by rsyslog or
systemd-journald. 0.0.0.0 collides with every address of the machine.",
        fails: "port = 514       # rsyslog listens there",
        works: "port = 1514",
    },
    Entry {
        code: Code::WP302,
        phrases: &["Permission denied"],
        finds: "whether CAP_NET_BIND_SERVICE is there, and net.ipv4.ip_unprivileged_port_start",
        mend: "take a port from 1024 on, or give wpgen CAP_NET_BIND_SERVICE",
        explain: "\
Ports below net.ipv4.ip_unprivileged_port_start (1024) are for privileged processes. There are two mends beside
another port: the capability for this one program, or a lower start of unprivileged ports for the whole machine.",
        fails: "port = 514, started as an ordinary user",
        works: "setcap cap_net_bind_service=+ep /usr/bin/wpgen",
    },
    Entry {
        code: Code::WP303,
        phrases: &["Connection refused", "Network unreachable"],
        finds: "what listens where, the interface and its addresses, and a connect test from this machine",
        mend: "listen on an address the clients can reach, and let the firewall pass it",
        explain: "\
Refused means that the machine answered and nothing listens on that port and address; unreachable means that no
way leads there. A source on 127.0.0.1 is seen from its own machine only.",
        fails: "addr = \"127.0.0.1\"      # and clients on other machines",
        works: "addr = \"0.0.0.0\"",
    },
    Entry {
        code: Code::WP304,
        phrases: &["Invalid syslog format", "Parse error in syslog message"],
        finds: "the first bad bytes, the peer, the position, and the header_mode or framing that would take it",
        mend: "header_mode = \"keep\" passes everything as it comes",
        explain: "\
A message begins with <PRI>, of 0 to 191. One that is none passes untouched with the tag syslog_malformed:true,
or is dropped, as on_bad_message says, and is counted. Many at once point at a wrong framing: octet counts read
as text, or lines read as counts.",
        fails: "framing = \"octet\"      # for a sender that ends messages with a newline",
        works: "framing = \"auto\"",
    },
    Entry {
        code: Code::WP305,
        phrases: &["messages lost on UDP"],
        finds: "the kernel's drop counter of that very socket, and its buffer against net.core.rmem_max",
        mend: "raise net.core.rmem_max and so_rcvbuf, or take protocol = \"tcp\"",
        explain: "\
UDP has no backpressure: what does not fit in the socket's buffer is dropped by the kernel, and counted there.
The counter is read from the socket itself, so the number is of this source alone.",
        fails: "so_rcvbuf = \"212992\"      # the system's default, and bursts",
        works: "sysctl -w net.core.rmem_max=33554432, then so_rcvbuf = \"32MiB\"",
    },
    Entry {
        code: Code::WP306,
        phrases: &["buffer overflow at high traffic"],
        finds: "tcp_recv_bytes, the depth of the queue, and the sink that is slow",
        mend: "raise tcp_recv_bytes for bursts; mend the sink when it is slow for long",
        explain: "\
The receive budget of a source takes bursts while the sinks lag. When it is used up, TCP senders are slowed down
by their windows and UDP loses in the kernel. A budget does not help against a sink that is slower for good.",
        fails: "tcp_recv_bytes = 65536",
        works: "tcp_recv_bytes = 104857600      # 100MB",
    },
];
