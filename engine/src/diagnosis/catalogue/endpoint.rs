//! WP5xx: MQTT endpoints.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP501,
        phrases: &["Port N is already in use"],
        symptom: "端口冲突",
        english: Words {
            finds: "the process that holds the port, and free ports near it, as for any source",
            mend: "give the endpoint a free port",
            explain: "\
An endpoint is a listening MQTT port. Another process, or another source of this engine, already listens there.",
        },
        chinese: Words {
            finds: "与其他数据源相同：占用端口的进程和附近的空闲端口",
            mend: "给 endpoint 换一个空闲端口",
            explain: "endpoint 是一个监听的 MQTT 端口。别的进程，或本引擎的另一个数据源，已经在那里监听。",
        },
        fails: "POST /api/endpoints/add {\"port\": 1883}      # mosquitto listens there",
        works: "POST /api/endpoints/add {\"port\": 2883}",
    },
    Entry {
        code: Code::WP502,
        phrases: &["Failed to bind to address A:N"],
        symptom: "绑定地址失败",
        english: Words {
            finds: "whether the address is one of this machine's, which ones it has, and the nearest to what is written",
            mend: "take an address of this machine, or 0.0.0.0 for all",
            explain: "\
A socket can be bound only to an address that one of the machine's interfaces has. In a container those are the
container's own addresses, not the host's.",
        },
        chinese: Words {
            finds: "该地址是否属于本机的某个网络接口、本机有哪些地址，以及最接近的那一个",
            mend: "使用本机的地址，或用 0.0.0.0 表示全部",
            explain: "套接字只能绑定本机网络接口上的地址。在容器里那是容器自己的地址，不是宿主机的。",
        },
        fails: "addr = \"203.0.113.9\"      # the address of the router",
        works: "addr = \"0.0.0.0\"         # every interface",
    },
    Entry {
        code: Code::WP503,
        phrases: &["Authentication failed for client"],
        symptom: "客户端认证失败",
        english: Words {
            finds: "client id, user, peer, the source that was asked and its answer; never the password",
            mend: "correct the user in the source that was asked, or name another source",
            explain: "\
The endpoint asks its authentication source for each client that connects. The finding says what that source
answered: no such user, another password, or that it could not be asked at all.",
        },
        chinese: Words {
            finds: "客户端 id、用户、来源地址、询问的认证源及其回答；从不显示密码",
            mend: "在所询问的认证源中改正用户，或换一个认证源",
            explain: "endpoint 对每个连接的客户端询问认证源。诊断会说明它的回答：没有该用户、密码不同，或根本无法询问。",
        },
        fails: "a client with a user that is not in the file",
        works: "the user added to the source the finding names",
    },
    Entry {
        code: Code::WP504,
        phrases: &["Configuration not applied"],
        symptom: "配置不生效",
        english: Words {
            finds: "the version here, the version in the store, and the node and field that differ",
            mend: "mend what keeps the node from taking the new version",
            explain: "\
A change is stored with a version and applied on each node. A node that shows an older version could not take it
yet, and says why: a port that is taken there, or a store it does not reach.",
        },
        chinese: Words {
            finds: "本机的版本、存储中的版本，以及不同的节点和字段",
            mend: "排除使该节点无法采用新版本的原因",
            explain: "修改以版本号存储并在各节点生效。显示旧版本的节点还未能采用，并会说明原因：端口在那里被占用，或连不上存储。",
        },
        fails: "a port changed to one that is taken on one node",
        works: "a port that is free on every node",
    },
    Entry {
        code: Code::WP505,
        phrases: &["Invalid parameter value"],
        symptom: "参数值错误",
        english: Words {
            finds: "the field, its value and the valid range",
            mend: "take a value in the range",
            explain: "\
Each field of an endpoint has a type and a range: maxConnectionSize 1-65535, maxSessionSize 1-10000,
messageMaxSize 1024-16777216. An unknown field is refused too.",
        },
        chinese: Words {
            finds: "字段、它的值和有效范围",
            mend: "取有效范围内的值",
            explain: "\
endpoint 的每个字段都有类型和范围：maxConnectionSize 1-65535，maxSessionSize 1-10000，
messageMaxSize 1024-16777216。未知字段同样被拒绝。",
        },
        fails: "{\"port\": 1883, \"messageMaxSize\": 100}",
        works: "{\"port\": 1883, \"messageMaxSize\": 4194304}",
    },
    Entry {
        code: Code::WP506,
        phrases: &["Connection limit reached"],
        symptom: "连接数过多",
        english: Words {
            finds: "the number of connections, the limit, and the peers that hold most of them",
            mend: "raise maxConnectionSize, or look at the peers the finding names",
            explain: "\
The newest connection is refused once the limit is reached. A few peers with many connections each point at
clients that connect anew without closing what they had.",
        },
        chinese: Words {
            finds: "当前连接数、上限，以及占用最多的客户端地址",
            mend: "调大 maxConnectionSize，或查看诊断中点名的客户端",
            explain: "达到上限后最新的连接被拒绝。少数地址各占许多连接，多半是客户端重连而不关闭旧连接。",
        },
        fails: "maxConnectionSize = 1000 and 1001 devices",
        works: "maxConnectionSize = 5000",
    },
    Entry {
        code: Code::WP507,
        phrases: &["Message processing slow"],
        symptom: "消息处理慢",
        english: Words {
            finds: "the latency of each stage, and the one that limits",
            mend: "widen the stage that limits",
            explain: "\
The time from a PUBLISH to the sink's verdict is the sum of its stages; acknowledged messages wait for the slowest
sink that takes them.",
        },
        chinese: Words {
            finds: "每一环的延迟，以及受限的一环",
            mend: "加宽受限的一环",
            explain: "从 PUBLISH 到输出的裁决，时间是各环之和；需要确认的消息等待其中最慢的输出。",
        },
        fails: "QoS 1 into a file sink that syncs each batch",
        works: "the same with fsync = \"interval\"",
    },
    Entry {
        code: Code::WP508,
        phrases: &["High memory usage"],
        symptom: "内存使用高",
        english: Words {
            finds: "bytes by owner (sessions, receive buffers, queues) against each limit",
            mend: "lower the limit the finding names: maxSessionSize, messageMaxSize or memory_limit",
            explain: "\
Kept sessions hold the messages of clients that are away; they and every buffer count against memory_limit.",
        },
        chinese: Words {
            finds: "会话、接收缓冲、队列各占多少字节，与各自上限的对比",
            mend: "调低诊断中点名的上限：maxSessionSize、messageMaxSize 或 memory_limit",
            explain: "保留的会话为离线客户端存着消息；它们和一切缓冲都计入 memory_limit。",
        },
        fails: "maxSessionSize = 10000 with messages of megabytes",
        works: "maxSessionSize = 100",
    },
];
