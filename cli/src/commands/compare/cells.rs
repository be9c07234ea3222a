//! The figures of a comparison.

use serde::Serialize;
use star_bench::{Part, Report};

use super::Row;
use crate::commands::bench::SystemArg;

/// All figures of one row on one system, a report a round.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) row: &'static str,
    pub(super) system: &'static str,
    pub(super) servers: u16,
    pub(super) reports: Vec<Report>,
}

/// The figures of all rows, systems and numbers of servers.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Cells(Vec<Cell>);

impl Cells {
    /// Adds what one round said of a row and a system.
    pub(super) fn add(&mut self, servers: u16, row: &Row, system: SystemArg, report: Report) {
        match self.0.iter_mut().find(|cell| cell.is_of(servers, row, system)) {
            Some(cell) => cell.reports.push(report),
            None => self.0.push(Cell { row: row.name, system: system.name(), servers, reports: vec![report] }),
        }
    }

    /// Whether there is any figure of a system.
    pub(super) fn has(&self, system: SystemArg) -> bool {
        self.0.iter().any(|cell| cell.system == system.name())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, servers: u16, row: &Row, system: SystemArg) -> Option<&Cell> {
        self.0.iter().find(|cell| cell.is_of(servers, row, system))
    }
}

impl Cell {
    fn is_of(&self, servers: u16, row: &Row, system: SystemArg) -> bool {
        (self.servers, self.row, self.system) == (servers, row.name, system.name())
    }

    /// The median over the rounds.
    pub(super) fn median(&self, figure: impl Fn(&Report) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.reports.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(0.0)
    }

    /// The same of something that is not always counted.
    pub(super) fn median_of_counted(&self, figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        let counted = self.reports.iter().all(|report| figure(report).is_some());
        (counted && !self.reports.is_empty()).then(|| self.median(|report| figure(report).unwrap_or_default()))
    }

    /// Operations per second, reads and writes together.
    pub(super) fn per_second(&self) -> f64 {
        self.median(|report| report.read.ops_per_s + report.write.ops_per_s)
    }

    /// A latency of the more frequent kind, in microseconds.
    pub(super) fn latency_us(&self, of: impl Fn(&Part) -> f64) -> f64 {
        self.median(|report| of(if report.read.ops > report.write.ops { &report.read } else { &report.write }))
    }

    /// Whether it did as many a second as were due, in most rounds; `None` where as many were due as were answered.
    pub(super) fn kept_up(&self) -> Option<bool> {
        let kept = |report: &Report| {
            let open_loop = report.open_loop.as_ref()?;
            Some(f64::from(u8::from(open_loop.kept_up(report.read.ops + report.write.ops))))
        };
        Some(self.median_of_counted(kept)? > 0.0)
    }

    pub(super) fn errors(&self) -> u64 {
        self.reports.iter().map(|report| report.errors).sum()
    }
}
