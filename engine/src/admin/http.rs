//! As much HTTP/1.1 as the admin API needs: one request and one answer a connection.
//!
//! Pure: it takes bytes and gives requests. Invariants: head and body are bounded before they are believed; a request
//! whose length is told in two ways is refused. It refuses chunked bodies, pipelining and everything before HTTP/1.1.

use super::Answer;

/// Bytes of a request's head; a longer one is refused.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request's body; a longer one is refused.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// How a client can show that it has the token.
const CHALLENGES: &str = "WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic realm=\"wpgen\"\r\n";

/// A whole request, borrowed from the connection's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// What stands behind `?`, as it came.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// What stands behind `Authorization:`.
    pub authorization: Option<&'a str>,
    /// Whether a page in a browser asks.
    pub from_a_page: bool,
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
    let headers = match headers(lines) {
        Ok(headers) => headers,
        Err((code, why)) => return Parsed::Refused(code, why),
    };
    let body_len = headers.body_len.unwrap_or(0);
    let body = &bytes[head_len + 4..];
    if body.len() < body_len {
        return Parsed::More;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Headers { authorization, from_a_page, .. } = headers;
    Parsed::Whole(Request { method, path, query, body: &body[..body_len], authorization, from_a_page })
}

/// What is looked at of the headers.
#[derive(Default)]
struct Headers<'a> {
    body_len: Option<usize>,
    authorization: Option<&'a str>,
    from_a_page: bool,
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Headers<'a>, (u16, &'static str)> {
    let mut headers = Headers::default();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err((400, "a header has no colon")) };
        let value = value.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("transfer-encoding") {
            return Err((411, "send the body with a Content-Length"));
        } else if is("content-length") {
            if headers.body_len.is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err((400, "Content-Length is not one number"));
            }
            headers.body_len = Some(value.parse().unwrap_or(usize::MAX));
        } else if is("authorization") {
            headers.authorization = Some(value);
        } else if is("origin") {
            headers.from_a_page = true;
        }
    }
    match headers.body_len {
        Some(n) if n > BODY_BYTES_MAX => Err((413, "the body is too long")),
        _ => Ok(headers),
    }
}

/// An answer as bytes; the connection is closed behind it.
pub fn write(answer: &Answer) -> Vec<u8> {
    let body = answer.body();
    let (code, reason, kind, len) = (answer.code, reason(answer.code), answer.content_type(), body.len());
    // A client that is refused must be told how to ask.
    let how = if code == 401 { CHALLENGES } else { "" };
    let mut out = format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{how}Connection: close\r\n\r\n"
    )
    .into_bytes();
    if !answer.is_head {
        out.extend_from_slice(body.as_bytes());
    }
    out
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        504 => "Gateway Timeout",
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
        let bytes = b"POST /api/tap?source=a HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\nAuthorization: bearer  t \r\n\r\nabc";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::More, "{end}");
        }
        let whole = Request {
            method: "POST",
            path: "/api/tap",
            query: "source=a",
            body: b"abc",
            authorization: Some("bearer  t"),
            from_a_page: false,
        };
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
