//! Why a file cannot be read: the cause as it is found on this machine, and the commands that mend it.
//!
//! WP101 names the deepest folder that exists and the near names in it; WP102 names the file or the folder that
//! blocks, its owner, group and mode, and the user and groups we act as. Nothing is guessed: where the mode alone does
//! not explain a refusal, the finding says that, and names what else can refuse.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::diagnosis::{Code, Diagnostic, HELP};
use crate::lock::OpenFiles;

/// A trouble with a file: a stable code, the thing at fault, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// The code in the catalogue.
    pub code: &'static str,
    /// One line that names the thing at fault.
    pub message: String,
    /// What was found out about the cause; a line each.
    pub notes: Vec<String>,
    /// What mends it; a line each.
    pub help: Vec<String>,
    /// Whether all that is wrong is that there is no file yet.
    pub is_absence: bool,
}

impl Finding {
    /// The finding as every other one is shown.
    pub fn into_diagnostic(self) -> Diagnostic {
        let diagnostic = match self.code.parse::<Code>() {
            Ok(code) => Diagnostic::error(code, self.message),
            Err(_) => Diagnostic::plain(self.message),
        };
        let diagnostic = self.notes.into_iter().fold(diagnostic, Diagnostic::note);
        self.help.into_iter().fold(diagnostic, Diagnostic::help)
    }
}

/// In one line, for the log; a console puts each help on a line of its own.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)?;
        self.notes.iter().chain(&self.help).try_for_each(|line| write!(f, "{HELP}{line}"))
    }
}

/// How many near names are shown.
const NEAR_MAX: usize = 3;

/// Explains why opening or looking at `path` failed.
pub fn explain(path: &Path, error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(path),
        io::ErrorKind::PermissionDenied => denied(path),
        io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy => busy(path, error),
        _ => Finding {
            code: "WP101",
            message: format!("cannot read {}: {error}", path.display()),
            notes: Vec::new(),
            help: Vec::new(),
            is_absence: false,
        },
    }
}

/// WP104: a file system refuses it, as network ones do whose locks are mandatory.
fn busy(path: &Path, error: &io::Error) -> Finding {
    let open = OpenFiles::now();
    let holders = fs::metadata(path).map(|meta| open.holders(meta.dev(), meta.ino())).unwrap_or_default();
    let mut notes: Vec<String> = holders.iter().map(|holder| format!("{holder} has it open")).collect();
    notes.extend(open.unseen());
    Finding {
        code: "WP104",
        message: format!("cannot read {}: {error}", path.display()),
        notes,
        help: vec!["stop the process that has it, or read a copy of the file".into()],
        is_absence: false,
    }
}

/// WP101: there is no such file.
pub fn missing(path: &Path) -> Finding {
    let (folder, wanted) = deepest(path);
    let cause = if let Ok(target) = fs::read_link(&wanted) {
        format!("{} is a symbolic link to {}, which is not there", wanted.display(), target.display())
    } else if !folder.is_dir() {
        format!("{} is not a folder", folder.display())
    } else {
        format!("the deepest folder that exists is {}", folder.display())
    };
    let notes = vec![format!("No such file or directory (os error 2): {cause}")];
    let mut help = Vec::new();
    let near = near_names(&folder, &wanted);
    if !near.is_empty() && !wanted.is_symlink() {
        help.push(format!("near names there: {}", near.join(", ")));
    }
    Finding {
        code: "WP101",
        message: format!("file not found: {} (os error 2)", path.display()),
        notes,
        help,
        is_absence: true,
    }
}

/// WP101: a pattern that nothing matches.
pub fn unmatched(pattern: &Path, root: &Path) -> Finding {
    if !root.is_dir() {
        let finding = missing(root);
        let message = format!("no file matches {} (os error 2)", pattern.display());
        return Finding { message, ..finding };
    }
    let notes = vec![format!("the folder {} is there, but nothing in it matches", root.display())];
    let message = format!("no file matches {}", pattern.display());
    Finding { code: "WP101", message, notes, help: Vec::new(), is_absence: true }
}

/// WP101: the path names something that is not a file with a beginning and an end.
pub fn not_a_file(path: &Path, kind: &str) -> Finding {
    let mut help = Vec::new();
    if kind == "a folder" {
        help.push(format!("to read the files in it: path = \"{}/*\"", path.display()));
    } else {
        help.push("the file source reads regular files only".into());
    }
    let message = format!("not a regular file: {} is {kind}", path.display());
    Finding { code: "WP101", message, notes: Vec::new(), help, is_absence: false }
}

/// The deepest folder on the way to `path` that exists, and the first thing behind it that does not.
fn deepest(path: &Path) -> (PathBuf, PathBuf) {
    let mut wanted = path;
    while let Some(parent) = wanted.parent() {
        if parent.exists() {
            return (parent.to_owned(), wanted.to_owned());
        }
        wanted = parent;
    }
    (PathBuf::from("/"), path.to_owned())
}

