//! "Which files?": expands a path or a glob into the regular files there are, and says which folders to watch for more.
//!
//! The pattern is cut at its slashes, and each part is matched against the names of one folder, so that `*` and `?`
//! never cross a slash; `**` as a part of its own stands for any number of folders. As in a shell, a wildcard does not
//! match a leading dot. A path that exists as it is written is that file, whatever signs are in its name.
//!
//! Invariants: every inode is found once, under its own name rather than that of a link to it; every folder is visited
//! once for each part of the pattern, so loops of links end. What is not a regular file, and the engine's own log, is
//! skipped and told, and nothing is opened here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::blame::{self, Finding};

/// What to look for.
#[derive(Debug)]
pub struct Search {
    pattern: PathBuf,
    /// The folders in front of the first wildcard.
    root: PathBuf,
    /// The rest; empty for a file that is named outright.
    parts: Vec<Part>,
    exclude: GlobSet,
    /// A folder without links in it, and with what the names begin that patterns leave out there.
    own: Option<(PathBuf, &'static str)>,
}

#[derive(Debug)]
enum Part {
    /// A name without a wildcard.
    Name(OsString),
    /// Names that match.
    Glob(GlobMatcher),
    /// Any number of folders.
    Deep,
}

/// A regular file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path, as the pattern reached it.
    pub path: PathBuf,
    /// Its path without symbolic links: the one under which its folder's watch speaks of it.
    pub real: PathBuf,
    /// Its device.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Its size.
    pub size: u64,
}

/// For what a folder must be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// Names that come and go.
    Names,
    /// And files that grow.
    Content,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, in the order of their paths.
    pub files: Vec<FoundFile>,
    /// The folders in which more may appear, without symbolic links.
    pub folders: BTreeMap<PathBuf, Interest>,
    /// What matches and is no file to read, with what it is.
    pub skipped: Vec<(PathBuf, &'static str)>,
    /// What the operator should mend.
    pub findings: Vec<Finding>,
    /// Where the disk did not say what is there: files known at or below these are not gone.
    pub unsure: Vec<PathBuf>,
}

impl Found {
    /// Notes that it cannot be told what is at `path`, if that is what the error says.
    pub fn unsure(&mut self, path: &Path, error: &io::Error) {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let is_answer = matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
            || error.raw_os_error() == Some(libc::ELOOP);
        if !is_answer {
            self.unsure.push(path.to_owned());
        }
    }
}

impl Search {
    /// Prepares a search for `path`, which may hold globs; it and the globs of `exclude` are relative to `folder`. An
    /// exclude without a slash is compared with names, one with a slash with whole paths.
    pub fn new(folder: &Path, path: &str, exclude: &[String]) -> Result<Self, Finding> {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let pattern = plain(&folder.join(path));
        let mut excludes = GlobSetBuilder::new();
        for glob in exclude {
            let whole =
                if glob.contains('/') { escaped(&folder).join(glob) } else { Path::new("**").join(glob) };
            excludes.add(compile(&plain(&whole))?);
        }
        let exclude = excludes.build().map_err(|error| bad_glob(&exclude.join(", "), &error))?;
        let (root, parts) = cut(&pattern)?;
        Ok(Self { pattern, root, parts, exclude, own: None })
    }

    /// Leaves out the engine's own log, unless it is named outright: the files in `folder` whose names begin with `name`.
    #[must_use]
    pub fn without_own_log(mut self, folder: &Path, name: &'static str) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        self.own = Some((fs::canonicalize(&folder).unwrap_or(folder), name));
        self
    }

    /// Whether one file is named, and not a pattern of many.
    pub fn is_named(&self) -> bool {
        self.parts.is_empty()
    }

    /// The absolute path or pattern.
    pub fn pattern(&self) -> &Path {
        &self.pattern
    }

    /// Looks at the file system.
    pub fn look(&self) -> Found {
        let mut look = Look::new(self);
        if self.parts.is_empty() || fs::symlink_metadata(&self.pattern).is_ok() {
            look.named(&self.pattern);
        } else {
            look.watch_way_to(&self.root, Interest::Names);
            look.walk(&self.root, 0);
            if look.by_inode.is_empty() && look.found.findings.is_empty() {
                look.found.findings.push(blame::unmatched(&self.pattern, &self.root));
            }
        }
        look.finish()
    }

    /// Whether a file at this path is one that is looked for.
    pub fn covers(&self, path: &Path) -> bool {
        if path == self.pattern {
            return true;
        }
        let Ok(rest) = path.strip_prefix(&self.root) else { return false };
        !self.excludes(path) && takes(&self.parts, &rest.iter().collect::<Vec<_>>())
    }

