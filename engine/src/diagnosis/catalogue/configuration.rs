//! WP4xx: the configuration.

use super::Entry;
use crate::diagnosis::Code;

pub(super) const ROWS: &[Entry] = &[
    Entry {
        code: Code::WP401,
        phrases: &["Failed to parse TOML configuration"],
        finds: "file, line and column, the line with a caret under it, and the likely mend",
        mend: "correct the line that is shown; strings stand in quotes",
        explain: "\
The file is not TOML, is larger than 4 MiB, is not UTF-8, or names a variable that is not set. Most often a string
has no quotes, or a bracket is not closed. A trailing comma in an array is legal. Variables are written ${VAR},
${VAR:-default} or ${file:/run/secrets/x}; $${ stands for a literal ${.",
        fails: "key = unquoted_value",
        works: "key = \"quoted_value\"",
    },
    Entry {
        code: Code::WP402,
        phrases: &["Connector 'x' not found"],
        finds: "the folders that were searched, the ids there are, and the near one",
        mend: "name a connector there is, or add one to connectors/source.d",
        explain: "\
'connect' names the id of a connector. Connectors are looked up from the folder of wpsrc.toml upward, and the first
connectors/source.d (for sinks connectors/sink.d) is taken, its *.toml in order, without folders below it. Some are
built in and are always there: wpgen connectors list shows all of them and where each comes from.",
        fails: "connect = \"unknown_connector\"",
        works: "connect = \"file_src\"",
    },
    Entry {
        code: Code::WP403,
        phrases: &["Parameter 'x' not in allow_override list"],
        finds: "the connector's file and line, its list, and the line to add",
        mend: "add the parameter to the connector's allow_override, or leave it out",
        explain: "\
A connector says which of its parameters a source or sink may change. Without the list nothing may be changed. A
list of \"*\" is refused, since it defeats the list: whoever writes a connector wants to know what can differ.",
        fails: "allow_override = [\"port\"]      # and a source that sets addr",
        works: "allow_override = [\"port\", \"addr\"]",
    },
    Entry {
        code: Code::WP404,
        phrases: &["Unknown connector type", "unknown parameter", "wrong type", "out of range"],
        finds: "what is allowed: the types, the parameters, the near name, the range",
        mend: "take one of those that are allowed",
        explain: "\
Every key of the configuration is known, has a type and often a range; nothing is silently left out. Sizes are
numbers of bytes or \"10MB\" and \"1MiB\", durations are \"200ms\" or \"5s\". wpgen connectors show ID lists what a
connector takes.",
        fails: "max_line_bytes = \"1 megabyte\"",
        works: "max_line_bytes = \"1MB\"",
    },
    Entry {
        code: Code::WP405,
        phrases: &["Duplicate connector ID", "duplicate source key", "two sources on one port"],
        finds: "both places",
        mend: "rename one of the two, or give it another port",
        explain: "\
Ids of connectors and keys of sources and sinks are unique, also across files; a file may redefine a built-in
connector. Two sources cannot listen on one port of one protocol, nor can two sinks write one file.",
        fails: "[[sources]]\nkey = \"a\"\n[[sources]]\nkey = \"a\"",
        works: "[[sources]]\nkey = \"a\"\n[[sources]]\nkey = \"b\"",
    },
    Entry {
        code: Code::WP406,
        phrases: &["removed parameter", "[sources] in place of [[sources]]"],
        finds: "the replacement, ready to paste",
        mend: "paste the replacement",
        explain: "\
strip_header, attach_meta_tags and process_header are now one parameter, header_mode. Sources are an array of
tables, so each begins with [[sources]]; a single [sources] would be replaced by the next one.",
        fails: "[sources]\nconnect = \"file_src\"",
        works: "[[sources]]\nkey = \"file_1\"\nconnect = \"file_src\"",
    },
];
