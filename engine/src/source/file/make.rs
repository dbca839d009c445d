//! From a file source's configuration to a running source.

use std::sync::Arc;

use super::catalog::{self, Catalog};
use super::find::Search;
use super::known::Known;
use super::lines::LongLines;
use super::params::{self, FileParams};
use super::settings::Settings;
use super::source::{Once, OnceStart};
use super::tail::{Followed, Tail};
use super::told::Told;
use crate::assemble::Making;
use crate::config::top::LOG_NAME;
use crate::config::types::PathPattern;
use crate::decode::{Encode, OnBad};
use crate::diagnosis::{Code, Diagnostic};
use crate::frame::multiline::{Begins, Multiline};
use crate::source::SourceParams;
use crate::source::part::Source;

/// Makes the source.
///
/// # Errors
/// What is wrong with the files it names.
pub fn make(making: &Making<'_>, params: &FileParams) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
    let settings = settings(making, params)?;
    let search = search(params).map_err(|finding| vec![finding.at(making.config.place.clone())])?;
    let search = search.without_own_log(making.log_dir, LOG_NAME);
    match params.mode {
        params::Mode::Once => Ok(once(making, params, settings, &search)),
        params::Mode::Tail => Ok(tail(making, params, settings, search)),
    }
}

fn once(making: &Making<'_>, params: &FileParams, settings: Settings, search: &Search) -> Arc<dyn Source> {
    let found = search.look();
    for (path, what) in &found.skipped {
        log::info!(
            target: "wpgen::file",
            "source '{}': {} is left out: it is {what}", making.config.key, path.display()
        );
    }
    let parallel = match params.parallel {
        params::Parallel::Auto => making.unordered,
        params::Parallel::Off => false,
        params::Parallel::Ranges(_) => true,
    };
    let start = OnceStart {
        resume: making.goes_on.is_some() || params.start == params::Start::Checkpoint,
        parallel: parallel && params.multiline.0.is_none(),
    };
    let files: Vec<_> = found.files.iter().map(|f| f.path.clone()).collect();
    let once = Once::new(settings, &files, found.findings, start);
    Arc::new(if start.resume { once.with_rests(search, &found.files) } else { once })
}

fn tail(making: &Making<'_>, params: &FileParams, settings: Settings, search: Search) -> Arc<dyn Source> {
    // What appears while a source is made anew is not older than the source.
    let had = |old: &FileParams| {
        (&old.path, &old.base, &old.file, &old.exclude)
            == (&params.path, &params.base, &params.file, &params.exclude)
    };
    let goes_on = matches!(making.goes_on, Some(SourceParams::File(old)) if had(old));
    let at_end = params.start == params::Start::End && !goes_on;
    let start = if at_end { catalog::Start::End } else { catalog::Start::Beginning };
    let mut catalog = Catalog::new(&settings.key, start, true);
    if making.goes_on.is_some() || params.start == params::Start::Checkpoint {
        catalog.resume(&making.before.inputs);
    }
    let followed = Followed::new(catalog, Arc::clone(making.next_input), params.flush_partial);
    Arc::new(Tail::new(settings, search, followed))
}

/// The search for a source's files.
///
/// # Errors
/// A pattern that is none.
pub fn search(params: &FileParams) -> Result<Search, Diagnostic> {
    let pattern = match (&params.path, &params.base, &params.file) {
        (Some(path), ..) => path.clone(),
        (None, Some(base), Some(file)) => {
            PathPattern { folder: base.folder.clone(), text: format!("{}/{file}", base.text) }
        }
        (None, _, Some(file)) => PathPattern { folder: ".".into(), text: file.clone() },
        (None, ..) => PathPattern { folder: ".".into(), text: String::new() },
    };
    Search::new(&pattern.folder, &pattern.text, &params.exclude.0)
        .map_err(super::blame::Finding::into_diagnostic)
}

/// The joining of lines, as configured.
///
/// # Errors
/// A start pattern that is none.
fn multiline(params: &FileParams, line_bytes_max: usize) -> Result<Option<Multiline>, Diagnostic> {
    let Some(multiline) = &params.multiline.0 else { return Ok(None) };
    let begins = match &multiline.start {
        Some(start) => Begins::pattern(start).map_err(|why| {
            Diagnostic::error(Code::WP404, format!("'start' is no regular expression: {start:?}")).note(why)
        })?,
        None => Begins::Unindented,
    };
    Ok(Some(Multiline {
        begins,
        lines_max: multiline.max_lines.max(1),
        bytes_max: line_bytes_max,
        timeout_ns: u64::try_from(multiline.timeout.as_nanos()).unwrap_or(u64::MAX),
    }))
}

fn settings(making: &Making<'_>, params: &FileParams) -> Result<Settings, Vec<Diagnostic>> {
    let max_line_bytes = usize::try_from(params.max_line_bytes.0).unwrap_or(usize::MAX);
    let multiline =
        multiline(params, max_line_bytes).map_err(|finding| vec![finding.at(making.config.place.clone())])?;
    let tags = making.config.tags.iter().map(|t| (t.key.clone(), t.value.clone())).collect();
    let known = Known::new(&making.config.key, &making.before.inputs, Arc::clone(making.next_input));
    Ok(Settings {
        key: Arc::clone(&making.config.key),
        host: Arc::clone(making.host),
        tags,
        max_line_bytes,
        long_lines: match params.long_lines {
            params::LongLines::Split => LongLines::Split,
            params::LongLines::Drop => LongLines::Drop,
        },
        encode: match params.encode {
            params::Encode::Text => Encode::Text,
            params::Encode::Base64 => Encode::Base64,
            params::Encode::Hex => Encode::Hex,
        },
        on_bad: match params.on_bad_line {
            params::OnBadLine::Skip => OnBad::Skip,
            params::OnBadLine::Stop => OnBad::Stop,
            params::OnBadLine::Pass => OnBad::Pass,
        },
        multiline,
        compression: params.compression,
        told: Told::new(&making.config.key),
        known: Arc::new(known),
    })
}
