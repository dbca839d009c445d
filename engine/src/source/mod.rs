//! Sources: where records come from.

pub mod file;
pub mod part;
pub mod stop;
