//! File paths with placeholders: `{source}`, `{host}`, `{tag:x}`, `{date:%Y%m%d}`.
//!
//! A [`Template`] is what the operator wrote. With an origin it becomes a [`Outlet`], in which only the dates are
//! open: all files of one outlet have one owner, which writes them in order. With a time the outlet becomes a path.
//!
//! The operator's own text may go anywhere. A value may not: whatever a source, host or tag is called, it stays one
//! part of one name below the folder that the template names, so no value adds a `/`, a `..`, a hidden name, a
//! control character, or a name that is too long. Two values that become the same name are the same outlet.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::batch::Origin;
use crate::config::tags;

/// Longest name that a value becomes, bytes: several of them, a date and an ending fit into the 255 of a file name.
const VALUE_BYTES_MAX: usize = 100;
/// What stands for a value that is empty or missing.
const NO_VALUE: &str = "_";
/// The placeholders, as they are shown in messages.
const KNOWN: [(&str, &str); 4] =
    [("source", "{source}"), ("host", "{host}"), ("tag", "{tag:name}"), ("date", "{date:%Y%m%d}")];

/// A path as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Source,
    Host,
    Tag(String),
    Date(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Source => f.write_str("{source}"),
            Self::Host => f.write_str("{host}"),
            Self::Tag(name) => write!(f, "{{tag:{name}}}"),
            Self::Date(format) => write!(f, "{{date:{format}}}"),
        }
    }
}

/// With what is open in it as it is configured.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(f))
    }
}

/// Why a template was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Byte offset of the fault in the template.
    pub at: usize,
    /// What is wrong.
    pub what: TemplateFault,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateFault {
    /// `{` without `}`.
    Unclosed,
    /// `}` without `{`.
    Unopened,
    /// A placeholder that does not exist, and the nearest that does.
    Unknown {
        /// As it was written.
        name: String,
        /// How the nearest one is written.
        near: Option<&'static str>,
    },
    /// A placeholder that needs something behind a colon, or takes nothing there.
    Argument(&'static str),
    /// A tag that no source can have.
    Tag(String),
    /// A date format that cannot be printed, and why.
    Date(String),
    /// Nothing at all, or a NUL.
    NoPath,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            TemplateFault::Unclosed => {
                f.write_str("`{` without `}` (a brace of the name itself is written `{{`)")
            }
            TemplateFault::Unopened => {
                f.write_str("`}` without `{` (a brace of the name itself is written `}}`)")
            }
            TemplateFault::Unknown { name, near: Some(near) } => {
                write!(f, "unknown placeholder `{{{name}}}`, did you mean `{near}`?")
            }
            TemplateFault::Unknown { name, near: None } => {
                let known = KNOWN.map(|(_, shown)| shown).join(", ");
                write!(f, "unknown placeholder `{{{name}}}`; there are {known}")
            }
            TemplateFault::Argument(shown) => write!(f, "this placeholder is written `{shown}`"),
            TemplateFault::Tag(key) => {
                write!(f, "no source can have the tag '{key}': a key is {}", tags::KEY_WORDS)
            }
            TemplateFault::Date(why) => write!(f, "date format: {why}"),
            TemplateFault::NoPath => f.write_str("this is no path"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fault = |at, what| Err(TemplateError { at, what });
        if text.is_empty() || text.contains('\0') {
            return fault(0, TemplateFault::NoPath);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|i| at + i) {
            literal.push_str(&text[at..brace]);
            let rest = &text[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                at = brace + 2;
            } else if rest.starts_with('}') {
                return fault(brace, TemplateFault::Unopened);
            } else {
                let Some(len) = rest.find('}') else { return fault(brace, TemplateFault::Unclosed) };
                flush(&mut literal, &mut parts);
                let part = Part::parse(&rest[1..len]).map_err(|what| TemplateError { at: brace, what })?;
                parts.push(part);
                at = brace + len + 1;
            }
        }
        literal.push_str(&text[at..]);
        flush(&mut literal, &mut parts);
        Ok(Self { parts })
    }

    /// Whether paths change with time.
    pub fn has_date(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Date(_)))
    }

    /// Whether there is one outlet only, whatever the origin.
    pub fn is_single(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_) | Part::Date(_)))
    }

    /// What is in it whatever the origin.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The tags that it asks for.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Tag(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// An origin's values put in as they are, for what is no path; dates as they are configured.
    pub fn text(&self, origin: &Origin) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Source => origin.source.to_string(),
            Part::Host => origin.host.to_string(),
            Part::Tag(name) => origin.tag(name).unwrap_or_default().to_owned(),
            date @ Part::Date(_) => date.to_string(),
        };
        self.parts.iter().map(part).collect()
    }

    /// Puts an origin's values in; dates stay open.
    pub fn outlet(&self, origin: &Origin) -> Outlet {
        let mut parts = Vec::new();
        let mut literal = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => literal.push_str(text),
                Part::Source => push_name(&origin.source, &mut literal),
                Part::Host => push_name(&origin.host, &mut literal),
                Part::Tag(name) => push_name(origin.tag(name).unwrap_or(""), &mut literal),
                Part::Date(format) => {
                    flush(&mut literal, &mut parts);
                    parts.push(Part::Date(format.clone()));
                }
            }
        }
        flush(&mut literal, &mut parts);
        Outlet { parts }
    }
}

