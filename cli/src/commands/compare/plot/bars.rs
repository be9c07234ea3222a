//! A plot with bars: a group a load, a bar a system.

use plotters::prelude::{
    ChartBuilder, Color as _, IntoDrawingArea as _, Rectangle, SVGBackend, SeriesLabelPosition, Text, WHITE,
};

use super::{
    Drawn, FONT, color,
    scale::{Scale, power},
};
use crate::{
    commands::compare::{
        cells::Cell,
        report::{Comparison, of},
        rows::Row,
    },
    output,
};

/// Pixels of the picture's width, and of each bar's height.
const WIDTH: u32 = 880;
const BAR: f64 = 13.0;
/// Room between groups, in bars.
const GAP: f64 = 1.0;

/// Operations per second of every load on every system, as SVG.
pub(super) fn throughput(comparison: &Comparison, servers: u16) -> String {
    let mut svg = String::new();
    draw(&mut svg, comparison, servers).expect("a picture in memory can be drawn");
    svg
}

fn draw(svg: &mut String, comparison: &Comparison, servers: u16) -> Drawn {
    let (systems, cells) = (&comparison.systems, &comparison.cells);
    // At a fixed rate all that keep up do the same.
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.rate.is_none()).collect();
    let bars = systems.len() as f64 + GAP;
    let height = (bars * rows.len() as f64 * BAR) as u32 + 110;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let find = |row, system| cells.find(servers, row, system).map(Cell::per_second);
    let all = rows.iter().copied().flat_map(|row| systems.iter().filter_map(move |system| find(row, *system)));
    let powers = Scale::of_powers(all, 0.3);
    let least = powers.begin();
    // Loads go down from the top, a unit each.
    let loads = Scale::new(rows.len() as f64..0.0, (0..rows.len()).map(|row| row as f64 + 0.5));
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("operations per second, {}", of(servers)), (FONT, 14))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(250)
        .build_cartesian_2d(powers, loads)?;
    chart
        .configure_mesh()
        .label_style((FONT, 11))
        .disable_y_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&|at| power(*at))
        .y_label_formatter(&|at| rows.get(*at as usize).map_or_else(String::new, |row| row.name.to_owned()))
        .draw()?;
    for (place, system) in systems.iter().enumerate() {
        let color = color(place);
        let figures = rows.iter().enumerate().filter_map(|(row, load)| Some((row, find(load, *system)?)));
        let figures: Vec<(usize, f64)> = figures.collect();
        let top = |row: usize| row as f64 + (place as f64 + GAP / 2.0) / bars;
        chart
            .draw_series(figures.iter().map(|(row, per_second)| {
                let (top, end) = (top(*row), per_second.max(1.0).log10());
                Rectangle::new([(least, top), (end, top + 0.85 / bars)], color.filled())
            }))?
            .label(system.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        chart.draw_series(figures.iter().map(|(row, per_second)| {
            let at = (per_second.max(1.0).log10() + 0.02, top(*row));
            Text::new(output::count(per_second.round() as u64), at, (FONT, 9))
        }))?;
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::LowerRight).background_style(WHITE.mix(0.8)).label_font((FONT, 11)).draw()?;
    root.present()?;
    Ok(())
}
