//! Searches over folders that are made for the occasion.

use std::ffi::CString;
use std::os::unix::fs::symlink;

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[&str]) -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        for file in files {
            let path = place.at(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, file).expect("written");
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn search(&self, path: &str, exclude: &[&str]) -> Search {
        let exclude: Vec<String> = exclude.iter().map(|glob| (*glob).to_owned()).collect();
        Search::new(self.0.path(), path, &exclude).expect("a good pattern")
    }

    fn look(&self, path: &str, exclude: &[&str]) -> Found {
        self.search(path, exclude).look()
    }

    fn names(&self, found: &Found) -> Vec<String> {
        let short =
            |file: &FoundFile| file.path.strip_prefix(self.0.path()).expect("inside").display().to_string();
        found.files.iter().map(short).collect()
    }

    #[track_caller]
    fn finds(&self, path: &str, exclude: &[&str], expected: &[&str]) {
        let found = self.look(path, exclude);
        assert_eq!(self.names(&found), expected, "{path}");
        let search = self.search(path, exclude);
        assert!(found.files.iter().all(|file| search.covers(&file.path)), "what is found is covered: {path}");
    }
}

#[test]
fn a_path_is_covered_whether_or_not_a_file_is_there() {
    let place = Place::new(&[]);
    for (pattern, path, covered) in [
        ("app.log", "app.log", true),
        ("app.log", "app.log.1", false),
        ("*.log", "app.log", true),
        ("*.log", "app.log.1", false),
        ("*.log", ".app.log", false),
        ("*.log", "deep/app.log", false),
        ("**/*.log", "app.log", true),
        ("**/*.log", "deep/er/app.log", true),
        ("**/x/*.log", "deep/er/app.log", false),
        ("**/x/*.log", "deep/x/app.log", true),
        ("l*/app.log", "logs/app.log", true),
        ("*.log", "no.log", false),
    ] {
        assert_eq!(place.search(pattern, &["no.*"]).covers(&place.at(path)), covered, "{pattern} {path}");
    }
    assert!(place.search("no.log", &["no.*"]).covers(&place.at("no.log")), "it is named");
}

#[test]
fn the_own_log_is_left_out_of_patterns_and_read_when_it_is_named() {
    let place = Place::new(&["a.log", "logs/app.log", "logs/wpgen.log", "logs/wpgen.log.1.gz", "wpgen.log"]);
    symlink(place.at("logs/wpgen.log"), place.at("b.log")).expect("made");
    let look = |path: &str| {
        let search = Search::new(place.0.path(), path, &[]).expect("a good pattern");
        search.without_own_log(&place.at("logs"), "wpgen.log").look()
    };
    let found = look("**/*.log*");
    assert_eq!(place.names(&found), ["a.log", "logs/app.log", "wpgen.log"]);
    assert_eq!(found.skipped.len(), 3, "{:?}", found.skipped);
    assert_eq!(place.names(&look("logs/wpgen.log")), ["logs/wpgen.log"]);
}

#[test]
fn patterns() {
    let place = Place::new(&[
        "a.log",
        "b.log",
        "b.txt",
        ".hidden.log",
        "d/a.log",
        "d/e/a.log",
        "d/e/c1.log",
        "d/.x/a.log",
    ]);
    place.finds("a.log", &[], &["a.log"]);
    place.finds("./d/../a.log", &[], &["./d/../a.log".trim_start_matches("./")]);
    place.finds("*.log", &[], &["a.log", "b.log"]);
    place.finds(".*.log", &[], &[".hidden.log"]);
    place.finds("?.*", &[], &["a.log", "b.log", "b.txt"]);
    place.finds("[!a].log", &[], &["b.log"]);
    place.finds("**/*.log", &[], &["a.log", "b.log", "d/a.log", "d/e/a.log", "d/e/c1.log"]);
    place.finds("**", &[], &["a.log", "b.log", "b.txt", "d/a.log", "d/e/a.log", "d/e/c1.log"]);
    place.finds("d/**/c[0-9].log", &[], &["d/e/c1.log"]);
    place.finds("**/e/a.log", &[], &["d/e/a.log"]);
    place.finds("*/e/*", &[], &["d/e/a.log", "d/e/c1.log"]);
    place.finds("{a,b}.*", &[], &[]);
}

#[test]
fn excludes() {
    let place = Place::new(&["a.log", "b.log", "d/a.log", "d/e/a.log"]);
    place.finds("**/*.log", &["b*"], &["a.log", "d/a.log", "d/e/a.log"]);
    place.finds("**/*.log", &["d/*.log"], &["a.log", "b.log", "d/e/a.log"]);
    place.finds("**/*.log", &["d/**"], &["a.log", "b.log"]);
    place.finds("**/*.log", &["d/e"], &["a.log", "b.log", "d/a.log"]);
    place.finds("*/*.log", &["./d"], &[]);
}

