//! Reads records out of what a sink wrote.

use crate::message::Record;
use crate::oracle::Seen;
use crate::plan::Format;

/// Adds a written record to a passage, or to what is strange.
pub(super) fn take(text: &[u8], format: Format, records: &mut Vec<Record>, seen: &mut Seen) {
    let data = match format {
        Format::Raw => Some(text.to_vec()),
        Format::Ndjson => {
            let value: Option<serde_json::Value> = serde_json::from_slice(text).ok();
            value.and_then(|value| Some(value["data"].as_str()?.as_bytes().to_vec()))
        }
    };
    let data = data.as_deref();
    if let Some(record) = data.and_then(Record::read) {
        records.push(record);
    } else if data.is_some_and(Record::is_stub) {
        seen.stubs += 1;
    } else if let Some(input) = data.and_then(Record::cut) {
        seen.cut.push(input);
    } else {
        seen.strange.push(String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned());
    }
}
