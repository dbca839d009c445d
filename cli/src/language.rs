//! Which language the catalogue speaks: WPGEN_LANG, else the locale of this process.

use engine::diagnosis::catalogue::Language;

/// The variables that say it, the first that is set wins.
const VARIABLES: [&str; 4] = ["WPGEN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"];

/// The language to speak.
pub fn chosen() -> Language {
    of(|name| std::env::var(name).ok())
}

fn of(variable: impl Fn(&str) -> Option<String>) -> Language {
    let set = VARIABLES.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
    set.map_or(Language::English, |locale| Language::of_locale(&locale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_wins() {
        let with = |set: &[(&str, &str)]| {
            of(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(with(&[]), Language::English);
        assert_eq!(with(&[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(with(&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")]), Language::English);
        assert_eq!(with(&[("LC_ALL", ""), ("LC_MESSAGES", "zh_CN"), ("LANG", "C")]), Language::Chinese);
        assert_eq!(with(&[("WPGEN_LANG", "en"), ("LC_ALL", "zh_CN.UTF-8")]), Language::English);
    }
}
