//! The `meta` object of NDJSON for records that were messages of a queue.
//!
//! `kafka_topic`, `kafka_partition`, `kafka_offset`, `kafka_timestamp` (RFC 3339, UTC), `key`, `headers` (an object; of several
//! headers of one name the last one counts), and `kafka_tombstone` where the message had no value. What is absent is left
//! out. A key that is not UTF-8 is base64 and says `"key_encoding":"base64"`; values of headers have U+FFFD where they are not.

use std::io::Write;

use crate::batch::messages::{Messages, headers};
use crate::pool::Arena;
use crate::sink::json;
use crate::syslog::write_rfc3339_ns;

/// Appends the members for record `i`; no other member is in front of them.
pub(super) fn write_message(messages: &Messages<'_>, i: usize, out: &mut Arena) {
    let message = &messages.rows[i];
    // Memory takes all that is written; a topic's name needs no escape.
    let _ = write!(
        out,
        "\"kafka_topic\":\"{}\",\"kafka_partition\":{},\"kafka_offset\":{}",
        messages.topic, messages.partition, message.offset
    );
    if let Some(ns) = message.timestamp_ms.and_then(|ms| ms.checked_mul(1_000_000)) {
        let mut text = [0; 35];
        let len = write_rfc3339_ns(&mut text, ns);
        out.extend(b",\"kafka_timestamp\":\"");
        out.extend(&text[..len]);
        out.push(b'"');
    }
    if let Some(key) = message.key {
        write_key(key.of(messages.bytes), out);
    }
    if !message.headers.is_empty() {
        write_headers(message.headers.of(messages.bytes), out);
    }
    if message.is_null {
        out.extend(b",\"kafka_tombstone\":true");
    }
}

fn write_key(key: &[u8], out: &mut Arena) {
    out.extend(b",\"key\":\"");
    match std::str::from_utf8(key) {
        Ok(text) => {
            json::escape(text, out);
            out.push(b'"');
        }
        Err(_) => {
            out.extend(base64_simd::STANDARD.encode_to_string(key).as_bytes());
            out.extend(b"\",\"key_encoding\":\"base64\"");
        }
    }
}

fn write_headers(bytes: &[u8], out: &mut Arena) {
    out.extend(b",\"headers\":{");
    let mut first = true;
    for (at, (name, value)) in headers(bytes).enumerate() {
        if headers(bytes).skip(at + 1).any(|(later, _)| later == name) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        write_lossy(name, out);
        out.push(b':');
        match value {
            Some(value) => write_lossy(value, out),
            None => out.extend(b"null"),
        }
    }
    out.push(b'}');
}

fn write_lossy(text: &[u8], out: &mut Arena) {
    out.push(b'"');
    json::escape(&String::from_utf8_lossy(text), out);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Span;
    use crate::batch::messages::{Message, write_header};

    fn meta(message: Message, bytes: &[u8]) -> serde_json::Value {
        let messages = Messages { topic: "a.b_c-1", partition: 3, rows: &[message], bytes };
        let mut out = Arena::new(64);
        out.extend(b"{");
        write_message(&messages, 0, &mut out);
        out.extend(b"}");
        serde_json::from_slice(out.filled()).unwrap_or_else(|e| panic!("{e}: {:?}", out.filled()))
    }

    #[test]
    fn all_that_a_message_has() {
        let mut bytes = b"k\"1".to_vec();
        for (name, value) in [("a", Some("1")), ("n", None), ("a", Some("2"))] {
            write_header(&mut bytes, name.as_bytes(), value.map(str::as_bytes));
        }
        let message = Message {
            offset: 17,
            timestamp_ms: Some(1_700_000_000_123),
            key: Some(Span { start: 0, end: 3 }),
            headers: Span { start: 3, end: bytes.len() as u32 },
            is_null: true,
        };
        let expected = serde_json::json!({
            "kafka_topic": "a.b_c-1", "kafka_partition": 3, "kafka_offset": 17,
            "kafka_timestamp": "2023-11-14T22:13:20.123000000Z",
            "key": "k\"1", "headers": {"n": null, "a": "2"}, "kafka_tombstone": true,
        });
        assert_eq!(meta(message, &bytes), expected);
    }

    #[test]
    fn little_and_what_is_no_text() {
        let bare = serde_json::json!({"kafka_topic": "a.b_c-1", "kafka_partition": 3, "kafka_offset": 0});
        assert_eq!(meta(Message::default(), b""), bare);
        let key = Message { key: Some(Span { start: 0, end: 2 }), ..Message::default() };
        let meta = meta(key, b"\xff\xfe");
        assert_eq!((&meta["key"], &meta["key_encoding"]), (&"//4=".into(), &"base64".into()));
    }
}
