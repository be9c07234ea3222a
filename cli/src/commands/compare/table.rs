//! The comparison as a table: a row a load, a column a system.

use std::fmt::Write as _;

use comfy_table::Table;

use super::{Cell, Row};
use crate::{commands::bench::SystemArg, output};

/// For a terminal.
pub(super) fn text(rows: &[Row], systems: &[SystemArg], cells: &[Cell]) -> Table {
    let mut header = vec![""];
    header.extend(systems.iter().map(|system| system.name()));
    let numbers: Vec<usize> = (1..header.len()).collect();
    let mut table = output::table(&header, &numbers);
    for row in rows {
        table.add_row(line(row, systems, cells));
    }
    table
}

/// For a document.
pub(super) fn markdown(rows: &[Row], systems: &[SystemArg], cells: &[Cell]) -> String {
    let names: Vec<&str> = systems.iter().map(|system| system.name()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", line(row, systems, cells).join(" | "));
    }
    text
}

fn line(row: &Row, systems: &[SystemArg], cells: &[Cell]) -> Vec<String> {
    let cell = |system: &SystemArg| cells.iter().find(|cell| cell.row == row.name && cell.system == system.name());
    let figures = systems.iter().map(|system| cell(system).map_or_else(|| "-".to_owned(), figure));
    std::iter::once(row.name.to_owned()).chain(figures).collect()
}

/// Operations per second, their median latency, and the processor time that each takes from the servers.
fn figure(cell: &Cell) -> String {
    let rate = output::count(cell.per_second().round() as u64);
    let mut text = format!("{rate}/s, {}", output::micros(cell.p50_us()));
    if cell.cpu_us() > 0.0 {
        let _ = write!(text, ", cpu {}", output::micros(cell.cpu_us()));
    }
    if cell.errors() > 0 {
        let _ = write!(text, ", {} errors", output::count(cell.errors()));
    }
    text
}

#[cfg(test)]
mod tests {
    use star_bench::{Part, Report};

    use super::*;
    use crate::commands::compare::rows::ROWS;

    fn report(ops_per_s: f64) -> Report {
        let write = Part { ops: 10, ops_per_s, p50_us: 12.0, ..Part::default() };
        Report {
            system: "star".to_owned(),
            servers: 3,
            seconds: 1.0,
            errors: 0,
            open_loop: None,
            read: Part::default(),
            write,
            mapped_reads: 0,
            cpu_us_per_op: Some(7.0),
            error_codes: std::collections::BTreeMap::default(),
            history: Vec::new(),
        }
    }

    #[test]
    fn cells_hold_medians_and_what_was_not_measured_a_dash() {
        let reports = [9000.0, 1000.0, 2000.4].map(report).into();
        let cells = [Cell { row: ROWS[0].name, system: "star", reports }];
        let text = markdown(&ROWS[..1], &[SystemArg::Star, SystemArg::Redis], &cells);
        assert_eq!(text.lines().last(), Some("| SET, 1 client | 2,000/s, 12 µs, cpu 7.0 µs | - |"));
    }
}