impl Part {
    fn parse(inside: &str) -> Result<Self, TemplateFault> {
        let (name, argument) = match inside.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (inside, None),
        };
        match (name, argument) {
            ("source", None) => Ok(Self::Source),
            ("host", None) => Ok(Self::Host),
            ("tag", Some(tag)) if tags::is_key(tag) => Ok(Self::Tag(tag.to_owned())),
            ("tag", Some(tag)) if !tag.is_empty() => Err(TemplateFault::Tag(tag.to_owned())),
            ("date", Some(format)) if !format.is_empty() => {
                match strftime(format, Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
                    Ok(text) if text.contains('\0') => Err(TemplateFault::Date("a NUL in it".to_owned())),
                    Ok(_) => Ok(Self::Date(format.to_owned())),
                    Err(error) => Err(TemplateFault::Date(error.to_string())),
                }
            }
            _ => Err(match KNOWN.into_iter().find(|(known, _)| *known == name) {
                Some((_, shown)) => TemplateFault::Argument(shown),
                None => TemplateFault::Unknown { name: inside.to_owned(), near: near(name) },
            }),
        }
    }
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal)));
    }
}

/// The nearest placeholder to `name`, as it is shown, when it is near at all.
fn near(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let distance = |known: &str| edits(lower.as_bytes(), known.as_bytes());
    let (known, shown) = KNOWN.into_iter().min_by_key(|(known, _)| distance(known))?;
    (distance(known) <= known.len() / 2 || lower.starts_with(known)).then_some(shown)
}

/// Levenshtein's distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Appends a value as a part of a name that cannot leave its folder.
fn push_name(value: &str, out: &mut String) {
    let start = out.len();
    let mut hidden = true;
    for c in value.chars() {
        hidden &= c == '.';
        let c = if hidden || c == '/' || c == '\\' || c.is_control() { '_' } else { c };
        if out.len() - start + c.len_utf8() > VALUE_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    if out.len() == start {
        out.push_str(NO_VALUE);
    }
}

/// A path in which only dates are open: what one owner writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outlet {
    parts: Vec<Part>,
}

impl Outlet {
    /// Whether its path changes with time.
    pub fn has_date(&self) -> bool {
        self.parts.len() > 1 || matches!(self.parts.first(), Some(Part::Date(_)))
    }

    /// The path for records received at `received_ns` (since the Unix epoch).
    pub fn path(&self, received_ns: i64, zone: &TimeZone) -> String {
        let time = Timestamp::from_nanosecond(i128::from(received_ns)).unwrap_or_default();
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Date(format) => match strftime(format, time, zone) {
                    Ok(text) => path.push_str(&text),
                    // Formats were tried when they were read.
                    Err(_) => path.push_str(NO_VALUE),
                },
                Part::Text(text) => path.push_str(text),
                Part::Source | Part::Host | Part::Tag(_) => unreachable!("an outlet has its values"),
            }
        }
        path
    }

    /// The outlet that has this name; none where the name is no outlet's.
    pub fn named(name: &str) -> Option<Self> {
        let Template { parts } = Template::parse(name).ok()?;
        let has_values = parts.iter().all(|part| matches!(part, Part::Text(_) | Part::Date(_)));
        has_values.then_some(Self { parts })
    }

    /// How it is named in logs and checkpoints: the path with its dates as they are written in the configuration.
    pub fn name(&self) -> String {
        self.parts.iter().map(Part::to_string).collect()
    }
}

/// The path of an outlet as time goes by. Dates are printed once a second at most: a path may hold seconds, and
/// nothing finer.
#[derive(Clone, Debug)]
pub struct Clocked {
    outlet: Outlet,
    zone: TimeZone,
    second: i64,
    path: String,
}

impl Clocked {
    /// The path of `outlet` by the clock of `zone`.
    pub fn new(outlet: Outlet, zone: TimeZone) -> Self {
        let path = outlet.path(0, &zone);
        Self { outlet, zone, second: 0, path }
    }

