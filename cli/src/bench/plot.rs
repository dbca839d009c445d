//! Draws throughput over time and the latency curve as one SVG.
//!
//! Pure but for [`save`]. The latency curve has the share of messages on a scale that shows the last ones best, as HDR
//! histograms are usually drawn: 90 %, 99 %, 99.9 % are equally far apart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::latency::{Latencies, show};
use super::timeline::Timeline;
use crate::progress::count;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
/// Nines of the latency curve: up to 99.999 %.
const NINES: u32 = 5;
/// Points of the latency curve.
const POINTS: u32 = 200;

/// Writes the drawing, if a place for it is named.
pub fn save(path: Option<&Path>, timeline: &Timeline, latencies: Option<&Latencies>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, draw(timeline, latencies)).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// The drawing.
pub fn draw(timeline: &Timeline, latencies: Option<&Latencies>) -> String {
    let latencies = latencies.filter(|latencies| !latencies.is_empty());
    let panels = 1 + u32::from(latencies.is_some());
    let height = PANEL * f64::from(panels);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    throughput(timeline).write(0.0, &mut svg);
    if let Some(latencies) = latencies {
        latency(latencies).write(PANEL, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

fn throughput(timeline: &Timeline) -> Panel {
    let points = timeline.rates();
    let (x_max, y_max) = (greatest(&points, |p| p.0), round_up(greatest(&points, |p| p.1)));
    Panel {
        title: "throughput, messages/s",
        x_name: "seconds",
        x_ticks: quarters(x_max).map(|x| (x, format!("{x:.1}"))).to_vec(),
        y_ticks: quarters(y_max).map(|y| (y, count(y as u64))).to_vec(),
        points,
    }
}

fn latency(latencies: &Latencies) -> Panel {
    let share = |x: f64| 100.0 * (1.0 - 10f64.powf(-x));
    let points: Vec<(f64, f64)> = (0..=POINTS)
        .map(|n| f64::from(n * NINES) / f64::from(POINTS))
        .map(|x| (x, latencies.percentile_ns(share(x)) as f64))
        .collect();
    let y_max = round_up(greatest(&points, |p| p.1));
    Panel {
        title: "latency",
        x_name: "messages within, %",
        x_ticks: (0..=NINES).map(|n| (f64::from(n), format!("{}", share(n.into())))).collect(),
        y_ticks: quarters(y_max).map(|y| (y, show(y as u64))).to_vec(),
        points,
    }
}

/// One curve with its axes. The last ticks are the axes' ends.
struct Panel {
    title: &'static str,
    x_name: &'static str,
    x_ticks: Vec<(f64, String)>,
    y_ticks: Vec<(f64, String)>,
    points: Vec<(f64, f64)>,
}

impl Panel {
    fn write(&self, top: f64, svg: &mut String) {
        let end = |ticks: &[(f64, String)]| ticks.last().map_or(1.0, |(end, _)| end.max(1e-9));
        let (x_end, y_end) = (end(&self.x_ticks), end(&self.y_ticks));
        let (right, bottom) = (WIDTH - RIGHT, top + PANEL - BOTTOM);
        let x_at = |x: f64| LEFT + (right - LEFT) * x / x_end;
        let y_at = |y: f64| bottom - (bottom - top - TOP) * y / y_end;
        let mut line = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        line(format!("<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\">{}</text>", top + TOP - 15.0, self.title));
        for (y, text) in &self.y_ticks {
            let at = y_at(*y);
            line(format!(
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"
            ));
            line(format!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0,
                at + 4.0
            ));
        }
        for (x, text) in &self.x_ticks {
            line(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                x_at(*x),
                bottom + 18.0
            ));
        }
        line(format!(
            "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{}</text>",
            bottom + 34.0,
            self.x_name
        ));
        let mut path = String::new();
        for (x, y) in &self.points {
            // A String takes every write.
            let _ = write!(path, "{:.1},{:.1} ", x_at(*x), y_at(*y));
        }
        line(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"1.5\"/>",
            path.trim_end()
        ));
    }
}

fn greatest(points: &[(f64, f64)], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    points.iter().map(of).fold(0.0, f64::max)
}

fn quarters(end: f64) -> [f64; 5] {
    [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| part * end)
}

/// The next of 1, 2, 4, 8 times a power of ten, so that quarters are round.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 4.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|end| *end >= value)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn curves_stay_within_their_axes() {
        let mut timeline = Timeline::new();
        for n in 0..50u64 {
            timeline.see(Duration::from_millis(n * 100), n * n * 1000, 0);
        }
        let mut latencies = Latencies::new();
        (1..1000).for_each(|us| latencies.add(0, us * 1000));
        let svg = draw(&timeline, Some(&latencies));
        assert_eq!(svg.matches("<polyline").count(), 2);
        for points in svg.split("points=\"").skip(1) {
            for point in points.split('"').next().unwrap().split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(
                    (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=2.0 * PANEL - BOTTOM).contains(&y),
                    "{point}"
                );
            }
        }
        assert!(svg.contains(">99.9<") && svg.contains("</svg>"));
    }

    #[test]
    fn nothing_can_be_drawn_too() {
        let svg = draw(&Timeline::new(), Some(&Latencies::new()));
        assert_eq!(svg.matches("<polyline").count(), 1);
    }

    #[test]
    fn ends_are_round() {
        for (value, end) in [(0.0, 4.0), (1.0, 1.0), (3.0, 4.0), (950.0, 1000.0), (81.0, 100.0)] {
            assert!((round_up(value) - end).abs() < 1e-6, "{value}");
        }
    }
}
