//! Structured data of RFC 5424 for those who write it out: elements, names, and values with their escapes undone.
//!
//! [`structured_data`] walks the range that [`super::parse`] found, which is only known to have its brackets and quotes
//! in order. What is malformed inside an element ends that element and no other ("a collector MAY ignore malformed
//! STRUCTURED-DATA elements", RFC 5424 6.3). Nothing is allocated: a value is a slice, its escapes are undone piece by
//! piece by whoever copies it.

use super::scan::find;

/// One parameter of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// SD-ID of its element.
    pub id: &'a [u8],
    /// PARAM-NAME; empty for an element without parameters.
    pub name: &'a [u8],
    /// PARAM-VALUE.
    pub value: Value<'a>,
    /// Whether it is the first of its element.
    pub is_first: bool,
}

/// A value as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The bytes between the quotes, escapes included.
    pub raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// The value in pieces: together they are the value without its escapes. `\"`, `\\` and `\]` are escapes; before
    /// any other byte a backslash stands for itself (RFC 5424 6.3.3).
    pub fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.raw;
        let mut kept = 0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let mut at = kept;
            loop {
                at = find(rest, at, [b'\\']);
                match rest.get(at + 1) {
                    Some(b'"' | b'\\' | b']') => break,
                    Some(_) => at += 1,
                    None => at = rest.len(),
                }
                if at == rest.len() {
                    return Some(std::mem::take(&mut rest));
                }
            }
            let piece = &rest[..at];
            rest = &rest[at + 1..];
            kept = 1;
            Some(piece)
        })
        .filter(|piece: &&[u8]| !piece.is_empty())
    }
}

/// The parameters of structured data, in order; see [`structured_data`].
#[derive(Clone, Debug)]
pub struct Params<'a> {
    bytes: &'a [u8],
    at: usize,
    id: &'a [u8],
    is_first: bool,
}

/// Walks structured data: `bytes` is the range [`super::Header::structured_data`], or nothing.
pub fn structured_data(bytes: &[u8]) -> Params<'_> {
    Params { bytes, at: 0, id: &[], is_first: false }
}

impl<'a> Iterator for Params<'a> {
    type Item = Param<'a>;

    fn next(&mut self) -> Option<Param<'a>> {
        loop {
            if self.id.is_empty() {
                self.open()?;
            }
            if self.bytes.get(self.at) == Some(&b' ') {
                self.at += 1;
                continue;
            }
            if self.bytes.get(self.at) == Some(&b']') {
                if let Some(bare) = self.close() {
                    return Some(bare);
                }
                continue;
            }
            if let Some((name, value)) = self.param() {
                return Some(Param {
                    id: self.id,
                    name,
                    value,
                    is_first: std::mem::take(&mut self.is_first),
                });
            }
            self.skip();
        }
    }
}

impl<'a> Params<'a> {
    /// Enters the next element that has an id.
    fn open(&mut self) -> Option<()> {
        while self.id.is_empty() {
            if self.bytes.get(self.at) != Some(&b'[') {
                return None;
            }
            let start = self.at + 1;
            let end = find(self.bytes, start, [b' ', b']', b'=', b'"']);
            self.at = end;
            if matches!(self.bytes.get(end), Some(b' ' | b']')) {
                self.id = &self.bytes[start..end];
            }
            if self.id.is_empty() {
                self.skip();
            }
        }
        self.is_first = true;
        Some(())
    }

    /// Leaves an element at its bracket; one without parameters is an answer of its own.
    fn close(&mut self) -> Option<Param<'a>> {
        self.at += 1;
        let id = std::mem::take(&mut self.id);
        let bare = std::mem::take(&mut self.is_first);
        bare.then_some(Param { id, name: &[], value: Value { raw: &[] }, is_first: true })
    }

    /// Leaves a malformed element: behind its bracket, or at the end.
    fn skip(&mut self) {
        self.id = &[];
        self.is_first = false;
        loop {
            let at = find(self.bytes, self.at, [b'"', b']']);
            self.at = at + 1;
            if self.bytes.get(at) != Some(&b'"') {
                return;
            }
            self.at = closing_quote(self.bytes, at + 1) + 1;
        }
    }

    /// Takes `name="value"`; spaces behind the `=` are overlooked, as some senders write them.
    fn param(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let equals = find(self.bytes, self.at, [b'=', b' ', b']', b'"']);
        if self.bytes.get(equals) != Some(&b'=') || equals == self.at {
            return None;
        }
        let quote = super::scan::skip_spaces(self.bytes, equals + 1);
        if self.bytes.get(quote) != Some(&b'"') {
            return None;
        }
        let end = closing_quote(self.bytes, quote + 1);
        let name = &self.bytes[self.at..equals];
        let value = Value { raw: self.bytes.get(quote + 1..end)? };
        self.at = end + 1;
        Some((name, value))
    }
}

/// The quote that ends a value beginning at `at`; beyond the end when there is none.
fn closing_quote(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = find(bytes, at, [b'"', b'\\']);
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(_) => return at,
            None => return bytes.len() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, prop, proptest};

    use super::structured_data;

    fn walk(text: &str) -> Vec<(String, String, String)> {
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        structured_data(text.as_bytes())
            .map(|p| {
                (string(p.id), string(p.name), p.value.pieces().map(string).collect::<Vec<_>>().concat())
            })
            .collect()
    }

    fn rows(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        rows.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect()
    }

    #[test]
    fn elements_in_order() {
        let text = r#"[a@1 x="1" y="[two]" z=""][empty][b k= "v"]"#;
        let expected =
            [("a@1", "x", "1"), ("a@1", "y", "[two]"), ("a@1", "z", ""), ("empty", "", ""), ("b", "k", "v")];
        assert_eq!(walk(text), rows(&expected));
        let firsts: Vec<bool> = structured_data(text.as_bytes()).map(|p| p.is_first).collect();
        assert_eq!(firsts, [true, false, false, true, true]);
    }

    #[test]
    fn escapes_are_the_three_of_the_rfc() {
        let text = r#"[id a="\"q\"" b="\\\\" c="[x\]" d="l\nine" e="\esc" f="end\\"]"#;
        let expected = [
            ("id", "a", "\"q\""),
            ("id", "b", r"\\"),
            ("id", "c", "[x]"),
            ("id", "d", r"l\nine"),
            ("id", "e", r"\esc"),
            ("id", "f", r"end\"),
        ];
        assert_eq!(walk(text), rows(&expected));
    }

    #[test]
    fn malformed_elements_do_not_hurt_their_neighbours() {
        for (text, expected) in [
            (r#"[bad x][ok k="v"]"#, vec![("ok", "k", "v")]),
            (r#"[bad x=][ok k="v"]"#, vec![("ok", "k", "v")]),
            (r#"[bad x=1 y="]"][ok k="v"]"#, vec![("ok", "k", "v")]),
            (r#"[][ok k="v"]"#, vec![("ok", "k", "v")]),
            (r#"[x="]"][ok k="v"]"#, vec![("ok", "k", "v")]),
            (r#"[half k="v" oops][ok]"#, vec![("half", "k", "v"), ("ok", "", "")]),
            (r#"["#, vec![]),
            (r#"[a b="c"#, vec![]),
            (r#"[a b="c\"#, vec![]),
            ("-", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(walk(text), rows(&expected), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(prop::sample::select(b"[]\"\\= ax".to_vec()), 0..60)) {
            let pieces: usize = structured_data(&bytes).map(|p| p.value.pieces().map(<[u8]>::len).sum::<usize>()).sum();
            assert!(pieces <= bytes.len());
        }
    }
}
