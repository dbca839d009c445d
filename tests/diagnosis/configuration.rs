//! WP401 to WP406 as `source validate` tells them: code, file, line, column, and a mend that is pasted and then loads.

use std::fs;

use serde_json::Value;

use super::texts;
use crate::cli::run;
use crate::harness::Site;

/// One mistake and its way out.
struct Row {
    code: &'static str,
    phrase: &'static str,
    /// What is wrong, and where: line and column.
    wrong: &'static str,
    at: (u64, u64),
    /// Words of the mend.
    mend: &'static str,
    /// The text that is replaced, and by what.
    replace: (&'static str, &'static str),
}

const SOURCE: &str =
    "[[sources]]\nkey = \"a\"\nconnect = \"file_src\"\n[sources.params_override]\npath = \"in/app.log\"\n";

const ROWS: [Row; 7] = [
    Row {
        code: "WP401",
        phrase: "Failed to parse TOML configuration",
        wrong: "[log]\nlevel = info\n",
        at: (7, 9),
        mend: "level = \"info\"",
        replace: ("level = info", "level = \"info\""),
    },
    Row {
        code: "WP402",
        phrase: "Connector 'file_scr' not found",
        wrong: "[[sources]]\nkey = \"b\"\nconnect = \"file_scr\"\nparams = { path = \"in/b.log\" }\n",
        at: (8, 11),
        mend: "file_src",
        replace: ("file_scr", "file_src"),
    },
    Row {
        code: "WP403",
        phrase: "Parameter 'path' not in allow_override list",
        wrong: "[[sources]]\nkey = \"b\"\nconnect = \"mine\"\nparams = { path = \"in/b.log\" }\n",
        at: (9, 12),
        mend: "allow_override = [\"encode\", \"path\"]",
        replace: ("connect = \"mine\"", "connect = \"open\""),
    },
    Row {
        code: "WP404",
        phrase: "unknown parameter 'paht'",
        wrong: "[[sources]]\nkey = \"b\"\nconnect = \"file_src\"\nparams = { paht = \"in/b.log\" }\n",
        at: (9, 12),
        mend: "did you mean 'path'?",
        replace: ("paht", "path"),
    },
    Row {
        code: "WP404",
        phrase: "out of range",
        wrong: "[engine]\nworkers = 5000\n",
        at: (7, 11),
        mend: "",
        replace: ("5000", "50"),
    },
    Row {
        code: "WP405",
        phrase: "duplicate source key 'a'",
        wrong: "[[sources]]\nkey = \"a\"\nconnect = \"file_src\"\nparams = { path = \"in/b.log\" }\n",
        at: (7, 7),
        mend: "rename one of the two",
        replace: (
            "key = \"a\"\nconnect = \"file_src\"\nparams",
            "key = \"b\"\nconnect = \"file_src\"\nparams",
        ),
    },
    Row {
        code: "WP406",
        phrase: "strip_header",
        wrong: "[[sources]]\nkey = \"b\"\nconnect = \"syslog_udp_src\"\nparams = { strip_header = true }\n",
        at: (9, 12),
        mend: "header_mode = \"strip\"",
        replace: ("strip_header = true", "header_mode = \"strip\""),
    },
];

/// A connector that lets nothing but the encoding be changed, and one that lets the path.
const CONNECTORS: &str = "[[connectors]]\nid = \"mine\"\ntype = \"file\"\nallow_override = [\"encode\"]\n\
    [[connectors]]\nid = \"open\"\ntype = \"file\"\nallow_override = [\"path\"]\n";

fn validate(site: &Site) -> (Option<i32>, Value) {
    let ran = run(site.folder(), &["source", "validate", "--json"]);
    (ran.code, serde_json::from_str(&ran.out).unwrap())
}

#[test]
fn every_mistake_is_told_at_its_place_and_loads_with_its_mend() {
    for Row { code, phrase, wrong, at, mend, replace } in ROWS {
        let site = Site::empty();
        fs::create_dir_all(site.path("connectors/source.d")).unwrap();
        fs::write(site.path("connectors/source.d/10.toml"), CONNECTORS).unwrap();
        let text = format!("{SOURCE}{wrong}");
        fs::write(site.path("wpsrc.toml"), &text).unwrap();
        let (exit, report) = validate(&site);
        assert_eq!(exit, Some(1));
        let found = report["findings"].as_array().unwrap().iter().find(|found| found["code"] == code);
        let found = found.unwrap_or_else(|| panic!("no {code}: {report:#}"));
        let place = &found["place"];
        assert_eq!((place["line"].as_u64(), place["column"].as_u64()), (Some(at.0), Some(at.1)), "{found:#}");
        assert!(found["message"].as_str().unwrap().contains(phrase), "{found:#}");
        assert!(texts(found, "help").contains(mend), "{found:#}");
        let (this, that) = replace;
        let at = text.rfind(this).unwrap();
        fs::write(site.path("wpsrc.toml"), format!("{}{that}{}", &text[..at], &text[at + this.len()..]))
            .unwrap();
        let (exit, report) = validate(&site);
        assert_eq!(exit, Some(0), "{report:#}");
    }
}

#[test]
fn one_table_where_several_belong_is_told_with_the_brackets_to_write() {
    let site = Site::empty();
    fs::write(site.path("wpsrc.toml"), SOURCE.replace("[[sources]]", "[sources]")).unwrap();
    let (_, report) = validate(&site);
    let found = &report["findings"][0];
    assert_eq!((&found["code"], &found["place"]["line"]), (&"WP406".into(), &1.into()), "{found:#}");
    assert!(texts(found, "help").contains("[[sources]]"), "{found:#}");
}
