//! What it takes to read and check a configuration of a thousand sources, good ones and ones with a mistake in each.
//!
//! It is to be below 50 ms, so that an editor can ask at each pause. Before anything is timed, the good one must load, and
//! the other must have a finding for each source.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use engine::config::{self, Environment};

/// Sources of a configuration.
const SOURCES: usize = 1000;

/// Files and ports in turn; `parameter` is the name of the last parameter of each.
fn configuration(parameter: &str) -> String {
    let mut text = String::new();
    for n in 0..SOURCES {
        let (connect, params) = if n % 2 == 0 {
            ("file_src", format!("path = \"/var/log/app-{n}/*.log\"\n{parameter} = \"tail\""))
        } else {
            ("syslog_tcp_src", format!("port = {}\n{}_header = \"keep\"", 10_000 + n, parameter))
        };
        let params = params.replace("mode_header", "header_mode");
        let _ = write!(
            text,
            "[[sources]]\nkey = \"source_{n}\"\nconnect = \"{connect}\"\ntags = [\"env:production\"]\n\
             [sources.params_override]\n{params}\n"
        );
    }
    text
}

fn validate(path: &Path) -> usize {
    let environment = Environment { var: &|_| None, cpus: 2 };
    match config::load(path, &environment) {
        Ok(loaded) => loaded.warnings.errors(),
        Err(found) => found.errors() + found.dropped,
    }
}

fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, parameter, errors) in [("good", "mode", 0), ("a mistake in each", "mod", SOURCES)] {
        let path = folder.path().join("wpsrc.toml");
        std::fs::write(&path, configuration(parameter)).expect("written");
        assert_eq!(validate(&path), errors, "{name}");
        criterion.bench_function(&format!("validate/1000 sources, {name}"), |bencher| {
            bencher.iter(|| validate(&path));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = bench
}
criterion_main!(benches);
