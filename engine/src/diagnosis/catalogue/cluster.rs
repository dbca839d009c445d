//! WP6xx: several nodes.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP601,
        phrases: &["Configuration sync failed"],
        finds: "the store's address, the step that fails, and the last good version",
        mend: "open the way to the store, or correct its address",
        explain: "\
Nodes share their endpoints' configuration through a store. Without it each goes on with the last version it has;
changes wait until it is back.",
        fails: "a store that is down, or a wrong password for it",
        works: "the store reachable from every node",
    },
    Entry {
        code: Code::WP602,
        phrases: &["Node communication failed"],
        finds: "the node, when it was last seen, name resolution and TCP",
        mend: "open the way between the nodes, or start the one that is down",
        explain: "\
A node has not been heard of for a while. The steps tell a name that does not resolve from a machine that does not
answer and a port nothing listens on.",
        fails: "a firewall between node1 and node2",
        works: "the admin port open between the nodes",
    },
    Entry {
        code: Code::WP603,
        phrases: &["data differs between nodes"],
        finds: "the entries that differ, and their versions",
        mend: "let the node with the older version reach the store",
        explain: "\
Two nodes show different versions of an entry. The one with the higher version is right; the other has not taken
it yet.",
        fails: "a node that was cut off during a change",
        works: "the node back, and its version the store's",
    },
];
