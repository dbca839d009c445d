//! WP6xx: several nodes.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP601,
        phrases: &["Configuration sync failed"],
        symptom: "配置同步失败",
        english: Words {
            finds: "the store's address, the step that fails, and the last good version",
            mend: "open the way to the store, or correct its address",
            explain: "\
Nodes share their endpoints' configuration through a store. Without it each goes on with the last version it has;
changes wait until it is back.",
        },
        chinese: Words {
            finds: "存储的地址、失败的步骤、最后一个可用版本",
            mend: "打通到存储的路径，或改正它的地址",
            explain: "各节点通过存储共享 endpoint 配置。连不上时各自沿用手中的最后版本，修改要等它恢复。",
        },
        fails: "a store that is down, or a wrong password for it",
        works: "the store reachable from every node",
    },
    Entry {
        code: Code::WP602,
        phrases: &["Node communication failed"],
        symptom: "节点通信异常",
        english: Words {
            finds: "the node, when it was last seen, name resolution and TCP",
            mend: "open the way between the nodes, or start the one that is down",
            explain: "\
A node has not been heard of for a while. The steps tell a name that does not resolve from a machine that does not
answer and a port nothing listens on.",
        },
        chinese: Words {
            finds: "哪个节点、最后一次见到的时间、域名解析和 TCP",
            mend: "打通节点之间的路径，或启动停掉的节点",
            explain: "有一段时间没有收到某个节点的消息。逐步检查可以区分域名解析不了、机器没有应答和端口没有监听。",
        },
        fails: "a firewall between node1 and node2",
        works: "the admin port open between the nodes",
    },
    Entry {
        code: Code::WP603,
        phrases: &["data differs between nodes"],
        symptom: "数据不一致",
        english: Words {
            finds: "the entries that differ, and their versions",
            mend: "let the node with the older version reach the store",
            explain: "\
Two nodes show different versions of an entry. The one with the higher version is right; the other has not taken
it yet.",
        },
        chinese: Words {
            finds: "不同的条目及其版本",
            mend: "让版本较旧的节点连上存储",
            explain: "两个节点对同一条目显示不同版本。版本高的是对的，另一个还没有采用。",
        },
        fails: "a node that was cut off during a change",
        works: "the node back, and its version the store's",
    },
];
