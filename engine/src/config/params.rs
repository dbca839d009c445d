//! Parameters: a typed struct, what may be written for each of its fields, and how to read them, from one declaration.
//!
//! ```text
//! params! {
//!     /// What a file source may be told.
//!     pub struct FileParams {
//!         /// How each line is decoded.
//!         encode: Encode = "text";
//!         /// The longest line.
//!         max_line_bytes: Size = "1MiB", in 64 ..= 1 << 30;
//!         /// The file.
//!         path: Option<Template>;
//!     }
//! }
//! ```
//!
//! A default is written as the operator would write it and read by the same code. A range counts in the field's base unit:
//! the number, bytes, milliseconds. Reading never stops at the first mistake: it tells each one and goes on with the
//! default, so that all of them are found; whoever reads compares [`Findings::errors`] before and after.

use std::sync::Arc;

use super::tree::{self, Node, Table, Value};
use crate::diagnosis::{Code, Diagnostic, Findings, nearest_of};

/// One parameter, for messages, `connectors show`, the schema and the reference page.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub shape: Shape,
    /// The default as it would be written, if there is one.
    pub default: Option<&'static str>,
    /// The range, in the field's base unit: the number, bytes, milliseconds.
    pub range: Option<(u64, u64)>,
    /// What it means; the first line stands alone.
    pub doc: &'static str,
}

/// What may be written for a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A string; the words say what kind of string.
    Text(&'static str),
    /// One of some words.
    Word(&'static [&'static str]),
    /// true or false.
    Boolean,
    /// An integer.
    Integer,
    /// `"1MiB"` or a number of bytes.
    Size,
    /// `"200ms"`.
    Duration,
    /// An array.
    List(&'static Shape),
    /// One value, or an array of them.
    OneOrMany(&'static Shape),
    /// A table of parameters.
    Table(&'static [Field]),
    /// A table of any keys.
    Map,
    /// Either of two.
    Either(&'static Shape, &'static Shape),
}

impl Shape {
    /// In words, for a message.
    pub fn words(&self) -> String {
        match self {
            Shape::Text(what) => (*what).to_owned(),
            Shape::Word(words) => format!("one of {}", list(words)),
            Shape::Boolean => "true or false".to_owned(),
            Shape::Integer => "an integer".to_owned(),
            Shape::Size => "a size, as 1048576 or \"1MiB\"".to_owned(),
            Shape::Duration => "a duration, as \"200ms\" or \"5s\"".to_owned(),
            Shape::List(item) => format!("an array, each of it {}", item.words()),
            Shape::OneOrMany(item) => format!("{}, or an array of such", item.words()),
            Shape::Table(fields) => {
                format!("a table of {}", fields.iter().map(|f| f.name).collect::<Vec<_>>().join(", "))
            }
            Shape::Map => "a table".to_owned(),
            Shape::Either(one, other) => format!("{}, or {}", one.words(), other.words()),
        }
    }

    /// Whether any string is one of it, as far as its shape tells.
    fn takes_any_text(&self) -> bool {
        match self {
            Shape::Text(what) => ["a string", "a path", "a string, the value of a tag"].contains(what),
            Shape::OneOrMany(item) => item.takes_any_text(),
            Shape::Either(one, _) => one.takes_any_text(),
            _ => false,
        }
    }

    /// Whether a value of it is written in quotes.
    pub fn is_quoted(&self) -> bool {
        match self {
            Shape::Text(_) | Shape::Word(_) | Shape::Size | Shape::Duration => true,
            Shape::OneOrMany(item) => item.is_quoted(),
            Shape::Either(one, _) => one.is_quoted(),
            _ => false,
        }
    }
}

/// A type a parameter can have.
pub trait Param: Sized {
    /// What may be written for it.
    const SHAPE: Shape;

    /// Reads it, or tells why not.
    fn read(node: &Node, name: &str, findings: &mut Findings) -> Option<Self>;

    /// The value in its base unit, for a range.
    fn measure(&self) -> Option<u64> {
        None
    }

    /// The value when nothing is written and no default is declared.
    fn absent() -> Option<Self> {
        None
    }
}

/// A struct of parameters; [`params!`] implements it.
pub trait Params: Sized {
    /// Its fields.
    const FIELDS: &'static [Field];

    /// Reads the fields; keys that are no fields of it are left to [`refuse_unknown`].
    fn read_fields(table: &Table, findings: &mut Findings) -> Self;
}

/// Declares a struct of parameters; see the module.
macro_rules! params {
    ($(#[doc = $struct_doc:literal])+ $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty $(= $default:literal)? $(, in $low:literal..=$high:expr)?;)*
    }) => {
        $(#[doc = $struct_doc])+
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl $crate::config::params::Params for $name {
            const FIELDS: &'static [$crate::config::params::Field] = &[$($crate::config::params::Field {
                name: stringify!($field),
                shape: <$type as $crate::config::params::Param>::SHAPE,
                default: $crate::config::params::params!(@default $($default)?),
                range: $crate::config::params::params!(@range $($low, $high)?),
                doc: concat!($($doc, "\n"),+),
            }),*];

            fn read_fields(
                table: &$crate::config::tree::Table,
                findings: &mut $crate::diagnosis::Findings,
            ) -> Self {
                // A struct without fields looks at neither.
                let _ = (table, &findings);
                Self { $($field: $crate::config::params::read_field(Self::FIELDS, stringify!($field), table, findings)),* }
            }
        }

        impl $crate::config::params::Param for $name {
            const SHAPE: $crate::config::params::Shape =
                $crate::config::params::Shape::Table(<Self as $crate::config::params::Params>::FIELDS);

            fn read(
                node: &$crate::config::tree::Node,
                name: &str,
                findings: &mut $crate::diagnosis::Findings,
            ) -> Option<Self> {
                $crate::config::params::read_table(node, name, findings)
            }
        }
    };
    (@default) => { None };
    (@default $default:literal) => { Some(concat!($default)) };
    (@range) => { None };
    (@range $low:literal, $high:expr) => { Some(($low, $high)) };
}
pub(crate) use params;