fn near_names(folder: &Path, wanted: &Path) -> Vec<String> {
    let Some(wanted) = wanted.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // A file that is made at this moment is not what was meant instead.
    let names = names.filter(|name| name != wanted);
    let limit = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, String)> =
        names.map(|name| (distance(wanted, &name), name)).filter(|(far, _)| *far <= limit).collect();
    near.sort();
    near.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// How many characters must be put in, taken out or changed, letter case aside.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Bits of a mode: the file may be read, or what the folder holds.
const READ: u32 = 4;
/// It may be written.
const WRITE: u32 = 2;
/// The folder may be gone through.
const SEARCH: u32 = 1;

/// Who we act as, as the kernel has it for file access.
struct User {
    id: u32,
    groups: Vec<u32>,
    name: String,
}

impl User {
    fn current() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let numbers = |key: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        // The fourth is the one that counts for files.
        let id = numbers("Uid:").get(3).copied().unwrap_or(u32::MAX);
        let mut groups = numbers("Groups:");
        groups.extend(numbers("Gid:").get(3));
        Self { id, groups, name: name_in("/etc/passwd", id) }
    }

    /// Whether the mode alone gives `bit` to this user.
    fn may(&self, meta: &Metadata, bit: u32) -> bool {
        let shift = if meta.uid() == self.id {
            6
        } else if self.groups.contains(&meta.gid()) {
            3
        } else {
            0
        };
        meta.mode() >> shift & bit != 0
    }
}

/// The name of a user or group id; the number where there is none.
fn name_in(file: &str, id: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let named = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| id.to_string())
}

/// WP102: we may not read it.
pub fn denied(path: &Path) -> Finding {
    let user = User::current();
    let message = format!("Permission denied (os error 13): {}", path.display());
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (notes, help) = match blocker(&real) {
        Some((folder, meta)) => mend(&user, &folder, &meta, "folder", SEARCH),
        None => match fs::metadata(&real) {
            Ok(meta) if meta.is_dir() => mend(&user, &real, &meta, "folder", READ),
            Ok(meta) => mend(&user, &real, &meta, "file", READ),
            Err(error) => (vec![format!("{}: {error}", real.display())], Vec::new()),
        },
    };
    Finding { code: "WP102", message, notes, help, is_absence: false }
}

/// The first folder on the way that we may look at but not go through.
fn blocker(path: &Path) -> Option<(PathBuf, Metadata)> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    for pair in ancestors.windows(2) {
        let refused =
            fs::symlink_metadata(pair[1]).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if refused {
            return Some((pair[0].to_owned(), fs::metadata(pair[0]).ok()?));
        }
    }
    None
}

/// WP102: we may not write `path`, which need not exist; `at` is it, or the deepest folder on the way to it.
pub fn denied_to_write(path: &Path, at: &Path) -> Finding {
    let user = User::current();
    let message = format!("Permission denied (os error 13): {}", path.display());
    let real = fs::canonicalize(at).unwrap_or_else(|_| at.to_owned());
    let (notes, help) = match (blocker(&real), fs::metadata(&real)) {
        (Some((folder, meta)), _) => mend(&user, &folder, &meta, "folder", SEARCH),
        (None, Ok(meta)) if meta.is_dir() => {
            // A place of our own below it: the folder itself may be the system's.
            let help = match path.parent().filter(|parent| !parent.exists()) {
                Some(parent) => format!("install -d -o {} {}", user.name, parent.display()),
                None => format!("install -o {} -m 0640 /dev/null {}", user.name, path.display()),
            };
            (facts(&user, &real, &meta, "folder", "write in"), vec![help])
        }
        (None, Ok(meta)) => mend(&user, &real, &meta, "file", WRITE),
        (None, Err(error)) => (vec![format!("{}: {error}", real.display())], Vec::new()),
    };
    Finding { code: "WP102", message, notes, help, is_absence: false }
}

/// What is found of a file or folder that refuses us.
fn facts(user: &User, path: &Path, meta: &Metadata, what: &str, verb: &str) -> Vec<String> {
    let owner = name_in("/etc/passwd", meta.uid());
    let group = name_in("/etc/group", meta.gid());
    let mode = meta.mode() & 0o7777;
    vec![
        format!("the {what} {} has owner {owner}, group {group}, mode {mode:04o}", path.display()),
        format!("we run as {} (uid {}), who may not {verb} it", user.name, user.id),
    ]
}

