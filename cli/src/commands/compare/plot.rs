//! The comparison as pictures: what each load came to, and how that goes with the number of servers, the share of writes and,
//! for latencies, how often they were met.

mod bars;
mod lines;
mod scale;

use std::error::Error;

use plotters::{
    coord::Shift,
    prelude::{DrawingArea, RGBColor, SVGBackend},
};
use star_bench::Part;

use self::lines::{Axis, Line, Panel};
use super::{
    cells::Cell,
    report::{Comparison, of},
    rows::Row,
};
use crate::commands::bench::SystemArg;

/// Where something is drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What comes of drawing.
type Drawn = Result<(), Box<dyn Error>>;

const FONT: &str = "sans-serif";
const COLORS: [RGBColor; 6] = [
    RGBColor(37, 99, 235),
    RGBColor(220, 38, 38),
    RGBColor(22, 163, 74),
    RGBColor(217, 119, 6),
    RGBColor(124, 58, 237),
    RGBColor(71, 85, 105),
];

/// The rows whose throughput is drawn by the number of servers.
const BY_SERVERS: [&str; 2] = ["SET, 256 under way on 4 connections", "GET, 256 under way on 16 connections"];

/// All plots that the figures are enough for: the name of a file, and what it holds.
pub(super) fn all(comparison: &Comparison) -> Vec<(String, String)> {
    let mut plots: Vec<(String, String)> = Vec::new();
    for servers in &comparison.servers {
        let name = match comparison.servers.len() {
            1 => "throughput.svg".to_owned(),
            _ => format!("throughput_{servers}.svg"),
        };
        plots.push((name, bars::throughput(comparison, *servers)));
    }
    let several = [
        ("by_servers.svg", by_servers(comparison)),
        ("by_write_share.svg", by_write_share(comparison)),
        ("by_percentile.svg", by_percentile(comparison)),
    ];
    plots.extend(several.into_iter().filter_map(|(name, panels)| Some((name.to_owned(), lines::draw(&panels)?))));
    plots
}

/// Throughput by the number of servers.
fn by_servers(comparison: &Comparison) -> Vec<Panel> {
    let x = || Axis::of("servers", comparison.servers.iter().map(|count| (f64::from(*count), count.to_string())));
    let rows = comparison.rows.iter().filter(|row| BY_SERVERS.contains(&row.name));
    rows.map(|row| Panel {
        title: row.name.to_owned(),
        x: x(),
        y: "operations per second",
        lines: lines(comparison, |system| {
            let points = comparison.servers.iter();
            points
                .filter_map(|count| Some((f64::from(*count), comparison.cells.find(*count, row, system)?.per_second())))
                .collect()
        }),
    })
    .collect()
}

/// Throughput by the share of writes, for each number of servers.
fn by_write_share(comparison: &Comparison) -> Vec<Panel> {
    let mut rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.is_of_write_shares()).collect();
    rows.sort_by(|one, other| other.read_share.total_cmp(&one.read_share));
    let percent = |row: &Row| (100.0 * (1.0 - row.read_share)).round();
    let of_count = |servers: &u16| Panel {
        title: format!("{}, 64 clients", of(*servers)),
        x: Axis::of("writes, in per cent", rows.iter().map(|row| (percent(row), percent(row).to_string()))),
        y: "operations per second",
        lines: lines(comparison, |system| {
            let points = rows.iter();
            points
                .filter_map(|row| Some((percent(row), comparison.cells.find(*servers, row, system)?.per_second())))
                .collect()
        }),
    };
    comparison.servers.iter().map(of_count).collect()
}

/// Latency by how many of the operations took no longer, where so many a second were asked for.
fn by_percentile(comparison: &Comparison) -> Vec<Panel> {
    let servers = comparison.servers.first().copied().unwrap_or_default();
    let rows = comparison.rows.iter().filter(|row| row.rate.is_some());
    rows.map(|row| Panel {
        title: format!("{}, {}", row.name, of(servers)),
        x: Axis::of(
            "per cent that took no longer",
            [0.0, 50.0, 90.0, 99.0, 99.9, 99.99].map(|percent| (nines(percent), percent.to_string())),
        ),
        y: "microseconds",
        lines: lines(comparison, |system| {
            comparison.cells.find(servers, row, system).map_or_else(Vec::new, percentiles)
        }),
    })
    .collect()
}

/// A cell's latencies at a fixed rate. What did not keep up has none: it would grow with the time that was measured.
fn percentiles(cell: &Cell) -> Vec<(f64, f64)> {
    if cell.kept_up() != Some(true) {
        return Vec::new();
    }
    let at = |which: usize| cell.latency_us(|part| part.percentiles.get(which).map_or(0.0, |percentile| percentile.us));
    let percents = Part::PERCENTS.into_iter().enumerate().filter(|(_, percent)| *percent < 100.0);
    percents.map(|(which, percent)| (nines(percent), at(which))).collect()
}

/// A line for each system that has points.
fn lines(comparison: &Comparison, points: impl Fn(SystemArg) -> Vec<(f64, f64)>) -> Vec<Line> {
    let all = comparison.systems.iter().enumerate();
    let all = all.map(|(place, system)| Line { name: system.name(), place, points: points(*system) });
    all.filter(|line| !line.points.is_empty()).collect()
}

/// How many nines: each step to the right is met a tenth as often.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

/// The colour of a system, by its place among all.
fn color(place: usize) -> RGBColor {
    COLORS[place % COLORS.len()]
}
