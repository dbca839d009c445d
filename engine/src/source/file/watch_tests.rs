//! Real folders and real events.

use std::fs;
use std::io::Write;

use super::*;

fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time") })
}

fn folders(list: &[(&Path, Interest)]) -> BTreeMap<PathBuf, Interest> {
    list.iter().map(|(folder, interest)| (folder.to_path_buf(), *interest)).collect()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().canonicalize().expect("there");
    (dir, path)
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn writes_are_gathered_and_names_ask_for_a_look() {
    let (_dir, path) = place();
    let file = path.join("a.log");
    append(&file, "first\n");
    run(async {
        let mut watch = Watch::new().expect("inotify");
        watch.set(&folders(&[(&path, Interest::Content)]));
        for _ in 0..100 {
            append(&file, "more\n");
        }
        let changes = watch.changes().await;
        assert_eq!(changes, Changes { look: false, written: HashSet::from([file.clone()]) });

        fs::rename(&file, path.join("a.log.1")).expect("renamed");
        assert!(watch.changes().await.look);
        fs::remove_file(path.join("a.log.1")).expect("removed");
        assert!(watch.changes().await.look);
        fs::create_dir(path.join("folder")).expect("made");
        assert!(watch.changes().await.look);
    });
}

#[test]
fn a_folder_watched_for_names_does_not_tell_writes() {
    let (_dir, path) = place();
    append(&path.join("a.log"), "first\n");
    run(async {
        let mut watch = Watch::new().expect("inotify");
        watch.set(&folders(&[(&path, Interest::Names)]));
        append(&path.join("a.log"), "more\n");
        let silent = tokio::time::timeout(Duration::from_millis(100), watch.changes()).await;
        assert!(silent.is_err(), "{silent:?}");
        // And back again.
        watch.set(&folders(&[(&path, Interest::Content)]));
        append(&path.join("a.log"), "more\n");
        assert!(!watch.changes().await.written.is_empty());
        watch.set(&folders(&[]));
        append(&path.join("a.log"), "more\n");
        assert!(tokio::time::timeout(Duration::from_millis(100), watch.changes()).await.is_err());
    });
}

#[test]
fn a_folder_that_goes_and_comes_is_watched_again() {
    let (_dir, path) = place();
    let inner = path.join("inner");
    fs::create_dir(&inner).expect("made");
    run(async {
        let mut watch = Watch::new().expect("inotify");
        let both = folders(&[(&path, Interest::Names), (&inner, Interest::Content)]);
        watch.set(&both);
        fs::remove_dir(&inner).expect("removed");
        assert!(watch.changes().await.look);
        watch.set(&folders(&[(&path, Interest::Names)]));
        fs::create_dir(&inner).expect("made");
        assert!(watch.changes().await.look);
        assert_eq!(watch.set(&both), []);
        append(&inner.join("a.log"), "x\n");
        let changes = watch.changes().await;
        assert!(changes.written.contains(&inner.join("a.log")), "{changes:?}");

        // A folder of the same name in the place of one that was moved away.
        fs::rename(&inner, path.join("outer")).expect("renamed");
        fs::create_dir(&inner).expect("made");
        assert!(watch.changes().await.look);
        watch.set(&both);
        append(&inner.join("b.log"), "x\n");
        let changes = watch.changes().await;
        assert!(changes.written.contains(&inner.join("b.log")), "{changes:?}");
    });
}

#[test]
fn an_overflow_asks_for_a_look() {
    let (_dir, path) = place();
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(16_384);
    let files: Vec<PathBuf> = (0..2).map(|n| path.join(format!("{n}.log"))).collect();
    let mut open: Vec<fs::File> = files.iter().map(|file| fs::File::create(file).expect("made")).collect();
    run(async {
        let mut watch = Watch::new().expect("inotify");
        watch.set(&folders(&[(&path, Interest::Content)]));
        for turn in 0..most + 10 {
            // In turns, for the kernel joins two events in a row that are the same.
            open[turn % 2].write_all(b"x").expect("written");
        }
        let changes = watch.changes().await;
        assert!(changes.look);
        assert_eq!(changes.written.len(), 2);
        assert_eq!(watch.overflows(), 1);
    });
}

#[test]
fn a_folder_that_cannot_be_watched_is_polled() {
    run(async {
        let mut watch = Watch::new().expect("inotify");
        let (_dir, path) = place();
        watch.polled.insert(path.clone(), "for the test".into());
        let began = Instant::now();
        assert!(watch.changes().await.look);
        assert!(began.elapsed() >= POLL / 2);
        watch.set(&folders(&[(&path, Interest::Content)]));
        assert_eq!(watch.polled(), 1, "still");
        watch.set(&folders(&[]));
        assert_eq!(watch.polled(), 0);
    });
    assert_eq!(cannot_watch(&io::Error::from_raw_os_error(libc::ENOENT)), None);
    let reason = cannot_watch(&io::Error::from_raw_os_error(libc::ENOSPC)).expect("a reason");
    assert!(reason.contains("max_user_watches"), "{reason}");
    assert_eq!(blind_name(0x6969), Some("NFS"));
    assert_eq!(blind_name(0xef53), None);
}

#[test]
fn a_look_that_took_long_is_not_asked_for_again_at_once_but_writes_are_told() {
    let (_dir, path) = place();
    run(async {
        let mut watch = Watch::new().expect("inotify");
        watch.set(&folders(&[(&path, Interest::Content)]));
        append(&path.join("a.log"), "x\n");
        assert!(watch.changes().await.look);
        sleep(Duration::from_millis(100)).await;
        let looked = Instant::now();
        append(&path.join("b.log"), "x\n");
        let changes = watch.changes().await;
        assert_eq!(changes, Changes { look: false, written: HashSet::from([path.join("b.log")]) });
        assert!(looked.elapsed() < Duration::from_millis(200));
        // Owed, also when the one who waits for it is dropped meanwhile.
        drop(tokio::time::timeout(Duration::from_millis(20), watch.changes()).await);
        assert!(watch.changes().await.look);
        assert!(looked.elapsed() >= Duration::from_millis(400));
    });
}