    /// The path for records received at `received_ns`.
    #[inline]
    pub fn at(&mut self, received_ns: i64) -> &str {
        let second = received_ns.div_euclid(1_000_000_000);
        if second != self.second && self.outlet.has_date() {
            self.path = self.outlet.path(second * 1_000_000_000, &self.zone);
            self.second = second;
        }
        &self.path
    }
}

fn strftime(format: &str, time: Timestamp, zone: &TimeZone) -> Result<String, jiff::Error> {
    BrokenDownTime::from(&time.to_zoned(zone.clone())).to_string(format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Mark;
    use proptest::prelude::{ProptestConfig, any, proptest};

    fn origin(source: &str, host: &str, tags: &[(&str, &str)]) -> Origin {
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Origin {
            source: source.into(),
            host: host.into(),
            tags,
            peer: None,
            tls_subject: None,
            assignment: None,
            protocol: None,
            mark: Mark::default(),
        }
    }

    fn path(template: &str, origin: &Origin) -> String {
        Template::parse(template).unwrap().outlet(origin).path(1_700_000_000_000_000_000, &TimeZone::UTC)
    }

    #[test]
    fn placeholders_are_filled() {
        let origin = origin("web", "h1", &[("env", "prod")]);
        assert_eq!(path("/o/{source}/{host}-{tag:env}.log", &origin), "/o/web/h1-prod.log");
        assert_eq!(path("/o/{date:%Y/%m}/{date:%d}.log", &origin), "/o/2023/11/14.log");
        assert_eq!(path("{{{source}}}", &origin), "{web}");
        assert_eq!(path("/o/{tag:none}", &origin), "/o/_");
    }

    #[test]
    fn faults_say_where_and_what() {
        for (template, at, words) in [
            ("/o/{sorce}.log", 3, "did you mean `{source}`?"),
            ("/o/{tags:x}", 3, "did you mean `{tag:name}`?"),
            ("/o/{xyzzy-plugh}", 3, "there are {source}, {host}, {tag:name}, {date:%Y%m%d}"),
            ("/o/{tag}", 3, "`{tag:name}`"),
            ("/o/{date:}", 3, "`{date:%Y%m%d}`"),
            ("/o/{date:%!}", 3, "date format"),
            ("/o/{source", 3, "`{` without `}`"),
            ("/o/source}", 9, "`}` without `{`"),
            ("", 0, "no path"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert_eq!(error.at, at, "{template}");
            assert!(error.to_string().contains(words), "{template}: {error}");
        }
    }

    #[test]
    fn a_value_cannot_leave_its_folder() {
        for (value, name) in [
            ("..", "__"),
            (".", "_"),
            ("", "_"),
            ("../../etc/passwd", "___.._etc_passwd"),
            (".bashrc", "_bashrc"),
            ("...x.y", "___x.y"),
            ("a\nb\0c\x7f", "a_b_c_"),
            ("/etc", "_etc"),
            ("C:\\x", "C:_x"),
            ("{source}", "{source}"),
        ] {
            assert_eq!(path("/o/{source}", &origin(value, "", &[])), format!("/o/{name}"), "{value:?}");
        }
        let long = path("/o/{source}", &origin(&"é".repeat(1000), "", &[]));
        assert_eq!(long.len(), "/o/".len() + VALUE_BYTES_MAX);
    }

    #[test]
    fn outlets_are_one_for_all_dates_and_for_values_that_become_one_name() {
        let template = Template::parse("/o/{source}-{date:%H%M%S}").unwrap();
        let (a, b) = (template.outlet(&origin("a/b", "", &[])), template.outlet(&origin("a_b", "x", &[])));
        assert_eq!(a, b);
        assert_eq!(a.name(), "/o/a_b-{date:%H%M%S}");
        let mut clocked = Clocked::new(a, TimeZone::UTC);
        assert_eq!(clocked.at(1_999_999_999), "/o/a_b-000001");
        assert_eq!(clocked.at(2_000_000_000), "/o/a_b-000002");
        assert_eq!(clocked.at(1_999_999_999), "/o/a_b-000001");
        assert!(Template::parse("/o/x-{date:%Y}").unwrap().is_single() && !template.is_single());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_the_value_it_is_one_plain_name(value in any::<String>(), dots in 0..4usize) {
            let value = format!("{}{value}", "./".repeat(dots));
            let path = path("/o/{tag:x}", &origin("", "", &[("x", &value)]));
            let name = path.strip_prefix("/o/").unwrap();
            assert!(!name.is_empty() && !name.starts_with('.') && name.len() <= VALUE_BYTES_MAX);
            assert!(!name.contains('/') && !name.chars().any(char::is_control));
        }

        #[test]
        fn reading_a_template_never_panics(text in any::<String>(), braces in "[{}:%dts]{0,12}") {
            let _ = Template::parse(&text);
            let _ = Template::parse(&braces);
        }
    }
}
