//! Plots with lines: one panel beside the other.

use plotters::prelude::{
    ChartBuilder, Circle, Color as _, IntoDrawingArea as _, LineSeries, PathElement, SVGBackend, SeriesLabelPosition,
    WHITE,
};

use super::{
    Area, Drawn, FONT, color,
    scale::{Scale, power},
};

/// Width and height of a panel, in pixels.
const SIZE: (u32, u32) = (520, 360);
/// How much of the width is left free behind the last point, for the names of the lines.
const NAMES: f64 = 0.3;

/// Where the points of a panel lie from left to right.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    name: &'static str,
    /// Where something is written, and what.
    marks: Vec<(f64, String)>,
}

/// The points of a system.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Which of the systems it is: what gives its colour.
    pub(super) place: usize,
    /// Along the axis, and what was measured there: drawn on a logarithmic scale, because systems are decades apart.
    pub(super) points: Vec<(f64, f64)>,
}

/// One of the pictures beside each other.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: Axis,
    /// What was measured.
    pub(super) y: &'static str,
    pub(super) lines: Vec<Line>,
}

impl Axis {
    pub(super) fn of(name: &'static str, marks: impl IntoIterator<Item = (f64, String)>) -> Self {
        Self { name, marks: marks.into_iter().collect() }
    }

    fn label(&self, at: f64) -> String {
        let mark = self.marks.iter().find(|(place, _)| (place - at).abs() < 1e-6);
        mark.map_or_else(String::new, |(_, text)| text.clone())
    }

    /// From the first mark to the last, with some room around.
    fn scale(&self) -> Scale {
        let first = self.marks.first().map_or(0.0, |(at, _)| *at);
        let last = self.marks.last().map_or(1.0, |(at, _)| *at);
        let room = (last - first) / 20.0;
        Scale::new(first - room..last + (last - first) * NAMES, self.marks.iter().map(|(at, _)| *at))
    }
}

/// The panels as SVG; None where there is nothing to draw a line through.
pub(super) fn draw(panels: &[Panel]) -> Option<String> {
    let drawn: Vec<&Panel> = panels.iter().filter(|panel| panel.has_lines()).collect();
    if drawn.is_empty() {
        return None;
    }
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (SIZE.0 * drawn.len() as u32, SIZE.1)).into_drawing_area();
    let all = || -> Drawn {
        root.fill(&WHITE)?;
        for (panel, area) in drawn.iter().zip(root.split_evenly((1, drawn.len()))) {
            panel.draw(&area)?;
        }
        root.present()?;
        Ok(())
    };
    all().expect("a picture in memory can be drawn");
    drop(root);
    Some(svg)
}

impl Panel {
    fn has_lines(&self) -> bool {
        self.lines.iter().any(|line| line.points.len() > 1)
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 14))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.scale(), Scale::of_powers(values, 0.0))?;
        chart
            .configure_mesh()
            .label_style((FONT, 11))
            .x_desc(self.x.name)
            .y_desc(self.y)
            .x_label_formatter(&|at| self.x.label(*at))
            .y_label_formatter(&|at| power(*at))
            .light_line_style(WHITE)
            .draw()?;
        for line in &self.lines {
            let (color, points) = (color(line.place), || line.points.iter().map(|(at, value)| (*at, value.log10())));
            chart
                .draw_series(LineSeries::new(points(), color.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
            chart.draw_series(points().map(|point| Circle::new(point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .label_font((FONT, 11))
            .draw()?;
        Ok(())
    }
}
