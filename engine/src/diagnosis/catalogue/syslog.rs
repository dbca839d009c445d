//! WP3xx: syslog and tcp.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP301,
        phrases: &["Address already in use"],
        symptom: "端口占用",
        english: Words {
            finds: "the process that holds the port (PID and name), and free ports near it",
            mend: "take a free port, or stop the process that holds this one",
            explain: "\
One socket listens on an address and port; UDP and TCP count apart. The port 514 is often held by rsyslog or
systemd-journald. 0.0.0.0 collides with every address of the machine.",
        },
        chinese: Words {
            finds: "占用端口的进程（PID 和名字），以及附近的空闲端口",
            mend: "换一个空闲端口，或停掉占用它的进程",
            explain: "\
同一地址和端口上只能有一个监听套接字，UDP 与 TCP 分别计算。514 端口常被 rsyslog 或 systemd-journald 占用；
0.0.0.0 与本机每个地址都冲突。",
        },
        fails: "port = 514       # rsyslog listens there",
        works: "port = 1514",
    },
    Entry {
        code: Code::WP302,
        phrases: &["Permission denied"],
        symptom: "端口权限不足",
        english: Words {
            finds: "whether CAP_NET_BIND_SERVICE is there, and net.ipv4.ip_unprivileged_port_start",
            mend: "take a port from 1024 on, or give wpgen CAP_NET_BIND_SERVICE",
            explain: "\
Ports below net.ipv4.ip_unprivileged_port_start (1024) are for privileged processes. There are two mends beside
another port: the capability for this one program, or a lower start of unprivileged ports for the whole machine.",
        },
        chinese: Words {
            finds: "是否具有 CAP_NET_BIND_SERVICE，以及 net.ipv4.ip_unprivileged_port_start 的值",
            mend: "使用 1024 及以上的端口，或给 wpgen CAP_NET_BIND_SERVICE",
            explain: "\
低于 net.ipv4.ip_unprivileged_port_start（默认 1024）的端口留给特权进程。除了换端口还有两种办法：
只给这个程序授予能力，或在整台机器上调低非特权端口的起点。",
        },
        fails: "port = 514, started as an ordinary user",
        works: "setcap cap_net_bind_service=+ep /usr/bin/wpgen",
    },
    Entry {
        code: Code::WP303,
        phrases: &["Connection refused", "Network unreachable"],
        symptom: "网络连接问题",
        english: Words {
            finds: "the address that was tried and what the kernel answered; for sources, the interfaces they are reached at",
            mend: "listen on an address the clients can reach, and let the firewall pass it",
            explain: "\
Refused means that the machine answered and nothing listens on that port and address; unreachable means that no
way leads there. A source on 127.0.0.1 is seen from its own machine only.",
        },
        chinese: Words {
            finds: "连接的地址与内核的回答；对数据源则是能到达它的网络接口和地址",
            mend: "让监听方监听客户端能到达的地址，并让防火墙放行",
            explain: "被拒绝说明机器有应答，但该地址和端口上没有监听；不可达说明没有路由。监听 127.0.0.1 的数据源只有本机能看到。",
        },
        fails: "addr = \"127.0.0.1\"      # and clients on other machines",
        works: "addr = \"0.0.0.0\"",
    },
    Entry {
        code: Code::WP304,
        phrases: &["Invalid syslog format", "Parse error in syslog message"],
        symptom: "消息格式错误",
        english: Words {
            finds: "the first bad bytes, the peer, the position, and which framing or header_mode would take them, by trying",
            mend: "write the setting that the finding names; header_mode = \"keep\" passes everything as it comes",
            explain: "\
A message begins with <PRI>, of 0 to 191. One that is none passes untouched with the tag syslog_malformed:true,
or is dropped, as on_bad_message says, and is counted. Many at once point at a wrong framing: octet counts read
as text, or lines read as counts.",
        },
        chinese: Words {
            finds: "最先出错的字节、发送方、出错的位置，消息被原样通过还是丢弃，以及哪种 framing 或 header_mode 能接受它：逐一用手头的字节试过",
            mend: "写上诊断中点名的设置；header_mode = \"keep\" 让一切原样通过",
            explain: "\
消息以 <PRI> 开头，取值 0 到 191。不符合的消息带上标签 syslog_malformed:true 原样通过，或按 on_bad_message 丢弃，
两种情况都计数。突然大量出现多半是 framing 不对：把长度当成了文本，或把文本当成了长度。",
        },
        fails: "framing = \"octet\"      # for a sender that ends messages with a newline",
        works: "framing = \"auto\"",
    },
    Entry {
        code: Code::WP305,
        phrases: &["messages lost on UDP"],
        symptom: "UDP 消息丢失",
        english: Words {
            finds: "the kernel's drop counter of that very socket, and its buffer against net.core.rmem_max",
            mend: "raise net.core.rmem_max and so_rcvbuf, or take protocol = \"tcp\"",
            explain: "\
UDP has no backpressure: what does not fit in the socket's buffer is dropped by the kernel, and counted there.
The counter is read from the socket itself, so the number is of this source alone.",
        },
        chinese: Words {
            finds: "内核为该套接字记录的丢弃数，它的缓冲与 net.core.rmem_max 的对比",
            mend: "调大 net.core.rmem_max 和 so_rcvbuf，或改用 protocol = \"tcp\"",
            explain: "UDP 没有背压：放不进套接字缓冲的报文由内核丢弃并计数。计数取自该套接字本身，所以只属于这个数据源。",
        },
        fails: "so_rcvbuf = \"212992\"      # the system's default, and bursts",
        works: "sysctl -w net.core.rmem_max=33554432, then so_rcvbuf = \"32MiB\"",
    },
    Entry {
        code: Code::WP306,
        phrases: &["buffer overflow at high traffic"],
        symptom: "缓冲区溢出",
        english: Words {
            finds: "the unfinished records that fill tcp_recv_bytes, and how long the source waits for its sinks",
            mend: "raise tcp_recv_bytes for bursts; mend the sink when it is slow for long",
            explain: "\
The receive budget of a source takes bursts while the sinks lag. When it is used up, TCP senders are slowed down
by their windows and UDP loses in the kernel. A budget does not help against a sink that is slower for good.",
        },
        chinese: Words {
            finds: "占满 tcp_recv_bytes 的未完成记录，以及数据源等待输出的时间",
            mend: "突发流量调大 tcp_recv_bytes；输出长期偏慢则处理输出",
            explain: "\
接收预算在输出滞后时吸收突发。用完之后 TCP 发送方被窗口放慢，UDP 在内核中丢失。
如果输出长期更慢，再大的预算也没有用。",
        },
        fails: "tcp_recv_bytes = 65536",
        works: "tcp_recv_bytes = 104857600      # 100MB",
    },
];
