//! Kinds of sources and sinks: the registries' one line a kind, and what derives from it.

use super::params::Field;
use super::tree::Table;
use crate::diagnosis::Findings;

/// A kind of source or sink.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What stands behind `type =` in a connector.
    pub name: &'static str,
    /// Its parameters.
    pub fields: &'static [Field],
    /// Whether this build has it. One without it validates, and refuses to start.
    pub available: bool,
}

/// What no single field can tell about a kind's parameters.
pub trait Check {
    /// Tells what is missing or contradicts itself, once all that was given is there.
    fn check(&self, table: &Table, findings: &mut Findings);
}

/// Declares the enum of all kinds' parameters.
macro_rules! kinds {
    ($(#[doc = $doc:literal])+ $vis:vis enum $name:ident {
        $($variant:ident($params:ty) = $word:literal, $available:expr;)*
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "the structs document themselves")]
        $vis enum $name { $($variant($params)),* }

        impl $name {
            /// Every kind.
            pub const KINDS: &'static [$crate::config::kinds::Kind] = &[$($crate::config::kinds::Kind {
                name: $word,
                fields: <$params as $crate::config::params::Params>::FIELDS,
                available: $available,
            }),*];

            /// A kind by its name.
            pub fn kind_named(name: &str) -> Option<&'static $crate::config::kinds::Kind> {
                Self::KINDS.iter().find(|kind| kind.name == name)
            }

            /// Its kind.
            pub fn kind(&self) -> &'static $crate::config::kinds::Kind {
                let name = match self { $(Self::$variant(_) => $word),* };
                Self::kind_named(name).expect("each variant has a row")
            }

            /// Reads the parameters of a kind; keys that are none are left to the caller.
            pub fn read(
                kind: &str,
                table: &$crate::config::tree::Table,
                findings: &mut $crate::diagnosis::Findings,
            ) -> Option<Self> {
                match kind {
                    $($word => Some(Self::$variant(
                        <$params as $crate::config::params::Params>::read_fields(table, findings),
                    )),)*
                    _ => None,
                }
            }

            /// Tells what is missing or contradicts itself.
            pub fn check(
                &self,
                table: &$crate::config::tree::Table,
                findings: &mut $crate::diagnosis::Findings,
            ) {
                match self {
                    $(Self::$variant(params) => $crate::config::kinds::Check::check(params, table, findings)),*
                }
            }
        }
    };
}
pub(crate) use kinds;
