//! Asking the running engine, over the socket in its data folder.
//!
//! One request and one answer a connection; bounded in time and size.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use engine::admin::socket;
use serde_json::Value;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// No engine runs on this data folder.
    NotRunning,
    /// One does, or may: what happened instead of an answer.
    Failed(String),
}

/// Asks, and gives the answer's `data`.
pub fn ask(data_dir: &Path, method: &str, path: &str) -> Result<Value, NoAnswer> {
    let answer = answer(data_dir, method, path, ANSWER_MAX)?;
    match answer["code"].as_u64() {
        Some(200) => Ok(answer["data"].clone()),
        _ => {
            Err(NoAnswer::Failed(answer["message"].as_str().unwrap_or("refused without a reason").to_owned()))
        }
    }
}

/// Asks, and gives the whole answer, whatever its code.
pub fn answer(data_dir: &Path, method: &str, path: &str, at_most: Duration) -> Result<Value, NoAnswer> {
    let bytes = exchange(data_dir, method, path, at_most).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => NoAnswer::NotRunning,
        _ => NoAnswer::Failed(e.to_string()),
    })?;
    let body = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| &bytes[at + 4..]);
    body.and_then(|body| serde_json::from_slice(body).ok())
        .ok_or_else(|| NoAnswer::Failed("the engine's answer is not understood".to_owned()))
}

/// Whether an engine runs on this data folder.
pub fn is_running(data_dir: &Path) -> bool {
    socket::connect(data_dir).is_ok()
}

fn exchange(data_dir: &Path, method: &str, path: &str, at_most: Duration) -> io::Result<Vec<u8>> {
    let mut stream = socket::connect(data_dir)?;
    stream.set_read_timeout(Some(at_most))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: wpgen\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
