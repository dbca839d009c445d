//! TOML as it was written: values that know their file and place.
//!
//! A [`Node`] is what every later step reads and what every finding points at. Variables in strings are expanded on the
//! way in, so nothing behind this module sees `${...}`.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::variables::{self, Lookup};
use crate::diagnosis::{Code, Diagnostic, Findings, Place, SourceText};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    span: Range<usize>,
    file: Arc<SourceText>,
    /// Whether a variable put part of the text there: then `"8080"` may be the number it looks like.
    expanded: bool,
}

/// A value of TOML.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string, its variables expanded.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// true or false.
    Boolean(bool),
    /// A date, a time or both, as written.
    Datetime(String),
    /// An array.
    Array(Vec<Node>),
    /// A table of any notation.
    Table(Table),
    /// A value that could not be made out; the finding about it is already there.
    Unknown,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Node,
    key_span: Range<usize>,
}

impl Entry {
    /// Where the key stands.
    pub fn place(&self) -> Place {
        self.value.file.place(self.key_span.clone())
    }

    /// The key and the value as they are written in the file.
    pub fn written(&self) -> String {
        let text = self.value.file.text();
        let key = text.get(self.key_span.clone()).unwrap_or(&self.key);
        format!("{key} = {}", text.get(self.value.span.clone()).unwrap_or_default())
    }
}

/// A table, its entries in the order they are written. Keys are unique.
#[derive(Clone, Debug)]
pub struct Table {
    /// The entries.
    pub entries: Vec<Entry>,
    span: Range<usize>,
    file: Arc<SourceText>,
}

impl Table {
    /// A table without entries, standing at the start of a file.
    pub fn empty(file: Arc<SourceText>) -> Self {
        Self { entries: Vec::new(), span: 0..0, file }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key and its value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Puts an entry there, in place of the one of that key.
    pub fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// Where the table begins.
    pub fn place(&self) -> Place {
        self.file.place(self.span.clone())
    }

    /// Where a key stands, or the table when it has none of that name.
    pub fn place_of(&self, key: &str) -> Place {
        self.entry(key).map_or_else(|| self.place(), Entry::place)
    }

    /// The file it stands in.
    pub fn file(&self) -> &Arc<SourceText> {
        &self.file
    }

    /// The same entries, standing at another place: what a connector gives, seen from where it is used.
    #[must_use]
    pub fn seen_from(mut self, other: &Table) -> Self {
        self.span = other.span.clone();
        self.file = Arc::clone(&other.file);
        self
    }
}

impl Node {
    /// Where it stands.
    pub fn place(&self) -> Place {
        self.file.place(self.span.clone())
    }

    /// The file it stands in.
    pub fn file(&self) -> &Arc<SourceText> {
        &self.file
    }

    /// The string.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, also where a variable gave its digits.
    pub fn as_integer(&self) -> Option<i64> {
        match &self.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) if self.expanded => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// true or false, also where a variable gave the word.
    pub fn as_boolean(&self) -> Option<bool> {
        match &self.value {
            Value::Boolean(value) => Some(*value),
            Value::Text(text) if self.expanded => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The table.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The array.
    pub fn as_array(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Array(nodes) => Some(nodes),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Unknown => "nothing that is known",
        }
    }

    /// A value that stands for a whole file, as one typed on a command line does.
    pub fn alone(value: Value, file: Arc<SourceText>) -> Self {
        Self { value, span: 0..file.text().len(), file, expanded: true }
    }

    /// A part of a string, standing where the whole stands.
    #[must_use]
    pub fn with_text(&self, text: &str) -> Self {
        Self {
            value: Value::Text(text.to_owned()),
            span: self.span.clone(),
            file: Arc::clone(&self.file),
            expanded: true,
        }
    }

    /// The node as the value of a key that stands where the node does.
    pub fn under(self, key: &str) -> Entry {
        Entry { key: key.to_owned(), key_span: self.span.clone(), value: self }
    }
}

/// Turns TOML into a tree. Every syntax error is found; a text with one gives no tree, since what is missing in it would
/// be told as further mistakes that nobody made.
pub fn parse(file: &Arc<SourceText>, lookup: Lookup<'_>, findings: &mut Findings) -> Option<Table> {
    let (root, errors) = DeTable::parse_recoverable(file.text());
    if !errors.is_empty() {
        let mut told = super::syntax::explain_all(file, &errors[..errors.len().min(4 * SYNTAX_ERRORS_MAX)]);
        // The parser recovers within a line, and then stumbles over the rest of the same mistake.
        let line = |finding: &Diagnostic| finding.place.as_ref().map(|place| place.line);
        told.sort_by_key(line);
        told.dedup_by_key(|finding| line(finding));
        told.into_iter().take(SYNTAX_ERRORS_MAX).for_each(|finding| findings.push(finding));
        return None;
    }
    let mut reader = Reader { file, lookup, findings };
    Some(reader.table(root.get_ref(), root.span()))
}

/// Reads one value, as it stands behind an equals sign; variables in it are refused with the rest.
pub fn parse_value(text: &str) -> Option<Value> {
    let file = Arc::new(SourceText::new("value", "", format!("value = {text}")));
    let mut findings = Findings::new();
    let root = parse(&file, &|_| None, &mut findings).filter(|_| findings.errors() == 0)?;
    root.entries.into_iter().next().map(|entry| entry.value.value)
}

/// Syntax errors told of one file: behind the first few, most follow from the ones before.
const SYNTAX_ERRORS_MAX: usize = 10;

struct Reader<'a> {
    file: &'a Arc<SourceText>,
    lookup: Lookup<'a>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().clone().into_owned(),
                key_span: key.span(),
                value: self.node(value.get_ref(), value.span()),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Table { entries, span, file: Arc::clone(self.file) }
    }

    fn node(&mut self, value: &DeValue<'_>, span: Range<usize>) -> Node {
        let mut expanded = false;
        let value = match value {
            DeValue::String(text) => self.text(text, &span, &mut expanded),
            DeValue::Integer(number) => {
                match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        let finding = Diagnostic::error(
                            Code::WP404,
                            "out of range: the number does not fit in 64 bits",
                        );
                        self.findings.push(finding.at(self.file.place(span.clone())));
                        Value::Unknown
                    }
                }
            }
            DeValue::Float(number) => {
                Value::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(values) => {
                Value::Array(values.iter().map(|value| self.node(value.get_ref(), value.span())).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table, span.clone())),
        };
        Node { value, span, file: Arc::clone(self.file), expanded }
    }

    fn text(&mut self, text: &str, span: &Range<usize>, expanded: &mut bool) -> Value {
        match variables::expand(text, self.file.folder(), self.lookup) {
            Ok(None) => Value::Text(text.to_owned()),
            Ok(Some(new)) => {
                *expanded = true;
                Value::Text(new)
            }
            Err(wrong) => {
                self.findings.push(wrong.at(self.file.place(span.clone())));
                Value::Unknown
            }
        }
    }
}