/// Declares an enum whose values are written as words; older words for the same value follow a `|`.
macro_rules! words {
    ($(#[doc = $enum_doc:literal])+ $vis:vis enum $name:ident {
        $($(#[doc = $doc:literal])+ $variant:ident = $word:literal $(| $old:literal)*,)*
    }) => {
        $(#[doc = $enum_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[doc = $doc])+ $variant),* }

        impl $name {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl $crate::config::params::Param for $name {
            const SHAPE: $crate::config::params::Shape = $crate::config::params::Shape::Word(&[$($word),*]);

            fn read(
                node: &$crate::config::tree::Node,
                name: &str,
                findings: &mut $crate::diagnosis::Findings,
            ) -> Option<Self> {
                match node.as_text() {
                    $(Some($word $(| $old)*) => Some(Self::$variant),)*
                    _ => {
                        $crate::config::params::wrong_word(node, name, &[$($word),*], findings);
                        None
                    }
                }
            }
        }
    };
}
pub(crate) use words;

/// Reads one field: what is written, else its default.
pub(crate) fn read_field<T: Param>(
    fields: &[Field],
    name: &str,
    table: &Table,
    findings: &mut Findings,
) -> T {
    let field = fields.iter().find(|field| field.name == name).expect("the macro makes one entry a field");
    if let Some(node) = table.get(field.name)
        && fits(field, node, findings)
        && let Some(value) = T::read(node, field.name, findings)
        && in_range(&value, field, node, findings)
    {
        return value;
    }
    default_of(field, table)
}

/// Whether an integer is in its field's range. Its type may hold less or more than that, and would name its own range.
fn fits(field: &Field, node: &Node, findings: &mut Findings) -> bool {
    let (Some((low, high)), Shape::Integer, Some(number)) = (field.range, field.shape, node.as_integer())
    else {
        return true;
    };
    let fits = u64::try_from(number).is_ok_and(|number| (low..=high).contains(&number));
    if !fits {
        out_of_range(field, node, (low, high), findings);
    }
    fits
}

fn default_of<T: Param>(field: &Field, table: &Table) -> T {
    let Some(text) = field.default else {
        return T::absent().expect("a field without a default has a type that may be absent");
    };
    let mut wrong = Findings::new();
    let node = from_text(text, &field.shape, table);
    T::read(&node, field.name, &mut wrong).expect("a declared default is valid")
}

fn in_range<T: Param>(value: &T, field: &Field, node: &Node, findings: &mut Findings) -> bool {
    let (Some((low, high)), Some(measure)) = (field.range, value.measure()) else { return true };
    if (low..=high).contains(&measure) {
        return true;
    }
    out_of_range(field, node, (low, high), findings);
    false
}

fn out_of_range(field: &Field, node: &Node, (low, high): (u64, u64), findings: &mut Findings) {
    let (low, high) = (show(field.shape, low), show(field.shape, high));
    let message = format!("out of range: '{}' is {low} to {high}", field.name);
    findings.push(
        Diagnostic::error(Code::WP404, message).at(node.place()).label(format!("not in {low}..{high}")),
    );
}

/// A measure as it would be written.
pub fn show(shape: Shape, measure: u64) -> String {
    match shape {
        Shape::Size => super::units::Size(measure).to_string(),
        Shape::Duration => super::units::show_duration(std::time::Duration::from_millis(measure)),
        _ => measure.to_string(),
    }
}

/// Makes a value of a text that was typed without TOML's quotes: a default, or `k=v` on a command line.
///
/// A text in brackets is TOML where a string is not what is wanted.
pub fn from_text(text: &str, shape: &Shape, table: &Table) -> Node {
    if text.starts_with(['[', '{'])
        && !matches!(shape, Shape::Text(_) | Shape::Word(_))
        && let Some(value) = tree::parse_value(text)
    {
        return Node::alone(value, Arc::clone(table.file()));
    }
    let value = match shape {
        Shape::Boolean => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Boolean),
        Shape::Integer | Shape::Size => {
            text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer)
        }
        Shape::List(item) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| from_text(part, item, table)).collect())
        }
        _ => Value::Text(text.to_owned()),
    };
    Node::alone(value, Arc::clone(table.file()))
}

