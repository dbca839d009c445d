//! What befell a source's records, in few words: dropped and why, malformed, cut, lost in the kernel.
//!
//! The summary knows it from the engine, `source list` and `status` from the engine's answer; both say it here.

use engine::status::SourceStatus;
use serde_json::Value;

use crate::progress::count;

/// What befell a source's records; empty where nothing did.
pub fn of_status(source: &SourceStatus) -> String {
    said(
        source.dropped.iter().map(|(why, n)| (why.as_str(), *n)),
        [source.malformed, source.misframed, source.truncated, source.split, source.kernel_drops],
        source.kernel_drops_are_a_lower_bound,
    )
}

/// The same of an answer's source.
pub fn of_answer(source: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let dropped = source["dropped"].as_object().into_iter().flatten();
    said(
        dropped.map(|(why, n)| (why.as_str(), number(n))),
        ["malformed", "misframed", "truncated", "split", "kernel_drops"].map(|name| number(&source[name])),
        source["kernel_drops_are_a_lower_bound"] == true,
    )
}

fn said<'a>(
    dropped: impl Iterator<Item = (&'a str, u64)>,
    [malformed, misframed, truncated, split, kernel_drops]: [u64; 5],
    at_least: bool,
) -> String {
    let dropped = dropped.map(|(why, n)| (format!("dropped as {why} "), n));
    let kernel = if at_least { "lost in the kernel, at least " } else { "lost in the kernel " };
    let others = [
        ("malformed ", malformed),
        ("misframed ", misframed),
        ("truncated ", truncated),
        ("split ", split),
        (kernel, kernel_drops),
    ];
    let all = dropped.chain(others.map(|(name, n)| (name.to_owned(), n)));
    let told: Vec<String> = all.filter(|(_, n)| *n > 0).map(|(name, n)| name + &count(n)).collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_said_and_the_same_both_ways() {
        assert_eq!(of_status(&SourceStatus::default()), "");
        assert_eq!(of_answer(&serde_json::json!({})), "");
        let status = SourceStatus {
            dropped: vec![("too_long".into(), 2)],
            malformed: 3,
            kernel_drops: 4000,
            kernel_drops_are_a_lower_bound: true,
            ..SourceStatus::default()
        };
        let answer = serde_json::json!({
            "dropped": { "too_long": 2 }, "malformed": 3, "kernel_drops": 4000, "kernel_drops_are_a_lower_bound": true,
        });
        let said = "dropped as too_long 2, malformed 3, lost in the kernel, at least 4,000";
        assert_eq!((of_status(&status), of_answer(&answer)), (said.to_owned(), said.to_owned()));
    }
}
