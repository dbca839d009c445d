//! As much HTTP/1.1 as the admin API needs: one request and one answer a connection.
//!
//! Pure: it takes bytes and gives requests. Invariants: head and body are bounded before they are believed; a request
//! whose length is told in two ways is refused. It refuses chunked bodies, pipelining and everything before HTTP/1.1.

use super::Answer;

/// Bytes of a request's head; a longer one is refused.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request's body; a longer one is refused.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// A whole request, borrowed from the connection's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What stands behind `?`, as it came.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not yet a whole request.
    More,
    /// A whole request.
    Whole(Request<'a>),
    /// Never a request: the status and the reason.
    Refused(u16, &'static str),
}

/// Reads a request from what has arrived so far.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(head_len) = memchr::memmem::find(window, b"\r\n\r\n") else {
        return if bytes.len() >= HEAD_BYTES_MAX {
            Parsed::Refused(431, "the request's head is too long")
        } else {
            Parsed::More
        };
    };
    let Ok(head) = std::str::from_utf8(&bytes[..head_len]) else {
        return Parsed::Refused(400, "the request's head is not UTF-8");
    };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Parsed::Refused(400, "the first line is not: METHOD PATH HTTP/1.1");
    };
    let body_len = match body_length(lines) {
        Ok(n) => n,
        Err((code, why)) => return Parsed::Refused(code, why),
    };
    let body = &bytes[head_len + 4..];
    if body.len() < body_len {
        return Parsed::More;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Parsed::Whole(Request { method, path, query, body: &body[..body_len] })
}

fn body_length<'a>(headers: impl Iterator<Item = &'a str>) -> Result<usize, (u16, &'static str)> {
    let mut length = None;
    for header in headers {
        let Some((name, value)) = header.split_once(':') else { return Err((400, "a header has no colon")) };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err((411, "send the body with a Content-Length"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            let value = value.trim();
            if length.is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err((400, "Content-Length is not one number"));
            }
            length = Some(value.parse().unwrap_or(usize::MAX));
        }
    }
    match length.unwrap_or(0) {
        n if n > BODY_BYTES_MAX => Err((413, "the body is too long")),
        n => Ok(n),
    }
}

/// An answer as bytes; the connection is closed behind it.
pub fn write(answer: &Answer) -> Vec<u8> {
    let body = answer.body();
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.code,
        reason(answer.code),
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body.as_bytes());
    out
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_at_its_last_byte_and_not_before() {
        let bytes = b"POST /api/tap?source=a HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::More, "{end}");
        }
        let whole = Request { method: "POST", path: "/api/tap", query: "source=a", body: b"abc" };
        assert_eq!(parse(bytes), Parsed::Whole(whole));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (head, code) in [
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\n\r\n", 400),
            ("GET / x HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nbad\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ] {
            assert!(matches!(parse(head.as_bytes()), Parsed::Refused(c, _) if c == code), "{head}");
        }
        assert!(matches!(parse(&[b'a'; HEAD_BYTES_MAX]), Parsed::Refused(431, _)));
        assert!(matches!(parse(b"\xff\r\n\r\n"), Parsed::Refused(400, _)));
    }

    proptest::proptest! {
        #[test]
        fn anything_may_arrive(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
