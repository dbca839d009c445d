//! WP1xx: files.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP101,
        phrases: &["No such file or directory (os error 2)"],
        symptom: "文件不存在",
        english: Words {
            finds: "the absolute path that was tried, the deepest folder of it that exists, files there with a near name",
            mend: "name the file that is there; a relative path is relative to the folder of the file that names it",
            explain: "\
A source names a file or folder that does not exist. A relative path is not looked up from where wpgen was
started: it belongs to the folder of the configuration file it is written in. With mode = \"tail\" a missing
file is waited for and this is a warning; with mode = \"once\" it is an error.",
        },
        chinese: Words {
            finds: "实际尝试的绝对路径、其中最深的已存在目录、该目录下名字相近的文件",
            mend: "写上真实存在的文件；相对路径以写下它的配置文件所在目录为准",
            explain: "\
数据源指向了不存在的文件或目录。相对路径不以启动 wpgen 的目录为准，而以写下它的配置文件所在目录为准。
mode = \"tail\" 时会等待文件出现，只给出警告；mode = \"once\" 时是错误。",
        },
        fails: "[sources.params_override]\npath = \"/var/log/ap.log\"",
        works: "[sources.params_override]\npath = \"/var/log/app.log\"",
    },
    Entry {
        code: Code::WP102,
        phrases: &["Permission denied (os error 13)"],
        symptom: "权限不足，无法读取文件",
        english: Words {
            finds: "owner, group and mode of the file or of the folder that blocks, and the user and groups we run as",
            mend: "give the user that runs wpgen read access, best by the file's group",
            explain: "\
The kernel refuses to open the file. Reading needs 'r' on the file and 'x' on each folder above it; often it is a
folder that blocks. The commands in the finding are for the very file and user: a group is the safest way, since
it goes on working when the file is rotated.",
        },
        chinese: Words {
            finds: "文件或拦路目录的属主、属组和权限位，以及运行 wpgen 的用户和组",
            mend: "给运行 wpgen 的用户读权限，最好通过文件的属组",
            explain: "\
内核拒绝打开文件。读取文件需要文件上的 r 权限和它上面每一级目录的 x 权限，往往是某一级目录拦住了。
诊断中给出的命令针对的就是这个文件和这个用户；通过属组授权最稳妥，日志轮转之后依然有效。",
        },
        fails: "-rw------- root root /var/log/app.log, read by user wpgen",
        works: "chgrp adm /var/log/app.log && chmod g+r /var/log/app.log && usermod -a -G adm wpgen",
    },
    Entry {
        code: Code::WP103,
        phrases: &["Invalid base64 encoding", "Invalid hex encoding"],
        symptom: "编码错误",
        english: Words {
            finds: "file, line, byte offset, the first bad byte, and the encoding the first lines do look like",
            mend: "set 'encode' to what the file holds",
            explain: "\
With encode = \"base64\" or \"hex\" each line is decoded to one record. A line that does not decode is skipped and
counted, stops the source or passes as it is, as on_bad_line says. When the first lines already fail, the file
probably has another encoding than the configuration says.",
        },
        chinese: Words {
            finds: "文件、行号、字节偏移、第一个错误字节，以及开头几行看上去是什么编码",
            mend: "把 encode 设成文件的真实编码",
            explain: "\
encode = \"base64\" 或 \"hex\" 时每一行解码为一条记录。解不开的行按 on_bad_line 跳过并计数、停止数据源，
或原样通过。如果开头几行就解不开，多半是文件的编码与配置不符。",
        },
        fails: "encode = \"base64\"      # for a file of plain lines",
        works: "encode = \"text\"",
    },
    Entry {
        code: Code::WP104,
        phrases: &["Resource busy (os error 16)", "Device or resource busy (os error 16)"],
        symptom: "文件被占用",
        english: Words {
            finds: "who locks an output or data_dir, who has a source's file open, and which right would show more",
            mend: "give each engine its own data_dir and outputs, or stop the other one: wpgen source stop",
            explain: "\
Linux opens a file for reading whoever else has it open, so a source is never refused for that. Busy are an output
or a data_dir that another engine has locked, and files under the mandatory lock of a network file system. Two
engines on one data_dir would overwrite each other's positions, so the second one does not start.",
        },
        chinese: Words {
            finds: "持有输出文件或 data_dir 锁的进程、谁打开着数据源的文件；看不到别的进程时，说明需要什么权限",
            mend: "让每个引擎使用各自的 data_dir 和输出，或停掉另一个引擎：wpgen source stop",
            explain: "\
Linux 允许读取别的进程正打开着的文件，所以数据源不会因此被拒绝。会被占用的是另一个引擎锁住的输出或 data_dir，
以及网络文件系统上的强制锁。两个引擎共用一个 data_dir 会互相覆盖读取位置，因此后来者不会启动。",
        },
        fails: "two engines with data_dir = \"./data\" in one folder",
        works: "[engine]\ndata_dir = \"./data-second\"",
    },
    Entry {
        code: Code::WP105,
        phrases: &["slow reading"],
        symptom: "读取缓慢",
        english: Words {
            finds: "how long the source waited for its reads and for its sinks; the rest is its own work: framing, decoding, encoding",
            mend: "widen the stage that limits; the others have room to spare",
            explain: "\
Reading is as fast as the slowest stage behind it. A disk that limits shows as waiting for reads, a slow sink as
waiting for sinks; a source that waits for neither is limited by the CPU, and only then more workers help.",
        },
        chinese: Words {
            finds: "数据源等待读取的时间、等待输出的时间，其余是它自己的处理：拆行、解码、编码",
            mend: "加宽受限的那一环，其余环节尚有余量",
            explain: "\
整条链路的速度取决于最慢的一环：磁盘慢表现为等待读取，输出慢表现为等待输出，两者都不等则是 CPU 受限，
这时增加 workers 才有用。",
        },
        fails: "a file sink with fsync = \"batch\" on a slow disk",
        works: "fsync = \"interval\"",
    },
    Entry {
        code: Code::WP106,
        phrases: &["memory too high"],
        symptom: "内存占用过高",
        english: Words {
            finds: "what buffers hold against memory_limit: batches on the way, unfinished records, receive and read buffers",
            mend: "mend the sink or lower the parameter that the finding names, or raise memory_limit",
            explain: "\
Everything the engine buffers counts against memory_limit, and reading pauses before it is passed. What is used
belongs to receive buffers (tcp_recv_bytes), to batches that wait for a sink, or to long records without an end yet.",
        },
        chinese: Words {
            finds: "缓冲占用与 memory_limit 的对比：在途批次、未完成的记录、接收与读取缓冲",
            mend: "调低诊断中点名的参数，或调整 memory_limit",
            explain: "\
引擎缓冲的一切都计入 memory_limit，达到上限之前读取就会暂停。占用来自接收缓冲（tcp_recv_bytes）、
等待输出的批次，以及尚未结束的长记录。",
        },
        fails: "tcp_recv_bytes = \"1GiB\" on eight shards",
        works: "tcp_recv_bytes = 104857600",
    },
];
