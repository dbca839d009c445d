//! The nearest known name to one that is not known.

/// Names longer than this have no near one: the distance is quadratic.
const NAME_MAX: usize = 64;

/// The known name nearest to `name`, if one is near enough to have been meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    nearest_of(name, known.iter().copied())
}

/// As [`nearest`], over any names.
pub fn nearest_of<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    // A third of the letters may be wrong; more than that is another word.
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed || contains_part(&name, candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether one is the other with a word before or behind it, as in `file` and `file_src`.
fn contains_part(name: &str, candidate: &str) -> bool {
    let longer_by = |long: &str, short: &str| {
        short.len() >= 3
            && (long.strip_prefix(short).is_some_and(|rest| rest.starts_with(['_', '.', '-']))
                || long.strip_suffix(short).is_some_and(|rest| rest.ends_with(['_', '.', '-'])))
    };
    longer_by(candidate, name) || longer_by(name, candidate)
}

/// Edits that turn one into the other; two swapped neighbours are one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > NAME_MAX || b.len() > NAME_MAX {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["path", "file", "exclude", "max_line_bytes", "header_mode", "file_src"];
        for (typed, meant) in [
            ("paht", Some("path")),
            ("PATH", Some("path")),
            ("pth", Some("path")),
            ("max_line_byte", Some("max_line_bytes")),
            ("header-mode", Some("header_mode")),
            ("src", Some("file_src")),
            ("colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
    }
}
