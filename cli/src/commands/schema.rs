//! `schema`: JSON schemas for editors and programs, from the engine's own declarations.

use engine::config::schema;

use super::{DONE, connectors};
use crate::args::SchemaOf;
use crate::printer::Printer;

/// Prints one.
pub fn run(of: SchemaOf, printer: &Printer) -> u8 {
    let schema = match of {
        // A connector file with a mistake is left out here; `connectors validate` tells it.
        SchemaOf::Config => schema::of_config(&connectors::load().0),
        SchemaOf::Connectors => schema::of_connectors(),
        SchemaOf::Findings => schema::of_findings(),
    };
    printer.result(&format!("{schema:#}\n"));
    DONE
}