/// Reads a table of parameters that stands inside another.
pub(crate) fn read_table<T: Params>(node: &Node, name: &str, findings: &mut Findings) -> Option<T> {
    let Some(table) = node.as_table() else {
        wrong_type(node, name, &Shape::Table(T::FIELDS), findings);
        return None;
    };
    refuse_unknown(table, &[T::FIELDS], &format!("'{name}'"), findings);
    Some(T::read_fields(table, findings))
}

/// Tells every key of the table that is no field, with the nearest one that is.
pub fn refuse_unknown(table: &Table, known: &[&[Field]], of: &str, findings: &mut Findings) {
    let names = || known.iter().flat_map(|fields| fields.iter()).map(|field| field.name);
    for entry in table.entries.iter().filter(|entry| !names().any(|name| name == entry.key)) {
        if let Some(finding) = super::removed::parameter(entry) {
            findings.push(finding);
            continue;
        }
        findings.push_error(|| unknown(&entry.key, names(), of).at(entry.place()).label("not known"));
    }
}

/// The finding for an unknown key.
pub fn unknown(key: &str, names: impl Iterator<Item = &'static str> + Clone, of: &str) -> Diagnostic {
    let finding = Diagnostic::error(Code::WP404, format!("unknown parameter '{key}' of {of}"));
    match nearest_of(key, names.clone()) {
        Some(near) => finding.help(format!("did you mean '{near}'?")),
        None => finding.help(format!("known are: {}", names.collect::<Vec<_>>().join(", "))),
    }
}

/// The finding for a value of the wrong type.
pub fn wrong_type(node: &Node, name: &str, shape: &Shape, findings: &mut Findings) {
    if matches!(node.value, Value::Unknown) {
        return;
    }
    let message = format!("wrong type: '{name}' must be {}, not {}", shape.words(), node.type_name());
    findings
        .push(Diagnostic::error(Code::WP404, message).at(node.place()).help_if(retyped(node, name, shape)));
}

/// The finding for a string that does not say what it should.
pub fn wrong_value(node: &Node, name: &str, why: &str, findings: &mut Findings) {
    let message = format!("wrong value for '{name}': {why}");
    findings.push(Diagnostic::error(Code::WP404, message).at(node.place()));
}

/// The line to paste where only the quotes are wrong.
fn retyped(node: &Node, name: &str, shape: &Shape) -> Option<String> {
    match (&node.value, shape) {
        (Value::Text(text), Shape::Boolean) => {
            text.parse::<bool>().ok().map(|_| format!("without quotes: {name} = {text}"))
        }
        (Value::Text(text), Shape::Integer) => {
            text.parse::<i64>().ok().map(|_| format!("without quotes: {name} = {text}"))
        }
        (Value::Integer(number), Shape::Duration) => Some(format!("with a unit: {name} = \"{number}ms\"")),
        (Value::Integer(number), shape) if shape.takes_any_text() => {
            Some(format!("in quotes: {name} = \"{number}\""))
        }
        (Value::Boolean(value), shape) if shape.takes_any_text() => {
            Some(format!("in quotes: {name} = \"{value}\""))
        }
        (Value::Text(text), Shape::List(item)) if item.is_quoted() => {
            Some(format!("as an array: {name} = [{text:?}]"))
        }
        _ => None,
    }
}

/// The finding for a word that is none of those allowed.
pub(crate) fn wrong_word(node: &Node, name: &str, words: &'static [&'static str], findings: &mut Findings) {
    let Some(text) = node.as_text() else {
        return wrong_type(node, name, &Shape::Word(words), findings);
    };
    let finding = Diagnostic::error(
        Code::WP404,
        format!("unknown word '{text}' for '{name}': it takes {}", list(words)),
    );
    let near =
        nearest_of(text, words.iter().copied()).map(|near| format!("did you mean {name} = \"{near}\"?"));
    findings.push(finding.at(node.place()).help_if(near));
}

/// `a, b or c`.
pub fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
