//! WP4xx: the configuration.

use super::{Entry, Words};
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP401,
        phrases: &["Failed to parse TOML configuration"],
        symptom: "TOML 语法错误",
        english: Words {
            finds: "file, line and column, the line with a caret under it, and the likely mend",
            mend: "correct the line that is shown; strings stand in quotes",
            explain: "\
The file is not TOML, is larger than 4 MiB, is not UTF-8, or names a variable that is not set. Most often a string
has no quotes, or a bracket is not closed. A trailing comma in an array is legal. Variables are written ${VAR},
${VAR:-default} or ${file:/run/secrets/x}; $${ stands for a literal ${.",
        },
        chinese: Words {
            finds: "文件、行、列，带插入符的那一行，以及可能的改法",
            mend: "改正所示的那一行；字符串要加引号",
            explain: "\
文件不是 TOML、超过 4 MiB、不是 UTF-8，或用了没有设置的变量。最常见的是字符串没有引号，或括号没有闭合。
数组末尾多一个逗号是合法的。变量写作 ${VAR}、${VAR:-默认值} 或 ${file:/run/secrets/x}；$${ 表示字面的 ${。",
        },
        fails: "key = unquoted_value",
        works: "key = \"quoted_value\"",
    },
    Entry {
        code: Code::WP402,
        phrases: &["Connector 'x' not found"],
        symptom: "连接器引用错误",
        english: Words {
            finds: "the folders that were searched, the ids there are, and the near one",
            mend: "name a connector there is, or add one to connectors/source.d",
            explain: "\
'connect' names the id of a connector. Connectors are looked up from the folder of wpsrc.toml upward, and the first
connectors/source.d (for sinks connectors/sink.d) is taken, its *.toml in order, without folders below it. Some are
built in and are always there: wpgen connectors list shows all of them and where each comes from.",
        },
        chinese: Words {
            finds: "查找过的目录、现有的 id、名字相近的 id",
            mend: "使用现有的连接器，或在 connectors/source.d 中添加",
            explain: "\
connect 写的是连接器的 id。从 wpsrc.toml 所在目录逐级向上查找，取第一个 connectors/source.d
（输出为 connectors/sink.d），按顺序读其中的 *.toml，不进子目录。另有内置连接器始终可用：
wpgen connectors list 列出全部及其来源。",
        },
        fails: "connect = \"unknown_connector\"",
        works: "connect = \"file_src\"",
    },
    Entry {
        code: Code::WP403,
        phrases: &["Parameter 'x' not in allow_override list"],
        symptom: "参数覆盖错误",
        english: Words {
            finds: "the connector's file and line, its list, and the line to add",
            mend: "add the parameter to the connector's allow_override, or leave it out",
            explain: "\
A connector says which of its parameters a source or sink may change. Without the list nothing may be changed. A
list of \"*\" is refused, since it defeats the list: whoever writes a connector wants to know what can differ.",
        },
        chinese: Words {
            finds: "连接器的文件和行、它的列表，以及要添加的那一行",
            mend: "把参数加进连接器的 allow_override，或不要覆盖它",
            explain: "连接器规定数据源或输出可以改哪些参数；没有列表则什么都不能改。写 \"*\" 会被拒绝，因为那样列表就失去了意义。",
        },
        fails: "allow_override = [\"port\"]      # and a source that sets addr",
        works: "allow_override = [\"port\", \"addr\"]",
    },
    Entry {
        code: Code::WP404,
        phrases: &["Unknown connector type", "unknown parameter", "wrong type", "out of range"],
        symptom: "参数错误",
        english: Words {
            finds: "what is allowed: the types, the parameters, the near name, the range",
            mend: "take one of those that are allowed",
            explain: "\
Every key of the configuration is known, has a type and often a range; nothing is silently left out. Sizes are
numbers of bytes or \"10MB\" and \"1MiB\", durations are \"200ms\" or \"5s\". wpgen connectors show ID lists what a
connector takes.",
        },
        chinese: Words {
            finds: "允许的内容：类型、参数、相近的名字、取值范围",
            mend: "改成允许的写法",
            explain: "\
配置中的每个键都是已知的，有类型，往往还有范围；没有任何键会被悄悄忽略。大小写作字节数或 \"10MB\"、\"1MiB\"，
时长写作 \"200ms\"、\"5s\"。wpgen connectors show ID 列出连接器接受的参数。",
        },
        fails: "max_line_bytes = \"1 megabyte\"",
        works: "max_line_bytes = \"1MB\"",
    },
    Entry {
        code: Code::WP405,
        phrases: &["Duplicate connector ID", "duplicate source key", "two sources on one port"],
        symptom: "重复定义",
        english: Words {
            finds: "both places",
            mend: "rename one of the two, or give it another port",
            explain: "\
Ids of connectors and keys of sources and sinks are unique, also across files; a file may redefine a built-in
connector. Two sources cannot listen on one port of one protocol, nor can two sinks write one file.
A source that takes in what a sink writes or sends of it would do so for ever.",
        },
        chinese: Words {
            finds: "两处的位置",
            mend: "给其中一个改名，或换一个端口",
            explain: "\
连接器的 id、数据源和输出的 key 都唯一，跨文件也是如此；文件可以重新定义内置连接器。
两个数据源不能监听同一协议的同一端口，两个输出也不能写同一个文件。
数据源若读入输出写出或发回的自己的记录，就会无休止地循环。",
        },
        fails: "[[sources]]\nkey = \"a\"\n[[sources]]\nkey = \"a\"",
        works: "[[sources]]\nkey = \"a\"\n[[sources]]\nkey = \"b\"",
    },
    Entry {
        code: Code::WP406,
        phrases: &["removed parameter", "[sources] in place of [[sources]]"],
        symptom: "已移除的参数",
        english: Words {
            finds: "the replacement, ready to paste",
            mend: "paste the replacement",
            explain: "\
strip_header, attach_meta_tags and process_header are now one parameter, header_mode. Sources are an array of
tables, so each begins with [[sources]]; a single [sources] would be replaced by the next one.",
        },
        chinese: Words {
            finds: "可以直接粘贴的替代写法",
            mend: "粘贴替代写法",
            explain: "\
strip_header、attach_meta_tags 和 process_header 已合并为 header_mode。数据源是表数组，每个都以 [[sources]] 开头；
单独的 [sources] 会被下一个覆盖。",
        },
        fails: "[sources]\nconnect = \"file_src\"",
        works: "[[sources]]\nkey = \"file_1\"\nconnect = \"file_src\"",
    },
];
