//! The reference page of all rows, as Markdown: a table to look up a symptom, then each row whole.
//!
//! Pure; what it writes is kept in `docs/`, and a test compares.

use super::{Entry, Language, all, awaited};

/// The page.
pub fn page(language: Language) -> String {
    let said = headings(language);
    let mut page = format!(
        "# {}\n\n{}\n\n| {} | {} | {} |\n|---|---|---|\n",
        said[0], said[1], said[2], said[3], said[4]
    );
    for row in all() {
        let code = row.code.to_string();
        let anchor = code.to_lowercase();
        let mend = cell(row.words(language).mend);
        page.push_str(&format!("| [{code}](#{anchor}) | {} | {mend} |\n", cell(&row.title(language))));
    }
    for row in all() {
        page.push_str(&section(row, language));
    }
    page
}

fn section(row: &Entry, language: Language) -> String {
    let said = headings(language);
    let words = row.words(language);
    let mut text = format!("\n## {}\n\n**{}**\n", row.code, row.title(language));
    if let Some(kind) = awaited(row.code) {
        text.push_str(&format!("\n*{}*\n", not_yet(kind, language)));
    }
    text.push_str(&format!(
        "\n{}\n\n{}: {}.\n\n{}: {}.\n",
        words.explain, said[5], words.finds, said[4], words.mend
    ));
    for (heading, example) in [(said[6], row.fails), (said[7], row.works)] {
        text.push_str(&format!("\n{heading}:\n\n```\n{example}\n```\n"));
    }
    text
}

/// What stands beside a row of a part that this build does not have.
pub fn not_yet(kind: &str, language: Language) -> String {
    match language {
        Language::English => {
            format!("This build does not have the type '{kind}' yet: nothing raises this code so far.")
        }
        Language::Chinese => format!("此版本尚无类型 '{kind}'，目前不会出现该代码。"),
    }
}

fn headings(language: Language) -> [&'static str; 8] {
    match language {
        Language::English => [
            "Diagnostics",
            "What each code in a message means. This page is written by `wpgen explain --markdown`; \
             `wpgen explain CODE` shows one row on the terminal.",
            "code",
            "what you see",
            "What mends it",
            "wpgen finds out by itself",
            "Fails",
            "Works",
        ],
        Language::Chinese => [
            "诊断代码",
            "消息中每个代码的含义。本页由 `WPGEN_LANG=zh wpgen explain --markdown` 生成；`wpgen explain CODE` 在终端显示其中一行。",
            "代码",
            "现象",
            "解决办法",
            "wpgen 自行查明",
            "错误示例",
            "正确示例",
        ],
    }
}

/// Text in a cell of a table: a bar would end it, and brackets would make a link.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('[', "\\[").replace(']', "\\]")
}
