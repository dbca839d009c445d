//! Figures of many runs, and how they are shown: medians, and how far runs lie from them.

use std::time::Duration;

use crate::clock::{self, Took};

/// One run of a row.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub took: Took,
    /// Messages that arrived while it was measured.
    pub messages: u64,
    /// Messages that did not arrive, and were counted.
    pub lost: u64,
}

impl Run {
    pub fn ns(&self) -> f64 {
        self.took.cpu_ns as f64 / self.messages.max(1) as f64
    }

    fn per_second(&self) -> f64 {
        self.messages as f64 / self.took.wall.as_secs_f64()
    }
}

/// Rows in the order in which they first came.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    target_ns: Option<f64>,
    runs: Vec<Run>,
}

impl Table {
    pub fn add(&mut self, name: &'static str, target_ns: Option<f64>, run: Run) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name, target_ns, runs: Vec::new() });
            self.rows.len() - 1
        });
        self.rows[at].runs.push(run);
    }

    /// The median of a row's CPU time a message, if it was measured.
    pub fn ns(&self, name: &str) -> Option<f64> {
        self.median_of(name, Run::ns)
    }

    /// The median of a row's messages a second.
    pub fn per_second(&self, name: &str) -> Option<f64> {
        self.median_of(name, Run::per_second)
    }

    fn median_of(&self, name: &str, figure: fn(&Run) -> f64) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| median(row.runs.iter().map(figure)))
    }

    pub fn print(&self) {
        println!(
            "{:<44} {:>9} {:>6} {:>7} {:>9} {:>8} {:>7}",
            "receiver's CPU, ns a message", "median", "MAD", "target", "M msg/s", "lost", "stolen"
        );
        for row in &self.rows {
            let ns = |run: &Run| run.ns();
            let rate = |run: &Run| run.per_second() / 1e6;
            let middle = median(row.runs.iter().map(ns));
            println!(
                "{:<44} {middle:>9.1} {:>6.1} {:>7} {:>9.2} {:>8} {:>6.1}%",
                row.name,
                median(row.runs.iter().map(|run| (run.ns() - middle).abs())),
                row.target_ns.map_or_else(String::new, |ns| format!("{ns:.0}")),
                median(row.runs.iter().map(rate)),
                row.runs.iter().map(|run| run.lost).sum::<u64>(),
                row.runs.iter().map(|run| run.took.stolen).fold(0.0, f64::max),
            );
        }
        println!("{} runs; load {}", self.rows.first().map_or(0, |row| row.runs.len()), clock::load());
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    quarter(values, 2)
}

/// Where so many quarters of the values are below.
pub fn quarter(values: impl Iterator<Item = f64>, quarters: usize) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * quarters / 4).copied().unwrap_or(0.0)
}

/// The median, the 99th percentile and the longest, in milliseconds.
pub fn print_times(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{name:<58} median {:>6.2} ms, 99 % {:>6.2} ms, longest {:>6.2} ms", at(50), at(99), at(100));
}