    /// Whether a path is left out, whatever its name matches.
    pub fn excludes(&self, path: &Path) -> bool {
        self.exclude.is_match(path)
    }

    fn is_own_log(&self, real: &Path) -> bool {
        let Some((folder, begins)) = self.own.as_ref().filter(|_| !self.is_named()) else { return false };
        let name = real.file_name().unwrap_or_default();
        real.parent() == Some(folder) && name.as_bytes().starts_with(begins.as_bytes())
    }
}

/// One look at the file system.
struct Look<'a> {
    search: &'a Search,
    found: Found,
    by_inode: HashMap<(u64, u64), FoundFile>,
    visited: HashSet<(u64, u64, usize)>,
    /// The folders met so far, and where they really are.
    real: HashMap<PathBuf, PathBuf>,
}

impl<'a> Look<'a> {
    fn new(search: &'a Search) -> Self {
        Self {
            search,
            found: Found::default(),
            by_inode: HashMap::new(),
            visited: HashSet::new(),
            real: HashMap::new(),
        }
    }

    fn finish(mut self) -> Found {
        self.found.files = self.by_inode.into_values().collect();
        self.found.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.found.skipped.sort();
        self.found
    }

    /// A file that is named outright.
    fn named(&mut self, path: &Path) {
        self.watch_way_to(path, Interest::Content);
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() => self.take(path, &meta),
            Ok(meta) => self.found.findings.push(blame::not_a_file(path, kind(meta.file_type()))),
            Err(error) => {
                self.found.unsure(path, &error);
                self.found.findings.push(blame::explain(path, &error));
            }
        }
    }

    /// Watches the folder of `path`, or the deepest one that is there, so that we see it come (again).
    fn watch_way_to(&mut self, path: &Path, interest: Interest) {
        let Some(folder) = path.ancestors().skip(1).find(|folder| folder.is_dir()) else { return };
        self.watch(folder, if path.parent() == Some(folder) { interest } else { Interest::Names });
    }

    fn watch(&mut self, folder: &Path, interest: Interest) {
        let real = self.real_folder(folder);
        let kept = self.found.folders.entry(real).or_insert(interest);
        *kept = interest.max(*kept);
    }

    fn real_folder(&mut self, folder: &Path) -> PathBuf {
        if let Some(real) = self.real.get(folder) {
            return real.clone();
        }
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        self.real.insert(folder.to_owned(), real.clone());
        real
    }

    /// Looks in `folder` for what the parts from `at` on match.
    fn walk(&mut self, folder: &Path, at: usize) {
        let meta = match fs::metadata(folder) {
            Ok(meta) => meta,
            Err(error) => return self.found.unsure(folder, &error),
        };
        if !meta.is_dir() || !self.visited.insert((meta.dev(), meta.ino(), at)) {
            return;
        }
        let search = self.search;
        let last = at + 1 == search.parts.len();
        match &search.parts[at] {
            Part::Name(name) => {
                self.watch(folder, if last { Interest::Content } else { Interest::Names });
                self.step(&folder.join(name), at);
            }
            Part::Glob(glob) => {
                self.watch(folder, if last { Interest::Content } else { Interest::Names });
                for name in self.names(folder) {
                    if !is_hidden(&name, glob) && glob.is_match(&name) {
                        self.step(&folder.join(name), at);
                    }
                }
            }
            Part::Deep => {
                self.watch(folder, Interest::Names);
                self.walk(folder, at + 1);
                self.deeper(folder, at);
            }
        }
    }

    /// The folders below `folder`, for the same part again.
    fn deeper(&mut self, folder: &Path, at: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.found.unsure(folder, &error),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let may_be = entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
            let path = folder.join(&name);
            if may_be && !name.as_bytes().starts_with(b".") && !self.search.excludes(&path) {
                self.walk(&path, at);
            }
        }
    }

    /// `path` matches part `at`: a file if that is the last one, else a folder to go on in.
    fn step(&mut self, path: &Path, at: usize) {
        if self.search.excludes(path) {
            return;
        }
        if at + 1 < self.search.parts.len() {
            return self.walk(path, at + 1);
        }
        let meta = fs::metadata(path).inspect_err(|error| self.found.unsure(path, error));
        match meta {
            Ok(meta) if meta.is_file() => self.take(path, &meta),
            Ok(meta) => self.found.skipped.push((path.to_owned(), kind(meta.file_type()))),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                self.found.skipped.push((path.to_owned(), "a loop of links"));
            }
            Err(_) if fs::symlink_metadata(path).is_ok() => {
                self.found.skipped.push((path.to_owned(), "a link to nothing"));
            }
            // Gone since its name was read, or a name without a wildcard that this folder does not have.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.found.findings.push(blame::explain(path, &error)),
        }
    }

    fn take(&mut self, path: &Path, meta: &Metadata) {
        let linked = fs::symlink_metadata(path).is_ok_and(|own| own.is_symlink());
        let real = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) if !linked => self.real_folder(folder).join(name),
            _ => fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        };
        if self.search.is_own_log(&real) {
            return self.found.skipped.push((path.to_owned(), "wpgen's own log"));
        }
        if let Some(folder) = real.parent().filter(|_| linked) {
            self.watch(folder, Interest::Content);
        }
        let key = (meta.dev(), meta.ino());
        let file = FoundFile { path: path.to_owned(), real, dev: key.0, ino: key.1, size: meta.size() };
        let rank = |file: &FoundFile| (file.path != file.real, file.path.clone());
        if self.by_inode.get(&key).is_none_or(|known| rank(&file) < rank(known)) {
            self.by_inode.insert(key, file);
        }
    }

    fn names(&mut self, folder: &Path) -> Vec<OsString> {
        match fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect()) {
            Ok(names) => names,
            Err(error) => {
                self.found.unsure(folder, &error);
                self.found.findings.push(blame::explain(folder, &error));
                Vec::new()
            }
        }
    }
}