#[test]
fn a_name_with_wildcards_in_it_is_that_file() {
    let place = Place::new(&["app[1].log", "app1.log"]);
    place.finds("app[1].log", &[], &["app[1].log"]);
    fs::remove_file(place.at("app[1].log")).expect("removed");
    place.finds("app[1].log", &[], &["app1.log"]);
}

#[test]
fn loops_end_and_every_inode_comes_once() {
    let place = Place::new(&["d/a.log", "other/b.log"]);
    symlink("..", place.at("d/up")).expect("linked");
    symlink("self.log", place.at("self.log")).expect("linked");
    symlink("d/a.log", place.at("0-link.log")).expect("linked");
    symlink("nothing", place.at("dangling.log")).expect("linked");
    symlink(place.at("other"), place.at("d/linked")).expect("linked");
    fs::hard_link(place.at("d/a.log"), place.at("d/same.log")).expect("linked");
    let found = place.look("**/*.log", &[]);
    assert_eq!(place.names(&found), ["d/a.log", "other/b.log"]);
    let skipped =
        [(place.at("dangling.log"), "a link to nothing"), (place.at("self.log"), "a loop of links")];
    assert_eq!(found.skipped, skipped);

    let through = place.look("d/linked/*.log", &[]);
    assert_eq!(place.names(&through), ["d/linked/b.log"]);
    let other = place.at("other").canonicalize().expect("there");
    assert_eq!(through.files[0].real, other.join("b.log"));
    assert_eq!(through.folders.get(&other), Some(&Interest::Content));
}

#[test]
fn a_link_named_outright_has_both_folders_watched() {
    let place = Place::new(&["logs/a.log"]);
    fs::create_dir(place.at("links")).expect("made");
    symlink("../logs/a.log", place.at("links/current")).expect("linked");
    let found = place.look("links/current", &[]);
    assert_eq!(place.names(&found), ["links/current"]);
    let folders: Vec<_> = found.folders.into_iter().collect();
    let real = |name| place.at(name).canonicalize().expect("there");
    assert_eq!(folders, [(real("links"), Interest::Content), (real("logs"), Interest::Content)]);
}

#[test]
fn what_is_no_file_is_skipped_by_a_pattern_and_refused_by_name() {
    let place = Place::new(&["a.log", "d.log/x"]);
    let fifo = CString::new(place.at("f.log").as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: the path is a string that ends in a zero and lives through the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    let found = place.look("*.log", &[]);
    assert_eq!(place.names(&found), ["a.log"]);
    assert_eq!(found.skipped, [(place.at("d.log"), "a folder"), (place.at("f.log"), "a FIFO")]);
    assert_eq!(found.findings, []);
    for (name, kind) in [("f.log", "is a FIFO"), ("d.log", "is a folder")] {
        let found = place.look(name, &[]);
        assert_eq!(found.files, []);
        assert!(found.findings[0].message.ends_with(kind), "{:?}", found.findings);
    }
}

#[test]
fn what_is_missing_is_told_and_its_folder_watched() {
    let place = Place::new(&["d/a.log"]);
    let found = place.look("d/deep/er/b.log", &[]);
    assert_eq!(found.findings[0].code, "WP101");
    let folders: Vec<_> = found.folders.into_iter().collect();
    assert_eq!(folders, [(place.at("d").canonicalize().expect("there"), Interest::Names)]);

    let found = place.look("d/*.txt", &[]);
    assert!(found.findings[0].message.starts_with("no file matches"), "{:?}", found.findings);
    let found = place.look("none/*.txt", &[]);
    assert!(found.findings[0].notes[0].contains("No such file or directory"), "{:?}", found.findings);
}

#[test]
fn a_bad_pattern_is_a_finding() {
    let finding = Search::new(Path::new("/"), "a[", &[]).expect_err("no end");
    assert_eq!(finding.code, "WP404");
    assert!(finding.message.starts_with("bad pattern a[: "), "{}", finding.message);
}

#[test]
fn a_folder_that_does_not_let_us_in_is_a_finding_and_the_others_go_on() {
    let place = Place::new(&["a/x.log", "b/x.log"]);
    let closed = place.at("b");
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let root = fs::metadata("/proc/self").expect("ourselves").uid() == 0;
    if !root {
        return;
    }
    let look = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: it changes this thread's user for file access and nothing else; the thread ends below.
            unsafe { libc::syscall(libc::SYS_setfsuid, 65534) };
            place.look("*/*.log", &[])
        });
        thread.join().expect("looked")
    });
    assert_eq!(place.names(&look), ["a/x.log"]);
    assert_eq!(look.findings.len(), 1);
    assert_eq!(look.findings[0].code, "WP102");
    assert!(look.findings[0].notes[0].contains("/b has owner root"), "{:?}", look.findings);
}
