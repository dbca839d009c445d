//! WP1xx: files.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP101,
        phrases: &["No such file or directory (os error 2)"],
        finds: "the absolute path that was tried, the deepest folder of it that exists, files there with a near name",
        mend: "name the file that is there; a relative path is relative to the folder of the file that names it",
        explain: "\
A source names a file or folder that does not exist. A relative path is not looked up from where wpgen was
started: it belongs to the folder of the configuration file it is written in. With mode = \"tail\" a missing
file is waited for and this is a warning; with mode = \"once\" it is an error.",
        fails: "[sources.params_override]\npath = \"/var/log/ap.log\"",
        works: "[sources.params_override]\npath = \"/var/log/app.log\"",
    },
    Entry {
        code: Code::WP102,
        phrases: &["Permission denied (os error 13)"],
        finds: "owner, group and mode of the file or of the folder that blocks, and the user and groups we run as",
        mend: "give the user that runs wpgen read access, best by the file's group",
        explain: "\
The kernel refuses to open the file. Reading needs 'r' on the file and 'x' on each folder above it; often it is a
folder that blocks. The commands in the finding are for the very file and user: a group is the safest way, since
it goes on working when the file is rotated.",
        fails: "-rw------- root root /var/log/app.log, read by user wpgen",
        works: "chgrp adm /var/log/app.log && chmod g+r /var/log/app.log && usermod -a -G adm wpgen",
    },
    Entry {
        code: Code::WP103,
        phrases: &["Invalid base64 encoding", "Invalid hex encoding"],
        finds: "file, line, byte offset, the first bad byte, and the encoding the first lines do look like",
        mend: "set 'encode' to what the file holds",
        explain: "\
With encode = \"base64\" or \"hex\" each line is decoded to one record. A line that does not decode is skipped and
counted, stops the source or passes as it is, as on_bad_line says. When the first lines already fail, the file
probably has another encoding than the configuration says.",
        fails: "encode = \"base64\"      # for a file of plain lines",
        works: "encode = \"text\"",
    },
    Entry {
        code: Code::WP104,
        phrases: &["Resource busy (os error 16)", "Device or resource busy (os error 16)"],
        finds: "the process that holds the lock of an output or of data_dir, and who has the file open",
        mend: "give each engine its own data_dir and outputs, or stop the other one: wpgen source stop",
        explain: "\
Linux opens a file for reading whoever else has it open, so a source is never refused for that. Busy are an output
or a data_dir that another engine has locked, and files under the mandatory lock of a network file system. Two
engines on one data_dir would overwrite each other's positions, so the second one does not start.",
        fails: "two engines with data_dir = \"./data\" in one folder",
        works: "[engine]\ndata_dir = \"./data-second\"",
    },
    Entry {
        code: Code::WP105,
        phrases: &["slow reading"],
        finds: "the time spent in disk, decoding, sink and queue: the one stage that limits",
        mend: "widen the stage that limits; the others have room to spare",
        explain: "\
Reading is as fast as the slowest stage behind it. A disk that limits shows in the time of its reads, a sink in
batches that wait for it. More workers help only where the CPU limits.",
        fails: "a file sink with fsync = \"batch\" on a slow disk",
        works: "fsync = \"interval\"",
    },
    Entry {
        code: Code::WP106,
        phrases: &["memory too high"],
        finds: "bytes by owner (receive buffers, batches in queues, librdkafka) against each limit",
        mend: "lower the parameter the finding names, or memory_limit",
        explain: "\
Everything the engine buffers counts against memory_limit, and reading pauses before it is passed. What is used
belongs to receive buffers (tcp_recv_bytes), to batches that wait for a sink, or to a client library's own queues.",
        fails: "tcp_recv_bytes = \"1GiB\" on eight shards",
        works: "tcp_recv_bytes = 104857600",
    },
];