/// What is found of a file or folder that refuses us, and the commands that mend it.
fn mend(user: &User, path: &Path, meta: &Metadata, what: &str, bit: u32) -> (Vec<String>, Vec<String>) {
    let shown = path.display();
    let group = name_in("/etc/group", meta.gid());
    let (verb, letters) = match (bit, what) {
        (SEARCH, _) => ("go through", "x"),
        (WRITE, _) => ("write", "w"),
        (_, "folder") => ("read", "rx"),
        _ => ("read", "r"),
    };
    let (notes, mut help) = (facts(user, path, meta, what, verb), Vec::new());
    if user.may(meta, bit) {
        help.push(format!(
            "its mode would allow it: look at its ACL (getfacl {shown}), at SELinux or AppArmor"
        ));
    } else if meta.uid() == user.id {
        help.push(format!("chmod u+{letters} {shown}"));
    } else {
        // The first is a mend, the others are other ones.
        let mut add = |mend: String| {
            let or = if help.is_empty() { "" } else { "or: " };
            help.push(format!("{or}{mend}"));
        };
        let member = user.groups.contains(&meta.gid());
        if !member && meta.mode() >> 3 & bit != 0 {
            add(format!("usermod -a -G {group} {}   (then start again)", user.name));
        } else if member {
            add(format!("chmod g+{letters} {shown}"));
        }
        if bit != WRITE {
            add(format!("chmod o+{letters} {shown}"));
        }
        add(format!("chown {} {shown}", user.name));
    }
    (notes, help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            // SAFETY: it changes this thread's user for file access and nothing else; the thread ends below.
            unsafe { libc::syscall(libc::SYS_setfsuid, 65534) };
            work()
        });
        thread.join().expect("the thread's work")
    }

    /// Causes and mends, a line each.
    fn told(finding: &Finding) -> String {
        finding.notes.iter().chain(&finding.help).cloned().collect::<Vec<_>>().join("\n")
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_missing_file_names_the_near_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("app.log"), "").expect("written");
        fs::write(folder.path().join("unrelated.txt"), "").expect("written");
        let finding = missing(&folder.path().join("App.lgo"));
        assert!(finding.message.ends_with("App.lgo (os error 2)"), "{}", finding.message);
        assert!(finding.is_absence, "who follows it waits for it");
        let help = told(&finding);
        assert!(help.contains("No such file or directory (os error 2)"), "{help}");
        assert!(
            help.contains(&format!("the deepest folder that exists is {}", folder.path().display())),
            "{help}"
        );
        assert!(help.ends_with("near names there: app.log"), "{help}");
    }

    #[test]
    fn a_file_that_came_meanwhile_is_not_near_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("app.log");
        fs::write(&path, "").expect("written");
        let finding = missing(&path);
        assert_eq!(finding.help, Vec::<String>::new());
    }

    #[test]
    fn a_missing_folder_is_named_and_so_is_a_link_to_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("logs")).expect("made");
        let help = told(&missing(&folder.path().join("log/deep/app.log")));
        assert!(help.ends_with("near names there: logs"), "{help}");

        std::os::unix::fs::symlink("/nowhere", folder.path().join("link")).expect("linked");
        let help = told(&missing(&folder.path().join("link")));
        assert!(help.ends_with("link is a symbolic link to /nowhere, which is not there"), "{help}");
    }

    #[test]
    fn an_unreadable_file_names_owner_mode_and_the_mend() {
        let folder = tempfile::tempdir().expect("a folder");
        chmod(folder.path(), 0o755);
        let path = folder.path().join("secret.log");
        fs::write(&path, "").expect("written");
        chmod(&path, 0o640);
        if User::current().id != 0 {
            return;
        }
        std::os::unix::fs::chown(&path, None, Some(12345)).expect("chown");
        let shown = path.display().to_string();
        let finding = as_nobody(move || {
            let error = fs::File::open(&path).expect_err("not for nobody");
            explain(&path, &error)
        });
        let help = told(&finding);
        assert_eq!(finding.code, "WP102");
        assert_eq!(finding.message, format!("Permission denied (os error 13): {shown}"));
        assert!(help.contains("has owner root, group 12345, mode 0640"), "{help}");
        assert!(help.contains("we run as nobody (uid 65534), who may not read it"), "{help}");
        assert!(help.contains("usermod -a -G 12345 nobody"), "{help}");
        assert!(help.contains(&format!("chmod o+r {shown}")), "{help}");
    }

    #[test]
    fn the_first_mend_is_no_alternative() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret.log");
        fs::write(&path, "").expect("written");
        chmod(&path, 0o600);
        let meta = fs::metadata(&path).expect("it is there");
        let stranger = User { id: meta.uid() + 1, groups: Vec::new(), name: "stranger".into() };
        let (_, help) = mend(&stranger, &path, &meta, "file", READ);
        let shown = path.display();
        assert_eq!(help, [format!("chmod o+r {shown}"), format!("or: chown stranger {shown}")]);
    }

    #[test]
    fn the_folder_that_blocks_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        chmod(folder.path(), 0o755);
        let blocking = folder.path().join("closed");
        fs::create_dir_all(blocking.join("deep")).expect("made");
        fs::write(blocking.join("deep/app.log"), "").expect("written");
        chmod(&blocking, 0o710);
        if User::current().id != 0 {
            return;
        }
        std::os::unix::fs::chown(&blocking, None, Some(12345)).expect("chown");
        let path = blocking.join("deep/app.log");
        let help = told(&as_nobody(move || denied(&path)));
        assert!(help.starts_with(&format!("the folder {} has owner root", blocking.display())), "{help}");
        assert!(help.contains(&format!("chmod o+x {}", blocking.display())), "{help}");
    }

    #[test]
    fn distances() {
        for (a, b, far) in
            [("", "", 0), ("abc", "ABC", 0), ("abc", "", 3), ("app.log", "app.lgo", 2), ("a", "b", 1)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }
}
