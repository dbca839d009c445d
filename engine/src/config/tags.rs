//! Tags of a source: `key:value` or `key=value`. Most are only attached to its records; a few act.

use super::params::{Param, Shape, wrong_type, wrong_value};
use super::tree::Node;
use crate::diagnosis::{Findings, nearest};

/// Longest key.
const KEY_BYTES_MAX: usize = 32;
/// Longest value.
const VALUE_BYTES_MAX: usize = 256;

/// What a key is made of.
pub const KEY_WORDS: &str = "1 to 32 of A-Z a-z 0-9 _ . -";

/// Whether a text can be the key of a tag.
pub fn is_key(text: &str) -> bool {
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_legal)
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 1 to 32 of `A-Z a-z 0-9 _ . -`.
    pub key: String,
    /// At most 256 bytes.
    pub value: String,
}

/// What a source's tags make the engine do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Actions {
    /// The source has its own line in the statistics log.
    pub monitor: bool,
    /// Errors raise an alert.
    pub alert_on_error: bool,
    /// Lag raises an alert.
    pub alert_on_lag: bool,
    /// Errors a minute, or lag, from which on an alert is raised.
    pub alert_threshold: Option<u64>,
}

/// The tags that act, and what they take.
const ACTING: [(&str, &str); 4] = [
    ("monitor", "enabled or disabled"),
    ("alert_on_error", "true or false"),
    ("alert_on_lag", "true or false"),
    ("alert_threshold", "a number"),
];

impl Tag {
    /// Reads a tag, or says why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = text.find([':', '=']).ok_or_else(|| format!("'{text}' is not key:value or key=value"))?;
        let (key, value) = (&text[..at], &text[at + 1..]);
        if !is_key(key) {
            return Err(format!("the key '{key}' is not {KEY_WORDS}"));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!(
                "the value of '{key}' has {} bytes, at most {VALUE_BYTES_MAX} are taken",
                value.len()
            ));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("the value of '{key}' holds a control character"));
        }
        let tag = Self { key: key.to_owned(), value: value.to_owned() };
        tag.check()?;
        Ok(tag)
    }

    /// Whether a tag that acts says something that can be done.
    fn check(&self) -> Result<(), String> {
        let Some((key, takes)) = ACTING.iter().find(|(key, _)| *key == self.key) else { return Ok(()) };
        let valid = match *key {
            "monitor" => matches!(self.value.as_str(), "enabled" | "disabled"),
            "alert_threshold" => self.value.parse::<u64>().is_ok(),
            _ => matches!(self.value.as_str(), "true" | "false"),
        };
        if valid { Ok(()) } else { Err(format!("'{key}' takes {takes}, not '{}'", self.value)) }
    }

    /// The tag that acts and was probably meant, when this one only looks like it.
    pub fn near_acting(&self) -> Option<&'static str> {
        let names = ACTING.map(|(key, _)| key);
        nearest(&self.key, &names).filter(|near| *near != self.key)
    }
}

impl Actions {
    /// What the tags make the engine do.
    pub fn of(tags: &[Tag]) -> Self {
        let mut actions = Self::default();
        for tag in tags {
            match tag.key.as_str() {
                "monitor" => actions.monitor = tag.value == "enabled",
                "alert_on_error" => actions.alert_on_error = tag.value == "true",
                "alert_on_lag" => actions.alert_on_lag = tag.value == "true",
                "alert_threshold" => actions.alert_threshold = tag.value.parse().ok(),
                _ => {}
            }
        }
        actions
    }
}

impl Param for Tag {
    const SHAPE: Shape = Shape::Text("a tag, as \"env:production\"");

    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self> {
        let Some(text) = node.as_text() else {
            wrong_type(node, name, &Self::SHAPE, findings);
            return None;
        };
        Self::parse(text).map_err(|why| wrong_value(node, name, &why, findings)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_split_at_the_first_sign() {
        for (text, key, value) in [
            ("env:production", "env", "production"),
            ("a=b:c=d", "a", "b:c=d"),
            ("x:", "x", ""),
            ("a.b-C_9:1", "a.b-C_9", "1"),
        ] {
            assert_eq!(Tag::parse(text), Ok(Tag { key: key.into(), value: value.into() }));
        }
        let long = format!("{}:v", "k".repeat(33));
        let wide = format!("k:{}", "v".repeat(257));
        for wrong in [
            "",
            "x",
            ":v",
            "a b:c",
            "é:1",
            "a:b\nc",
            "alert_on_error:yes",
            "alert_threshold:-1",
            &long,
            &wide,
        ] {
            assert!(Tag::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn acting_tags_act() {
        let tags = ["monitor:enabled", "alert_on_error:true", "alert_threshold:1000", "env:x"];
        let tags: Vec<Tag> = tags.iter().map(|text| Tag::parse(text).expect("valid")).collect();
        let expected =
            Actions { monitor: true, alert_on_error: true, alert_on_lag: false, alert_threshold: Some(1000) };
        assert_eq!(Actions::of(&tags), expected);
        let near = |text: &str| Tag::parse(text).expect("valid").near_acting();
        assert_eq!(near("alert_on_eror:true"), Some("alert_on_error"));
        assert_eq!((near("env:x"), near("alert_on_lag:true"), near("alerts:x")), (None, None, None));
    }
}