/// Whether the parts of a pattern match these names, one behind the other.
fn takes(parts: &[Part], names: &[&OsStr]) -> bool {
    match (parts, names) {
        ([], _) => names.is_empty(),
        ([Part::Deep, rest @ ..], [_, deeper @ ..]) => takes(rest, names) || takes(parts, deeper),
        ([part, rest @ ..], [name, deeper @ ..]) => {
            let fits = match part {
                Part::Name(own) => own == name,
                Part::Glob(glob) => !is_hidden(name, glob) && glob.is_match(name),
                Part::Deep => false,
            };
            fits && takes(rest, deeper)
        }
        (_, []) => false,
    }
}

/// A leading dot is matched only by a pattern that begins with one.
fn is_hidden(name: &OsStr, glob: &GlobMatcher) -> bool {
    name.as_bytes().starts_with(b".") && !glob.glob().glob().starts_with('.')
}

fn kind(of: FileType) -> &'static str {
    if of.is_dir() {
        "a folder"
    } else if of.is_fifo() {
        "a FIFO"
    } else if of.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The path without `.` and empty parts; `..` stays, for a link may be in front of it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn has_wildcard(part: &OsStr) -> bool {
    part.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// The folders in front of the first wildcard, and the parts from there on: none when there is no wildcard.
fn cut(pattern: &Path) -> Result<(PathBuf, Vec<Part>), Finding> {
    let components: Vec<&OsStr> = pattern.iter().collect();
    let Some(first) = components.iter().position(|part| has_wildcard(part)) else {
        return Ok((pattern.to_owned(), Vec::new()));
    };
    let mut parts = Vec::new();
    for part in &components[first..] {
        parts.push(if *part == "**" {
            Part::Deep
        } else if has_wildcard(part) {
            Part::Glob(compile(Path::new(part))?.compile_matcher())
        } else {
            Part::Name((*part).to_owned())
        });
    }
    if matches!(parts.last(), Some(Part::Deep)) {
        parts.push(Part::Glob(compile(Path::new("*"))?.compile_matcher()));
    }
    Ok((components[..first].iter().collect(), parts))
}

fn compile(glob: &Path) -> Result<globset::Glob, Finding> {
    let text = glob.to_string_lossy();
    // Braces are no wildcards here: the configuration has other uses for them.
    let text = text.replace('{', "[{]").replace('}', "[}]");
    GlobBuilder::new(&text).literal_separator(true).build().map_err(|error| bad_glob(&text, &error))
}

/// The path as a glob that matches it and nothing else.
fn escaped(path: &Path) -> PathBuf {
    let mut text = String::new();
    for sign in path.to_string_lossy().chars() {
        match sign {
            '*' | '?' | '[' | ']' => text.extend(['[', sign, ']']),
            _ => text.push(sign),
        }
    }
    text.into()
}

fn bad_glob(glob: &str, error: &globset::Error) -> Finding {
    let help = vec!["wildcards are *, ?, [a-z], [!a-z] and **; \\ takes a sign as it is".into()];
    Finding {
        code: "WP404",
        message: format!("bad pattern {glob}: {}", error.kind()),
        notes: Vec::new(),
        help,
        is_absence: false,
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
