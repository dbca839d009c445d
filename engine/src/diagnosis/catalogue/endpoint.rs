//! WP5xx: MQTT endpoints.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP501,
        phrases: &["Port N is already in use"],
        finds: "the process that holds the port, and free ports near it, as for any source",
        mend: "give the endpoint a free port",
        explain: "\
An endpoint is a listening MQTT port. Another process, or another source of this engine, already listens there.",
        fails: "POST /api/endpoints/add {\"port\": 1883}      # mosquitto listens there",
        works: "POST /api/endpoints/add {\"port\": 2883}",
    },
    Entry {
        code: Code::WP502,
        phrases: &["Failed to bind to address A:N"],
        finds: "whether the address belongs to an interface of this machine",
        mend: "take an address of this machine, or 0.0.0.0 for all",
        explain: "\
A socket can be bound only to an address that one of the machine's interfaces has. In a container those are the
container's own addresses, not the host's.",
        fails: "addr = \"203.0.113.9\"      # the address of the router",
        works: "addr = \"0.0.0.0\"         # every interface",
    },
    Entry {
        code: Code::WP503,
        phrases: &["Authentication failed for client"],
        finds: "client id, user, peer, the source that was asked and its answer; never the password",
        mend: "correct the user in the source that was asked, or name another source",
        explain: "\
The endpoint asks its authentication source for each client that connects. The finding says what that source
answered: no such user, another password, or that it could not be asked at all.",
        fails: "a client with a user that is not in the file",
        works: "the user added to the source the finding names",
    },
    Entry {
        code: Code::WP504,
        phrases: &["Configuration not applied"],
        finds: "the version here, the version in the store, and the node and field that differ",
        mend: "mend what keeps the node from taking the new version",
        explain: "\
A change is stored with a version and applied on each node. A node that shows an older version could not take it
yet, and says why: a port that is taken there, or a store it does not reach.",
        fails: "a port changed to one that is taken on one node",
        works: "a port that is free on every node",
    },
    Entry {
        code: Code::WP505,
        phrases: &["Invalid parameter value"],
        finds: "the field, its value and the valid range",
        mend: "take a value in the range",
        explain: "\
Each field of an endpoint has a type and a range: maxConnectionSize 1-65535, maxSessionSize 1-10000,
messageMaxSize 1024-16777216. An unknown field is refused too.",
        fails: "{\"port\": 1883, \"messageMaxSize\": 100}",
        works: "{\"port\": 1883, \"messageMaxSize\": 4194304}",
    },
    Entry {
        code: Code::WP506,
        phrases: &["Connection limit reached"],
        finds: "the number of connections, the limit, and the peers that hold most of them",
        mend: "raise maxConnectionSize, or look at the peers the finding names",
        explain: "\
The newest connection is refused once the limit is reached. A few peers with many connections each point at
clients that connect anew without closing what they had.",
        fails: "maxConnectionSize = 1000 and 1001 devices",
        works: "maxConnectionSize = 5000",
    },
    Entry {
        code: Code::WP507,
        phrases: &["Message processing slow"],
        finds: "the latency of each stage, and the one that limits",
        mend: "widen the stage that limits",
        explain: "\
The time from a PUBLISH to the sink's verdict is the sum of its stages; acknowledged messages wait for the slowest
sink that takes them.",
        fails: "QoS 1 into a file sink that syncs each batch",
        works: "the same with fsync = \"interval\"",
    },
    Entry {
        code: Code::WP508,
        phrases: &["High memory usage"],
        finds: "bytes by owner (sessions, receive buffers, queues) against each limit",
        mend: "lower the limit the finding names: maxSessionSize, messageMaxSize or memory_limit",
        explain: "\
Kept sessions hold the messages of clients that are away; they and every buffer count against memory_limit.",
        fails: "maxSessionSize = 10000 with messages of megabytes",
        works: "maxSessionSize = 100",
    },
];
