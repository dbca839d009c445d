//! Reads records out of what a sink wrote.

use crate::message::Record;
use crate::plan::Format;

/// Adds a written record to a passage, or to what is strange.
pub(super) fn take(text: &[u8], format: Format, records: &mut Vec<Record>, strange: &mut Vec<String>) {
    let record = match format {
        Format::Raw => Record::read(text),
        Format::Ndjson => {
            let value: Option<serde_json::Value> = serde_json::from_slice(text).ok();
            value.and_then(|value| Record::read(value["data"].as_str()?.as_bytes()))
        }
    };
    match record {
        Some(record) => records.push(record),
        None => strange.push(String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned()),
    }
}
