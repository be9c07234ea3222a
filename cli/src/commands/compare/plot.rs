//! The comparison as a picture: a group of bars a load, on a logarithmic scale, because the loads are decades apart.

use std::fmt::Write as _;

use super::{Cell, Row};
use crate::{commands::bench::SystemArg, output};

const COLORS: [&str; 6] = ["#2563eb", "#dc2626", "#16a34a", "#d97706", "#7c3aed", "#475569"];
/// Where bars begin and how long the longest is, in pixels.
const LEFT: f64 = 290.0;
const WIDTH: f64 = 500.0;
const BAR: f64 = 12.0;
const GAP: f64 = 10.0;
const TOP: f64 = 40.0;

/// Operations per second of every load on every system, as SVG.
pub(super) fn throughput(rows: &[Row], systems: &[SystemArg], cells: &[Cell]) -> String {
    let group = BAR * systems.len() as f64 + GAP;
    let height = TOP + group * rows.len() as f64 + 40.0;
    let most = cells.iter().map(Cell::per_second).fold(10.0, f64::max).log10().ceil();
    // From 100 a second on: nothing here is slower.
    let length = |per_second: f64| ((per_second.max(100.0).log10() - 2.0) / (most - 2.0)).clamp(0.0, 1.0) * WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 90.0
    );
    for (place, system) in systems.iter().enumerate() {
        let (x, color) = (LEFT + 90.0 * place as f64, COLORS[place % COLORS.len()]);
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{color}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"20\">{}</text>", x + 17.0, system.name());
    }
    for decade in 2..=most as u32 {
        let x = LEFT + length(10_f64.powi(decade as i32));
        let bottom = height - 30.0;
        let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>");
        let label = output::count(10_u64.pow(decade));
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", bottom + 14.0);
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + group * number as f64 + GAP / 2.0;
        let middle = y + (group - GAP) / 2.0 + 4.0;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, row.name);
        for (place, system) in systems.iter().enumerate() {
            let cell = cells.iter().find(|cell| cell.row == row.name && cell.system == system.name());
            let Some(per_second) = cell.map(Cell::per_second) else { continue };
            let (y, long, color) = (y + BAR * place as f64, length(per_second), COLORS[place % COLORS.len()]);
            let bar = BAR - 2.0;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{bar}\" fill=\"{color}\"/>"
            );
            let (x, text) = (LEFT + long + 4.0, output::count(per_second.round() as u64));
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"9\">{text}</text>", y + 9.0);
        }
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">operations per second</text>\n</svg>", height - 3.0);
    svg
}
